"""HumanEval: the code in what a model wrote is found, and its tests decide."""

import json
import textwrap
import time

import pytest

from armlet.evaluation.grading.programs import humaneval_program
from sandboxed import run

PROMPT = (
    'from typing import List\n\ndef helper(x):\n    return x\n\ndef twice(x: int) -> List[int]:\n    """Twice."""\n'
)
TEST = "def check(candidate):\n    assert candidate(2) == [2, 2]\n"
BODY = "    if x:\n        return [helper(x)] * 2\n    return []\n"
WHOLE = "def twice(x):\n" + BODY


@pytest.mark.parametrize(
    "completion",
    [
        BODY,
        BODY.lstrip(),
        "if x:\n    return [helper(x)] * 2\nreturn []",
        WHOLE,
        PROMPT + BODY,
        f"```python\n{WHOLE}```",
        f"Here it is:\n\n```python\n{WHOLE}\n```\nIt calls `helper`.\n",
        f"```\n{BODY}```",
        f"{BODY}```\n\nThat is all.",
        f"```py\n{WHOLE}",  # cut short behind the code
        f"```python\nprint('an example')\n```\n and so\n```python\n{WHOLE}```",
        f"The function is:\n{WHOLE}",
        f"The function is:\n{WHOLE}\nIt returns [x, x] twice.\n",
        f"~~~python\n{WHOLE}~~~",
        f"1. So:\n    ```python\n{textwrap.indent(WHOLE, '    ')}    ```\n",
        "twice = lambda x: [x, x]",
        BODY.replace("    ", "\t"),
        BODY.replace("    ", "  "),
        BODY[3:],  # a token's own space is left of the indentation
        f"{BODY}\nIt returns [x, x] twice.\n",
        f"{BODY}\nprint(twice(3))\n",
        f'```python\ndef twice(x):\n    """Twice.\n    ```\n    twice(3)\n    ```\n    """\n{BODY}```',
        f"```python\n{WHOLE}```\nTry it:\n```python\ndef twice(x): return []\n```",
        f"from __future__ import annotations\n{WHOLE}",
        f"{WHOLE}\nif __name__ == '__main__':\n    input()\n",
    ],
)
def test_a_completion_is_found_in_what_was_written(completion):
    namespace = {}
    exec(humaneval_program(PROMPT, completion, TEST, "twice"), namespace)
    assert namespace["twice"](3) == [3, 3]


@pytest.mark.parametrize("completion", ["", "    return None", "I cannot.", "```python\n```", "    return [x]\n"])
def test_a_completion_that_does_not_solve_it_fails(completion):
    with pytest.raises((AssertionError, SyntaxError)):
        exec(humaneval_program(PROMPT, completion, TEST, "twice"), {})


@pytest.mark.parametrize(
    ("completion", "reason"),
    [(BODY, "passed"), ("    raise SystemExit\n", "ended early"), ("    return None\n", "failed")],
)
def test_a_completion_is_checked_in_the_sandbox(completion, reason):
    assert run(humaneval_program(PROMPT, completion, TEST, "twice")).reason == reason


@pytest.mark.slow
def test_canonical_solutions_pass_and_none_fails(shared):
    """Every twelfth row; all 164 pass, and with `return None` all fail (17 s each on two cores)."""
    rows = [json.loads(line) for line in (shared / "data" / "humaneval.jsonl").read_text().splitlines()][::12]
    for row in rows:
        head, tail = row["prompt"], (row["test"], row["entry_point"])
        for completion, reason in ((row["canonical_solution"], "passed"), ("    return None\n", "failed")):
            program = humaneval_program(head, completion, *tail)
            assert run(program, seconds=10).reason == reason, row["task_id"]


def test_an_answer_of_many_lines_is_read_in_bounded_time():
    longest = f"{WHOLE}\n" + "and so on\n" * 20_000
    start = time.process_time()
    humaneval_program(PROMPT, longest, TEST, "twice")
    assert time.process_time() - start < 60  # a try for each line would take hours
