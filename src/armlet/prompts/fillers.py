"""Filler: a run of tokens without meaning inside a prompt. Which tokens, how many of them, and where they stand.

Fillers are counted in tokens: exactly so many are put between the prompt's own tokens, which stay as they are. As
characters they could not be counted: a tokenizer merges a run of slashes into fewer tokens.
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
"""Before the system prompt, between it and the question, behind the question, or at a random token of it."""

SYSTEM = "You are a careful mathematician. Solve the problem step by step, and give the result in the last line."

RANDOM_SENTENCE = "random sentence"
"""The control's name: as many tokens as the filler, of ordinary words that have nothing to do with the question."""

MARKS = ("\ue000", "\ue001")  # of the private use area: in no template

QUALITIES = ("old", "quiet", "yellow", "narrow", "friendly", "broken", "distant", "heavy", "curious", "wooden")
THINGS = ("gardener", "bridge", "kettle", "river", "teacher", "window", "sparrow", "letter", "harbour", "blanket")
DEEDS = ("watched", "carried", "painted", "forgot", "followed", "repaired", "covered", "praised", "found", "left")
PLACES = ("near", "behind", "under", "above", "beside", "inside")


@dataclass(frozen=True)
class Filler:
    """One condition: so many tokens of one kind.

    Args:
        kind: the filler's text, or `RANDOM_SENTENCE`.
        count: tokens, at least 1.
    """

    kind: str
    count: int


@dataclass(frozen=True)
class Prompt:
    """A prompt and the place for a filler in it.

    Args:
        ids: its own tokens `[s]`, int64.
        at: the filler goes before this one; the tokens from here on see it.
        question: the first token of the question and the one behind its last.
        words: each token's text.
    """

    ids: Tensor
    at: int
    question: tuple[int, int]
    words: tuple[str, ...]

    def filled(self, filler: Tensor) -> Tensor:
        """The prompt's tokens with the filler's `[n]` among them, `[s + n]`."""
        return torch.cat((self.ids[: self.at], filler, self.ids[self.at :]))


def make_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    question: str,
    *,
    system: str = SYSTEM,
    position: Position = "between",
    seed: Sequence[int] = (0,),
) -> Prompt:
    """System prompt and question as the chat template sets them, or one under the other where there is none.

    Args:
        tokenizer: a fast one, which tells where in the text a token stands.
        question: what is asked.
        system: the system prompt; a template that knows none has it above the question.
        position: where a filler would go.
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
    """Context and question as they stand, without a chat template: what a continuation's likelihood is taken behind.

    Args:
        tokenizer: a fast one.
        context: takes the place of the system prompt; may be empty.
        question: the rest of the text.
        position: where a filler would go.
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
    """The prompt of a text in the five pieces of `_pieces`; `bare`: the text lacks the tokenizer's special tokens."""
    if position not in POSITIONS:
        raise ArgumentError(f"position: expected one of {', '.join(POSITIONS)}, found {position!r}")
    if not tokenizer.is_fast:
        raise ArgumentError(f"{type(tokenizer).__name__} does not tell where its tokens stand; a fast one is needed")
    starts = [sum(map(len, pieces[:at])) for at in range(len(pieces))]
    places = dict(zip(("before", "between", "end"), (starts[1], starts[3], starts[4]), strict=True))
    bare = tokenizer.chat_template is None if bare is None else bare  # a template writes special tokens itself
    encoded: Any = tokenizer("".join(pieces), add_special_tokens=bare, return_offsets_mapping=True)
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    begin, first, behind = (_first_behind(ends, places[name]) for name in ("before", "between", "end"))
    if first == behind:
        raise ArgumentError(f"prompts: {pieces[3]!r} gives no token")
    # Within the question: anywhere in the prompt could be within the template's own signs.
    anywhere = int(np.random.default_rng(list(seed)).integers(first, behind + 1))
    at = {"before": begin, "between": first, "end": behind, "random": anywhere}[position]
    words = tuple(str(tokenizer.decode([token])) for token in ids)
    return Prompt(torch.tensor(ids, dtype=torch.int64), at, (first, behind), words)


def _first_behind(ends: Sequence[int], place: int) -> int:
    """The first token that reaches beyond a place in the text; special tokens, which end at 0, stay where they are."""
    text = [at for at, end in enumerate(ends) if end > 0]
    return next((at for at in text if ends[at] > place), text[-1] + 1 if text else len(ends))


def _pieces(tokenizer: "PreTrainedTokenizerBase", system: str, question: str) -> tuple[str, ...]:
    """The whole text, as what stands before the system prompt, that, between, the question, and behind it.

    A question such as "user" may stand in the template as well, so places are read off a text with marks in them.
    """
    if tokenizer.chat_template is None:
        return "", system, "\n\n", question, ""
    for merged in (False, True):  # for templates that refuse a turn of the system's
        try:
            text, marked = (_chat(tokenizer, *texts, merged=merged) for texts in ((system, question), MARKS))
        except Exception as error:  # a template is a program of the checkpoint's, and may raise anything
            reason = f"{type(error).__name__}: {error}"
            continue
        reason = "it changes the system prompt or the question"
        before, _, rest = marked.partition(MARKS[0])
        between, _, behind = rest.partition(MARKS[1])
        for own in ((system, question), (system.strip(), question.strip())):
            pieces = (before, own[0], between, own[1], behind)
            if "".join(pieces) == text:
                return pieces
    raise ArgumentError(f"prompts: the chat template cannot be used ({reason})")


def _chat(tokenizer: "PreTrainedTokenizerBase", system: str, question: str, *, merged: bool) -> str:
    turns = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    turns = [{"role": "user", "content": f"{system}\n\n{question}"}] if merged else turns
    text: Any = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return text


def filler_tokens(tokenizer: "PreTrainedTokenizerBase", filler: Filler, *, seed: int = 0, prompt: int = 0) -> Tensor:
    """The filler's tokens `[count]`: its text's own, again and again; of the control, those of random sentences.

    Args:
        tokenizer: of the model.
        filler: what, and how many.
        seed: draws the sentences; at a lower count they are the beginning of those at a higher one.
        prompt: its number, for sentences of its own.

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
    """For the report: which `tokens [count]` a filler is, and how many the tokenizer would make of the same text."""
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
    """Random sentences with at least `count` words: each of them gives a token at least."""
    rng = np.random.default_rng([seed, prompt])
    return " ".join(_sentence(rng) for _ in range(count // 9 + 1))


def _sentence(rng: np.random.Generator) -> str:
    words = [str(rng.choice(kind)) for kind in (QUALITIES, THINGS, DEEDS, THINGS, PLACES, QUALITIES, THINGS)]
    return "The {} {} {} the {} {} the {} {}.".format(*words)


def conditions(kinds: Sequence[str], counts: Sequence[int]) -> list[Filler]:
    """Each filler, and last the control, at each count; 0 is the baseline, which is always run."""
    distinct = dict.fromkeys((*kinds, RANDOM_SENTENCE))
    return [Filler(kind, count) for kind in distinct for count in sorted(set(counts)) if count]
