"""The page of `inspect`: the figure of each policy, computed for a grid of its knobs' values."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from armlet.inspection.command_line import inspect_command
from armlet.inspection.distributions import Window, distributions, full_range
from armlet.inspection.interactive import TRACES, distribution_figure
from armlet.inspection.knob_grids import KnobGrid, knob_grid
from armlet.inspection.prepared import PreparedGates
from armlet.inspection.records import SITE_NAMES, Effect, GateSample, numbered
from armlet.layer.layer_map import layer_map
from armlet.presentation.numbers import short_number, three_digits
from armlet.presentation.page import interactive_page
from armlet.presentation.plots import plain_figure, rounded
from armlet.presentation.progress import Tick, progress
from armlet.redistribution.near_zero import limited_by_share
from armlet.redistribution.policies import SETTING_MEANINGS, policy_text, without_effect
from armlet.redistribution.rows import Policy
from armlet.statistics.shape import MEASURES

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FIXED_TRACES = [index for index, name in enumerate(TRACES * 2) if name == "before"]
RANGED_AXES = ("yaxis", "yaxis2", "yaxis3", "yaxis4")

PAGE_MEASURES = {
    "share_moved": "share of the values that the policy changed (fraction)",
    "largest": "largest |a| (units of the values)",
} | MEASURES

State = dict[str, Any]


def inspection_page(
    sample: GateSample, policies: Sequence[Policy], *, scope: str, seed: int, sentences: Sequence[str]
) -> str:
    """The page as one file of HTML, which needs no network.

    sample, policies, scope, seed: as in `inspect_gates`; sentences: what it says below its title.

    Raises ArgumentError if plotly is not installed, or a policy is not built in.
    """
    grids, grid_states = [*map(knob_grid, policies)], GridStates(PreparedGates(sample, scope, seed))
    figures, states = dict[str, object](), dict[str, State]()
    with progress("computing settings", 2 * sum(len(grid.states()) for grid in grids)) as tick:
        for index, grid in enumerate(grids):
            figures[str(index)], computed = grid_states.compute(grid, str(index), tick)
            states |= computed
    place = {"layer": sample.layer, "activation": sample.activation, "site": sample.site}
    labels = numbered([type(grid.policy).__name__ for grid in grids])
    return interactive_page(
        "armlet.inspection",
        "inspect.html.jinja",
        {"figures": figures, "states": states},
        title=_title(sample),
        sentences=sentences,
        map=layer_map(**place, experts=sample.experts, simplified=bool(sample.read_because)),
        policies=[_controls(grid, label) for grid, label in zip(grids, labels, strict=True)],
        measures=PAGE_MEASURES,
        before=grid_states.before,
    )


def _title(sample: GateSample) -> str:
    layer = "" if sample.layer is None else f", layer {sample.layer}"
    return f"What ARM does to the {SITE_NAMES[sample.site]} of {Path(sample.source).name}{layer}"


def _controls(grid: KnobGrid, label: str) -> dict[str, object]:
    """What the template needs for a policy."""
    knobs = [
        {"name": name, "labels": [f"{value:g}" for value in values], "start": start, "meaning": SETTING_MEANINGS[name]}
        for (name, values), start in zip(grid.knobs.items(), grid.start(), strict=True)
    ]
    return {"label": label, "knobs": knobs}


class GridStates:
    """Computes what the page shows at every setting of a policy's knobs."""

    def __init__(self, prepared: PreparedGates) -> None:
        self.prepared = prepared
        self.before = _texts({**prepared.measured, "largest": float(prepared.before.abs().max())})

    def compute(self, grid: KnobGrid, name: str, tick: Tick) -> tuple[object, dict[str, State]]:
        """The figure of a policy, which the page has under `name`, and its states by key, all on the same axes.

        tick: called twice for each setting.
        """
        policies, window = grid.states(), self.prepared.sample.axis
        for policy in policies.values():
            window = full_range([self.prepared.panel(policy)], window)
            tick()
        figures, states = list["Figure"](), dict[str, State]()
        for place, policy in policies.items():
            effect = self.prepared.effect(policy)
            figures.append(self._figure(effect, window))
            drawing = [name, _changes(figures[-1])]
            states["|".join([name, *map(str, place)])] = {
                "plots": {"plot": drawing},
                "texts": self._state_texts(effect),
            }
            tick()
        return plain_figure(_with_common_axes(figures)), states

    def _figure(self, effect: Effect, window: Window | None) -> "Figure":
        quantity = SITE_NAMES[self.prepared.sample.site]
        return distribution_figure(distributions(effect.panel, window), effect.panel.name, quantity=quantity)

    def _state_texts(self, effect: Effect) -> dict[str, str]:
        run, panel = self.prepared, effect.panel
        texts = _texts({"share_moved": effect.share_moved, **effect.after, "largest": float(abs(panel.after).max())})
        changes = {"largest": "largest |a|", "kurtosis": "excess kurtosis"}
        pairs = [f"{title} {self.before[name]} → {texts[name]}" for name, title in changes.items()]
        return texts | {
            "summary": " · ".join([f"share moved {texts['share_moved']}", *pairs]),
            "plot": f"{panel.name}, {panel.detail}: the values before and after it, all of them and those near zero",
            "command": inspect_command(run.sample.arguments, run.scope, run.seed, policy_text(effect.policy)),
            "remark": self._remark(effect),
        }

    def _remark(self, effect: Effect) -> str:
        """Which settings have no effect, and why."""
        width, token = self.prepared.before.shape[1], self.prepared.scope == "token"
        limit = limited_by_share(effect.policy, effect.share_moved, width) if token else None
        return "; ".join([*without_effect(effect.policy), *([limit] if limit else [])])


def _changes(figure: "Figure") -> dict[int, dict[str, object]]:
    """The heights and curves of a figure's traces by their index, but not of the values before."""
    traces: Any = figure.data
    return {
        index: {name: rounded(trace[name]) for name in ("y", "customdata") if trace[name] is not None}
        for index, trace in enumerate(traces)
        if index not in FIXED_TRACES
    }


def _with_common_axes(figures: list["Figure"]) -> "Figure":
    """The first figure, with vertical axes that show all of the figures."""
    for name in RANGED_AXES:
        lows, highs = zip(*(figure.layout[name].range for figure in figures), strict=True)
        figures[0].layout[name].range = [min(lows), max(highs)]
    return figures[0]


def _texts(measured: dict[str, float]) -> dict[str, str]:
    return {name: three_digits(value) if isfinite(value) else short_number(value) for name, value in measured.items()}
