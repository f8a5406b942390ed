"""The protocol between a run and what generates its answers: the model in this process, or a server."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.tasks.problems import Problem
from armlet.redistribution.errors import ArgumentError


@dataclass(frozen=True)
class Ask:
    """One item as it is asked."""

    problem: Problem
    number: int  # its index in the task, which random fillers and positions depend on
    system: str  # the system prompt


@dataclass(frozen=True)
class Sampling:
    """How answers are generated: the same for all conditions, apart from the temperature."""

    max_new_tokens: int
    top_p: float = 1.0
    seed: int = 0  # with the indices of batch and sample it gives each batch a stream of its own

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise ArgumentError(f"--top-p: expected a share above 0 and up to 1, found {self.top_p}")


@dataclass(frozen=True)
class Output:
    """One answer."""

    text: str  # without special tokens
    tokens: int | None  # how many, including the end token; None where a server does not say
    ended: bool  # by the model; otherwise it was cut off
    logprob: float | None = None  # mean log-probability of its tokens at temperature 1; None where not requested


def printable(text: str) -> str:
    """The text as UTF-8 can encode it: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def derived_seed(*numbers: int, bits: int) -> int:
    """The seed of a batch or a request, the same for all conditions: hashed from the run's seed and its indices."""
    digest = hashlib.sha256("/".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**bits


class Engine(Protocol):
    """Answers a batch under a condition; the same batch, condition and sample give the same answers."""

    def length(self, ask: Ask) -> int:
        """The length of the prompt, for batches of similar lengths."""
        ...

    def answer(
        self, asks: Sequence[Ask], condition: Condition, sampling: Sampling, *, batch: int, sample: int
    ) -> list[Output]:
        """One answer to each ask."""
        ...

    def weigh(self, asks: Sequence[Ask], condition: Condition) -> list[list[float]]:
        """The summed log-likelihood of each choice of each ask."""
        ...

    def fired(self) -> Mapping[str, object]:
        """What ARM did in the last call, by layer; empty where it was not attached, or where that is not known."""
        return {}

    def describe(self) -> dict[str, object]:
        """The model and its weights' hash, or the server: for the manifest, and compared when a run is resumed."""
        ...

    def close(self) -> None:
        """End what the engine started, if anything."""
