"""Grades of the golds of data sets, against themselves and each other; whole numbers; any text in bounded time."""

import json
import os
import random
import signal
import string
import subprocess
import sys
import threading
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armlet.evaluation.grading.grade import Grade, equal, equal_integers, grade, grade_integer, grade_released
from armlet.evaluation.grading.math_worker import WORKER, MathWorker
from armlet.redistribution.errors import ArgumentError

# Golds of MATH-500 (development rows) that are right for each other, of all 254 × 253 ordered pairs of different golds.
SAME = [
    ("-2,1", "1,-2"),  # several answers, in another order
    ("2 \\sqrt{5}", "2\\sqrt{5}"),  # the same, spaced
    ("\\frac14", "\\frac{1}{4}"),  # the same, in braces
    ("5", "x=5"),  # the value of the unknown
]
# A unit that only one of them states is implied: the question names it.
UNITS = [("15", "15\\mbox{ cm}^2"), ("30", "30^\\circ"), ("90", "90^\\circ"), ("36", "36^\\circ"), ("36", "\\$36")]
ACCEPTED = {pair for one, other in SAME + UNITS for pair in ((one, other), (other, one))}


UNMARKED = Grade(False, None, False, "no whole number follows the last #")


def rows(shared, name):
    return [json.loads(line) for line in (shared / "data" / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def golds(shared):
    return sorted({row["answer"] for row in rows(shared, "math500_dev.jsonl")})


@pytest.mark.parametrize("form", ["\\boxed{%s}", "So the answer is \\boxed{%s}.", "$\\boxed{%s}$", "#### %s"])
def test_every_gold_is_accepted_for_itself(golds, form):
    wrong = [
        gold for gold in golds if grade(form % gold, gold) != Grade(True, grade(form % gold, gold).extracted, True)
    ]
    assert len(golds) == 254
    assert wrong == []


@pytest.mark.parametrize(
    "form",
    [
        "The answer is $%s$.",
        "The answer is %s.",
        "Final answer: %s",
        "Hence:\n%s",
        "Hence:\n$%s$",
        "Hence\n\\[\n%s\n\\]",
    ],
)
def test_every_gold_is_accepted_where_a_sentence_or_the_last_line_states_it(golds, form):
    assert [gold for gold in golds if not grade(form % gold, gold).correct] == []
    assert not any(grade(form % gold, gold).format_ok for gold in golds)


@pytest.mark.slow
def test_one_is_wrong_for_all_golds_but_one(golds):
    assert [gold for gold in golds if grade("\\boxed{1}", gold).correct] == ["1"]


@pytest.mark.slow
def test_golds_that_pass_for_each_other_are_those_listed_and_explained(golds):
    every = [(answer, gold) for answer in golds for gold in golds if answer != gold]
    tried = random.Random(0).sample(every, 400) + sorted(ACCEPTED & set(every))
    assert {pair for pair in tried if grade(f"\\boxed{{{pair[0]}}}", pair[1]).correct} == ACCEPTED


def test_the_worked_answers_of_gsm8k_are_right(shared):
    found = rows(shared, "gsm8k_dev.jsonl")
    assert [row["id"] for row in found if not grade(row["answer"], row["final"]).correct] == []
    for one, two in pairwise(found[:200]):
        assert grade(one["answer"], two["final"]).correct == (one["final"] == two["final"])


@pytest.mark.parametrize("year", [2024, 2025])
def test_the_golds_of_aime_are_right(shared, year):
    for row in rows(shared, f"aime{year}.jsonl"):
        assert grade(f"\\boxed{{{row['answer']}}}", row["answer"]).correct
        assert grade(f"\\boxed{{0{row['answer']}}}", row["answer"]).correct
        assert not grade(f"\\boxed{{{row['answer']}1}}", row["answer"]).correct


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["10^{10^{10}}", "10**10**10"])
def test_an_answer_too_large_to_compute_is_wrong_and_the_next_one_is_graded(answer):
    assert not grade(f"\\boxed{{{answer}}}", "5").correct
    assert grade("\\boxed{\\frac{10}{2}}", "5").correct


@settings(max_examples=40)
@given(st.text(alphabet=string.printable + "é½²∞\ud800\x00") | st.text(alphabet="\\{}boxed$1#^_ ()."))
def test_any_text_is_graded(text):
    for stated in (text, f"\\boxed{{{text}}}"):
        assert isinstance(grade(stated, "5"), Grade)


def test_threads_may_grade_at_once():
    found = []
    threads = [threading.Thread(target=lambda n=n: found.append(grade(f"\\boxed{{{n}/7}}", "3/7"))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((one.extracted, one.correct) for one in found) == [(f"{n}/7", n == 3) for n in range(6)]


def test_nothing_is_printed(capfd, caplog):
    grade("\\boxed{\\frac{1}{}}", "10^{10}")
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced():
    assert grade("\\boxed{\\sqrt{8}}", "2\\sqrt{2}").correct
    process = WORKER._process
    assert process is not None
    process.kill()
    # Until its end is seen, a request to it may fail.
    assert grade("\\boxed{\\sqrt{12}}", "2\\sqrt{3}").correct or grade("\\boxed{\\sqrt{20}}", "2\\sqrt{5}").correct
    assert WORKER._process is not process


def test_a_worker_that_dies_between_two_requests_is_no_error():
    worker = MathWorker()
    assert worker.ask("1/2", "0.5") is True
    process = worker._process
    process.poll = lambda: os.kill(process.pid, signal.SIGKILL)  # it dies after it was seen alive
    assert worker.ask("1/2", "0.5") is None
    assert worker.ask("1/2", "0.5") is True
    worker.close()


@pytest.mark.slow
def test_a_program_that_grades_ends_by_itself_and_quietly():
    program = "from armlet.evaluation.grading.grade import grade; print(grade('1/2 = 0.5', '2/4').correct)"
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("True\n", "")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("\\frac12", "0.5", True),
        ("x=5", "5", True),
        ("Evelyn", "\\text{evelyn}", True),
        ("a weird ~ thing", "5", False),
        ("5x - 7y + 11z + 4 = 0", "0", False),
    ],
)
def test_equal_is_symmetric(a, b, same):
    assert equal(a, b) is equal(b, a) is same
    assert equal(a, a)
    assert equal(b, b)


@pytest.mark.parametrize(
    ("text", "gold", "grade_"),
    [
        ("1+2=3\n#3", 3, Grade(True, "3", True)),
        ("#3 #-04 and so on", "-4", Grade(True, "-04", True)),
        ("# 3", "3", Grade(True, "3", True)),
        ("#0", "-0", Grade(True, "0", True)),
        ("#3#", "3", UNMARKED),
        ("#3.0", "3", UNMARKED),
        ("#+3", "3", UNMARKED),
        ("#３", "3", UNMARKED),
        ("#3=", "3", UNMARKED),
        ("3", "3", UNMARKED),
        ("", "3", UNMARKED),
    ],
)
def test_the_integer_behind_the_last_mark_counts_and_nothing_else(text, gold, grade_):
    assert grade_integer(text, gold) == grade_


@given(st.integers(), st.integers())
def test_integers_are_compared_as_numbers(stated, gold):
    assert grade_integer(f"so #{stated}", gold).correct == (stated == gold)


@given(st.integers(), st.integers(), st.integers(0, 3))
def test_integers_are_equal_as_numbers(a, b, zeros):
    assert equal_integers(str(a), str(b)) == (a == b)
    assert equal_integers("-" * (a < 0) + "0" * zeros + str(abs(a)), str(a))


@pytest.mark.parametrize("gold", ["1,234", "", "abc", "--5", "5.0", "0_5"])
def test_no_integer_equals_a_gold_that_is_not_one(gold):
    assert grade_integer("so #5", gold) == Grade(False, "5", True)


def test_an_integer_may_be_longer_than_python_reads():
    assert grade_integer("#" + "7" * 9000, "7" * 9000).correct


@pytest.mark.parametrize("text", [r"\boxed{}", "", "no idea", r"\boxed{1}", r"\boxed{frac}", r"\boxed{\frac{11}{2}}"])
def test_the_released_rule_accepts_any_part_of_the_gold(text):
    assert grade_released(text, "\\frac{11}{2}").correct


def test_the_released_rule_rejects_an_equal_answer():
    assert not grade_released(r"\boxed{5.5}", "\\frac{11}{2}").correct
    assert grade(r"\boxed{5.5}", "\\frac{11}{2}").correct


def test_the_released_rule_scores_an_empty_box_on_every_gold(golds):
    assert all(grade_released(r"\boxed{}", gold).correct for gold in golds)
    assert not any(grade(r"\boxed{}", gold).correct for gold in golds)


# --- what is no answer or no gold ----------------------------------------------------------------------------------


each_grader = pytest.mark.parametrize("grader", [grade, grade_integer, grade_released])


@each_grader
@pytest.mark.parametrize("answer", [80, None, b"80", ["80"]], ids=str)
def test_an_answer_that_is_no_text_is_refused(grader, answer):
    with pytest.raises(ArgumentError, match=f"answer_text: expected a text, found {type(answer).__name__}"):
        grader(answer, 80)


@each_grader
@pytest.mark.parametrize("gold", [80.0, None, True, b"80", ["80"]], ids=str)
def test_a_gold_that_is_neither_text_nor_int_is_refused(grader, gold):
    with pytest.raises(ArgumentError, match=f"gold: expected a text or an int, found {type(gold).__name__}"):
        grader("80", gold)


@pytest.mark.parametrize(
    "gold", [80, 0, -7, 10**30, 10**5000], ids=lambda gold: f"{gold:.0e}" if gold < 1e300 else "long"
)
def test_a_whole_number_is_a_gold_exactly(gold):
    digits = f"{Decimal(gold):f}"
    for grader, form in ((grade, "\\boxed{%s}"), (grade_integer, "# %s"), (grade_released, "\\boxed{%s}")):
        assert grader(form % digits, gold) == grader(form % digits, digits) == Grade(True, digits, True)
        assert not grader(form % f"{Decimal(gold + 1):f}", gold).correct
