"""The number of items that a difference needs, as the page on choosing settings states it."""

import re
from pathlib import Path

import pytest

from armlet.statistics.power import detectable, items_for_margin

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "choose_settings.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^\| ([\d,]+) \| ([\d.]+) points \| ([\d.]+) points \|$", PAGE, re.MULTILINE)
RULED_OUT = re.findall(r"^\| (\d+) points \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)
DISCORDANT = (0.05, 0.2)  # of the two columns


def number(text):
    return float(text.replace(",", ""))


@pytest.mark.slow
@pytest.mark.parametrize("row", SHOWN, ids=str)
def test_the_differences_on_the_page_are_what_so_many_items_show(row):
    items, *points = map(number, row)
    assert points == [round(100 * detectable(int(items), share), 1) for share in DISCORDANT]


@pytest.mark.parametrize("row", RULED_OUT, ids=str)
def test_the_numbers_of_items_on_the_page_rule_out_the_margin(row):
    margin, *items = map(number, row)
    assert items == [items_for_margin(margin / 100, share) for share in DISCORDANT]
