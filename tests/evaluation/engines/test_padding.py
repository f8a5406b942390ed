"""Padding: rows come back whole, and the mask says where they stand."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from armlet.evaluation.engines.padding import pad

ROWS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=1, max_size=5)


@given(ROWS, st.integers(0, 9))
def test_rows_come_back_and_all_else_is_padding(rows, fill):
    longest = max(map(len, rows))
    for side in ("left", "right"):
        ids, mask = pad([torch.tensor(row) for row in rows], side, fill)
        assert (ids.shape, ids.dtype, mask.dtype) == ((len(rows), longest), torch.int64, torch.int64)
        for row, own, real in zip(rows, ids.tolist(), mask.tolist(), strict=True):
            gap = [fill] * (longest - len(row))
            assert own == (row + gap if side == "right" else gap + row)
            assert real == sorted([1] * len(row) + [0] * len(gap), reverse=side == "right")
