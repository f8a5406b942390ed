"""A plan from end to end: what is timed, and what Ctrl-C keeps."""

import json

import pytest
import torch

from armlet import Outward
from armlet.cost import timing
from armlet.cost.figures import draw_cost
from armlet.cost.findings import Cost, FunctionRow, ModelTimes, WorkRow
from armlet.cost.measure import Shapes
from armlet.cost.run import CostPlan, measure_cost
from armlet.cost.tables import cost_tables
from armlet.cost.timing import Spread
from axis_labels import unlabelled

SHAPES = Shapes([8], [1, 2], [torch.float32])


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)


def test_only_the_function_is_timed_where_no_model_is_named():
    cost = measure_cost(CostPlan(Outward(), SHAPES, None, turns=2))
    assert [row.tokens for row in cost.function] == [1, 2]
    assert (cost.turns, cost.model, cost.interrupted) == (2, None, False)
    assert cost.to_dict()["policy"]["name"] == "outward"


def test_ctrl_c_keeps_complete_rows_and_times_no_model(monkeypatch):
    rows = list(measure_cost(CostPlan(Outward(), SHAPES, None, turns=2)).function)

    def interrupted(*_, **__):
        yield rows[0]
        raise KeyboardInterrupt

    monkeypatch.setattr("armlet.cost.run.time_function", interrupted)
    monkeypatch.setattr("armlet.cost.run.load", lambda *_, **__: pytest.fail("a model was loaded"))
    cost = measure_cost(CostPlan(Outward(), SHAPES, "some/model", turns=2))
    assert (cost.function, cost.model, cost.interrupted) == (rows[:1], None, True)


@pytest.mark.parametrize("parts", ["function", "model", "both"])
def test_a_figure_and_json_show_what_was_timed(parts):
    ratios = {f"{label} / without": Spread(1.1, (1.0, 1.2)) for label in ("layer 0", "all layers")}
    work = [WorkRow("generate", 48, {}, ratios, ratios), WorkRow("prefill", 48, {}, ratios, None)]
    times = dict.fromkeys(("literal", "arm", "silu", "copy"), 1e-3)
    rows = [FunctionRow(8, 1, dtype, times, {}) for dtype in ("float32", "bfloat16")]
    model = ModelTimes("a/model", "float32", 2, True, work)
    about = ({"threads": 1, "processor": "a processor"}, "2", "cpu", "cpu", 0, Outward())
    cost = Cost(*about, () if parts == "model" else rows, None if parts == "function" else model, False, 2)
    written = json.loads(json.dumps(cost.to_dict()))
    assert (written["model"] is None) == (parts == "function")
    if parts != "function":
        spread = {"median": 1.1, "quartiles": [1.0, 1.2]}
        assert written["model"]["work"][0]["ratios"]["all layers / without"] == spread
        assert ["calls" in row for row in written["model"]["work"]] == [True, False]
    figure = draw_cost(cost)
    figure.draw_without_rendering()
    assert unlabelled(figure) == []
    panels = [axes.get_title() for part in figure.subfigs for axes in part.axes]
    function = ["float32", "bfloat16"]
    assert panels == {"function": function, "model": ["model, float32"], "both": [*function, "model, float32"]}[parts]
    assert "1 thread of a processor" in figure.get_suptitle()


@pytest.mark.parametrize(("ratio", "cell"), [(2.5, "2.5 × faster"), (0.8, "1.25 × slower"), (1.001, "as fast")])
def test_a_table_never_calls_a_slower_function_faster(ratio, cell):
    """`ratio`: the other operation's time divided by ARM's."""
    spread, inverse = Spread(ratio, (ratio, ratio)), Spread(1 / ratio, (1 / ratio, 1 / ratio))
    ratios = {"literal / arm": spread, "arm / silu": inverse, "arm / copy": inverse}
    row = FunctionRow(8, 1, "float32", {"arm": 1e-3}, ratios)
    cost = Cost({"threads": 1, "processor": "p"}, "2", "cpu", "cpu", 0, Outward(), [row], None, False, 2)
    (table,) = cost_tables(cost)
    assert [[*column.cells] for column in table.columns[-3:]] == [[cell]] * 3
