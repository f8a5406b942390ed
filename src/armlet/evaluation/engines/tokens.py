"""Items as a model's tokens: prompts with their fillers, choices, and answers back as text."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from torch import Tensor

from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.engines.engine import Ask, printable
from armlet.prompts.fillers import Prompt, filler_tokens, make_plain_prompt, make_prompt
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens:
    """What is asked, as a tokenizer cuts it; the same for every engine that takes tokens.

    Args:
        tokenizer: the model's.
        seed: of random fillers and places.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", seed: int) -> None:
        self.tokenizer, self.seed = tokenizer, seed
        self._prompt = lru_cache(maxsize=4096)(self._make_prompt)

    def length(self, ask: Ask) -> int:
        """Tokens of the prompt without filler."""
        return len(self._prompt(ask, "between").ids)

    def prompt(self, ask: Ask, condition: Condition) -> Tensor:
        """`[s]` int64: the prompt, with the condition's filler in its place."""
        filling = condition.filling
        if filling is None:
            return self._prompt(ask, "between").ids
        filler = filler_tokens(self.tokenizer, filling.filler, seed=self.seed, prompt=ask.number)
        return self._prompt(ask, filling.position).filled(filler)

    def choices(self, ask: Ask) -> list[list[int]]:
        """Each choice's tokens, as the tokenizer cuts them behind the prompt.

        Raises:
            ArgumentError: a choice without a token.
        """
        text = "".join(framed(ask.problem.context, ask.problem.question))
        own: Any = self.tokenizer(text)
        wholes: Any = self.tokenizer([f"{text} {choice}" for choice in ask.problem.choices])
        found = [whole[len(own["input_ids"]) :] for whole in wholes["input_ids"]]
        if not all(found):
            empty = ask.problem.choices[found.index([])]
            raise ArgumentError(f"item {ask.problem.id}: the tokenizer gives no token for the choice {empty!r}")
        return found

    def text(self, answer: list[int]) -> str:
        """An answer's text, without special tokens."""
        return printable(str(self.tokenizer.decode(answer, skip_special_tokens=True)))

    def _make_prompt(self, ask: Ask, position: Any) -> Prompt:
        problem, seed = ask.problem, (self.seed, ask.number)
        if problem.choices:
            context, question = framed(problem.context, problem.question)
            return make_plain_prompt(self.tokenizer, context, question, position=position, seed=seed)
        return make_prompt(self.tokenizer, problem.question, system=ask.system, position=position, seed=seed)


def ended(answer: list[int], ends: int | Sequence[int] | None) -> tuple[list[int], bool]:
    """The tokens up to the first of `ends`, that included, and whether there is one."""
    known = [ends] if isinstance(ends, int) else ends or []
    at = next((at for at, token in enumerate(answer) if token in known), None)
    return (answer, False) if at is None else (answer[: at + 1], True)


def framed(context: str, question: str) -> tuple[str, str]:
    """The text before a choice: a context to go on from, or a question with "Answer:" behind it.

    A passage with a question is the context of that question; both as lm-eval frames such tasks.
    """
    if not question:
        return "", context
    return (f"{context}\n" if context else ""), f"Question: {question}\nAnswer:"
