"""`checkpoints/folder.py` recognises folders, reads their files, and opens no file outside."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from armlet.checkpoints.folder import (
    INDEX_FILE,
    WEIGHTS_FILE,
    CheckpointError,
    FileShard,
    Folder,
    MissingFileError,
    named_folder,
)
from armlet.checkpoints.pretrained import load
from families import tiny

TENSORS = {
    "a": torch.arange(12.0).view(4, 3),
    "b": torch.arange(5).to(torch.bfloat16),
    "c": torch.ones(2).to(torch.int8),
}
OUTSIDE = [
    "../x.safetensors",
    "a/../../x",
    "/x",
    "a\\b",
    "..\\x",
    "C:x",
    "C:/x",
    "//host/share/x",
    "",
    ".",
    "a\0b",
    "a\nb",
]


@pytest.fixture
def file(tmp_path):
    save_file(TENSORS, tmp_path / WEIGHTS_FILE)
    return tmp_path / WEIGHTS_FILE


def indexed(folder, shards):
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": shards}))
    return Folder(folder)


# --- shards ---------------------------------------------------------------------------------------------------------


def test_a_shard_gives_what_was_saved(file):
    shard = FileShard(file)
    assert {name: torch.equal(shard.tensor(name), tensor) for name, tensor in TENSORS.items()} == dict.fromkeys(
        TENSORS, True
    )
    assert {name: (e.dtype, e.shape) for name, e in shard.entries.items()} == {
        "a": ("F32", (4, 3)),
        "b": ("BF16", (5,)),
        "c": ("I8", (2,)),
    }
    assert (shard.entries["a"].size, shard.entries["b"].size) == (48, 10)


def test_a_shard_says_how_much_it_has_read(file):
    read = []
    FileShard(file).tensor("a", read.append)
    assert read == [48]


def test_rows_are_copies_in_the_order_asked_for(file):
    rows = FileShard(file).rows("a", [3, 0, 3])
    assert torch.equal(rows, TENSORS["a"][[3, 0, 3]])
    assert rows.untyped_storage().nbytes() == rows.nbytes


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_shard_is_named(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="is truncated or damaged") as caught:
        FileShard(file)
    assert str(file) in str(caught.value)


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".", "./here", "~", "here", Path("here")])
def test_what_is_a_folder_is_taken_for_one(name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert named_folder(name).is_dir()
    assert "~" not in str(named_folder(name))


@pytest.mark.parametrize("name", ["./no", "/no/such", "~nobody/x", "a/b/c", Path("a/b"), Path("a")])
def test_what_should_be_a_folder_and_is_none_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"should be a folder .* found nothing there"):
        named_folder(name)


def test_a_file_is_no_folder(file):
    with pytest.raises(CheckpointError, match="found a file there"):
        named_folder(str(file))


@pytest.mark.parametrize("name", ["a/b", "a"])
def test_anything_else_is_a_hub_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named_folder(name) is None


# --- files ----------------------------------------------------------------------------------------------------------


def test_one_file_of_weights_goes_before_an_index(file):
    indexed(file.parent, {"a": "elsewhere"})
    assert Folder(file.parent).weight_map() == dict.fromkeys(TENSORS, WEIGHTS_FILE)


def test_an_index_may_name_folders_within_the_checkpoint(tmp_path):
    shards = {"a": "sub/x.safetensors", "b": "y..z.safetensors"}
    assert indexed(tmp_path, shards).weight_map() == shards


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_that_leads_out_of_the_checkpoint_is_refused(name, tmp_path):
    with pytest.raises(CheckpointError, match="which leads out of the checkpoint") as caught:
        indexed(tmp_path, {"a": "inside", "b": name}).weight_map()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../outside.safetensors", "absolute"])
def test_load_refuses_an_index_that_leads_out_of_the_checkpoint(name, tmp_path):
    """Nothing is missing, so that only the rule can refuse it."""
    folder, outside = tmp_path / "model", tmp_path / "outside.safetensors"
    tiny().save_pretrained(folder)
    (folder / WEIGHTS_FILE).rename(outside)
    shards = dict.fromkeys(FileShard(outside).entries, str(outside) if name == "absolute" else name)
    indexed(folder, shards)
    with pytest.raises(CheckpointError, match="which leads out of the checkpoint"):
        load(str(folder))


@pytest.mark.parametrize("listed", [None, [], {}, {"a": 1}, {"a": None}, {"a": ["x"]}, "x"])
def test_an_index_without_names_is_refused(listed, tmp_path):
    with pytest.raises(CheckpointError, match="has no weight_map from weights to files"):
        indexed(tmp_path, listed).weight_map()


def test_pickles_are_named_where_there_is_nothing_else(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match=r"found pytorch_model\.bin, and pickle is never read"):
        Folder(tmp_path).weight_map()


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[]", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"a\.json is not"):
        Folder(tmp_path).json("a.json")


def test_missing_files_are_an_error_of_their_own(tmp_path):
    for read in (Folder(tmp_path).json, Folder(tmp_path).shard):
        with pytest.raises(MissingFileError, match="is missing"):
            read("a")
