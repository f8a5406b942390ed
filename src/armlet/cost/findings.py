"""The result of `armlet bench`: times of the function by shape, and of a model with and without ARM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from armlet.cost.timing import Spread, Timing
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import settings


@dataclass(frozen=True)
class FunctionRow:
    """The function at one shape, against "literal", "silu" and "copy"."""

    width: int
    tokens: int
    dtype: str
    timing: Timing

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"width": self.width, "tokens": self.tokens, "dtype": self.dtype, **self.timing.to_dict()}


@dataclass(frozen=True)
class WorkRow:
    """One kind of work of a model: "without" ARM, and with it in each of `PLACEMENTS`.

    Attributes:
        work: "generate" or "prefill".
        tokens: that are generated, or of the prompt.
        timing: of the whole work.
        calls: seconds of single calls inside the model, by placement; None where they were not measured.
    """

    work: str
    tokens: int
    timing: Timing
    calls: Mapping[str, Spread] | None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        calls = {label: spread.to_dict() for label, spread in (self.calls or {}).items()}
        row: dict[str, object] = {"work": self.work, "tokens": self.tokens, **self.timing.to_dict()}
        return row | {"calls": calls} if calls else row


@dataclass(frozen=True)
class ModelTimes:
    """A model with and without ARM.

    Attributes:
        name: as it was given.
        dtype: of its weights.
        turns: of each work.
        freed_memory_kept: whether the C library keeps freed memory while times are taken.
        work: a row for each kind.
    """

    name: str
    dtype: str
    turns: int
    freed_memory_kept: bool
    work: Sequence[WorkRow]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        about = {"name": self.name, "dtype": self.dtype, "turns": self.turns}
        return {**about, "freed_memory_kept": self.freed_memory_kept, "work": [row.to_dict() for row in self.work]}


@dataclass(frozen=True)
class Cost:
    """Everything that a run measured.

    Attributes:
        machine: where it ran (`runs.machine`).
        torch: its version.
        device: on which tensors were.
        backend: that computed ARM.
        seed: of values, prompts and noise.
        policy: of ARM.
        function: a row for each shape.
        turns: of each shape; None where the function was not timed.
        model: None where no model was timed.
        interrupted: whether something is missing.
    """

    machine: Mapping[str, object]
    torch: str
    device: str
    backend: str
    seed: int
    policy: Policy
    function: Sequence[FunctionRow]
    turns: int | None
    model: ModelTimes | None
    interrupted: bool

    @property
    def processor(self) -> str:
        """The CPU and the threads that were used, in words."""
        threads = self.machine["threads"]
        return f"{threads} thread{'s' * (threads != 1)} of {self.machine['processor']}"

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        place = {"machine": dict(self.machine), "torch": self.torch, "device": self.device, "backend": self.backend}
        policy = {"name": self.policy.name, **settings(self.policy)}
        parts = {"function": [row.to_dict() for row in self.function], "model": self.model and self.model.to_dict()}
        turns = {} if self.turns is None else {"turns": self.turns}
        return {**place, "seed": self.seed, "policy": policy, **parts, "interrupted": self.interrupted, **turns}
