"""A grade is for what an answer states: golds against themselves, against each other, and what states nothing."""

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

from armlet.evaluation.grading.extraction import Grade, equal, equal_integers, grade, grade_integer, grade_released
from armlet.evaluation.grading.math_worker import WORKER, MathWorker
from armlet.redistribution.errors import ArgumentError

# Golds of MATH-500 (development rows) that pass for each other, of all 254 × 253 ordered pairs of different golds.
SAME = [
    ("-2,1", "1,-2"),  # several answers, in another order
    ("2 \\sqrt{5}", "2\\sqrt{5}"),  # the same, spaced
    ("\\frac14", "\\frac{1}{4}"),  # the same, in braces
    ("5", "x=5"),  # the value of the unknown
]
# math-verify drops units, which the question names: 15 cm² is graded as 15.
UNITS = [("15", "15\\mbox{ cm}^2"), ("30", "30^\\circ"), ("90", "90^\\circ"), ("36", "36^\\circ"), ("36", "\\$36")]
DIFFERENT_UNITS = [("36^\\circ", "\\$36")]  # wrong, and follows from that
# math-verify reads an equation as what its right side says ("x + y = 7" answers 7), so this one says 0, but
# 0 is not this equation.
EQUATION = ("5x - 7y + 11z + 4 = 0", "0")
ACCEPTED = {pair for one, other in SAME + UNITS + DIFFERENT_UNITS for pair in ((one, other), (other, one))} | {EQUATION}

NOTHING = ["", "  \n ", r"\boxed{}", r"\boxed{\ }", r"\boxed{\text{ }}", r"\boxed{{}}", r"\boxed{\quad}", r"\boxed{?}"]
NOTHING += [r"\boxed{5", "####", "#### \n", "I cannot tell.", "????", "The answer is", "the answer is ..."]


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


@pytest.mark.slow
@pytest.mark.parametrize("form", ["The answer is $%s$.", "The answer is %s.", "Final answer: %s"])
def test_every_gold_is_accepted_where_a_sentence_states_it(golds, form):
    assert [gold for gold in golds if not grade(form % gold, gold).correct] == []
    assert not any(grade(form % gold, gold).format_ok for gold in golds)


@pytest.mark.parametrize("text", NOTHING)
def test_what_states_nothing_is_wrong_for_every_gold(text):
    for gold in ("5", "\\frac{3}{4}", "\\text{Evelyn}", "", "0"):
        assert grade(text, gold) == Grade(False, None, False)


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


