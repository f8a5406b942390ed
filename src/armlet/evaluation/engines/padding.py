"""Rows of tokens of different lengths as one batch, with the mask of tokens (1) and padding (0)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad(rows: Sequence[Tensor], side: Literal["left", "right"], fill: int = 0) -> tuple[Tensor, Tensor]:
    """`[rows, longest]` int64 each: the tokens with padding at that side, and the mask."""
    ids = pad_sequence(list(rows), batch_first=True, padding_value=fill, padding_side=side)
    return ids, pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
