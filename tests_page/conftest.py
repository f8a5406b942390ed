"""A real browser: the system's Chromium, through playwright, with what a page said and asked for."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
QUIET = [
    "--no-sandbox",  # Chromium refuses to run as root with its sandbox; it opens pages of this repository alone
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
AXE = Path(".venv/axe-core/package/axe.min.js")


@pytest.fixture(scope="session")
def browser():
    """The browser, for all tests."""
    program = next((path for path in CHROMIUM if Path(path).exists()), None)
    assert program, "no Chromium: make test-page installs it, or apt install chromium"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield opened
        opened.close()


class Tab:
    """A page in the browser, which remembers its console errors and the hosts that it asked."""

    def __init__(self, browser, width=1440, **options):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page = self.context.new_page()
        self.errors, self.hosts = [], set()
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname or "a file"))

    def serious_violations(self):
        """What axe-core calls serious or critical: rule and elements."""
        script = Path(os.environ.get("ARMLET_AXE", AXE))
        assert script.exists(), f"{script} is missing: make test-page installs axe-core"
        self.page.add_script_tag(path=script)
        result = self.page.evaluate("axe.run()")
        serious = [rule for rule in result["violations"] if rule["impact"] in ("serious", "critical")]
        return [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in serious]


@pytest.fixture
def tab(browser):
    """A function that opens a tab of a width; at the end, no tab may have had an error."""
    tabs = []

    def make(width=1440, **options):
        tabs.append(Tab(browser, width, **options))
        return tabs[-1]

    yield make
    for opened in tabs:
        opened.context.close()
        assert opened.errors == []
