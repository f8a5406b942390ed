"""The interface of the engines, which generate a run's answers with the model in this process or on a server."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.tasks.examples import DEFAULT_FORM, PromptForm
from armlet.evaluation.tasks.problems import Problem, Task
from armlet.redistribution.errors import ArgumentError


@dataclass(frozen=True)
class Ask:
    """One item and how it is asked."""

    problem: Problem
    number: int  # the item's index in the task, on which random fillers and positions depend
    system: str  # the system prompt
    form: PromptForm = DEFAULT_FORM  # examples and template


@dataclass(frozen=True)
class Sampling:
    """How answers are generated, except for the temperature, which depends on the condition."""

    max_new_tokens: int
    top_p: float = 1.0
    seed: int = 0  # the seed of a batch is derived from this and the indices of batch and sample

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise ArgumentError(f"top_p: expected more than 0 and at most 1, found {self.top_p}")


@dataclass(frozen=True)
class Output:
    """One answer."""

    text: str  # without special tokens
    tokens: int | None  # number of tokens, including the end token; None if a server does not report it
    ended: bool | None  # the model ended the answer, or it was cut off; None if a server does not say which
    logprob: float | None = None  # mean log-probability of the tokens at temperature 1; None if not requested


def printable(text: str) -> str:
    """Makes a text encodable as UTF-8: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def derived_seed(*numbers: int, bits: int) -> int:
    """The seed of a batch or a request, hashed from the run's seed and indices; the same for all conditions."""
    digest = hashlib.sha256("/".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**bits


class Engine(Protocol):
    """Answers a batch under a condition; the same batch, condition and sample yield the same answers."""

    def length(self, ask: Ask) -> int:
        """The length of the prompt, by which items are sorted into batches."""
        ...

    def shown_prompt(self, ask: Ask) -> str:
        """The prompt without filler, as the model receives it; "" if that is not known, as of a server's template."""
        return ""

    def answer(
        self, asks: Sequence[Ask], condition: Condition, sampling: Sampling, *, batch: int, sample: int
    ) -> list[Output]:
        """Returns one answer to each ask; `batch` and `sample` are indices."""
        ...

    def score_choices(self, asks: Sequence[Ask], condition: Condition) -> list[list[float]]:
        """Returns the summed log-likelihood of each choice of each ask."""
        ...

    def fired(self) -> Mapping[str, object]:
        """ARM's report of the last call, by layer; empty if ARM was not attached or its activity is not known."""
        return {}

    def describe(self) -> dict[str, object]:
        """The model and its weights' hash, or the server. The manifest stores this; resuming a run compares it.

        It contains a "date" if the prompts depend on one, which is then today's unless `set_date` was called.
        """
        ...

    def set_date(self, date: str) -> None:
        """Sets the date that the chat template sees; only for an engine whose description has one."""

    def close(self) -> None:
        """Releases connections or processes, if there are any."""


OpenEngine = Callable[[Sequence[Condition], Sequence[Task]], Engine]
"""Opens an engine other than a model in this process for these conditions and tasks, such as an `Endpoint`."""


@dataclass(frozen=True)
class WithGatePlacebos:
    """A function that opens an engine that also runs the placebos at the gate, which are left out for any other."""

    open: Callable[..., Engine]

    def __call__(self, *arguments: object) -> Engine:
        """Opens the engine."""
        return self.open(*arguments)
