"""Every token has one class, by its text."""

import pytest

from armlet.analysis.classes import CLASSES, classify


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("7", "digits"),
        (" 42", "digits"),
        ("4x", "other"),
        (" +", "operators"),
        ("−", "operators"),
        ("<=", "operators"),
        (" Because", "conjunctions"),
        ("and", "conjunctions"),
        ("band", "other"),
        (" rolls", "other"),
        ("?", "other"),
        ("", "other"),
        ("\n", "other"),
    ],
)
def test_a_token_is_of_the_class_of_its_text(word, name):
    assert classify(word) == name
    assert name in CLASSES
