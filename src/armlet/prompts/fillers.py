"""Fillers: meaningless tokens inserted into a prompt. Which tokens, how many, and where.

A filler is inserted as tokens, so that its count is exact and the prompt's own tokens stay as they are. In a text the
tokenizer would merge a run of slashes into fewer tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Position = Literal["before", "between", "end", "random"]
POSITIONS: tuple[str, ...] = get_args(Position)
"""Before the system prompt, between it and the question, at the question's end, or at a random token in it."""

SYSTEM = "You are a careful mathematician. Solve the problem step by step, and give the result in the last line."

RANDOM_SENTENCE = "random sentence"
"""The control: as many tokens as the filler, of ordinary words that are unrelated to the question."""

TEXT_MARKS = ("\ue000", "\ue001")  # of the private use area, which no template uses

QUALITIES = ("old", "quiet", "yellow", "narrow", "friendly", "broken", "distant", "heavy", "curious", "wooden")
THINGS = ("gardener", "bridge", "kettle", "river", "teacher", "window", "sparrow", "letter", "harbour", "blanket")
DEEDS = ("watched", "carried", "painted", "forgot", "followed", "repaired", "covered", "praised", "found", "left")
PREPOSITIONS = ("near", "behind", "under", "above", "beside", "inside")


@dataclass(frozen=True)
class Filler:
    """A number of tokens of one kind.

    Args:
        kind: the filler's text, or `RANDOM_SENTENCE`.
        count: tokens, at least 1.
    """

    kind: str
    count: int


@dataclass(frozen=True)
class Prompt:
    """A prompt without its filler, and where the filler is inserted.

    Args:
        ids: the prompt's tokens `[s]`, int64.
        at: the filler is inserted before this token; the tokens from here on attend to it.
        question: the question's first token, and the first after it.
        words: each token's text.
    """

    ids: Tensor
    at: int
    question: tuple[int, int]
    words: tuple[str, ...]

    def filled(self, filler: Tensor) -> Tensor:
        """The prompt's tokens with those of the filler `[n]` inserted, `[s + n]`."""
        return torch.cat((self.ids[: self.at], filler, self.ids[self.at :]))


def make_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    question: str,
    *,
    system: str = SYSTEM,
    position: Position = "between",
    seed: Sequence[int] = (0,),
) -> Prompt:
    """System prompt and question in the chat template, or separated by an empty line where there is none.

    Args:
        tokenizer: a fast one, which gives the place of each token in the text.
        question: what is asked.
        system: the system prompt; put above the question where the template refuses a system turn.
        position: where a filler would be inserted.
        seed: of the random position.

    Raises:
        ArgumentError: the question gives no token; no such position; a slow tokenizer, or a template that changes the
            texts.
    """
    return _located(tokenizer, _pieces(tokenizer, system, question), position, seed)


def make_plain_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    context: str,
    question: str,
    *,
    position: Position = "between",
    seed: Sequence[int] = (0,),
) -> Prompt:
    """Context and question unchanged, without a chat template, for the likelihood of a continuation.

    Args:
        tokenizer: a fast one.
        context: in place of the system prompt; may be empty.
        question: the rest of the text.
        position: where a filler would be inserted.
        seed: of the random position.

    Raises:
        ArgumentError: the question gives no token; no such position; a slow tokenizer.
    """
    return _located(tokenizer, ("", context, "", question, ""), position, seed, bare=True)


def _located(
    tokenizer: "PreTrainedTokenizerBase",
    pieces: tuple[str, ...],
    position: Position,
    seed: Sequence[int],
    *,
    bare: bool | None = None,
) -> Prompt:
    """The prompt whose text is the five pieces of `_pieces`; `bare`: without the tokenizer's special tokens so far."""
    if position not in POSITIONS:
        raise ArgumentError(f"position: expected one of {', '.join(POSITIONS)}, found {position!r}")
    if not tokenizer.is_fast:
        raise ArgumentError(
            f"{type(tokenizer).__name__} does not tell where in the text its tokens are; use a fast one"
        )
    starts = [sum(map(len, pieces[:at])) for at in range(len(pieces))]
    places = dict(zip(("before", "between", "end"), (starts[1], starts[3], starts[4]), strict=True))
    bare = tokenizer.chat_template is None if bare is None else bare  # a template writes special tokens itself
    encoded: Any = tokenizer("".join(pieces), add_special_tokens=bare, return_offsets_mapping=True)
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    begin, first, after = (_first_after(ends, places[name]) for name in ("before", "between", "end"))
    if first == after:
        raise ArgumentError(f"prompts: {pieces[3]!r} gives no token")
    # Within the question, because the rest of the prompt contains the template's control tokens.
    anywhere = int(np.random.default_rng(list(seed)).integers(first, after + 1))
    at = {"before": begin, "between": first, "end": after, "random": anywhere}[position]
    words = tuple(str(tokenizer.decode([token])) for token in ids)
    return Prompt(torch.tensor(ids, dtype=torch.int64), at, (first, after), words)


