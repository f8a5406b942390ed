# type: ignore - Triton's language has Python's syntax but other types.
"""The Triton program that adds what a call did to a module's counters: one launch in place of six of PyTorch."""

import triton
import triton.language as tl

BLOCK = 1024


@triton.jit(do_not_specialize=("rows", "tokens", "calls"))
def add_counts(totals, moved_counts, passed_rows, mask, rows, tokens, calls, BLOCK: tl.constexpr):
    """Adds calls, tokens, values moved and rows passed to `totals`, int64 `[4]`.

    moved_counts, passed_rows: int64 and bool `[rows]`; mask: bool `[tokens]`, False for tokens that do not count, or
    None if all do.
    """
    moved = tl.zeros([BLOCK], tl.int64)
    passed = tl.zeros([BLOCK], tl.int64)
    for start in range(0, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        moved += tl.load(moved_counts + row, row < rows, 0)
        passed += tl.load(passed_rows + row, row < rows, 0).to(tl.int64)
    counted = tokens.to(tl.int64)
    if mask is not None:
        valid = tl.zeros([BLOCK], tl.int64)
        for start in range(0, tokens, BLOCK):
            token = start + tl.arange(0, BLOCK)
            valid += tl.load(mask + token, token < tokens, 0).to(tl.int64)
        counted = tl.sum(valid, 0)
    place = tl.arange(0, 4)
    increments = tl.where(place == 0, calls.to(tl.int64), tl.where(place == 1, counted, tl.sum(moved, 0)))
    increments = tl.where(place == 3, tl.sum(passed, 0), increments)
    tl.store(totals + place, tl.load(totals + place) + increments)
