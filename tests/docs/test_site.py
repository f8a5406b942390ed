"""The site is built without a warning, and asks no other host for anything."""

import re
import subprocess
import sys

import pytest

from doc_blocks import ROOT

pytestmark = pytest.mark.slow

LOADED = re.compile(r"<(?:script|img|iframe|source)[^>]* src=\"([^\"]*)\"|<link[^>]* href=\"([^\"]*)\"")


def test_the_site_is_strict_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = [*tmp_path.rglob("*.html")]
    assert len(pages) > 20
    assert {
        address for page in pages for address in loaded(page.read_text(encoding="utf-8")) if "//" in address
    } == set()
    assert (tmp_path / "search" / "search_index.js").is_file()  # what search reads where there is no server


def loaded(page):
    """The addresses of what a browser loads with a page."""
    return ["".join(groups) for groups in LOADED.findall(page)]


def test_what_is_loaded_from_elsewhere_is_found():
    page = '<script async src="https://a/b.js"></script><link rel="x" href="//c"><a href="https://d">'
    assert loaded(page) == ["https://a/b.js", "//c"]
