"""Numbers as tables and JSON show them."""

from collections.abc import Mapping
from math import isfinite, isnan

NUMBER_WIDTH = 8  # characters at most, so that the columns of three policies fit 80 characters


def short_number(value: float, *, signed: bool = False) -> str:
    """Three significant digits, or two where three do not fit `NUMBER_WIDTH`; `--json` has them all. NaN is "-"."""
    if isnan(value):
        return "-"
    sign = "+" if signed else ""
    text = f"{value:{sign}.3g}"
    return text if len(text) <= NUMBER_WIDTH else f"{value:{sign}.2g}"


def finite_or_none(values: Mapping[str, object]) -> dict[str, object]:
    """The same values, None in place of NaN and Infinity, which JSON cannot express."""
    return {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in values.items()}
