"""Converts items to tokens (prompts with fillers, choices, padded batches), and answers back to text."""

import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from armlet.checkpoints.given import check_tokens
from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.engines.engine import Ask, printable
from armlet.evaluation.tasks.examples import PromptForm
from armlet.prompts.beginnings import encode_beginning
from armlet.prompts.chat import template_date
from armlet.prompts.fillers import Filler, Position, Prompt, filler_tokens, make_prompt
from armlet.prompts.shots import PLAIN_TEMPLATE, Shot, in_template, shots_text
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens:
    """Converts asks to tokens, in the same way for every engine that accepts tokens.

    A choice is scored after its prompt. In the text of both, a token may span the join: with ": C" as one token, the
    text "Answer: Cat" shares only "Answer" with its prompt "Answer:". The prompt of an item therefore ends where the
    tokens of one of its choices first differ from its own, and all of its choices are scored from there: each with all
    of its characters, after the same tokens, so that their log-likelihoods are comparable. Any characters of the prompt
    that are scored too are the same for all.

    Args:
        tokenizer: the model's.
        seed: the seed of random fillers.
        known: the number of tokens that the model has embeddings for; a prompt with another one is refused.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", seed: int, known: int = sys.maxsize) -> None:
        self.tokenizer, self.seed, self.known = tokenizer, seed, known
        self.date = template_date(tokenizer)  # what the chat template sees as the date; None if it does not ask
        self._prompt = lru_cache(maxsize=4096)(self._make_prompt)
        self._split = lru_cache(maxsize=4096)(self._split_choices)

    def set_date(self, date: str) -> None:
        """Sets the date that the chat template sees, such as "2026-11-29"."""
        self.date = date
        self._prompt.cache_clear()

    def length(self, ask: Ask) -> int:
        """The number of tokens of the prompt without filler."""
        return len(self._prompt(ask, "between").ids)

    def shown_prompt(self, ask: Ask) -> str:
        """The text of the prompt's tokens without filler, with special tokens; a choice would follow it."""
        return printable(str(self.tokenizer.decode(self._prompt(ask, "between").ids.tolist())))

    def prompt(self, ask: Ask, condition: Condition) -> Tensor:
        """The prompt with the condition's filler, int64 `[s]`."""
        filling = condition.filling
        if filling is None:
            return self._prompt(ask, "between").ids
        return self._prompt(ask, filling.position).filled(self.filler(filling.filler, ask.number))

    def filler(self, filler: Filler, number: int = 0) -> Tensor:
        """The filler's tokens for the item of this number, int64 `[count]`."""
        ids = filler_tokens(self.tokenizer, filler, seed=self.seed, prompt=number)
        check_tokens(self.tokenizer, ids.tolist(), self.known, f"filler {filler.kind!r}")
        return ids

    def choices(self, ask: Ask) -> list[list[int]]:
        """The tokens of each choice after the prompt; raises ArgumentError if a choice has none."""
        return self._split(ask)[1]

    def text(self, answer: list[int]) -> str:
        """The text of an answer, without special tokens."""
        return printable(str(self.tokenizer.decode(answer, skip_special_tokens=True)))

    def _make_prompt(self, ask: Ask, position: Position) -> Prompt:
        problem, seed = ask.problem, (self.seed, ask.number)
        if problem.choices:
            context, question = plain_parts(ask)
            prompt = make_prompt(self.tokenizer, question, system=context, position=position, seed=seed, plain=True)
            prompt = prompt.shortened(self._split(ask)[0])
        else:
            template = ask.form.template
            if template is None and ask.form.examples and self.tokenizer.chat_template is None:
                template = PLAIN_TEMPLATE
            question, shots = in_template(template, problem.question), example_turns(ask.form, template)
            turns = {"system": ask.system, "shots": shots, "date": self.date}
            prompt = make_prompt(self.tokenizer, question, position=position, seed=seed, **turns)
        check_tokens(self.tokenizer, prompt.ids.tolist(), self.known, problem.label)
        return prompt

    def _split_choices(self, ask: Ask) -> tuple[int, list[list[int]]]:
        """The number of tokens that the prompt and all choices' texts begin with, and each choice's tokens after them.

        Raises ArgumentError if a choice has no token, or a token spans the whole prompt and a part of a choice.
        """
        item, text = ask.problem.label, "".join(plain_parts(ask))
        prompt, _ = encode_beginning(self.tokenizer, text)
        texts = [encode_beginning(self.tokenizer, f"{text} {choice}")[0] for choice in ask.problem.choices]
        if prompt in texts:
            empty = ask.problem.choices[texts.index(prompt)]
            raise ArgumentError(f"{item}: the tokenizer returns no token for the choice {empty!r}")
        shared = len(list(takewhile(lambda tokens: len(set(tokens)) == 1, zip(prompt, *texts, strict=False))))
        if not shared:
            raise ArgumentError(f"{item}: no token is left of its prompt {text!r}, because one spans it and a choice")
        for ids in texts:
            check_tokens(self.tokenizer, ids, self.known, item)
        return shared, [ids[shared:] for ids in texts]


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