@pytest.mark.parametrize(
    ("text", "extracted", "format_ok"),
    [
        (r"\boxed{3} or rather \boxed{4}", "4", True),
        (r"\boxed{3} and \boxed{}", "3", True),
        (r"\boxed{3}, no: \boxed{4", "3", True),  # cut off
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", True),
        (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right.", True),
        (r"#### 3 \boxed{4}", "4", True),
        ("#### 1,234\n", "1,234", True),
        ("#### 5\n#### 6", "6", True),
        (r"#### \$36", "36", True),
        (r"#### \text{east}", r"\text{east}", True),
        ("#### 12 apples", "12", True),
        ("#### 1. First, we add.\nThe answer is 9.", "9", False),  # a heading
        ("#### Step 2: add\nThe answer is 9.", "9", False),
        ("##### 5\nThe answer is 9.", "9", False),
        ("See #### 5 above.\nThe answer is 9.", "9", False),
        (r"The answer is 42. Or is it 43?", "42", False),
        ("The answer is (1, 2).", "(1, 2)", False),
        ("The answer is -5 because 3 < 5.", "-5", False),
        ("The answer is 10.5%.", "10.5%", False),
        ("The answer is 12 percent.", r"12\%", False),
        ("The answer is:\n\n**42**", "42", False),
        ("The answer is Evelyn.", "Evelyn", False),
        ("The answer is 3.\nNo, the answer is 4.", "4", False),
        ("So it costs 3 + 4 = 7 dollars.", "7", False),
        ("x = 5\nThat is all.", None, False),  # not stated in the last line
        ("7\n\n", "7", False),
    ],
)
def test_what_is_read_is_what_was_stated_last(text, extracted, format_ok):
    found = grade(text, "unlike any")
    assert (found.extracted, found.format_ok) == (extracted, format_ok)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("0.75", "\\frac{3}{4}"),
        ("(3, \\pi/2)", "\\left( 3, \\frac{\\pi}{2} \\right)"),
        ("-q + p", "p - q"),
        ("[-2,7]", "x \\in [-2,7]"),
        ("-2 \\le x \\le 7", "x \\in [-2,7]"),
        ("11111", "11,\\! 111"),
        ("1\\,234", "1,234"),
        ("1234.0", "1,234"),
        ("90", "90^\\circ"),
        ("10", "10\\%"),
        ("0.1", "10\\%"),
        ("2.0", "2"),
        ("7, 5 \\text{ and } 3", "3, 5, 7"),
        ("\\begin{bmatrix} 0.2 \\\\ -3.6 \\end{bmatrix}", "\\begin{pmatrix} 1/5 \\\\ -18/5 \\end{pmatrix}"),
        ("204", "204_5"),
        ("204_{5}", "204_5"),
        ("Evelyn", "\\text{Evelyn}"),
        ("\\textbf{evelyn}.", "\\text{Evelyn}"),
        ("C", "\\text{(C)}"),
        ("\\mathrm{(C)}", "\\text{(C)}"),
        ("-2x", "y = -2x"),
        ("10x - 14y + 22z = -8", "5x - 7y + 11z + 4 = 0"),
    ],
)
def test_an_answer_in_another_form_is_right(answer, gold):
    assert grade(f"\\boxed{{{answer}}}", gold).correct


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("(\\frac{\\pi}{2}, 3)", "\\left( 3, \\frac{\\pi}{2} \\right)"),  # a point has an order,
        ("\\{3, \\frac{\\pi}{2}\\}", "\\left( 3, \\frac{\\pi}{2} \\right)"),  # a set has none,
        ("(1, -2)", "1,-2"),  # and neither has a list of answers
        ("[3,4]", "(3,4]"),
        ("\\text{Briana}", "\\text{Evelyn}"),
        ("\\text{nylevE}", "\\text{Evelyn}"),
        ("e a s t", "\\text{east}"),
        ("\\text{odd}", "\\text{even}"),
        ("B", "\\text{(C)}"),
        ("204_7", "204_5"),
        ("0", "5x - 7y + 11z + 4 = 0"),
        ("y = 5", "x=5"),
        ("p + q", "p - q"),
        ("0.33", "\\frac{1}{3}"),
        ("3", "\\frac{3}{4}"),
        ("\\text{five}", "5"),
    ],
)
def test_another_answer_is_wrong(answer, gold):
    assert grade(f"\\boxed{{{answer}}}", gold) == Grade(False, answer, True)


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
    grade("\\boxed{1/3}", "5")
    process = WORKER._process
    assert process is not None
    process.kill()
    assert grade("\\boxed{2/6}", "1/3").correct or grade("\\boxed{3/9}", "1/3").correct


def test_a_worker_that_dies_between_two_requests_is_no_error():
    worker = MathWorker()
    assert worker.ask("same", "1/2", "0.5") is True
    process = worker._process
    process.poll = lambda: os.kill(process.pid, signal.SIGKILL)  # it dies after it was seen alive
    assert worker.ask("same", "1/2", "0.5") is None
    assert worker.ask("same", "1/2", "0.5") is True
    worker.close()


@pytest.mark.slow
def test_a_program_that_grades_ends_by_itself_and_quietly():
    program = "from armlet.evaluation.grading.extraction import grade; print(grade('1/2 = 0.5', '2/4').correct)"
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("True\n", "")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("\\frac12", "0.5", True),
        ("x=5", "5", True),
        ("Evelyn", "\\text{evelyn}", True),
        ("a weird ~ thing", "5", False),
    ],
)
def test_equal_is_symmetric(a, b, same):
    assert equal(a, b) is equal(b, a) is same
    assert equal(a, a)
    assert equal(b, b)


def test_answers_are_equal_if_each_would_do_for_the_other():
    assert grade(f"\\boxed{{{EQUATION[0]}}}", EQUATION[1]).correct
    assert not equal(*EQUATION)
    assert not equal(*reversed(EQUATION))


@pytest.mark.parametrize(
    ("text", "gold", "grade_"),
    [
        ("1+2=3\n#3", 3, Grade(True, "3", True)),
        ("#3 #-04 and so on", "-4", Grade(True, "-04", True)),
        ("# 3", "3", Grade(True, "3", True)),
        ("#0", "-0", Grade(True, "0", True)),
        ("#3#", "3", Grade(False, None, False)),
        ("#3.0", "3", Grade(False, None, False)),
        ("#+3", "3", Grade(False, None, False)),
        ("#３", "3", Grade(False, None, False)),
        ("#3=", "3", Grade(False, None, False)),
        ("3", "3", Grade(False, None, False)),
        ("", "3", Grade(False, None, False)),
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
