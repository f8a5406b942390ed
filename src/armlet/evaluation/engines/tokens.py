"""Converts items to tokens (prompts with fillers, choices, padded batches), and answers back to text."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.engines.engine import Ask, printable
from armlet.evaluation.tasks.examples import PromptForm
from armlet.prompts.fillers import Position, Prompt, filler_tokens, make_prompt
from armlet.prompts.shots import PLAIN_TEMPLATE, Shot, in_template, shots_text
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens:
    """Converts asks to tokens, in the same way for every engine that accepts tokens; `seed` is for random fillers."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", seed: int) -> None:
        self.tokenizer, self.seed = tokenizer, seed
        self._prompt = lru_cache(maxsize=4096)(self._make_prompt)

    def length(self, ask: Ask) -> int:
        """The number of tokens of the prompt without filler."""
        return len(self._prompt(ask, "between").ids)

    def prompt(self, ask: Ask, condition: Condition) -> Tensor:
        """The prompt with the condition's filler, int64 `[s]`."""
        filling = condition.filling
        if filling is None:
            return self._prompt(ask, "between").ids
        filler = filler_tokens(self.tokenizer, filling.filler, seed=self.seed, prompt=ask.number)
        return self._prompt(ask, filling.position).filled(filler)

    def choices(self, ask: Ask) -> list[list[int]]:
        """The tokens of each choice after the prompt; raises ArgumentError if a choice has none."""
        text = "".join(plain_parts(ask))
        start = len(self._ids(text))
        choices = [self._ids(f"{text} {choice}")[start:] for choice in ask.problem.choices]
        if [] in choices:
            empty = ask.problem.choices[choices.index([])]
            raise ArgumentError(f"item {ask.problem.id}: the tokenizer returns no token for the choice {empty!r}")
        return choices

    def text(self, answer: list[int]) -> str:
        """The text of an answer, without special tokens."""
        return printable(str(self.tokenizer.decode(answer, skip_special_tokens=True)))

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]  # type: ignore[return-value] - a list for a single text

    def _make_prompt(self, ask: Ask, position: Position) -> Prompt:
        problem, seed = ask.problem, (self.seed, ask.number)
        if problem.choices:
            context, question = plain_parts(ask)
            return make_prompt(self.tokenizer, question, system=context, position=position, seed=seed, plain=True)
        template = ask.form.template
        if template is None and ask.form.examples and self.tokenizer.chat_template is None:
            template = PLAIN_TEMPLATE
        question, shots = in_template(template, problem.question), example_turns(ask.form, template)
        return make_prompt(self.tokenizer, question, system=ask.system, position=position, seed=seed, shots=shots)


def pad(rows: Sequence[Tensor], side: Literal["left", "right"], fill: int = 0) -> tuple[Tensor, Tensor]:
    """The tokens with padding on one side, and the mask (1 for tokens), int64 `[rows, longest]` each."""
    ids = pad_sequence(list(rows), batch_first=True, padding_value=fill, padding_side=side)
    return ids, pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)


def ended(answer: list[int], end_tokens: int | Sequence[int] | None) -> tuple[list[int], bool]:
    """The tokens up to and including the first end token, and whether there is one."""
    ends = [end_tokens] if isinstance(end_tokens, int) else end_tokens or []
    index = next((index for index, token in enumerate(answer) if token in ends), None)
    return (answer, False) if index is None else (answer[: index + 1], True)


def example_turns(form: PromptForm, template: str | None) -> list[Shot]:
    """The examples as turns of a chat, with their questions in the template."""
    return [Shot(in_template(template, example.question), example.solution) for example in form.examples]


def plain_parts(ask: Ask) -> tuple[str, str]:
    """The text before an item of multiple choice, with the examples, and its question."""
    template, problem = ask.form.template or PLAIN_TEMPLATE, ask.problem
    asked = [("".join(framed(e.context, e.question, template)), e.solution) for e in ask.form.examples]
    context, question = framed(problem.context, problem.question, template)
    return shots_text([Shot(*texts) for texts in asked]) + context, question


def framed(context: str, question: str, template: str = PLAIN_TEMPLATE) -> tuple[str, str]:
    """The context and question before a choice, in lm-eval's format.

    Without a question, the choice continues the context. With a question, the context is a passage before it.
    """
    if not question:
        return "", context
    return (f"{context}\n" if context else ""), in_template(template, question)
