"""Several answers to an item: against enumeration and by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from armlet.redistribution.errors import ArgumentError
from armlet.statistics.votes import KS, distinct_2, majority, pass_at_k


@pytest.mark.parametrize("k", range(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(k):
    correct = np.tril(np.ones((7, 6), dtype=int), -1)  # 0, 1, … 6 correct ones
    theirs = [np.mean([any(subset) for subset in combinations(row, k)]) for row in correct]
    np.testing.assert_allclose(pass_at_k(correct, k), theirs, rtol=1e-14)


def test_pass_at_1_is_the_mean_and_pass_at_all_says_whether_any():
    correct = np.random.default_rng(0).integers(0, 2, (50, 16))
    np.testing.assert_allclose(pass_at_k(correct, KS[0]), correct.mean(axis=1))
    np.testing.assert_array_equal(pass_at_k(correct, KS[-1]), correct.any(axis=1))


def test_pass_at_k_is_unbiased_for_k_new_samples():
    correct = np.random.default_rng(1).binomial(1, 0.2, size=(40_000, 12))
    # The mean of 40,000 values of a spread of about 0.2 lies within 0.005 in all but one of 10⁵ draws.
    assert pass_at_k(correct, 3).mean() == pytest.approx(1 - 0.8**3, abs=0.005)


def test_thousands_of_samples_do_not_overflow():
    correct = np.zeros((1, 20_000), dtype=bool)
    correct[0, 0] = True
    assert pass_at_k(correct, 5000)[0] == pytest.approx(0.25, rel=1e-9)


@pytest.mark.parametrize("k", [0, 5, -1, 1.5])
def test_a_k_that_the_samples_do_not_hold_is_refused(k):
    with pytest.raises(ArgumentError, match="from 1 to 4"):
        pass_at_k(np.zeros((2, 4)), k)


@pytest.mark.parametrize("correct", [[0, 1], [[0, 2]], [[0, np.nan]]])
def test_what_is_not_right_or_wrong_is_refused(correct):
    with pytest.raises(ArgumentError, match="0 and 1"):
        pass_at_k(correct, 1)


def test_the_majority_is_the_first_of_the_most_frequent():
    assert majority(["3", "4", "4"]) == 1
    assert majority(["4", "3", "3", "4"]) == 0  # a tie goes to the first to appear
    assert majority([None, None, None, "7"]) == 3  # what could not be read never wins
    assert majority([None, None]) is None
    assert majority([]) is None


def test_the_majority_asks_equal_whether_two_answers_are_the_same():
    answers = ["0.5", "2", "1/2", "2", "2/4"]
    assert majority(answers) == 1
    assert majority(answers, lambda one, other: eval(one) == eval(other)) == 0


@given(st.lists(st.one_of(st.none(), st.sampled_from("abc"))))
def test_the_majoritys_answer_is_as_frequent_as_any(answers):
    found = majority(answers)
    read = [answer for answer in answers if answer is not None]
    if found is None:
        assert not read
    else:
        assert read.count(answers[found]) == max(map(read.count, read))
        assert answers.index(answers[found]) == found


def test_distinct_2_counts_pairs_of_neighbouring_words():
    assert distinct_2(["a b a b"]) == pytest.approx(2 / 3)
    assert distinct_2(["a b", "b  a\n", "a b"]) == pytest.approx(2 / 3)  # no pair spans two texts
    assert distinct_2(["a b c d"]) == 1
    assert distinct_2(["1+1=2"]) == 1  # 1+ +1 1= =2
    assert distinct_2(["(1+1+1)"]) == pytest.approx(4 / 6)
    assert distinct_2(["a", "", "b"]) == 0
    assert distinct_2([]) == 0
