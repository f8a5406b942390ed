"""What the README shows, runs."""

import ast
import re
from pathlib import Path

import pytest

import armlet

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_readmes_python_runs_and_prints_what_it_says(smollm2_folder, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(code.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(smollm2_folder)), {})
    (shown,) = re.findall(r"# (\{0: .*\})", code)
    printed = capsys.readouterr().out.strip().splitlines()[-1]
    # Another processor rounds gates otherwise, and a value at the edge may move there and not here.
    assert ast.literal_eval(printed)[0] == pytest.approx(ast.literal_eval(shown)[0], rel=0.01)


def test_the_table_of_public_names_is_all_of_them():
    table = README.partition("## Public names")[2].partition("\n\n[docs")[0]
    assert [name for name in armlet.__all__ if f"`{name}" not in table] == []


def test_every_link_leads_somewhere():
    root = Path(__file__).parents[1]
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert "LOG.md" in links
    assert [link for link in links if not (root / link).exists()] == []
