"""The result of `armlet bench`: times of the function by shape, and of a model with and without ARM."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from armlet.cost.timing import Spread
from armlet.redistribution.policies import settings
from armlet.redistribution.rows import Policy


@dataclass(frozen=True)
class FunctionRow:
    """Median seconds of "arm", "literal", "silu" and "copy" at one shape, and their ratios, such as "arm / copy"."""

    width: int
    tokens: int
    dtype: str
    seconds: Mapping[str, float]
    ratios: Mapping[str, Spread]


@dataclass(frozen=True)
class WorkRow:
    """One kind of work of a model: "without" ARM, and with it in each of `PLACEMENTS`."""

    work: str  # "generate" or "prefill"
    tokens: int  # that are generated, or of the prompt
    seconds: Mapping[str, float]  # median of the whole work
    ratios: Mapping[str, Spread]  # of the same turn, by "layer 0 / without"
    calls: Mapping[str, Spread] | None  # seconds of single calls in the model, by placement; None: not measured


@dataclass(frozen=True)
class ModelTimes:
    """A model with and without ARM; a row for each kind of work, timed in so many turns."""

    name: str  # that was given
    dtype: str
    turns: int
    freed_memory_kept: bool  # by the C library while times are taken
    work: Sequence[WorkRow]


@dataclass(frozen=True)
class Cost:
    """Everything that a run measured."""

    machine: Mapping[str, object]  # `runs.machine`
    torch: str  # its version
    device: str  # of the tensors
    backend: str  # that computed ARM
    seed: int  # of values, prompts and noise
    policy: Policy
    function: Sequence[FunctionRow]
    model: ModelTimes | None  # None where no model was timed
    interrupted: bool  # whether something is missing
    turns: int | None  # of each shape; None where the function was not timed

    @property
    def processor(self) -> str:
        """The CPU and the threads that were used, in words."""
        threads = self.machine["threads"]
        return f"{threads} thread{'s' * (threads != 1)} of {self.machine['processor']}"

    def to_dict(self) -> dict[str, object]:
        """For JSON, without the turns and calls that were not measured."""
        policy = {"name": self.policy.name, **settings(self.policy)}
        return asdict(self, dict_factory=_measured) | {"policy": policy}


def _measured(items: list[tuple[str, object]]) -> dict[str, object]:
    return {name: value for name, value in items if value is not None or name not in ("turns", "calls")}
