"""The tables of `armlet bench`: mainly ratios, because absolute times depend on the machine and its load."""

from collections.abc import Mapping

from rich.table import Table

from armlet.cost.findings import Measurements, ModelTimes
from armlet.cost.measure import PLACEMENTS
from armlet.cost.timing import Spread
from armlet.presentation.numbers import three_digits
from armlet.presentation.tables import titled_table

SPEED_COLUMNS = {"literal": "vs literal", "silu": "vs only SiLU", "copy": "vs a copy"}
"""The headings of ARM's speed compared with other operations, by the operation's name."""


def cost_tables(cost: Measurements) -> list[Table]:
    """The tables of the function and of the model, if these were measured."""
    tables = [_function_table(cost)] if cost.function else []
    return [*tables, _model_table(cost.model)] if cost.model else tables


def _function_table(cost: Measurements) -> Table:
    """Times and ratios with three digits; the quartiles are in bench.json."""
    name = cost.policy.name
    title = f"ARM's function, {name}, backend {cost.backend}, {cost.processor}"
    caption = "median ratios of times: ARM is faster or slower than the literal algorithm, only SiLU, or a copy"
    caption += "" if name == "outward" else "; the literal algorithm is Outward's"
    table = titled_table(title, ("width", "tokens", "dtype", "ARM", *SPEED_COLUMNS.values()), caption)
    table.columns[0].justify = "right"
    for row in cost.function:
        speeds = [_speed(row.ratios, operation) for operation in SPEED_COLUMNS]
        milliseconds = three_digits(1e3 * row.seconds["arm"])
        table.add_row(f"{row.width:,}", f"{row.tokens:,}", row.dtype, f"{milliseconds} ms", *speeds)
    return table


def _speed(ratios: Mapping[str, Spread], operation: str) -> str:
    """ARM's speed compared with an operation, such as "2.5 × faster", from the ratio of their times in either order."""
    if f"{operation} / arm" in ratios:
        times = ratios[f"{operation} / arm"].median
    else:
        times = 1 / ratios[f"arm / {operation}"].median
    factor = three_digits(max(times, 1 / times))
    return "as fast" if factor == "1" else f"{factor} × {'faster' if times > 1 else 'slower'}"


def _model_table(model: ModelTimes) -> Table:
    caption = "time × without: the time with ARM divided by the time without it, median [quartiles]"
    headings = ("work", "tokens/s", "with ARM in", "time × without", "a call")
    table = titled_table(f"{model.name}, {model.dtype}, with ARM and without", headings, caption)
    table.repeated = 3  # up to the layers
    for row in model.work:
        work = [f"{row.work} {row.tokens:,}", three_digits(row.tokens / row.seconds["without"])]
        for label in PLACEMENTS:
            ratio = row.ratios[f"{label} / without"]
            low, high = ratio.quartiles
            call = f"{1e6 * row.calls[label].median:.0f} µs" if row.calls else ""
            table.add_row(*work, label, f"{ratio.median:.3f} [{low:.3f}, {high:.3f}]", call)
            work = ["", ""]
    return table
