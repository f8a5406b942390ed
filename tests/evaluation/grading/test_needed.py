"""Of a program, what one function needs is kept, and nothing else."""

import pytest

from armlet.evaluation.grading.needed import implements, needed_part

FUNCTION = "def area(w, h):\n    return w * h\n"


def value(source, *arguments):
    namespace = {"__name__": "solution"}
    exec(needed_part(source, "area"), namespace)
    return namespace["area"](*arguments)


@pytest.mark.parametrize(
    "source",
    [
        "UNITS = {}\nfor n in range(4):\n    UNITS[n] = n\ndef area(w, h):\n    return UNITS[w] * UNITS[h]\n",
        "UNITS = []\ndef fill():\n    UNITS.extend(range(4))\ndef area(w, h):\n    return UNITS[w] * h\nfill()\n",
        "def fill():\n    global ONE\n    ONE = 1\ndef area(w, h):\n    return w * h * ONE\nfill()\n",
        "import heapq\nHEAP = [3, 1, 2]\nheapq.heapify(HEAP)\ndef area(w, h):\n    return w * h * HEAP[0]\n",
        "def area(w, h):\n    return area.rule(w, h)\narea.rule = lambda w, h: w * h\n",
        "def area(w, h):\n    return Box().area(w, h)\nclass Box:\n    def area(self, w, h):\n        return w * h\n",
        "try:\n    import no_such_module as m\nexcept ImportError:\n    import math as m\n"
        "def area(w, h):\n    return m.prod((w, h))\n",
        "ONE = 1\ndef area(w, h):\n    return w * h * eval('ONE')\n",
        "from math import *\ndef area(w, h):\n    return prod((w, h))\n",
        "import sys\ndef deep(n):\n    return n and deep(n - 1)\ndef area(w, h):\n    return w * h + deep(2)\n"
        "sys.setrecursionlimit(5000)\n",
        "from __future__ import annotations\ndef area(w: Metre, h: Metre) -> Area:\n    return w * h\n",
    ],
)
def test_what_the_function_needs_is_kept(source):
    assert value(source, 2, 3) == 6


@pytest.mark.parametrize(
    "rest",
    [
        "assert area(1, 1) == 2",
        "import no_such_module",
        "n = int(input())",
        "while True:\n    print(area(1, 1))",
        "class Tests(Base):\n    pass",
        "print(area(*map(int, input().split())))",
        "with open('rows') as rows:\n    for row in rows:\n        print(row)",
        "raise_ = lambda: exit(1)\nraise_()",
    ],
)
def test_what_it_does_not_need_is_left_out(rest):
    assert needed_part(f"{FUNCTION}\n{rest}\n", "area").strip() == FUNCTION.strip()
    assert needed_part(f"{rest}\n{FUNCTION}", "area").strip() == FUNCTION.strip()


def test_a_change_that_fails_does_not_count():
    assert value("SIDES = [1]\nSIDES.append(input())\ndef area(w, h):\n    return w * h * SIDES[0]\n", 2, 3) == 6


def test_an_unconditional_raise_stays():
    with pytest.raises(KeyError):
        value(f"{FUNCTION}\nraise KeyError\n", 2, 3)


@pytest.mark.parametrize("source", ["def area(w, h:", "\0", "(" * 500])
def test_what_is_no_program_is_unchanged(source):
    assert needed_part(source, "area") == source


@pytest.mark.parametrize(
    ("source", "more_than_a_stub"),
    [
        (FUNCTION, True),
        ("area = max", True),
        ("area: object = max", True),
        ("def area(w, h): ...", False),
        ("def area(w, h):\n    'The area.'\n    raise NotImplementedError('later')", False),
        ("def other(w, h):\n    return w * h", False),
        ("def area(w, h:", False),
    ],
)
def test_a_stub_is_no_function(source, more_than_a_stub):
    assert implements(source, "area") == more_than_a_stub
