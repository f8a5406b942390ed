"""The table of `armlet conform`, and what it says in sentences."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from armlet.attachment.sites import GATE, PRODUCT, UP
from armlet.bounds.conform_checks import PartCheck
from armlet.bounds.conform_natural import LINEAR_GATE
from armlet.bounds.conform_probe import FAR, NO, SiteVerdict
from armlet.presentation.numbers import DASH, three_digits
from armlet.presentation.tables import titled_table

NAMED = 4  # parts, or experts, that a sentence names
USE = (
    "linear gate: the output of the linear gate; gate: the activated gate; up: the output of up; product: the input of "
    "down; largest magnitudes for the prompts. beyond: the share of values of gate and of up that the clamp must "
    "change. applied: whether values of up to {far} times the limit, set in place of the linears' outputs, are clamped "
    "there, in every expert."
)
NO_CLAMP = "the configuration names no clamp, and none is checked"


def conform_table(parts: Sequence[PartCheck], model: str) -> Table:
    """A row for each part."""
    clamped = any(part.clamp for part in parts)
    columns = ("layer", "part", GATE, UP, PRODUCT)
    if clamped:
        columns = ("layer", "part", "limit", LINEAR_GATE, GATE, UP, PRODUCT, "gate\nbeyond", "up\nbeyond", "applied")
    title = f"Clamps of {model}" if clamped else f"Largest values of {model}"
    table = titled_table(title, columns, USE.format(far=f"{FAR:g}") if clamped else "")
    table.columns[0].justify = "right"
    table.columns[1].justify = "left"
    if clamped:
        table.columns[-1].justify = "left"
    for part in parts:
        if not clamped:
            table.add_row(str(part.layer), part.kind, *(_value(part.largest.get(name)) for name in (GATE, UP, PRODUCT)))
            continue
        limit = three_digits(part.clamp.limit) if part.clamp else DASH
        values = [_value(part.largest.get(name)) for name in (LINEAR_GATE, GATE, UP, PRODUCT)]
        shares = [_share(part.shares.get(site)) for site in (GATE, UP)]
        table.add_row(str(part.layer), part.kind, limit, *values, *shares, _applied(part))
    return table


def _value(value: float | None) -> str:
    return DASH if value is None else three_digits(value)


def _share(share: float | None) -> str:
    return DASH if share is None else f"{share:.2g}"


def _applied(part: PartCheck) -> str:
    if part.status is None:
        return DASH
    sites = [verdict.site for verdict in part.verdicts if verdict.status == part.status]
    return f"NO: {' and '.join(sites)}" if part.status == NO else part.status


def conform_sentences(parts: Sequence[PartCheck]) -> list[str]:
    """The warnings, or that all clamps are applied, or that the configuration has none."""
    clamped = [part for part in parts if part.clamp]
    if not clamped:
        return [NO_CLAMP]
    if warnings := failures(parts):
        return warnings
    return [f"all clamps of the configuration are applied: gate and up in {len(clamped)} of {len(clamped)} MLPs"]


def failures(parts: Sequence[PartCheck]) -> list[str]:
    """A sentence about missing clamps for all parts together, and one for each reason why some are not verified."""
    missing, clamped = [part for part in parts if part.status == NO], sum(part.clamp is not None for part in parts)
    sentences = list[str]()
    if missing:
        places = _named([f"{part.name} ({_missing(part)})" for part in missing])
        sentences.append(f"DOES NOT CONFORM: {len(missing)} of {clamped} MLPs do not apply their clamp: {places}")
    unverified = dict[str, list[str]]()
    for part in parts:
        for reason in _unknown(part):
            unverified.setdefault(reason, []).append(part.name)
    return [*sentences, *(f"NOT VERIFIED: {_named(names)}: {reason}" for reason, names in unverified.items())]


def _missing(part: PartCheck) -> str:
    return "; ".join(_site(verdict, part.kind) for verdict in part.verdicts if verdict.missing)


def _site(verdict: SiteVerdict, kind: str) -> str:
    limit = "no clamp" if verdict.applied is None else f"a clamp at {verdict.applied:.3g}"
    experts = f" in {_experts(verdict.missing, verdict.experts)}" if kind == "routed" else ""
    first = ", in the first" if verdict.applied and len(verdict.missing) > 1 else ""
    return f"{verdict.site}: {limit}{first} instead of {verdict.limit:.3g}{experts}"


def _experts(indices: Sequence[int], count: int) -> str:
    if len(indices) == count:
        return "all experts"
    return f"expert{'s' if len(indices) > 1 else ''} {_named(list(map(str, indices)))}"


def _unknown(part: PartCheck) -> Iterable[str]:
    if part.status is not None and not part.verdicts:
        yield part.reason
    for verdict in part.verdicts:
        if verdict.unknown:
            where = f" of {_experts(verdict.unknown, verdict.experts)}" if part.kind == "routed" else ""
            yield f"the output{where} does not depend on {verdict.site}"


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
