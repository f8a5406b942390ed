# type: ignore - Triton's language, which looks like Python and has other types.
"""The Triton program of one row: its statistics from registers, then the row, part by part, moved and written.

Every step has the bits of the plain path: the same operations, each rounded by itself (`enable_fp_fusion=False`).
"""

import triton
import triton.language as tl

from armlet.redistribution.backends.triton.arithmetic import activated, companded, narrowed, widened
from armlet.redistribution.backends.triton.selection import (
    count_true,
    interpolated,
    kth_magnitude,
    number,
    smallest,
    two_kth,
)

# Integers that change from call to call: no kernel is compiled again because one of them is 1 or a multiple of 16.
CHANGING = ("position_stride", "stream", "rank", "lowest", "highest", "below", "nearer")


@triton.jit(do_not_specialize=CHANGING)
def redistribute_rows(
    values, target, moved_counts, passed_rows,
    keys, positions, uniforms, mask, strengths,
    position_stride, stream, width, rank, lowest, highest, below, nearer, weight, rest, band, strength,
    POLICY: tl.constexpr, RULE: tl.constexpr, BANDED: tl.constexpr, SIGNED: tl.constexpr, STRENGTH: tl.constexpr,
    ACTIVATION: tl.constexpr, LOWEST: tl.constexpr, LARGEST: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """`target`, `moved_counts` and `passed_rows` of one row of `values`, `[rows, width]`.

    What the arguments are:
        values: with an ACTIVATION, `[rows, 2·width]`: gate, then up; `target` then takes ARM(activation(gate)) · up.
        keys: of `Noise.keys`, as int32 `[3, 2·width]`: the low words are at even places. None without keyed noise.
        positions, uniforms, mask, strengths: as in `Operands`; None where they are not needed.
        rank, lowest, highest: of the median (or the proportion) and of the clamp's ends, from 1.
        below, nearer, weight, rest: where the quantile lies, see `interpolated`.
        band, strength: of the policy.
        POLICY: "outward" or "inward"; RULE: its `write` or its `curve`.
        BANDED: values move by `band`, not by proportion; SIGNED: the ceiling is taken from the values' signs too.
        STRENGTH: "none", "part", "whole", or "rows" for one number in `strengths` for each row.
        LOWEST: how many low bits of a float32 are zero in any value of this dtype; LARGEST: its largest value.
        BLOCK, PART: powers of two: room for the whole row, and how much of it is moved at a time.
    """
    row = tl.program_id(0).to(tl.int64)
    source = values + row * width * (1 if ACTIVATION is None else 2)
    columns = tl.arange(0, BLOCK)
    numbers = tl.where(columns < width, widened(_gate(source, columns, width, ACTIVATION)), float("inf"))
    moves = count_true(tl.abs(numbers) < float("inf")) == width
    passed = ~moves
    if mask is not None:
        counted = tl.load(mask + row) != 0
        moves, passed = moves & counted, passed & counted
    if STRENGTH == "rows":
        strength = tl.load(strengths + row)
        moves = moves & (strength > 0)
    elif STRENGTH == "none":
        moves = moves & (row < 0)
    if POLICY == "outward":
        ordered = numbers if SIGNED else tl.abs(numbers)
        edge, low = two_kth(tl.abs(numbers), rank, ordered, below + 1, SIGNED, LOWEST)
        upper = interpolated(ordered, low, below, weight, rest, nearer, width)
        lower = 0.0 - tl.minimum(smallest(numbers, numbers < 0), 0.0)
        if BANDED:
            edge = _edge(numbers, edge, rank, lowest, highest, band, LOWEST)
        edge = tl.where(moves, edge, -1.0)
    else:
        low = kth_magnitude(tl.abs(numbers), below + 1, LOWEST)
        knee = interpolated(tl.abs(numbers), low, below, weight, rest, nearer, width)
        edge = tl.where(moves, knee, float("inf"))
    tl.store(moved_counts + row, count_true(_chosen(numbers, edge, POLICY) & (columns < width)).to(tl.int64))
    tl.store(passed_rows + row, passed)
    position = tl.load(positions + row * position_stride) if keys is not None else row
    for start in range(0, width, PART):
        column = start + tl.arange(0, PART)
        a = _gate(source, column, width, ACTIVATION)
        x = widened(a)
        chosen = _chosen(x, edge, POLICY) & (column < width)
        sign = tl.where(x < 0, -1.0, 1.0)
        if POLICY == "outward":
            u = _uniforms(keys, uniforms, row, column, position, stream, width, chosen)
            end = sign * u * tl.where(x < 0, lower, upper)
            if RULE == "add":
                end = x + end
        else:
            end = sign * (companded(tl.abs(x), knee) if RULE == "log" else knee)
        if STRENGTH == "part":
            end = x + strength * (end - x)
        elif STRENGTH == "rows":
            end = tl.where(strength == 1, end, x + strength * (end - x))
        end = tl.where(end > LARGEST, LARGEST, tl.where(end < -LARGEST, -LARGEST, end))
        result = tl.where(chosen, narrowed(end, a.dtype), a)
        if ACTIVATION is not None:
            up = tl.load(source + width + column, column < width, 0)
            result = narrowed(widened(result) * widened(up), a.dtype)
        tl.store(target + row * width + column, result, column < width)


@triton.jit
def _gate(source, column, width, ACTIVATION: tl.constexpr):
    """The activated gate at `column`, in its dtype; 0 beyond the row's end."""
    a = tl.load(source + column, column < width, 0)
    return a if ACTIVATION is None else activated(a, ACTIVATION)


@triton.jit
def _chosen(x, edge, POLICY: tl.constexpr):
    """What moves: values near zero, up to the edge, or the tails beyond it."""
    return tl.abs(x) <= edge if POLICY == "outward" else tl.abs(x) > edge


@triton.jit
def _edge(x, median, rank, lowest, highest, band, LOWEST: tl.constexpr):
    """The largest magnitude that may move: below ε, or up to the end of the clamp that ε lies beyond.

    Counting tells whether it does, and only then is the end looked for.
    """
    mad = tl.maximum(kth_magnitude(tl.abs(tl.abs(x) - median), rank, 0), 1e-12)
    epsilon = 1.4826 * mad * band
    narrow = count_true(tl.abs(x) <= epsilon) < lowest
    wide = count_true(tl.abs(x) < epsilon) >= highest
    # The float32 before ε, since what is below ε moves, and what equals it does not.
    bits = epsilon.to(tl.uint32, bitcast=True)
    edge = tl.where(epsilon > 0, number(bits - 1, False), -1.0)
    if narrow | wide:
        edge = kth_magnitude(tl.abs(x), tl.where(narrow, lowest, highest), LOWEST)
    return edge


@triton.jit
def _uniforms(keys, uniforms, row, column, position, stream, width, chosen):
    """Uniforms where values move: keyed, given, or ½."""
    if keys is not None:
        base = tl.load(keys + 2 * column, chosen, 0).to(tl.uint32)
        step = tl.load(keys + 2 * width + 2 * column, chosen, 0).to(tl.uint32)
        stride = tl.load(keys + 4 * width + 2 * column, chosen, 0).to(tl.uint32)
        word = base + position.to(tl.uint32) * step + stream.to(tl.uint32) * stride
        return (word >> 8).to(tl.float32) * 5.9604644775390625e-08
    elif uniforms is not None:
        return tl.load(uniforms + row * width + column, chosen, 0)
    else:
        return tl.full(column.shape, 0.5, tl.float32)
