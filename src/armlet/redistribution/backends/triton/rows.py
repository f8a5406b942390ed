# type: ignore - Triton's language has Python's syntax but other types.
"""The Triton program for one row: computes statistics in registers, then moves and writes the row part by part.

Each step has the bits of the plain path: the same operations, each rounded separately (`enable_fp_fusion=False`).
"""

import triton
import triton.language as tl

from armlet.redistribution.backends.triton.arithmetic import activated, companded, narrowed, saturated, widened
from armlet.redistribution.backends.triton.selection import (
    count_true,
    interpolated,
    kth_magnitude,
    number,
    smallest,
    two_kth,
)

# Integers that change between calls: values of 1 or multiples of 16 must not compile the kernel again.
CHANGING = ("position_stride", "stream", "rank", "lowest", "highest", "below", "nearer")


@triton.jit(do_not_specialize=CHANGING)
def redistribute_rows(
    values, target, moved_counts, passed_rows,
    keys, positions, uniforms, mask, strengths,
    position_stride, stream, width, rank, lowest, highest, below, nearer, weight, rest, band, limit, strength,
    POLICY: tl.constexpr, RULE: tl.constexpr, BANDED: tl.constexpr, SIGNED: tl.constexpr, STRENGTH: tl.constexpr,
    LIMITED: tl.constexpr, ABOVE: tl.constexpr, ACTIVATION: tl.constexpr, LOWEST: tl.constexpr, LARGEST: tl.constexpr,
    BLOCK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Fills `target`, `moved_counts` and `passed_rows` for one row of `values`, `[rows, width]`.

    The arguments:
        values: with an ACTIVATION, `[rows, 2·width]`: gate, then up; `target` is then ARM(activation(gate)) · up.
        keys: `Noise.keys` as int32 `[3, 2·width]`, with the low words at even indices; None without keyed noise.
        positions, uniforms, mask, strengths: see `Operands`; None if not needed.
        rank, lowest, highest: ranks of the median (or the proportion) and of the clamp's limits, from 1.
        below, nearer, weight, rest: the quantile's location, see `interpolated`.
        band, limit, strength: settings of the policy.
        POLICY: "outward", "inward" or "cut"; RULE: the policy's `write` or `curve`.
        BANDED: values move by `band`, not by proportion; SIGNED: the ceiling is computed from signed values.
        LIMITED: `Inward` has a limit, or `Cut` a threshold, and no statistics are taken; ABOVE: `Inward` moves values
            above the knee only.
        STRENGTH: "none", "part", "whole", or "rows" for one number per row in `strengths`.
        LOWEST: number of low bits of a float32 that are zero in any value of this dtype; LARGEST: its largest value.
        BLOCK, PART: powers of two: the size of the padded row, and the number of values moved at a time.
    """
    row = tl.program_id(0).to(tl.int64)
    source = values + row * width * (1 if ACTIVATION is None else 2)
    columns = tl.arange(0, BLOCK)
    numbers = tl.where(columns < width, widened(_gate(source, columns, width, ACTIVATION)), float("inf"))
    moves = count_true(tl.abs(numbers) < float("inf")) == width
    passed = ~moves
    if mask is not None:
        valid = tl.load(mask + row) != 0
        moves, passed = moves & valid, passed & valid
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
    elif POLICY == "cut":
        edge = limit
        if not LIMITED:
            edge = kth_magnitude(tl.abs(numbers), rank, LOWEST)
            if BANDED:
                edge = _edge(numbers, edge, rank, lowest, highest, band, LOWEST)
        edge = tl.where(moves, edge, -1.0)
    else:
        knee = limit
        if not LIMITED:
            low = kth_magnitude(tl.abs(numbers), below + 1, LOWEST)
            knee = interpolated(tl.abs(numbers), low, below, weight, rest, nearer, width)
        lowest_moving = knee if RULE != "tanh" else 0.0 if ABOVE else -1.0
        edge = tl.where(moves, lowest_moving, float("inf"))
    moving = _moving(numbers, edge, POLICY, ABOVE) & (columns < width)
    tl.store(moved_counts + row, count_true(moving).to(tl.int64))
    tl.store(passed_rows + row, passed)
    position = tl.load(positions + row * position_stride) if keys is not None else row
    for start in range(0, width, PART):
        column = start + tl.arange(0, PART)
        a = _gate(source, column, width, ACTIVATION)
        x = widened(a)
        chosen = _moving(x, edge, POLICY, ABOVE) & (column < width)
        sign = tl.where(x < 0, -1.0, 1.0)
        if POLICY == "outward":
            u = _uniforms(keys, uniforms, row, column, position, stream, width, chosen)
            end = sign * u * tl.where(x < 0, lower, upper)
            if RULE == "add":
                end = x + end
        elif POLICY == "cut":
            end = tl.zeros(x.shape, tl.float32)
        else:
            end = knee
            if RULE == "log":
                end = companded(tl.abs(x), knee)
            elif RULE == "tanh":
                end = saturated(tl.abs(x), knee)
            end = sign * end
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
    """Returns the activated gate at `column`, in its dtype; 0 after the row's end."""
    a = tl.load(source + column, column < width, 0)
    return a if ACTIVATION is None else activated(a, ACTIVATION)


@triton.jit
def _moving(x, edge, POLICY: tl.constexpr, ABOVE: tl.constexpr):
    """Returns which values move: those up to the edge (`Outward`, `Cut`), or those beyond or above it (`Inward`)."""
    if POLICY == "inward":
        return (x if ABOVE else tl.abs(x)) > edge
    else:
        return tl.abs(x) <= edge


@triton.jit
def _edge(x, median, rank, lowest, highest, band, LOWEST: tl.constexpr):
    """Returns the largest magnitude that moves: just below ε, or the clamp's limit if ε is beyond it.

    Counting detects whether ε is beyond a limit, and only then the limit is computed.
    """
    mad = tl.maximum(kth_magnitude(tl.abs(tl.abs(x) - median), rank, 0), 1e-12)
    epsilon = 1.4826 * mad * band
    narrow = count_true(tl.abs(x) <= epsilon) < lowest
    wide = count_true(tl.abs(x) < epsilon) >= highest
    # The float32 before ε, because values below ε move and values equal to ε do not.
    bits = epsilon.to(tl.uint32, bitcast=True)
    edge = tl.where(epsilon > 0, number(bits - 1, False), -1.0)
    if narrow | wide:
        edge = kth_magnitude(tl.abs(x), tl.where(narrow, lowest, highest), LOWEST)
    return edge


@triton.jit
def _uniforms(keys, uniforms, row, column, position, stream, width, chosen):
    """Returns uniforms where values move: keyed, explicit, or ½."""
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
