"""Fillers: meaningless tokens that are inserted into a prompt.

A filler is inserted as tokens, so that its count is exact and the prompt's own tokens do not change. In a text the
tokenizer would merge a run of slashes into fewer tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from armlet.prompts.beginnings import encode_beginning
from armlet.prompts.chat import MARK, chat_turns, template_date, templated
from armlet.prompts.shots import Shot, shots_text
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Position = Literal["before", "between", "end", "random", "answer"]
POSITIONS: tuple[str, ...] = get_args(Position)
"""Before the system prompt, between it and the question, at the question's end, at a random token in it, or directly
before its last "Answer:"."""

POSITION_HELP = "Fillers' position: around the system prompt, after the question, in it at random, or before 'Answer:'."

ANSWER_CUE = "Answer:"

SYSTEM = "You are a careful mathematician. Solve the problem step by step, and give the result in the last line."

RANDOM_SENTENCE = "random sentence"
"""The control: the same number of tokens as the filler, from ordinary words unrelated to the question."""

TEXT_MARKS = ("\ue000", "\ue001")  # from the private use area, which no template uses

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

    ids: Tensor  # the prompt's tokens `[s]`, int64
    insert_at: int  # the filler is inserted before this token; this and later tokens attend to it
    question: tuple[int, int]  # the question's first token, and the first token after the question
    words: tuple[str, ...]  # the text of each token

    def filled(self, filler: Tensor) -> Tensor:
        """Returns the prompt's tokens with a filler's tokens `[n]` inserted: `[s + n]`."""
        return torch.cat((self.ids[: self.insert_at], filler, self.ids[self.insert_at :]))

    def shortened(self, length: int) -> "Prompt":
        """The prompt's first `length` tokens; a filler after them is inserted at their end."""
        start, end = (min(index, length) for index in self.question)
        return Prompt(self.ids[:length], min(self.insert_at, length), (start, end), self.words[:length])


def make_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    question: str,
    *,
    system: str = SYSTEM,
    position: Position = "between",
    seed: Sequence[int] = (0,),
    plain: bool = False,
    shots: Sequence[Shot] = (),
    date: str | None = None,
) -> Prompt:
    """Puts system prompt and question into the chat template, or joins them with an empty line if there is none.

    Args:
        tokenizer: a fast tokenizer, which returns the offsets of each token in the text.
        question: the user's question.
        system: the system prompt; prepended to the question if the template refuses a system turn.
        position: where a filler would be inserted.
        seed: seed of the random position.
        plain: no template; `question` directly follows `system`, for the likelihood of a continuation.
        shots: examples between system prompt and question, as turns of a chat or as text; not if `plain`.
        date: the date that the template sees, such as "2026-11-29"; today by default.

    Raises:
        ArgumentError: the question has no tokens, or no "Answer:" for that position; the position is unknown, the
            tokenizer is slow, or the template changes the texts.
    """
    if position not in POSITIONS:
        raise ArgumentError(f"position: expected one of {', '.join(POSITIONS)}, found {position!r}")
    if not tokenizer.is_fast:
        name = type(tokenizer).__name__
        raise ArgumentError(f"{name} does not return its tokens' offsets in the text; use a fast tokenizer")
    pieces = ("", system, "", question, "") if plain else _pieces(tokenizer, system, question, shots, date)
    starts = [sum(map(len, pieces[:index])) for index in range(len(pieces))]
    bare = plain or tokenizer.chat_template is None  # a template writes special tokens itself
    ids, token_ends = encode_beginning(tokenizer, "".join(pieces), special=bare)
    system_start, start, end = (_first_ending_after(token_ends, starts[piece]) for piece in (1, 3, 4))
    if start == end:
        raise ArgumentError(f"prompts: {question!r} has no tokens")
    # Within the question, because the rest of the prompt contains the template's control tokens.
    random_index = int(np.random.default_rng(list(seed)).integers(start, end + 1))
    insert_at = {"before": system_start, "between": start, "end": end, "random": random_index}.get(position)
    if insert_at is None:
        insert_at = _first_ending_after(token_ends, starts[3] + answer_cue(pieces[3]))
    words = tuple(str(tokenizer.decode([token])) for token in ids)
    return Prompt(torch.tensor(ids, dtype=torch.int64), insert_at, (start, end), words)


