"""The tables of `armlet bench`: mainly ratios, because absolute times depend on the machine and its load."""

from rich.table import Table

from armlet.cost.findings import Measurements, ModelTimes
from armlet.cost.measure import FUNCTION_RATIOS, PLACEMENTS


def cost_tables(cost: Measurements) -> list[Table]:
    """The tables of the function and of the model, if these were measured."""
    tables = [_function_table(cost)] if cost.function else []
    return [*tables, _model_table(cost.model)] if cost.model else tables


def _function_table(cost: Measurements) -> Table:
    """Times and ratios with three digits; the quartiles are in bench.json."""
    name = cost.policy.name
    title = f"ARM's function, {name}, backend {cost.backend}, {cost.processor}"
    caption = None if name == "outward" else "The literal algorithm is Outward's."
    table = Table(title=title, title_justify="left", caption=caption)
    for heading in ("width", "tokens", "dtype", "ARM", "× faster than literal", "× SiLU", "× a copy"):
        table.add_column(heading, justify="right")
    for row in cost.function:
        ratios = [f"{row.ratios[' / '.join(pair)].median:.3g}" for pair in FUNCTION_RATIOS]
        table.add_row(f"{row.width:,}", f"{row.tokens:,}", row.dtype, f"{1e3 * row.seconds['arm']:.3g} ms", *ratios)
    return table


def _model_table(model: ModelTimes) -> Table:
    table = Table(title=f"{model.name}, {model.dtype}, with ARM and without", title_justify="left")
    for heading in ("work", "tokens/s", "with ARM in", "time × \\[quartiles]", "a call"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in model.work:
        work = [f"{row.work} {row.tokens:,}", f"{row.tokens / row.seconds['without']:.3g}"]
        for label in PLACEMENTS:
            ratio = row.ratios[f"{label} / without"]
            low, high = ratio.quartiles
            call = f"{1e6 * row.calls[label].median:.0f} µs" if row.calls else ""
            table.add_row(*work, label, f"{ratio.median:.3f} [{low:.3f}, {high:.3f}]", call)
            work = ["", ""]
    return table
