"""Numbers as tables show them."""

from math import isnan

CELL = 8
"""Characters of a number, so that three policies fit 80 columns."""


def short_number(value: float, *, signed: bool = False) -> str:
    """Three digits, for reading, or two where three do not fit `CELL`; `--json` has them all."""
    if isnan(value):
        return "-"
    sign = "+" if signed else ""
    text = f"{value:{sign}.3g}"
    return text if len(text) <= CELL else f"{value:{sign}.2g}"
