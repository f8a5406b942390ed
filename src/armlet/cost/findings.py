"""The result of `armlet bench`: times of the function by shape, and of a model with and without ARM."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from armlet.cost.timing import Spread
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import settings


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
    """One kind of work of a model: "without" ARM, and with it in each of `PLACEMENTS`.

    Attributes:
        work: "generate" or "prefill".
        tokens: that are generated, or of the prompt.
        seconds: median of the whole work.
        ratios: of the same turn, by "layer 0 / without".
        calls: seconds of single calls inside the model, by placement; None where they were not measured.
    """

    work: str
    tokens: int
    seconds: Mapping[str, float]
    ratios: Mapping[str, Spread]
    calls: Mapping[str, Spread] | None


@dataclass(frozen=True)
class ModelTimes:
    """A model, by the name that was given, with and without ARM; a row for each kind of work, timed in so many turns.

    `freed_memory_kept`: whether the C library keeps freed memory while times are taken.
    """

    name: str
    dtype: str
    turns: int
    freed_memory_kept: bool
    work: Sequence[WorkRow]


@dataclass(frozen=True)
class Cost:
    """Everything that a run measured.

    Attributes:
        machine: where it ran (`runs.machine`).
        torch: its version.
        device: on which tensors were.
        backend: that computed ARM.
        seed: of values, prompts and noise.
        function: a row for each shape.
        model: None where no model was timed.
        interrupted: whether something is missing.
        turns: of each shape; None where the function was not timed.
    """

    machine: Mapping[str, object]
    torch: str
    device: str
    backend: str
    seed: int
    policy: Policy
    function: Sequence[FunctionRow]
    model: ModelTimes | None
    interrupted: bool
    turns: int | None

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
