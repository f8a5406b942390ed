"""The number of items that a difference needs, as the page on choosing settings states it."""

import re
from pathlib import Path

import pytest

from armlet.statistics.power import detectable, items_for_margin

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "choose_settings.md").read_text(encoding="utf-8")


def table(heading):
    """The shares of discordant items in a table's heading, and its rows, as numbers."""
    (lines,) = re.findall(rf"^\| {heading} \|.*\n(?:\|.*\n)+", PAGE, re.MULTILINE) or [""]
    first, _, *rows = lines.splitlines()
    return [number / 100 for number in numbers(first)], [numbers(row) for row in rows]


def numbers(row):
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,.]*", row)]


@pytest.mark.slow
def test_the_differences_on_the_page_are_what_so_many_items_show():
    shares, rows = table("items")
    assert (len(shares), len(rows)) == (2, 4)
    assert rows == [[n, *(round(100 * detectable(int(n), share), 1) for share in shares)] for n, *_ in rows]


def test_the_numbers_of_items_on_the_page_rule_out_the_margin():
    shares, rows = table("margin")
    assert (len(shares), len(rows)) == (2, 3)
    assert rows == [[margin, *(items_for_margin(margin / 100, share) for share in shares)] for margin, *_ in rows]
