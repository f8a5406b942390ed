"""The next token that the whole model predicts, without ARM and with it, and whether ARM leaves a trace."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from armlet.attachment.attach import attach
from armlet.playground.reading import Reader
from armlet.playground.setting import Setting
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise

SHOWN_TOKENS = 10
KEPT_LOGITS = 8  # of texts


@dataclass(frozen=True)
class NextToken:
    """A token that the model may write next, with its probability without ARM and with it."""

    text: str
    without: float
    treated: float


@dataclass(frozen=True)
class Prediction:
    """The tokens that are most probable without ARM or with it, and the divergence between both distributions."""

    tokens: list[NextToken]
    divergence: float  # Kullback-Leibler, of the distribution without from that with, in nats


class Predictor:
    """Runs the whole model of a reader."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._untreated = lru_cache(KEPT_LOGITS)(self._logits)

    def next_token(self, setting: Setting) -> Prediction:
        """The distributions of the token after the text."""
        before = self._untreated(setting.text)
        with self.reader.running() as model, attach(model, setting.acting(), **placement(setting)):
            after = _last_logits(model(input_ids=self._ids(setting.text), use_cache=False).logits)
        if not (before.isfinite().all() and after.isfinite().all()):
            side = "with ARM" if before.isfinite().all() else "without ARM"
            raise ArgumentError(f"model: its logits {side} contain NaN or Inf; try dtype float32")
        first, second = (logits.log_softmax(-1) for logits in (before, after))
        likely = torch.maximum(first, second).topk(SHOWN_TOKENS).indices.tolist()
        decode = self.reader.opened.tokenizer.decode
        tokens = [NextToken(str(decode([i])), first[i].exp().item(), second[i].exp().item()) for i in likely]
        divergence = (first.exp() * (first - second)).sum().item()
        return Prediction(tokens, max(divergence, 0.0))  # rounding can make it slightly negative

    def _ids(self, text: str) -> Tensor:
        return self.reader.tokens(text).to(self.reader.opened.model.device)

    def _logits(self, text: str) -> Tensor:
        with self.reader.running() as model:
            return _last_logits(model(input_ids=self._ids(text), use_cache=False).logits)

    def off_is_exact(self, setting: Setting) -> tuple[bool, int]:
        """Whether the logits with ARM paused and after it was detached equal the untouched model's bit for bit.

        Returns also the number of logits that were compared.
        """
        ids = self._ids(setting.text)
        with self.reader.running() as model:
            untouched = model(input_ids=ids, use_cache=False).logits
            with attach(model, setting.acting(), **placement(setting)) as arm, arm.paused():
                paused = model(input_ids=ids, use_cache=False).logits
            detached = model(input_ids=ids, use_cache=False).logits
        return all(_same_bits(untouched, other) for other in (paused, detached)), untouched.numel()


def placement(setting: Setting) -> dict[str, Any]:
    """Where ARM is attached, and its noise, as arguments of `attach`."""
    return {"layers": setting.layers(), "noise": Noise(setting.seed)}


def _same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether all bits are equal, those of NaN too."""
    return torch.equal(first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8))


def _last_logits(logits: Tensor) -> Tensor:
    return logits[0, -1].float().cpu()
