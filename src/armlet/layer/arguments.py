"""Checks of what `Layer1` is called with."""

import torch
from torch import Tensor, nn

from armlet.layer.parts import KVCache
from armlet.redistribution.errors import ArgumentError, description


def check_ids(input_ids: Tensor, embedding: nn.Module) -> None:
    """Raises ArgumentError unless these are token ids, within the vocabulary where its size is known."""
    if not isinstance(input_ids, Tensor) or input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise ArgumentError(f"Layer1: expected a tensor of token ids [batch, seq], found {description(input_ids)}")
    if isinstance(embedding, nn.Embedding):
        last = embedding.num_embeddings - 1
        if (unknown := input_ids[(input_ids < 0) | (input_ids > last)]).numel():
            raise ArgumentError(f"input_ids: the vocabulary has ids 0 to {last}, found {unknown[0]}")


def check_inputs(
    x: Tensor, positions: Tensor | None, mask: Tensor | None, cache: KVCache, d_model: int, dtype: torch.dtype
) -> None:
    """Raises ArgumentError if an argument of `Layer1.forward` has a wrong shape or type."""
    if not isinstance(x, Tensor) or x.dim() != 3 or x.shape[-1] != d_model or x.dtype != dtype:
        raise ArgumentError(f"Layer1: expected x [batch, seq, {d_model}] in {dtype}, found {description(x)}")
    if not isinstance(cache, KVCache):
        raise ArgumentError(f"Layer1: expected cache to be an armlet.layer.KVCache, found {description(cache)}")
    batch, tokens = x.shape[:2]
    for name, value, batches, length in (
        ("positions", positions, (batch, 1), tokens),
        ("mask of all tokens", mask, (batch,), cache.length + tokens),
    ):
        shapes = [(sequences, length) for sequences in batches]
        if value is not None and (not isinstance(value, Tensor) or value.shape not in shapes):
            expected = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
            raise ArgumentError(f"Layer1: expected {name} {expected}, found {description(value)}")
