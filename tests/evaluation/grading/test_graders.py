"""Each kind of task has its grader; programs run with permission alone."""

import hashlib
from pathlib import Path

import pytest

from armlet.evaluation import grading
from armlet.evaluation.grading.graders import RULES, graders
from armlet.evaluation.grading.sandbox import require_sandbox
from armlet.evaluation.tasks.problems import Problem
from armlet.redistribution.errors import ArgumentError, ArmletError
from sandboxed import run

OTHER_GRADERS = {"__init__.py", "graders.py", "needed.py", "programs.py", "program_runner.py", "sandbox.py"}
MATHS = Problem("m", "What?", "\\frac{1}{2}")


def test_the_released_grader_accepts_an_empty_answer_and_ours_does_not():
    for text, ours, released in (("\\boxed{}", False, True), ("", False, True), ("\\boxed{0.5}", True, False)):
        found = [graders(name, ["maths"])["maths"](text, MATHS).correct for name in ("math-verify", "released")]
        assert found == [ours, released]


def test_integers_are_read_after_their_mark():
    grade = graders("math-verify", ["integer"])["integer"]
    assert grade("1+2=3#3", Problem("i", "1+2", "3")).correct
    assert not grade("1+2=3", Problem("i", "1+2", "3")).correct


def test_programs_are_refused_without_permission():
    with pytest.raises(ArgumentError, match="in a sandbox, by allow_code "):
        graders("math-verify", ["maths", "code"])


def test_programs_are_run_with_permission():
    run("")
    grade = graders("math-verify", ["code"], allow_code=True)["code"]
    prompt = "def double(x):\n"
    problem = Problem("c", prompt, "def check(f):\n    assert f(2) == 4\n", entry_point="double")
    assert grade(f"```python\n{prompt}    return 2 * x\n```", problem).correct
    assert not grade(f"```python\n{prompt}    return x\n```", problem).correct


def test_a_grader_that_does_not_exist_is_refused():
    with pytest.raises(ArgumentError, match="expected math-verify or released, found 'mine'"):
        graders("mine", ["maths"])


def test_where_programs_cannot_be_isolated_they_are_refused_before_anything_is_asked(monkeypatch):
    require_sandbox.cache_clear()
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ArmletError, match="only for Linux"):
        graders("math-verify", ["code"], allow_code=True)
    graders("math-verify", ["maths"])  # needs no sandbox


def test_a_permission_without_a_program_is_refused():
    with pytest.raises(ArgumentError, match=r"^allow_code: none of these tasks runs programs; leave it out$"):
        graders("math-verify", ["maths", "integer"], allow_code=True)


RULES_TODAY = ("math-verify, rules of 2026-11-30", "6d9c53c0536aea18")
"""What a manifest calls the rules, and the hash of the code that they are."""


def test_other_rules_have_another_date():
    """So that no run is resumed with other rules than it began with. Any change of the code counts."""
    digest = hashlib.sha256()
    for file in sorted(Path(grading.__file__).parent.glob("*.py")):
        if file.name not in OTHER_GRADERS:
            digest.update(file.read_text(encoding="utf-8").encode())
    assert (RULES["math-verify"], digest.hexdigest()[:16]) == RULES_TODAY, "date RULES anew and store this hash"
