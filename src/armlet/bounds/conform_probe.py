"""Finds out by trial which values of gate and up a gated MLP clamps, and where.

A clamp makes all values beyond its limit the same. So the outputs for values just beyond it and far beyond it are equal
bit for bit if it is applied, whatever the formula; and those just within it are not, in any column.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import log2
from typing import NamedTuple

import torch
from torch import Tensor

from armlet.attachment.sites import GATE, UP
from armlet.bounds.conform_forced import CODE_ERRORS, Forced, NotForcedError
from armlet.bounds.conform_parts import Clamp

YES, NO, UNKNOWN = "yes", "NO", "not verified"

ROWS = 4  # of a call; a call with one row is tried, too, since decoding has kernels of its own
SCALES = (1 / 64, 1 / 8, 1 / 2)  # of the limit, at which columns are told apart: small ones below a limit too small
BEYOND, WITHIN = 1 + 1 / 32, 1 - 1 / 32  # times the limit; bfloat16 rounds by up to 1 / 256
FAR = 64.0  # times the limit
STEPS = 12  # of halving the octaves between 1 / FAR and FAR
CLEAR = 3  # how much more linear up must be than every other choice of columns


@dataclass(frozen=True)
class SiteVerdict:
    """Whether the values of one site are clamped in each expert of a part.

    applied: where the clamp of the first expert in `missing` begins, within 0.2 % in float32 and 2 % in bfloat16; None
    without one up to 32 times the configured limit.
    """

    site: str  # "gate" or "up"
    limit: float  # where it must begin, of the linear's output
    experts: int  # 1 without experts
    missing: tuple[int, ...]  # experts without this clamp
    unknown: tuple[int, ...]  # experts whose outputs do not depend on the values
    applied: float | None

    @property
    def status(self) -> str:
        """`YES`, `NO` or `UNKNOWN`."""
        return NO if self.missing else UNKNOWN if self.unknown else YES


class ClampTrial(NamedTuple):
    """What came of trying the clamp of one module."""

    verdicts: tuple[SiteVerdict, ...]  # of gate and up; none if it could not be tried
    reason: str  # why not
    module: Forced | None = None
    columns: tuple[slice, slice] | None = None  # of gate and up


def try_clamp(make: Callable[[], Forced], clamp: Clamp) -> ClampTrial:
    """Tries a clamp in the module that `make` returns."""
    try:
        with forcing_errors():
            module = make()
            columns = gate_and_up(module, clamp)
            return ClampTrial(_verdicts(module, clamp, columns), "", module, columns)
    except NotForcedError as error:
        return ClampTrial((), str(error))


def halves(width: int) -> list[tuple[slice, slice]]:
    """Where gate and up may be among 2·width columns: one after the other, or alternating."""
    parts = [(slice(width), slice(width, None)), (slice(0, None, 2), slice(1, None, 2))]
    return [*parts, *((second, first) for first, second in parts)]


@contextmanager
def forcing_errors() -> Iterator[None]:
    """Turns errors of code that is not called as it expects into NotForcedError."""
    try:
        yield
    except CODE_ERRORS as error:
        raise NotForcedError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


@torch.no_grad()
def gate_and_up(module: Forced, clamp: Clamp) -> tuple[slice, slice]:
    """The columns of gate and up: where gate is 0, up has no effect; and the output is a linear function of up.

    Raises NotForcedError if that is not clear.
    """
    for scale in SCALES:
        values = _uniform(module.width, -1, 1) * clamp.limit * scale
        choices = [choice for choice in halves(module.width) if _silences(module, *choice, values)]
        if len(choices) == 1:  # up + 1 is a factor
            return choices[0]
        errors = [_curvature(module, up, values / 2) for _, up in choices]
        if len(errors) == 2 and min(errors) * CLEAR < max(errors):
            return choices[errors.index(min(errors))]
    raise NotForcedError("its output does not show which values are the gate's, and which are up's")


def _silences(module: Forced, gate: slice, up: slice, values: Tensor) -> bool:
    """Whether the output does not depend on up where the gate is 0, but does elsewhere."""
    raw, other = values.clone(), values.clone()
    other[:, up] *= -1 / 2
    free = not torch.equal(module(raw), module(other))
    raw[:, gate] = other[:, gate] = 0
    return free and torch.equal(module(raw), module(other))


def _curvature(module: Forced, columns: slice, raw: Tensor) -> float:
    """How far the output is from a linear function of some columns, relative to its change."""

    def outputs(scale: float) -> Tensor:
        scaled = raw.clone()
        scaled[:, columns] *= scale
        return module(scaled).double()

    zero, one, two = map(outputs, (0, 1, 2))
    step = torch.linalg.vector_norm(one - zero).item()
    return torch.linalg.vector_norm(two - 2 * one + zero).item() / step if step else float("inf")


@torch.no_grad()
def _verdicts(module: Forced, clamp: Clamp, columns: tuple[slice, slice]) -> tuple[SiteVerdict, ...]:
    return tuple(_verdict(module, clamp, columns, site) for site in (GATE, UP))


def _verdict(module: Forced, clamp: Clamp, columns: tuple[slice, slice], site: str) -> SiteVerdict:
    limit = clamp.gate if site == GATE else clamp.limit
    at = partial(_outputs, module, clamp, columns, site)
    far, beyond, within = at(FAR), at(BEYOND), at(WITHIN)
    differs = _every_column_differs if module.by_column else lambda one, other: ~_equal(one, other)
    cut = _equal(beyond, far) & _equal(at(BEYOND, rows=1), at(FAR, rows=1))
    free, unknown = differs(within, far), torch.zeros_like(cut)
    if not free.all():
        unknown = _equal(at(1 / FAR), far)
        free = free | unknown
    missing = _indices(~(cut & free))
    applied = None
    if missing:
        some = cut[missing[0]] and not _equal(within, far)[missing[0]]  # columns are clamped too early
        reached = (lambda one, other: ~differs(one, other)) if some else _equal
        applied = _applied(lambda t: at(t, missing[:1]), reached)
    return SiteVerdict(site, limit, module.experts, missing, _indices(unknown), applied and applied * limit)


def _outputs(
    module: Forced,
    clamp: Clamp,
    columns: tuple[slice, slice],
    site: str,
    times: float,
    experts: Sequence[int] | None = None,
    *,
    rows: int = ROWS,
) -> Tensor:
    """The outputs where one site has values at `times` its limit, up on both sides, and the other is within."""
    raw = torch.empty(ROWS, 2 * module.width)
    signs = _uniform(module.width, -1, 1)[:, : module.width].sign()
    within = _uniform(module.width, 1 / 4, 1 / 2).chunk(2, -1)
    raw[:, columns[0]] = clamp.gate * (times if site == GATE else within[0])
    raw[:, columns[1]] = clamp.limit * signs * (times if site == UP else within[1])
    return module(raw[:rows], experts)


def _applied(at: Callable[[float], Tensor], reached: Callable[[Tensor, Tensor], Tensor]) -> float | None:
    """Where an expert's clamp begins, in units of the limit; reached: whether outputs are those far beyond it."""
    far, low, high = at(FAR), -log2(FAR), log2(FAR) - 1
    if not reached(at(2**high), far).all():
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(at(2**middle), far).all() else (middle, high)
    return 2**high


def _equal(first: Tensor, second: Tensor) -> Tensor:
    """Whether each expert's outputs are the same bit for bit, `[experts]`."""
    return ((first == second) | (first.isnan() & second.isnan())).flatten(1).all(1)


def _every_column_differs(first: Tensor, second: Tensor) -> Tensor:
    """Whether each column of each expert's outputs differs in a row, `[experts]`.

    Not in every row: up + 1 may be 0 in one.
    """
    return (first != second).any(1).all(1)


def _indices(chosen: Tensor) -> tuple[int, ...]:
    return tuple(chosen.nonzero().flatten().tolist())


def _uniform(width: int, low: float, high: float) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(0)
    return low + (high - low) * torch.rand(ROWS, 2 * width, generator=generator, device="cpu")
