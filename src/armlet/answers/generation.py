"""Two answers to one prompt, without ARM and with it, and where they part."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from armlet.prompts.questions import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


COLDEST = 1e-6
"""Least temperature that is sampled at: logits over a smaller one overflow, and the best token wins anyway."""


@dataclass(frozen=True)
class Answer:
    """The tokens of one answer, end included, and its text without special tokens.

    `interrupted`: Ctrl-C cut it short.
    """

    tokens: list[int]
    text: str
    interrupted: bool


@dataclass
class Answers:
    """The answers of the untouched and of the treated model; None for one that is not there (yet)."""

    baseline: Answer | None = None
    treated: Answer | None = None

    @property
    def interrupted(self) -> bool:
        """Ctrl-C cut one of them short."""
        return any(found is not None and found.interrupted for found in (self.baseline, self.treated))

    @property
    def first_difference(self) -> int | None:
        """The index of the first token at which they part; None where they do not, as far as they are there."""
        if self.baseline is None or self.treated is None or self.baseline.tokens == self.treated.tokens:
            return None
        pairs = zip(self.baseline.tokens, self.treated.tokens, strict=False)
        # An answer that ends where the other goes on parts from it, unless Ctrl-C ended it.
        shorter = None if self.interrupted else min(len(self.baseline.tokens), len(self.treated.tokens))
        return next((index for index, (one, other) in enumerate(pairs) if one != other), shorter)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        answers = {name: found and asdict(found) for name, found in vars(self).items()}
        return answers | {"first_difference": self.first_difference}


class Collector:
    """What `generate` streams to: keeps the new tokens, so that Ctrl-C loses none, and calls `tick()` for each."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.tick, self.tokens, self.prompt_seen = tick, [], False

    def put(self, value: Tensor) -> None:
        """Called by `generate` with the prompt, and then with each token."""
        if self.prompt_seen:
            self.tokens += value.flatten().tolist()
            self.tick()
        self.prompt_seen = True

    def end(self) -> None:
        """Called by `generate` behind the last token."""


def answer(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Answer:
    """One answer: greedy at temperature 0, else sampled.

    Two answers with one seed draw from the same stream; the global generator is put back.

    Args:
        model: with or without ARM.
        tokenizer: its tokenizer.
        prompt: the user's turn of the chat template, where there is one.
        max_new_tokens: most tokens of the answer.
        temperature: of sampling; 0 for none, and below `COLDEST` it is none.
        seed: of sampling.
        tick: called after each token.
    """
    ids = encode_prompt(tokenizer, prompt).to(model.device)
    sampled = temperature >= COLDEST
    how: dict[str, Any] = {"do_sample": True, "temperature": temperature} if sampled else {"do_sample": False}
    collector, interrupted = Collector(tick), False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        try:
            model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                streamer=collector,
                num_beams=1,  # whatever the checkpoint's generation_config.json says: one beam, one answer
                num_return_sequences=1,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
                **how,
            )
        except KeyboardInterrupt:
            interrupted = True
    text = str(tokenizer.decode(collector.tokens, skip_special_tokens=True))
    return Answer(collector.tokens, text, interrupted)


def split_at(tokenizer: "PreTrainedTokenizerBase", found: Answer, index: int | None) -> tuple[str, str, str]:
    """The text before, of and behind the token at `index`; all of it before where the index is None."""
    if index is None:
        return found.text, "", ""
    until, through = (_shared(tokenizer, found, end) for end in (index, index + 1))
    return found.text[:until], found.text[until:through], found.text[through:]


def _shared(tokenizer: "PreTrainedTokenizerBase", found: Answer, end: int) -> int:
    """How many letters of the text the first `end` tokens give; not one that the next token completes."""
    decoded = str(tokenizer.decode(found.tokens[:end], skip_special_tokens=True))
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(decoded, found.text, strict=False))))
