"""Rows of tokens of different lengths as one batch, with the mask of tokens (1) and padding (0)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad_right(rows: Sequence[Tensor], fill: int = 0) -> tuple[Tensor, Tensor]:
    """`[rows, longest]` int64 each: the tokens with padding after them, and the mask."""
    ids = pad_sequence(list(rows), batch_first=True, padding_value=fill)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def pad_left(rows: Sequence[Tensor], fill: int = 0) -> tuple[Tensor, Tensor]:
    """The same with the padding before them."""
    ids, mask = pad_right([row.flip(0) for row in rows], fill)
    return ids.flip(1), mask.flip(1)
