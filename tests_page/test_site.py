"""The site is read as files, without a network: every page fits the window, and search finds what is written."""

import os
import subprocess
import sys

import pytest

from pages import WIDTHS


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    subprocess.run(command, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    return folder


def test_every_page_fits_every_window_and_asks_no_host(site, tab):
    window, wide = tab(offline=True), []
    for file in site.rglob("*.html"):
        if file.name != "404.html":  # which a server sends, with links from its root
            window.page.goto(file.as_uri(), wait_until="domcontentloaded")
            wide += [(file.name, width) for width in WIDTHS.values() if is_wider(window.page, width)]
    assert wide == []
    assert window.hosts == {"a file"}


def is_wider(page, width):
    """Whether the page needs more than this width, so that all of it moves sideways and not a table alone."""
    page.set_viewport_size({"width": width, "height": 900})
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def test_search_works_without_a_server(site, tab):
    page = tab(offline=True).page
    page.goto((site / "index.html").as_uri())
    page.click("input.md-search__input")
    page.keyboard.type("companding")
    page.wait_for_selector(".md-search-result__item a")
    links = [link.get_attribute("href") for link in page.locator(".md-search-result__item a").all()]
    assert any("quantise.html" in link for link in links)
