"""Files are written whole or not at all, and say what was given."""

import csv
import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armlet.presentation.files import WriteError, csv_text, json_text, write_json, write_text
from armlet.redistribution.errors import ArmletError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")) | st.integers()


@pytest.mark.slow
@given(VALUES)
def test_json_says_what_was_given(value):
    text = json_text(value)
    assert json.loads(text) == value
    assert text.endswith("\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_json_has_no_number_that_json_does_not_know(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"a": [value]})


def test_json_keeps_letters_as_they_are():
    assert json_text("τ ≤ é") == '"τ ≤ é"\n'


@given(st.lists(st.fixed_dictionaries({"a": CELLS, "b, c": CELLS}), min_size=1))
def test_csv_says_what_was_given(rows):
    read = list(csv.DictReader(io.StringIO(csv_text(rows), newline="")))
    assert read == [{name: str(value) for name, value in row.items()} for row in rows]


def test_csv_leaves_the_cell_of_none_empty():
    assert csv_text([{"a": 1, "b": None}, {"a": None, "b": 0}]) == "a,b\n1,\n,0\n"


def test_a_file_and_the_folders_above_it_are_written(tmp_path):
    file = tmp_path / "new" / "folder" / "file.txt"
    assert write_text(file, "τ\n") == file
    assert file.read_bytes() == "τ\n".encode().replace(b"\n", os.linesep.encode())
    assert os.listdir(file.parent) == ["file.txt"]
    assert json.loads(write_json(file, {"a": 1}).read_text()) == {"a": 1}


@pytest.mark.parametrize("before", [None, "the old text"])
@pytest.mark.parametrize("step", ["write_text", "replace"])
def test_a_file_that_cannot_be_written_stays_as_it_was_and_leaves_no_part(step, before, tmp_path, monkeypatch):
    file = tmp_path / "file.txt"
    if before:
        file.write_text(before)
    original = getattr(type(file), step)

    def full(self, *_, **how):
        if step == "write_text":
            original(self, "half a te", **how)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(file), step, full)
    with pytest.raises(WriteError, match=r"file\.txt: cannot be written \(No space left on device\)$") as caught:
        write_text(file, "half a text is worse than none")
    monkeypatch.undo()
    assert isinstance(caught.value, ArmletError)
    assert os.listdir(tmp_path) == (["file.txt"] if before else [])
    assert before is None or file.read_text() == before


def test_a_folder_in_the_place_of_the_file_is_one_line(tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        write_text(tmp_path, "text")
