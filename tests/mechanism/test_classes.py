"""Every token has one class, by its text."""

import pytest

from armlet.mechanism.classes import CLASSES, classify


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        (["7", " 42"], "digits digits"),
        (["4", "x"], "digits other"),
        (["x", " +", " y", "−", "3", " <=", "9"], "other operators other operators digits operators digits"),
        ([" Because", " a", " and", " b", ","], "conjunctions other conjunctions other other"),
        ([" but", "ane", " or", "ca", "b", "and"], "other other other other other other"),  # butane, orca, band
        ([" so", ",", " then"], "conjunctions other conjunctions"),
        ([" well", "-", "known", " km", "/", "h"], "other other other other other other"),
        (
            ["x", "-", "y", " a", "/", "b", "6", "/", "2"],
            "other operators other other operators other digits operators digits",
        ),
        (["?", "", "\n"], "other other other"),
    ],
)
def test_a_token_is_of_the_class_of_its_text_and_a_piece_of_a_word_of_none(words, classes):
    assert classify(words) == classes.split()
    assert set(classify(words)) <= set(CLASSES)


def test_no_token_has_no_class():
    assert classify([]) == []
