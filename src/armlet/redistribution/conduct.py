"""Checks how a user's policy moves values: what it returns, and that it depends on nothing that it must not."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from armlet.redistribution.built_in import is_user_policy
from armlet.redistribution.errors import ArgumentError, ArmletError, description
from armlet.redistribution.python_file import first_line
from armlet.redistribution.rows import Draw, Policy, Rows

TOKEN_WIDTH = 32  # values of a token of the sample, of which padding removes whole ones
SAMPLE_WIDTH = 512 + 5 * TOKEN_WIDTH  # of the sample; a row has 512 valid values or more
GOLDEN_SHARE = 0.6180339887498949
"""Multiples of it, without their whole parts, are spread evenly over [0, 1)."""

NEAR_RELATIVE, NEAR_ABSOLUTE = 1e-4, 1e-6
"""How near the values of a row alone are to those of the row among others, whose sums may be rounded otherwise."""

Moved = tuple[Tensor, Tensor]


def check_conduct(policy: Policy, label: str) -> None:
    """Raises ArgumentError, in one line that begins with the label, if the policy moves a sample wrongly.

    The sample has rows of normal size, of zeros, of one repeated value, of tiny and of large values, in float32 and
    float64, with and without padding.
    """
    values: Any = policy
    settings = repr([getattr(policy, setting.name) for setting in fields(values)])
    if problem := _problem_with(_Case(type(policy), settings, policy)):
        raise ArgumentError(f"{label}: {problem}")


@dataclass(frozen=True)
class _Case:
    """A policy by the text of its settings, so that 2 and 2.0, which are equal, are two cases."""

    kind: type
    settings: str
    policy: Policy = field(compare=False)


@lru_cache(256)
def _problem_with(case: _Case) -> str | None:
    policy = case.policy
    with torch.device("cpu"), torch.no_grad(), torch.random.fork_rng(devices=[]):
        state = torch.get_rng_state()
        for dtype in (torch.float32, torch.float64):
            for check in CONDUCT_CHECKS:
                try:
                    problem = check(policy, _sample(dtype))
                except Exception as error:  # a user's method may raise anything
                    problem = f"move raised an error ({first_line(error, type(policy).__module__)})"
                if problem:
                    return problem
        used = not torch.equal(state, torch.get_rng_state())
    return "move draws from torch's global generator; take random numbers from draw()" if used else None


def result_problem(rows: Rows, result: object) -> str | None:
    """What is wrong with the type, shape, dtype or device of what `move` returned; cheap, on any device."""
    if not isinstance(result, tuple) or len(result) != 2 or not all(isinstance(part, Tensor) for part in result):
        return f"move must return two tensors, the values and which of them move, found {description(result)}"
    expected = {"values": (result[0], rows.values.dtype), "which values move": (result[1], torch.bool)}
    for part, (tensor, dtype) in expected.items():
        for kind, value, wanted in (
            ("shape", list(tensor.shape), list(rows.values.shape)),
            ("dtype", tensor.dtype, dtype),
            ("device", tensor.device, rows.values.device),
        ):
            if value != wanted:
                return f"move changes the {kind}: expected {wanted} for {part}, found {value}"
    return None


def moved_by(policy: Policy, rows: Rows, draw: Draw) -> Moved:
    """What a policy makes of rows; raises ArgumentError if a user's `move` raises an error, or returns a wrong type."""
    if not is_user_policy(policy):
        return policy.move(rows, draw)
    label = type(policy).__name__
    try:
        result = policy.move(rows, draw)
    except (ArmletError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's method may raise anything
        text = first_line(error, type(policy).__module__)
        raise ArgumentError(f"{label}: move raised an error ({text})") from error
    if problem := result_problem(rows, result):
        raise ArgumentError(f"{label}: {problem}")
    return result


def _returns_what_it_should(policy: Policy, rows: Rows) -> str | None:
    uniforms = _uniforms(rows)
    before, drawn = rows.values.clone(), uniforms.clone()
    result = policy.move(rows, lambda: uniforms)
    if problem := result_problem(rows, result):
        return problem
    if not torch.equal(before, rows.values) or not torch.equal(drawn, uniforms):
        return "move changes values in place; work on a copy"
    values, moved = result
    moved = moved if rows.valid is None else moved & rows.valid
    if not values[moved].isfinite().all():
        number = int((~values[moved].isfinite()).sum())
        return f"move makes NaN or Inf of finite values ({number} of {values.numel()} of a sample)"
    return None


def _repeats_itself(policy: Policy, rows: Rows) -> str | None:
    same = _same(_moved(policy, rows), _moved(policy, rows))
    return None if same else "move gives other values for the same rows; take random numbers from draw()"


def _leaves_strength_to_armlet(policy: Any, rows: Rows) -> str | None:
    ends = []
    for strength in (0.0, 0.5, 1.0):
        try:
            changed = replace(policy, strength=strength)
        except Exception as error:
            return f"strength={strength} is refused ({first_line(error)})"
        ends.append(_moved(changed, rows))
    if all(_same(ends[-1], end) for end in ends):
        return None
    return "move depends on strength; return the values at strength 1, which armlet scales"


def _ignores_padding(policy: Policy, rows: Rows) -> str | None:
    valid = _ragged(rows)
    if problem := _returns_what_it_should(policy, Rows(rows.values, valid)):
        return f"with padding, {problem}"
    results = []
    for padding in (rows.values, torch.full_like(rows.values, 7.0)):
        value, moved = _moved(policy, Rows(torch.where(valid, rows.values, padding), valid))
        results.append((value, moved & valid))
    advice = "leave out what rows.valid excludes"
    return None if _same(*results) else f"padding changes what move makes of valid values; {advice}"


def _keeps_rows_apart(policy: Policy, rows: Rows) -> str | None:
    reason = "which may be those of other requests; take statistics over the last dimension"
    uniforms = _uniforms(rows)
    for valid in (None, _ragged(rows)):
        value, moved = _moved(policy, Rows(rows.values, valid))
        for index in range(len(value)):
            row = slice(index, index + 1)
            alone = Rows(rows.values[row], None if valid is None else valid[row])
            moved_alone = _moved(policy, alone, lambda row=row: uniforms[row])
            if not _near(moved_alone, (value[row], moved[row]), alone):
                return f"a row's values depend on other rows, {reason}"
    return None


def _ignores_the_amount_of_padding(policy: Policy, rows: Rows) -> str | None:
    valid, uniforms = _ragged(rows), _uniforms(rows)
    for index in range(len(rows.values)):
        row, chosen = slice(index, index + 1), valid[index]
        padded = Rows(rows.values[row], valid[row])
        value, moved = _moved(policy, padded, lambda row=row: uniforms[row])
        short = Rows(rows.values[row, chosen], None)
        moved_alone = _moved(policy, short, lambda row=row, chosen=chosen: uniforms[row, chosen])
        if not _near(moved_alone, (value[:, chosen], moved[:, chosen]), short):
            return "the amount of padding changes what move makes of valid values; leave out what rows.valid excludes"
    return None


CONDUCT_CHECKS: tuple[Callable[[Policy, Rows], str | None], ...] = (
    _returns_what_it_should,
    _repeats_itself,
    _leaves_strength_to_armlet,
    _ignores_padding,
    _keeps_rows_apart,
    _ignores_the_amount_of_padding,
)


def _moved(policy: Policy, rows: Rows, draw: Draw | None = None) -> Moved:
    return policy.move(rows, draw or (lambda: _uniforms(rows)))


def _kept(result: Moved) -> Tensor:
    """The values that move, and 0 for the others, of which a policy may return anything."""
    return torch.where(result[1], result[0], 0)


def _same(one: Moved, other: Moved) -> bool:
    return torch.equal(one[1], other[1]) and torch.equal(_kept(one), _kept(other))


def _near(one: Moved, other: Moved, rows: Rows) -> bool:
    """Whether two results are the same but for the rounding of sums, at the valid values of the rows."""
    valid = torch.ones_like(one[1]) if rows.valid is None else rows.valid
    one, other = ((value, moved & valid) for value, moved in (one, other))
    least = NEAR_ABSOLUTE * max(1.0, float(rows.magnitude.max()))
    return torch.equal(one[1], other[1]) and torch.allclose(_kept(one), _kept(other), rtol=NEAR_RELATIVE, atol=least)


def _ragged(rows: Rows) -> Tensor:
    """`[rows, n]`: False for padding, of which each row has another amount, at its begin or at its end, or none."""
    place = torch.arange(rows.values.shape[-1])
    amounts = TOKEN_WIDTH * torch.arange(len(rows.values))[:, None]
    at_begin = torch.arange(len(rows.values))[:, None] % 2 == 0
    return torch.where(at_begin, place >= amounts, place < rows.values.shape[-1] - amounts)


def _uniforms(rows: Rows) -> Tensor:
    count = rows.values.numel()
    return (torch.arange(1, count + 1, dtype=torch.float64) * GOLDEN_SHARE % 1).float().view(rows.values.shape)


def _sample(dtype: torch.dtype) -> Rows:
    """Rows `[6, n]`: of both signs, as after SiLU, tiny, large as float16 allows, zeros, and one repeated value."""
    spread = torch.arange(1, SAMPLE_WIDTH + 1, dtype=torch.float64) * GOLDEN_SHARE % 1
    normal = torch.special.ndtri(spread)
    shaped = torch.nn.functional.silu(3 * normal.flip(0))
    zeros = torch.zeros(SAMPLE_WIDTH, dtype=torch.float64) * normal.sign()  # of both signs
    rows = [normal, shaped, 1e-6 * normal, 2e4 * normal, zeros, torch.full_like(normal, 0.5)]
    return Rows(torch.stack(rows).to(dtype), None)
