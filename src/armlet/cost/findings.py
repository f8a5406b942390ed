"""What `bench` measures: times of the function by shape, and of a model with and without ARM."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from armlet.cost.timing import Spread
from armlet.presentation.numbers import with_count
from armlet.redistribution.policies import settings
from armlet.redistribution.rows import Policy


@dataclass(frozen=True)
class FunctionRow:
    """Median seconds of "arm", "literal", "silu" and "copy" for one shape, and their ratios, such as "arm / copy"."""

    width: int
    tokens: int
    dtype: str
    seconds: Mapping[str, float]
    ratios: Mapping[str, Spread]


@dataclass(frozen=True)
class WorkRow:
    """One kind of work of a model, "without" ARM and with ARM in each of `PLACEMENTS`."""

    work: str  # "generate" or "prefill"
    tokens: int  # number of generated tokens, or length of the prompt
    seconds: Mapping[str, float]  # median for the whole work, by placement
    ratios: Mapping[str, Spread]  # ratios of times in the same turn, by names such as "layer 0 / without"
    calls: Mapping[str, Spread] | None  # seconds per call of ARM in the model, by placement; None if not measured


@dataclass(frozen=True)
class ModelTimes:
    """Times of a model with and without ARM, a row for each kind of work."""

    name: str  # folder or hub id; of a loaded model, what it was loaded from
    dtype: str
    turns: int
    freed_memory_kept: bool  # whether the C library keeps freed memory during the measurement
    work: Sequence[WorkRow]


@dataclass(frozen=True, repr=False, eq=False)
class Measurements:
    """Everything that a run measured."""

    machine: Mapping[str, object]  # `runs.machine`
    torch: str  # torch's version
    device: str  # device of the tensors
    backend: str  # backend that computed ARM
    seed: int  # seed of values, prompts and noise
    policy: Policy
    function: Sequence[FunctionRow]
    model: ModelTimes | None  # None if no model was timed
    interrupted: bool  # whether results are missing
    turns: int | None  # turns per shape; None if the function was not timed

    @property
    def processor(self) -> str:
        """The number of threads and the CPU, in words."""
        return f"{with_count(int(str(self.machine['threads'])), 'thread')} of {self.machine['processor']}"

    def to_dict(self) -> dict[str, object]:
        """For JSON; leaves out turns and calls that are None."""
        policy = {"name": self.policy.name, **settings(self.policy)}
        return asdict(self, dict_factory=_measured) | {"policy": policy}


def _measured(items: list[tuple[str, object]]) -> dict[str, object]:
    return {name: value for name, value in items if value is not None or name not in ("turns", "calls")}