def answer_cue(question: str) -> int:
    """The offset of the last "Answer:" of a question; raises ArgumentError if there is none."""
    offset = question.rfind(ANSWER_CUE)
    if offset < 0:
        raise ArgumentError(f"position: 'answer' is directly before {ANSWER_CUE!r}, which is not in {question!r}")
    return offset


def _first_ending_after(ends: Sequence[int], offset: int) -> int:
    """The index of the first token that ends after an offset in the text; skips special tokens, which end at 0."""
    text = [index for index, end in enumerate(ends) if end > 0]
    return next((index for index in text if ends[index] > offset), text[-1] + 1 if text else len(ends))


def _pieces(
    tokenizer: "PreTrainedTokenizerBase", system: str, question: str, shots: Sequence[Shot], date: str | None
) -> tuple[str, ...]:
    """Splits the text into five pieces: before the system prompt, system prompt, between, question, after the question.

    The template may contain a question's words, such as "user", so unique marks delimit the pieces.
    """
    if tokenizer.chat_template is None:
        return "", system, "\n\n" + shots_text(shots), question, ""
    for merged in (False, True):  # merged: for templates that refuse a system turn
        try:
            date = date or template_date(tokenizer)  # one time for all texts, if the template writes the time
            pairs = (system, question), TEXT_MARKS
            text, marked = (_chat(tokenizer, *texts, shots, date, merged=merged) for texts in pairs)
            written = _chat(tokenizer, *TEXT_MARKS, [Shot(MARK, MARK)] * len(shots), date, merged=merged).count(MARK)
        except Exception as error:  # a template is a program from the checkpoint, and may raise anything
            reason = f"{type(error).__name__}: {error}"
            continue
        if written != 2 * len(shots) or any(part.strip() not in marked for shot in shots for part in shot):
            reason = "it leaves out or changes an example"
            continue
        reason = "it changes the system prompt or the question"
        before, _, rest = marked.partition(TEXT_MARKS[0])
        between, _, after = rest.partition(TEXT_MARKS[1])
        for first, second in ((system, question), (system.strip(), question.strip())):
            pieces = (before, first, between, second, after)
            if "".join(pieces) == text:
                return pieces
    raise ArgumentError(f"prompts: the chat template cannot be used ({reason})")


def _chat(
    tokenizer: "PreTrainedTokenizerBase",
    system: str,
    question: str,
    shots: Sequence[Shot],
    date: str | None,
    *,
    merged: bool,
) -> str:
    turns = [turn for shot in shots for turn in (("user", shot.question), ("assistant", shot.answer))]
    turns.append(("user", question))
    if merged:
        turns[0] = "user", f"{system}\n\n{turns[0][1]}"
    else:
        turns.insert(0, ("system", system))
    return templated(tokenizer, chat_turns(tokenizer, turns), date)


def filler_tokens(tokenizer: "PreTrainedTokenizerBase", filler: Filler, *, seed: int = 0, prompt: int = 0) -> Tensor:
    """The filler's tokens `[count]`: its text repeated, or random sentences for the control.

    The sentences depend on `seed` and on `prompt`, the prompt's index; a lower count gives the beginning of a higher
    count's sentences. Raises ArgumentError if the filler's text has no tokens.
    """
    text = sentences(filler.count, seed, prompt) if filler.kind == RANDOM_SENTENCE else filler.kind
    encoded: Any = tokenizer(text, add_special_tokens=False)
    ids = encoded["input_ids"]
    if not ids:
        raise ArgumentError(f"filler: {filler.kind!r} has no tokens")
    return torch.tensor(list(islice(cycle(ids), filler.count)), dtype=torch.int64)


def describe_filler(tokenizer: "PreTrainedTokenizerBase", filler: Filler, tokens: Tensor) -> dict[str, object]:
    """For the report: the distinct texts of `tokens [count]`, and the number of tokens when their text is tokenized."""
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
    """Random sentences with at least `count` words, each at least one token."""
    rng = np.random.default_rng([seed, prompt])
    words = ((str(rng.choice(kind)) for kind in SENTENCE_WORDS) for _ in range(count // 9 + 1))
    return " ".join(SENTENCE.format(*sentence) for sentence in words)


def filler_conditions(kinds: Sequence[str], counts: Sequence[int]) -> list[Filler]:
    """Each filler, then the control, at each count except 0, which is the baseline and always run."""
    distinct = dict.fromkeys((*kinds, RANDOM_SENTENCE))
    return [Filler(kind, count) for kind in distinct for count in sorted(set(counts)) if count]
