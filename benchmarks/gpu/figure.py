"""The figure of a run: what a fused call costs, its share of a copy's bandwidth, and what ARM costs whole models."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.models import VARIANTS, WITHOUT
from benchmarks.gpu.operations import COPY, FUSED, REFERENCE
from benchmarks.gpu.times import FUSED_GROUP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DTYPE = "bfloat16"
NAMES = {"outward": "Outward", "inward": "Inward", "inward, limit": "Inward", "cut": "Cut"}
DASHED = "inward, limit"


def draw(content: dict[str, Any], folder: Path) -> list[str]:
    """Draws gpu.png and gpu.svg into the folder; returns their paths, or without matplotlib what to do."""
    if find_spec("matplotlib") is None:
        return ["not drawn: matplotlib is not installed; elsewhere: make gpu FIGURE=gpu.json"]
    from matplotlib.figure import Figure

    from armlet.presentation.style import save, style

    with style():
        figure = Figure(figsize=(9.0, 2.8), layout="constrained")
        times, shares, models = figure.subplots(1, 3, width_ratios=(2, 2, 1.2))
        cases = _cases(content)
        _draw_lines(times, cases, "seconds", 1e6, "µs", (COPY, REFERENCE))
        times.set_yscale("log")
        _draw_lines(shares, cases, "share of the copy", 1.0, "share of the copy's bandwidth", (REFERENCE,))
        _draw_models(models, content)
        figure.suptitle(_title(content, cases), fontsize=8)
    return [str(path) for path in save(figure, folder, "gpu")]


def _cases(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The fused cases of the first width that was measured, in bfloat16, by tokens."""
    cases = content["sections"].get("times", {}).get("cases", [])
    fused = [case for case in cases if case["group"] == FUSED_GROUP and case["dtype"] == DTYPE]
    first = [case for case in fused if case["width"] == fused[0]["width"]]
    return sorted(first, key=lambda case: case["tokens"])


def _title(content: dict[str, Any], cases: list[dict[str, Any]]) -> str:
    card = (content["gpu"] or {}).get("name", "no GPU: times of an interpreter, which mean nothing")
    return f"{card}; width {cases[0]['width']:,}, {DTYPE}, fused with SiLU and up" if cases else card


def _draw_lines(
    axes: "Axes", cases: list[dict[str, Any]], quantity: str, unit: float, label: str, references: tuple[str, ...]
) -> None:
    from armlet.presentation.style import COLOURS, GREY

    for name in (*references, *FUSED):
        measured = [case for case in cases if name in case["operations"]]
        values = [unit * case["operations"][name][quantity]["median"] for case in measured]
        colour = COLOURS[NAMES[name]] if name in NAMES else GREY
        line = "--" if name in (DASHED, COPY) else "-"
        axes.plot([case["tokens"] for case in measured], values, line, color=colour, label=name, lw=1, marker=".", ms=4)
    axes.set_xscale("log")
    axes.set_xlabel("tokens")
    axes.set_ylabel(label)
    axes.legend(frameon=False)


def _draw_models(axes: "Axes", content: dict[str, Any]) -> None:
    from armlet.presentation.style import COLOURS

    rows = [
        (f"{model['model'].removesuffix('-shaped')}, {work['work']}: {name}", name, work["variants"][name])
        for model in content["sections"].get("models", {}).get("models", [])
        for work in model["work"]
        for name in VARIANTS
        if name != WITHOUT
    ]
    for place, (_, name, row) in enumerate(rows):
        percent = 100 * (row["time / without"]["median"] - 1)
        axes.barh(place, percent, color=COLOURS[name.partition(" ")[0].strip(",").capitalize()])
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows], fontsize=5)
    axes.invert_yaxis()
    axes.set_xlabel("% more time")
