"""A release states one version everywhere, and the workflows call what is there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def steps(workflow):
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        yield from job["steps"]


def make_targets():
    lines = [line for workflow in WORKFLOWS for step in steps(workflow) for line in step.get("run", "").splitlines()]
    words = [word for line in lines if line.startswith("make ") for word in line.split()[1:]]
    return sorted({word for word in words if "=" not in word})


def test_the_newest_version_of_the_changelog_is_the_package_s():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1].split(" - ")[0] == VERSION


def test_the_citation_names_the_version_and_day_of_the_changelog():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    assert f"## {VERSION} - {citation['date-released']}\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("target", make_targets())
def test_workflows_call_targets_that_make_knows(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.stem)
def test_a_workflow_may_only_read_unless_a_job_says_more(workflow):
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.stem)
def test_workflows_name_no_secret(workflow):
    assert "secrets." not in workflow.read_text()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_fields_of_an_issue_form_have_ids_of_their_own(form):
    fields = [field["id"] for field in yaml.safe_load(form.read_text()).get("body", ()) if field["type"] != "markdown"]
    assert len(fields) == len(set(fields))
