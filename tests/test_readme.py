"""The README's code, names and links are right."""

import ast
import re
from pathlib import Path

import pytest

import armlet

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_readmes_python_runs_and_prints_what_it_says(smollm2_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "".join(re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
    exec(code.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(smollm2_folder)), {})
    (shown,) = re.findall(r"# (\{0: .*\})", code)
    lines = capsys.readouterr().out.strip().splitlines()
    report, shapes = (
        ast.literal_eval(line) for line in (*(line for line in lines if line.startswith("{0:")), lines[-1])
    )
    assert (tmp_path / "my-report" / "report.html").is_file()
    # Another processor rounds gates otherwise, and a value at the edge may move there and not here.
    assert report[0] == pytest.approx(ast.literal_eval(shown)[0], rel=0.01)
    (named,) = re.findall(r"# (x, RMSNorm_1.*), \.\.\., (.*, y)", code)
    names = [name for part in named for name in part.split(", ")]
    assert [name for name in shapes if name in names] == names
    assert shapes["gate"] == (1, 5, 1536)


def test_the_table_of_public_names_is_all_of_them():
    table = README.partition("## Public names")[2].partition("\n\n[docs")[0]
    assert [name for name in armlet.__all__ if f"`{name}" not in table] == []


def test_every_link_leads_somewhere():
    root = Path(__file__).parents[1]
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert "LOG.md" in links
    assert [link for link in links if not (root / link).exists()] == []
