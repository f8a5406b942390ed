"""The built-in problems: what they ask, that their worked steps are true, and that training sees no test question."""

import re
from dataclasses import astuple
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armlet.evaluation.tasks.arithmetic import LEVELS, Exercise, exercise, split_of, stated, worked
from armlet.redistribution.errors import ArgumentError

indices = st.integers(0, 10**9)
levels = st.sampled_from(sorted(LEVELS))
seeds = st.integers(0, 5)
splits = st.sampled_from(["train", "test"])
drawn = st.builds(lambda at, level, seed, split: exercise(at, seed=seed, difficulty=level, split=split), *
                  (indices, levels, seeds, splits))  # fmt: skip

numbers = st.integers(0, 999).map(str)
questions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map("".join), inner.map(lambda text: f"({text})")
    ),
    max_leaves=20,
)


def oracle(text):
    """Python's own arithmetic, on text that the test has checked."""
    assert re.fullmatch(r"[0-9+*()-]+", text)
    return eval(text)


def test_a_question_is_worked_out_from_the_left():
    steps = "47+86=133;133*3=399;399-58=341"
    assert worked("(47+86)*3-58") == Exercise("(47+86)*3-58", steps, 341)
    assert worked("(47+86)*3-58").answer == f"{steps}#341"
    assert worked("5-3*4-(2-9)").answer == "3*4=12;5-12=-7;2-9=-7;-7-(-7)=0#0"
    assert worked("7").answer == "#7"


def test_a_problem_never_changes():
    assert exercise(0, difficulty=3).question == "(64+99)*2-25+14"
    assert exercise(1, seed=7, difficulty=9, split="train").question == "21*(434-826)+(229+595)*84+(961+893)*39+14*867"


@given(drawn)
def test_each_step_is_a_true_equation_and_the_last_gives_the_value(problem):
    equations = [step.split("=") for step in problem.steps.split(";")]
    assert all(len(sides) == 2 and oracle(sides[0]) == int(sides[1]) for sides in equations)
    assert int(equations[-1][1]) == problem.value == oracle(problem.question)


@given(drawn)
def test_each_step_has_one_operation_and_takes_numbers_that_are_known(problem):
    known = re.findall(r"\d+", problem.question)
    for step in problem.steps.split(";"):
        equation = re.fullmatch(r"(-?\d+)([+*-])(?:\((-\d+)\)|(\d+))=(-?\d+)", step)
        assert equation
        left, sign, bracketed, right, result = equation.groups()
        assert sign in problem.question
        known.remove(left)
        known.remove(bracketed or right)
        known.append(result)
    assert known == [str(problem.value)]


@given(questions)
def test_worked_values_agree_with_pythons_integers(question):
    text = re.sub(r"\b0+(?=\d)", "", question)
    if len(text) <= 400:
        assert worked(text).value == oracle(text)


@pytest.mark.parametrize(
    "question",
    ["", "1+", "(1", "1/2", "2**3", "1.5", "1 + 2", "a", "__import__('os')", "007", "+5", "1" * 401, "(" * 399 + "1",
     "1(2)", "()", "1\n"],
)  # fmt: skip
def test_anything_but_sums_differences_and_products_of_whole_numbers_is_refused(question):
    with pytest.raises(ArgumentError, match="question: expected whole numbers"):
        worked(question)


@pytest.mark.parametrize("question", ["-" * 399 + "1", "1" + "+1" * 199, "9" * 400, "9" + "*9" * 199])
def test_the_longest_questions_are_within_pythons_limits(question):
    assert worked(question).value == oracle(question)


@given(indices, levels, seeds, splits)
def test_a_problem_depends_on_its_number_seed_level_and_split_alone(index, level, seed, split):
    first = exercise(index, seed=seed, difficulty=level, split=split)
    exercise(index + 1, seed=seed, difficulty=level, split=split)
    assert exercise(index, seed=seed, difficulty=level, split=split) == first


def test_other_numbers_and_seeds_give_other_problems():
    asked = {exercise(index, seed=seed).question for index in range(200) for seed in range(3)}
    assert len(asked) == 600


@given(indices, levels, seeds)
def test_no_question_is_in_both_splits(index, level, seed):
    for split in ("train", "test"):
        assert split_of(exercise(index, seed=seed, difficulty=level, split=split).question) == split


def test_one_question_in_eight_is_a_test_question():
    share = sum(split_of(str(number)) == "test" for number in range(8000)) / 8000
    # Five standard errors of a share of 1/8 in 8000.
    assert abs(share - 1 / 8) < 5 * (1 / 8 * 7 / 8 / 8000) ** 0.5


@given(indices, levels)
def test_a_question_has_what_its_level_says(index, level):
    question, says = exercise(index, difficulty=level).question, LEVELS[level]
    assert len(re.findall(r"[+*-]", question)) == says.operations
    assert (question.count("*"), question.count("(")) == (says.products, says.brackets)
    assert all(2 <= int(number) <= max(says.number, says.factor) for number in re.findall(r"\d+", question))
    assert len(exercise(index, difficulty=level).steps.split(";")) == says.operations


def test_a_harder_level_asks_for_no_less_in_anything_and_for_more_operations():
    ladder = [astuple(LEVELS[level]) for level in sorted(LEVELS)]
    for easier, harder in pairwise(ladder):
        assert harder[0] > easier[0]
        assert all(more >= less for less, more in zip(easier, harder, strict=True))


@given(drawn)
def test_the_value_is_read_off_an_answer(problem):
    assert stated(problem.answer) == problem.value
    assert problem.answer.count("#") == 1


@pytest.mark.parametrize("answer", ["", "12", "#", "#1#1", "1+1=2#", "#12a", "##3", "#--3", "#3\n", "# 3", "#٣"])
def test_an_answer_without_one_value_states_none(answer):
    assert stated(answer) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"index": -1}, "index: problems are counted from 0, found -1"),
        ({"difficulty": 0}, "difficulty: expected 1 to 9, found 0"),
        ({"difficulty": 10}, "difficulty: expected 1 to 9, found 10"),
        ({"split": "dev"}, "split: expected one of train, test, found 'dev'"),
    ],
)
def test_a_problem_that_does_not_exist_is_refused(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        exercise(**({"index": 0} | wrong))
