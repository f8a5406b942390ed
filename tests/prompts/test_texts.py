"""Windows of a text: no overlap, and refusals."""

import pytest

from armlet.prompts.texts import WindowCounts, cut_text
from armlet.redistribution.errors import ArgumentError


def test_calibration_and_held_out_windows_do_not_overlap():
    found = cut_text(list(range(100)), WindowCounts(3, 2, 10), None)
    assert found["held-out"].flatten().tolist() == list(range(30))
    assert found["calibration"].flatten().tolist() == list(range(80, 100))
    begun = cut_text(list(range(100)), WindowCounts(3, 2, 10), 7)["held-out"]
    assert begun[1].tolist() == [7, *range(10, 19)]


def test_a_text_that_is_too_short_is_refused_with_what_it_needs():
    with pytest.raises(ArgumentError, match="has 49 tokens, but 3 held-out and 2 calibration windows need 50"):
        cut_text(list(range(49)), WindowCounts(3, 2, 10), None)
