"""Formats numbers for tables, sentences and JSON."""

from collections.abc import Mapping
from math import isfinite, isnan

DASH = "–"  # shown for a missing number
NUMBER_WIDTH = 8  # characters at most, so that the columns of three policies fit 80 characters


def short_number(value: float, *, signed: bool = False) -> str:
    """Three significant digits, or two if three do not fit `NUMBER_WIDTH`; "-" for NaN. `--json` has all digits."""
    if isnan(value) or not value:
        return "-" if value else "0"  # zero has no sign
    sign = "+" if signed else ""
    text = f"{value:{sign}.3g}"
    return text if len(text) <= NUMBER_WIDTH else f"{value:{sign}.2g}"


def three_digits(value: float) -> str:
    """Three significant digits, without an exponent below a million: "22,200", "8.13", "0.00915"."""
    return f"{float(f'{value:.3g}'):,g}"


def finite_or_none(values: Mapping[str, object]) -> dict[str, object]:
    """Replaces NaN and Infinity, which JSON cannot express, by None."""
    return {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in values.items()}


def percent(share: float | None) -> str:
    """A fraction in percent."""
    return DASH if share is None else f"{100 * share:.1f}\u00a0%"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, signed unless it rounds to zero."""
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def with_points(size: float) -> str:
    """A size of a difference of fractions, such as "1 point" or "2.5 points"."""
    number = f"{100 * size:g}"
    return f"{number} point{'' if number == '1' else 's'}"


def bounds(low: float | None, high: float | None) -> tuple[str, str]:
    """Both bounds of an interval in percentage points; None is an infinite bound."""
    return "−∞" if low is None else points(low), "+∞" if high is None else points(high)


def interval_text(low: float | None, high: float | None) -> str:
    """An interval in percentage points, in brackets."""
    return f"[{', '.join(bounds(low, high))}]"


def difference_text(difference: float, low: float | None, high: float | None) -> str:
    """A difference with its interval, in percentage points."""
    return f"{points(difference)} {interval_text(low, high)}"


def detectable_points(difference: float | None) -> str:
    """A smallest detectable difference in points; None is that no difference can be detected."""
    return "none, too few items" if difference is None else f"{100 * difference:.1f} points"


def probability(value: float | None) -> str:
    """A p-value."""
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def with_count(number: int, thing: str) -> str:
    """A number with its noun, such as "1 item" or "2,000 items"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
