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
SENTENCE = "The {} {} {} the {} {} the {} {}."
SENTENCE_WORDS = (QUALITIES, THINGS, DEEDS, THINGS, PREPOSITIONS, QUALITIES, THINGS)


@dataclass(frozen=True)
class Filler:
    """A number of tokens of one kind."""

    kind: str  # the filler's text, or `RANDOM_SENTENCE`
    count: int  # at least 1


@dataclass(frozen=True)
class Prompt:
    """A prompt without its filler, and where the filler is inserted."""

    ids: Tensor  # its tokens `[s]`, int64
    at: int  # the filler is inserted before this token; the tokens from here on attend to it
    question: tuple[int, int]  # its first token, and the first after it
    words: tuple[str, ...]  # each token's text

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
    plain: bool = False,
) -> Prompt:
    """System prompt and question in the chat template, or separated by an empty line where there is none.

    Args:
        tokenizer: a fast one, which gives the place of each token in the text.
        question: what is asked.
        system: the system prompt; put above the question where the template refuses a system turn.
        position: where a filler would be inserted.
        seed: of the random position.
        plain: without a template, `system` directly followed by `question`, for the likelihood of a continuation.

    Raises:
        ArgumentError: the question gives no token; no such position; a slow tokenizer, or a template that changes the
            texts.
    """
    if position not in POSITIONS:
        raise ArgumentError(f"position: expected one of {', '.join(POSITIONS)}, found {position!r}")
    if not tokenizer.is_fast:
        name = type(tokenizer).__name__
        raise ArgumentError(f"{name} does not tell where in the text its tokens are; use a fast one")
    pieces = ("", system, "", question, "") if plain else _pieces(tokenizer, system, question)
    starts = [sum(map(len, pieces[:at])) for at in range(len(pieces))]
    bare = plain or tokenizer.chat_template is None  # a template writes special tokens itself
    encoded: Any = tokenizer("".join(pieces), add_special_tokens=bare, return_offsets_mapping=True)
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    before, first, after = (_first_after(ends, starts[piece]) for piece in (1, 3, 4))
    if first == after:
        raise ArgumentError(f"prompts: {question!r} gives no token")
    # Within the question, because the rest of the prompt contains the template's control tokens.
    anywhere = int(np.random.default_rng(list(seed)).integers(first, after + 1))
    at = {"before": before, "between": first, "end": after, "random": anywhere}[position]
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
    turns = {"user": f"{system}\n\n{question}"} if merged else {"system": system, "user": question}
    messages = [{"role": role, "content": content} for role, content in turns.items()]
    text: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text


def filler_tokens(tokenizer: "PreTrainedTokenizerBase", filler: Filler, *, seed: int = 0, prompt: int = 0) -> Tensor:
    """The filler's tokens `[count]`: those of its text, repeated; for the control, those of random sentences.

    The sentences depend on `seed` and on `prompt`, the prompt's index; with a lower count they are the beginning of
    those with a higher one. ArgumentError where the filler's text gives no token.
    """
    text = sentences(filler.count, seed, prompt) if filler.kind == RANDOM_SENTENCE else filler.kind
    encoded: Any = tokenizer(text, add_special_tokens=False)
    ids = encoded["input_ids"]
    if not ids:
        raise ArgumentError(f"filler: {filler.kind!r} gives no token")
    return torch.tensor(list(islice(cycle(ids), filler.count)), dtype=torch.int64)


def describe_filler(tokenizer: "PreTrainedTokenizerBase", filler: Filler, tokens: Tensor) -> dict[str, Any]:
    """For the report: the distinct texts of `tokens [count]`, and how many tokens their joined text would become."""
    text = tokenizer.decode(tokens.tolist())
    again: Any = tokenizer(text, add_special_tokens=False)
    return {
        "filler": filler.kind,
        "count": filler.count,
        "tokens": list(dict.fromkeys(tokenizer.decode([token]) for token in tokens.tolist())),
        "characters": len(text),
        "tokens_of_the_same_text": len(again["input_ids"]),
    }


def sentences(count: int, seed: int, prompt: int) -> str:
    """Random sentences with at least `count` words, each of which becomes at least one token."""
    rng = np.random.default_rng([seed, prompt])
    words = ((str(rng.choice(kind)) for kind in SENTENCE_WORDS) for _ in range(count // 9 + 1))
    return " ".join(SENTENCE.format(*sentence) for sentence in words)


def filler_conditions(kinds: Sequence[str], counts: Sequence[int]) -> list[Filler]:
    """Each filler and then the control, at each count but 0, which is the baseline and always run."""
    distinct = dict.fromkeys((*kinds, RANDOM_SENTENCE))
    return [Filler(kind, count) for kind in distinct for count in sorted(set(counts)) if count]
