"""Arguments of the functions: what is accepted, and what is refused in one line with the argument's name."""

from decimal import Decimal
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest

from armlet.presentation.arguments import (
    LARGEST_SEED,
    given_path,
    number_in,
    output_folder,
    plain_value,
    refuse_changed,
    text_list,
    whole_number,
    whole_number_or_none,
)
from armlet.redistribution.errors import ArgumentError


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_a_whole_number_of_any_library_is_an_int(value):
    number = whole_number("items", value, 1, 2)
    assert (type(number), number) == (int, 2)


@pytest.mark.parametrize(
    "value",
    [True, np.bool_(True), 2.0, np.float64(2), "2", None, [2], np.arange(3), np.ones(1), 0, -1, 2**70],
    ids=repr,
)
def test_what_is_no_whole_number_in_the_range_is_refused(value):
    with pytest.raises(ArgumentError, match=r"^seed: expected an integer from 1 to 2\*\*63 - 1, found "):
        whole_number("seed", value, 1, LARGEST_SEED)


def test_none_stays_none_where_it_may():
    assert whole_number_or_none("items", None, 1) is None
    with pytest.raises(ArgumentError, match=r"^items: expected an integer of at least 1, found 0$"):
        whole_number_or_none("items", 0, 1)


def test_a_number_is_a_float():
    for value in (1, 1.0, np.float32(1), np.int64(1)):
        assert (type(number_in("temperature", value, 0)), number_in("temperature", value, 0, 1)) == (float, 1)


@pytest.mark.parametrize("value", [True, "1", None, nan, inf, -inf, -0.1, 1j, Decimal(1), np.ones(2)], ids=repr)
def test_what_is_no_finite_number_in_the_range_is_refused(value):
    with pytest.raises(ArgumentError, match=r"^temperature: expected a number of at least 0, found "):
        number_in("temperature", value, 0)


def test_texts_and_paths_are_of_their_kind():
    assert (text_list("prompt", "a"), text_list("prompt", ("a", "b")), text_list("prompt", None)) == (
        ["a"],
        ["a", "b"],
        [],
    )
    assert (given_path("run", "a"), given_path("run", Path("a")), given_path("run", None)) == (
        Path("a"),
        Path("a"),
        None,
    )
    for refused in (
        lambda: text_list("prompt", [1]),
        lambda: text_list("prompt", 5),
        lambda: plain_value("prompt", None, str),
        lambda: plain_value("prompt", "no", bool),
        lambda: given_path("prompt", 5),
        lambda: given_path("prompt", ""),
    ):
        with pytest.raises(ArgumentError, match=r"^prompt: expected "):
            refused()


def test_the_first_argument_that_is_not_at_its_default_is_refused():
    refuse_changed("has no effect", items=(None, None), count=((1,), (1,)))
    with pytest.raises(ArgumentError, match=r"^count: has no effect; leave it out$"):
        refuse_changed("has no effect", items=(None, None), count=((2,), (1,)), seed=(1, 0))


def test_a_folder_for_results_need_not_exist_and_is_no_file(tmp_path):
    assert output_folder("--out", str(tmp_path / "new" / "folder")) == tmp_path / "new" / "folder"
    assert output_folder("--out", tmp_path) == tmp_path
    assert not (tmp_path / "new").exists()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ArgumentError, match=r"^--out: .*file/new cannot be written: .*file is a file$"):
        output_folder("--out", file / "new")
