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
        f"```python\ndef twice(x): return []\n```\nNo, this:\n```python\n{WHOLE}```",
        f"from __future__ import annotations\n{WHOLE}",
        f"{WHOLE}\nif __name__ == '__main__':\n    input()\n",
    ],
)
def test_a_completion_is_found_in_what_was_written(completion):
    namespace = {}
    exec(humaneval_program(PROMPT, completion, TEST, "twice"), namespace)
    assert namespace["twice"](3) == [3, 3]


@pytest.mark.parametrize(
    "completion",
    [
        f"{BODY}\nassert twice(4) == [4]\n",
        f"{BODY}\n\ndef twice(x):\n    raise NotImplementedError\n",
        f"{BODY}\n\ndef twice(x):\n    return x\n",  # a model that goes on replaces nothing
        f'{BODY}\n\ndef thrice(x: int) -> List[int]:\n    """Thr',
        f"```python\n{WHOLE}\ndef twice(x): ...\n```",
        f"```python\n{WHOLE}\nrows = int(input())\nfor _ in range(rows):\n    print(twice(int(input())))\n```",
        f"```python\n{WHOLE}\ndef main():\n    while True:\n        print(twice(1))\nmain()\n```",
        f"```python\nimport sys, unittest\n{WHOLE}\nunittest.main()\nsys.exit(3)\n```",
        f"```python\nimport no_such_module\n{WHOLE}\nno_such_module.plot(twice(5))\n```",
        f"```python\nfrom no_such_module import *\n{WHOLE}```",
        f"{WHOLE}\n\nTry it:\n```python\nprint(twice(int(input())))\n```",
        f"{BODY}\n```python\nprint(twice(6))\n```",
        f" Sure\n\n{WHOLE}",
        f"import of nothing is needed.\nclass dismissed: here it is\n\n{WHOLE}",
        f"Draft:\n\ndef twice(x):\n    return 2 * x\n\nThat is no list. So:\n\n{WHOLE}",
        f"<think>\n```python\ndef twice(x):\n    return 2 * x\n```\n</think>\n{WHOLE}",
        f"def twice(x): maybe\n</think>\n```python\n{WHOLE}```",
        f"```python\n{WHOLE}\ndef main(",
        "```python\ndef pair(x):\n    return [x, x]\n```\nand\n```python\ndef twice(x):\n    return pair(x)\n```",
        "```python\ndef twice(x):\n    return pair(x)\n```\nwith\n```python\ndef pair(x):\n    return [x, x]\n```",
        "```python\nclass Pairs:\n    def twice(self, x):\n        return [x, x]\ntwice = Pairs().twice\n```",
    ],
)
def test_only_the_function_counts_whatever_else_a_model_wrote(completion):
    namespace = {}
    exec(humaneval_program(PROMPT, completion, TEST, "twice"), namespace)
    assert namespace["twice"](3) == [3, 3]


@pytest.mark.parametrize(
    "completion",
    [
        f"```python\n{WHOLE}```\nBetter:\n```python\ndef twice(x):\n    return 2 * x\n```",
        f"<think>\n```python\n{WHOLE}```",  # a thought that never ends is no answer
        "```python\ndef twice(x):\n    return []\ndef check(candidate):\n    pass\n```",
        "```python\nclass Solution:\n    def twice(self, x):\n        return [x, x]\n```",
        f"```python\n{WHOLE}\nraise ValueError\n```",
        f"```python\n{WHOLE}\ndel twice\n```",
        "```python\nimport sys\ndef twice(x):\n    return []\nsys.modules[__name__] = None\n```",
    ],
)
def test_a_wrong_function_does_not_pass_whatever_else_a_model_wrote(completion):
    assert not run(humaneval_program(PROMPT, completion, TEST, "twice")).passed


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
