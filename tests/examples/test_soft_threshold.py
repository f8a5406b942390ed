"""The example of a policy of one's own runs by the command of its docstring, and its page shows it as it is."""

import shlex
import tomllib

import pytest

from command_line import run
from user_policies import EXAMPLE, TARGET

ROOT = EXAMPLE.parents[1]
PAGE = ROOT / "docs" / "howto" / "own_policy.md"


def blocks(language):
    """The code blocks of the page in a language."""
    return [block.partition("```")[0] for block in PAGE.read_text().split(f"```{language}\n")[1:]]


@pytest.mark.slow
def test_the_command_of_its_docstring_runs(tmp_path, monkeypatch):
    (line,) = (line for line in EXAMPLE.read_text().splitlines() if line.startswith("Run: armlet "))
    monkeypatch.chdir(ROOT)
    code, out, _ = run(*shlex.split(line)[2:], "--out", tmp_path)
    assert code == 0
    assert "SoftThreshold" in out
    assert (tmp_path / "inspect.png").exists()


def test_the_page_shows_the_example_as_it_is():
    code = EXAMPLE.read_text().partition('"""\n\n')[2]
    assert blocks("python")[0] == code
    body = code[code.index("@dataclass") :]
    assert len([line for line in body.splitlines() if line.strip() and '"""' not in line]) <= 20


def test_the_page_packages_the_example_as_the_tests_install_it():
    content = tomllib.loads(blocks("toml")[0])
    project = content["project"]
    assert content["tool"]["setuptools"]["py-modules"] == [EXAMPLE.stem]
    assert project["entry-points"]["armlet.policies"] == {"soft_threshold": TARGET}
    assert (project["name"], project["version"]) == ("soft-threshold", "0.1")