def _first_after(ends: Sequence[int], place: int) -> int:
    """The first token that ends after a place in the text; special tokens, which end at 0, are passed over."""
    text = [at for at, end in enumerate(ends) if end > 0]
    return next((at for at in text if ends[at] > place), text[-1] + 1 if text else len(ends))


def _pieces(tokenizer: "PreTrainedTokenizerBase", system: str, question: str) -> tuple[str, ...]:
    """The whole text in five pieces: before the system prompt, it, between, the question, after it.

    The template may contain the words of a question such as "user", so the pieces are found with unique marks.
    """
    if tokenizer.chat_template is None:
        return "", system, "\n\n", question, ""
    for merged in (False, True):  # for templates that refuse a system turn
        try:
            text, marked = (_chat(tokenizer, *texts, merged=merged) for texts in ((system, question), TEXT_MARKS))
        except Exception as error:  # a template is a program from the checkpoint, and may raise anything
            reason = f"{type(error).__name__}: {error}"
            continue
        reason = "it changes the system prompt or the question"
        before, _, rest = marked.partition(TEXT_MARKS[0])
        between, _, after = rest.partition(TEXT_MARKS[1])
        for first, second in ((system, question), (system.strip(), question.strip())):
            pieces = (before, first, between, second, after)
            if "".join(pieces) == text:
                return pieces
    raise ArgumentError(f"prompts: the chat template cannot be used ({reason})")


def _chat(tokenizer: "PreTrainedTokenizerBase", system: str, question: str, *, merged: bool) -> str:
    turns = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    turns = [{"role": "user", "content": f"{system}\n\n{question}"}] if merged else turns
    text: Any = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return text


def filler_tokens(tokenizer: "PreTrainedTokenizerBase", filler: Filler, *, seed: int = 0, prompt: int = 0) -> Tensor:
    """The filler's tokens `[count]`: those of its text, repeated; for the control, those of random sentences.

    Args:
        tokenizer: of the model.
        filler: its kind and count.
        seed: of the sentences; those of a lower count are the beginning of those of a higher one.
        prompt: the prompt's index; each has different sentences.

    Raises:
        ArgumentError: the filler's text gives no token.
    """
    text = sentences(filler.count, seed, prompt) if filler.kind == RANDOM_SENTENCE else filler.kind
    encoded: Any = tokenizer(text, add_special_tokens=False)
    ids = encoded["input_ids"]
    if not ids:
        raise ArgumentError(f"filler: {filler.kind!r} gives no token")
    return torch.tensor(list(islice(cycle(ids), filler.count)), dtype=torch.int64)


def describe_filler(tokenizer: "PreTrainedTokenizerBase", filler: Filler, tokens: Tensor) -> dict[str, Any]:
    """For the report: the distinct texts of `tokens [count]`, and how many tokens their joined text would become."""
    ids = tokens.tolist()
    text = tokenizer.decode(ids)
    again: Any = tokenizer(text, add_special_tokens=False)
    return {
        "filler": filler.kind,
        "count": filler.count,
        "tokens": list(dict.fromkeys(tokenizer.decode([token]) for token in ids)),
        "characters": len(text),
        "tokens_of_the_same_text": len(again["input_ids"]),
    }


def sentences(count: int, seed: int, prompt: int) -> str:
    """Random sentences with at least `count` words, each of which becomes at least one token."""
    rng = np.random.default_rng([seed, prompt])
    return " ".join(_sentence(rng) for _ in range(count // 9 + 1))


def _sentence(rng: np.random.Generator) -> str:
    words = [str(rng.choice(kind)) for kind in (QUALITIES, THINGS, DEEDS, THINGS, PREPOSITIONS, QUALITIES, THINGS)]
    return "The {} {} {} the {} {} the {} {}.".format(*words)


def filler_conditions(kinds: Sequence[str], counts: Sequence[int]) -> list[Filler]:
    """Each filler and then the control, at each count but 0, which is the baseline and always run."""
    distinct = dict.fromkeys((*kinds, RANDOM_SENTENCE))
    return [Filler(kind, count) for kind in distinct for count in sorted(set(counts)) if count]
