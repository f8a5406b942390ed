"""Numbers in tables are short and close."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armlet.presentation.numbers import NUMBER_WIDTH, short_number, three_digits


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.12345, False, "0.123"),
        (0.12345, True, "+0.123"),
        (-0.12345, True, "-0.123"),
        (0.0, False, "0"),
        (-0.0, True, "0"),
        (1234.5, False, "1.23e+03"),
        (-1234.5, False, "-1.2e+03"),
        (1234.5, True, "+1.2e+03"),
        (math.nan, True, "-"),
        (math.inf, False, "inf"),
    ],
)
def test_a_number_has_three_digits_or_two_where_three_are_too_wide(value, signed, text):
    assert short_number(value, signed=signed) == text


@given(st.floats(-1e99, 1e99).filter(lambda value: value == 0 or abs(value) > 1e-99), st.booleans())
def test_a_number_fits_its_column_and_is_the_value_to_two_digits(value, signed):
    text = short_number(value, signed=signed)
    assert len(text) <= NUMBER_WIDTH
    assert float(text) == pytest.approx(value, rel=0.051)
    assert text.startswith(("+", "-")) or not (signed and value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(22213.7, "22,200"), (8.1349, "8.13"), (0.0091466, "0.00915"), (6.0, "6"), (999.9, "1,000"), (2.5e7, "2.5e+07")],
)
def test_three_digits_have_an_exponent_only_from_a_million(value, text):
    assert three_digits(value) == text
