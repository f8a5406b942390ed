"""A release states one version everywhere, and the workflows call what is there."""

import re
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from tests_install.distribution import SHIPPED, FaultError, check_wheel
from tests_install.uses import EXTRAS

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
METADATA = "Name: armlet\nLicense-Expression: Apache-2.0\nLicense-File: LICENSE\n"


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


def wheel_of(folder, names=(), metadata=METADATA, licence="armlet-1.dist-info/licenses/LICENSE"):
    wheel = folder / "armlet-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("armlet-1.dist-info/METADATA", metadata)
        for name in (*SHIPPED, *names, licence):
            archive.writestr(name, "")
    return wheel


def test_a_wheel_with_its_files_and_its_licence_passes(tmp_path):
    check_wheel(wheel_of(tmp_path))


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("has", {"names": ["tests/test_attach.py"]}),
        ("has", {"names": ["armlet/tests/test_attach.py"]}),
        ("License-Expression", {"metadata": METADATA.replace("Apache-2.0", "MIT")}),
        ("PEP 639", {"metadata": METADATA + "License: Apache\n"}),
        ("no LICENSE", {"licence": "armlet/LICENSE"}),
    ],
)
def test_a_wheel_with_a_fault_is_refused(tmp_path, fault, change):
    with pytest.raises(FaultError, match=fault):
        check_wheel(wheel_of(tmp_path, **change))


def test_every_extra_that_users_install_is_tried():
    assert set(EXTRAS) == set(PROJECT["optional-dependencies"]) - {"dev", "docs"}
