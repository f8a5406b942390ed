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
    for name in ("work", "tokens", "tokens per second", "with", "× without", "quartiles", "one call of ARM"):
        table.add_column(name, justify="right")
    for row in model["work"]:
        speed = f"{row['tokens'] / row['seconds']['without']:.3g}"
        for label, first in (("layer 0", [row["work"], f"{row['tokens']:,}", speed]), ("all layers", ["", "", ""])):
            low, high = row["ratios"][f"{label} / without"]["quartiles"]
            call = row["calls"][label]["median"] if "calls" in row else None
            table.add_row(
                *first,
                label,
                f"{row['ratios'][f'{label} / without']['median']:.3f}",
                f"{low:.3f} to {high:.3f}",
                "" if call is None else f"{1e6 * call:.0f} µs",
            )
    return table
