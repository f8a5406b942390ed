"""Decoding with a static cache, one token a step, in a form that a CUDA graph can record."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn


class StaticDecoder:
    """Greedy decoding of `model` after the prompt `ids`, `[batch, seq]`, for up to `room` more tokens.

    `step()` uses the same memory in every call: the token that it reads, the cache, and the length of the cache.
    """

    def __init__(self, model: nn.Module, ids: Tensor, room: int) -> None:
        from transformers import StaticCache

        self._model: Any = model
        self._length = ids.shape[1]
        self._cache = StaticCache(config=self._model.config, max_cache_len=self._length + room)
        if any(layer.is_sliding for layer in self._cache.layers):
            raise ValueError("a sliding window overwrites its cache, so that nobody can go back in it")
        logits = self._call(ids)
        self.first = logits[:, -1:].argmax(-1)
        self._token = self.first.clone()

    def _call(self, ids: Tensor) -> Tensor:
        # transformers before 5.24 calls the cache `past_key_values`.
        names = inspect.signature(self._model.forward).parameters
        cache = {"cache" if "cache" in names else "past_key_values": self._cache}
        return self._model(input_ids=ids, use_cache=True, logits_to_keep=1, **cache).logits

    def step(self) -> Tensor:
        """Decodes a token; returns its logits, `[batch, 1, vocabulary]`."""
        logits = self._call(self._token)
        self._token.copy_(logits[:, -1:].argmax(-1))
        return logits

    def rewind(self) -> None:
        """Goes back to the end of the prompt. What the cache has after that is overwritten before it is read."""
        for layer in self._cache.layers:
            layer.cumulative_length.fill_(self._length)
        self._token.copy_(self.first)

    @torch.no_grad()
    def decoded(self, step: Any, count: int) -> list[Tensor]:
        """The logits of `count` calls of `step` after the prompt, copied."""
        self.rewind()
        return [step().clone() for _ in range(count)]
