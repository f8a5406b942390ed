"""What `armlet bench` found, as tables: ratios first, since seconds are those of one machine on one day."""

from typing import Any

from rich.table import Table

Row = dict[str, Any]


def speed_tables(result: Row) -> list[Table]:
    """The function's table and the model's, as far as they were measured.

    Args:
        result: the content of bench.json.
    """
    found = [_function_table(result)] if result["function"] else []
    return [*found, _model_table(result["model"])] if result["model"] else found


def milliseconds(seconds: float) -> str:
    """Three digits."""
    return f"{1e3 * seconds:.3g} ms"


def ratio(found: Row, of: str) -> str:
    """The median; its quartiles are in bench.json."""
    return f"{found['ratios'][of]['median']:.3g}"


def _function_table(result: Row) -> Table:
    machine = f"{result['machine']['threads']} threads of {result['machine']['processor']}"
    title = f"ARM alone, {result['policy']['name']}, backend {result['backend']}, {machine}"
    other = result["policy"]["name"] != "outward"
    table = Table(title=title, title_justify="left", caption="The literal algorithm is Outward's." if other else None)
    for name in ("width", "tokens", "dtype", "ARM", "× faster than literal", "× SiLU", "× a copy"):
        table.add_column(name, justify="right")
    for row in result["function"]:
        ratios = (ratio(row, of) for of in ("literal / arm", "arm / silu", "arm / copy"))
        table.add_row(
            f"{row['width']:,}", f"{row['tokens']:,}", row["dtype"], milliseconds(row["seconds"]["arm"]), *ratios
        )
    return table


def _model_table(model: Row) -> Table:
    table = Table(title=f"{model['name']}, {model['dtype']}, with ARM and without", title_justify="left")
    for name in ("work", "tokens/s", "with ARM in", "time × \\[quartiles]", "a call"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in model["work"]:
        work = [f"{row['work']} {row['tokens']:,}", f"{row['tokens'] / row['seconds']['without']:.3g}"]
        for label in ("layer 0", "all layers"):
            found = row["ratios"][f"{label} / without"]
            low, high = found["quartiles"]
            call = f"{1e6 * row['calls'][label]['median']:.0f} µs" if "calls" in row else ""
            table.add_row(*work, label, f"{found['median']:.3f} [{low:.3f}, {high:.3f}]", call)
            work = ["", ""]
    return table
