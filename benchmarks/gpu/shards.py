"""A plugin of pytest: runs one of several shares of the tests, and writes each outcome at once, one line of JSON."""

import json
import os
from pathlib import Path

import pytest

SHARD, REPORT = "ARMLET_TEST_SHARD", "ARMLET_TEST_REPORT"
"""The variables with the share, such as 0/6, and with the file."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the tests of this share."""
    index, count = map(int, os.environ[SHARD].split("/"))
    config.hook.pytest_deselected(items=[item for place, item in enumerate(items) if place % count != index])
    items[:] = items[index::count]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Writes the outcome of a test, or of its set-up or end if that went wrong."""
    if report.when == "call" or report.outcome != "passed":
        _write({"test": report.nodeid, "outcome": report.outcome, "message": _message(report)})


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Writes which file could not be imported."""
    if report.failed:
        _write({"test": report.nodeid, "outcome": "failed", "message": _message(report)})


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):  # why it was skipped
        return str(report.longrepr[2])
    return report.longreprtext[-1500:]


def _write(line: dict[str, str]) -> None:
    with Path(os.environ[REPORT]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
