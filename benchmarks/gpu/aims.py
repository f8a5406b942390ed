"""The aims for ARM's cost on a GPU, each met or missed by what was measured."""

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.models import VARIANTS
from benchmarks.gpu.operations import FUSED
from benchmarks.gpu.times import FUSED_GROUP

DECODE_WIDTH, DECODE_TOKENS, PREFILL_TOKENS = 14_336, 64, 1_024

Measured = tuple[str, float]
"""Where something was measured, and the number."""


def judge(sections: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each aim with its limit, the worst that was measured, where that was, and whether it is met.

    `met` is None where nothing was measured.
    """
    cases = [case for case in sections.get("times", {}).get("cases", []) if case["group"] == FUSED_GROUP]
    models = sections.get("models", {}).get("models", [])
    decoding, prefill = (list(_costs(models, work)) for work in ("decoding", "prefill"))
    return [
        _at_most(6.0, "µs", "decode: 1 to 64 rows × 14,336 take at most 6 µs more than SiLU·up", _differences(cases)),
        _at_least(0.6, "1", "prefill: at least 60 % of the copy's bandwidth", _shares(cases)),
        _at_most(2.0, "%", "all layers cost at most 2 % of a decoded step", decoding),
        _at_most(2.0, "%", "all layers cost at most 2 % of a prefill", prefill),
    ]


def _differences(cases: list[dict[str, Any]]) -> list[Measured]:
    return [
        (where, 1e6 * operation["more than silu·up"]["median"])
        for case in cases
        if case["width"] == DECODE_WIDTH and case["tokens"] <= DECODE_TOKENS
        for where, operation in _fused(case)
    ]


def _shares(cases: list[dict[str, Any]]) -> list[Measured]:
    return [
        (where, operation["share of the copy"]["median"])
        for case in cases
        if case["tokens"] >= PREFILL_TOKENS
        for where, operation in _fused(case)
    ]


def _fused(case: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    shape = f"{case['tokens']:,} tokens × {case['width']:,}, {case['dtype']}"
    for name in FUSED:
        if name in case["operations"]:
            yield f"{name}, {shape}", case["operations"][name]


def _costs(models: list[dict[str, Any]], work: str) -> Iterator[Measured]:
    """By how many percent ARM in all layers makes this work longer."""
    everywhere = [name for name, variant in VARIANTS.items() if variant and variant["layers"] == "all"]
    for model in models:
        for measured in model["work"]:
            for name in everywhere if measured["work"].startswith(work) else ():
                ratio = measured["variants"][name]["time / without"]["median"]
                yield f"{model['model']}, {measured['work']}, {name}", 100 * (ratio - 1)


def _at_most(limit: float, unit: str, aim: str, measured: list[Measured]) -> dict[str, Any]:
    where, worst = max(measured, key=lambda place: place[1], default=(None, None))
    return _judged(aim, limit, unit, where, worst, None if worst is None else worst <= limit)


def _at_least(limit: float, unit: str, aim: str, measured: list[Measured]) -> dict[str, Any]:
    where, worst = min(measured, key=lambda place: place[1], default=(None, None))
    return _judged(aim, limit, unit, where, worst, None if worst is None else worst >= limit)


def _judged(
    aim: str, limit: float, unit: str, where: str | None, worst: float | None, met: bool | None
) -> dict[str, Any]:
    return {"aim": aim, "limit": limit, "worst": worst, "unit": unit, "where": where, "met": met}
