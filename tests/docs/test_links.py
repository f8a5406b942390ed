"""The links of the pages in the root lead somewhere, as `make docs` checks for docs/; and each page is on the site."""

import re

import pytest

from doc_blocks import ROOT

PAGES = sorted(file.name for file in ROOT.glob("*.md"))
LINK = re.compile(r"(?<!`)\]\(<?([^)\s>]+)>?\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(name):
    assert dead_links(ROOT / name) == []


def dead_links(page):
    """The links of a page to files and headings that do not exist."""
    links = [link for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))) if "://" not in link]
    return [link for link in links if not link.startswith("mailto:") and not leads_somewhere(page, link)]


def leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))


def anchors(text):
    """The names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_on_the_site():
    stated = set(re.findall(r"^ +- .*: ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert stated == {str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs").rglob("*.md")}


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.md").write_text("# A `b`, c\n[1](#a-b-c) [2](#b) [3](b.md) [4](a.md#a-b-c) [5](https://example.org)")
    assert dead_links(tmp_path / "a.md") == ["#b", "b.md"]
