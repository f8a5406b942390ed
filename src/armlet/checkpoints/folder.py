"""A checkpoint's files on disk, and what any reader of checkpoints shares: which files there are, and clear errors.

Nothing is unpickled, and no file outside the folder is opened because a file inside names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path, PurePosixPath, PureWindowsPath
from textwrap import shorten
from typing import Any, Protocol

from torch import Tensor

from armlet.checkpoints.header import Entry
from armlet.redistribution.errors import ArmletError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

Advance = Callable[[int], object]
"""Called with each number of bytes read."""


def silent(read: int) -> None:
    """Shows no progress."""


class CheckpointError(ArmletError, OSError):
    """A model, or a part of it, that is not there or cannot be read."""


class MissingFileError(CheckpointError):
    """A file that the checkpoint does not have."""


class Shard(Protocol):
    """One safetensors file; its tensors by name."""

    entries: dict[str, Entry]

    def tensor(self, name: str, advance: Advance) -> Tensor:
        """The whole tensor."""
        ...

    def rows(self, name: str, indices: list[int]) -> Tensor:
        """Some rows of a tensor `[n, d]`: `[len(indices), d]`."""
        ...


class Files(Protocol):
    """The files of a checkpoint, wherever they are; `name` is the checkpoint's."""

    name: str

    def place(self, file: str) -> str:
        """A file's name for the reader of an error."""
        ...

    def json(self, file: str) -> dict[str, Any]:
        """The JSON object in a file; raises MissingFileError where there is no such file."""
        ...

    def shard(self, file: str) -> Shard:
        """A safetensors file, of which the header alone is read; raises MissingFileError as well."""
        ...

    def instead(self) -> str:
        """What was found where no safetensors are."""
        ...

    def progress(self, size: int, title: str) -> AbstractContextManager[Advance]:
        """What shows how much of `size` bytes has been read."""
        ...


class FileShard:
    """A safetensors file on disk; tensors are memory-mapped, and only what is touched of them is read.

    Raises:
        CheckpointError: the file is truncated or damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._version = file, _version(file)
        with self._opened() as opened:  # which compares the header with the file's length
            self.entries = {name: _entry(opened.get_slice(name)) for name in opened.keys()}  # noqa: SIM118

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        from safetensors import safe_open

        damaged = explained(f"{self._file} is truncated or damaged", "; download the checkpoint again")
        with damaged, safe_open(self._file, framework="pt") as opened:
            yield opened
        if _version(self._file) != self._version:
            raise CheckpointError(f"{self._file} was replaced while it was read; try again")

    def tensor(self, name: str, advance: Advance) -> Tensor:
        """A view of the file, which must not change while the tensor lives."""
        with self._opened() as opened:
            found = opened.get_tensor(name)
        advance(self.entries[name].size)
        return found

    def rows(self, name: str, indices: list[int]) -> Tensor:
        """`[len(indices), d]`, copied."""
        return self.tensor(name, silent)[indices]


def _version(file: Path) -> tuple[int, ...]:
    """What changes when another file takes a file's place, or it is written to."""
    found = file.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _entry(described: Any) -> Entry:
    return Entry(described.get_dtype(), tuple(described.get_shape()))


class Folder:
    """A checkpoint in a local folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._shards: dict[str, FileShard] = {}

    def place(self, file: str) -> str:
        """The path."""
        return str(self.path / file)

    def json(self, file: str) -> dict[str, Any]:
        """The JSON object in a file.

        Raises:
            MissingFileError: no such file.
            CheckpointError: not a JSON object.
        """
        if not (self.path / file).is_file():
            raise MissingFileError(f"{self.place(file)} is missing; name the folder of a whole checkpoint")
        return json_object((self.path / file).read_bytes(), self.place(file))

    def shard(self, file: str) -> FileShard:
        """A safetensors file; asked for twice, it must be the same one.

        Raises:
            MissingFileError: no such file.
            CheckpointError: truncated or damaged.
        """
        if file not in self._shards:
            if not (self.path / file).is_file():
                raise MissingFileError(
                    f"{self.place(file)} is missing, though {INDEX} names it; download the checkpoint again"
                )
            self._shards[file] = FileShard(self.path / file)
        return self._shards[file]

    def instead(self) -> str:
        """Pickles, or nothing."""
        pickled = sorted(file.name for file in self.path.glob("*.bin"))
        return f"found {pickled[0]}, and pickle is never read" if pickled else "found no weights"

    def progress(self, size: int, title: str) -> AbstractContextManager[Advance]:
        """Silent: mapping takes no time."""
        return nullcontext(silent)


def named_folder(model: str | Path) -> Path | None:
    """The folder that a model's name stands for; None for a hub id.

    Args:
        model: a path, what starts with ".", "/" or "~", exists here, or has more than one slash is a folder.

    Raises:
        CheckpointError: it should be a folder, and is none.
    """
    if not str(model):
        raise CheckpointError("no model is named: expected a folder or a hub id")
    folder = Path(os.path.expanduser(model))  # unlike Path.expanduser, takes an unknown user's name as it is
    named = isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") > 1
    if not (named or folder.exists()):
        return None
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise CheckpointError(f"{str(model)!r} should be a folder with {CONFIG} and {WEIGHTS}; found {found} there")
    return folder


def weight_map(files: Files) -> dict[str, str]:
    """Each tensor's name → the safetensors file that holds it; of the index's files, none is opened.

    Raises:
        CheckpointError: no safetensors, or an index that is malformed or leads out of the checkpoint.
    """
    try:
        return dict.fromkeys(files.shard(WEIGHTS).entries, WEIGHTS)
    except MissingFileError:
        pass
    try:
        index = files.json(INDEX)
    except MissingFileError as error:
        neither = f"{files.name} has neither {WEIGHTS} nor {INDEX}: {files.instead()}"
        raise CheckpointError(f"{neither}; convert or download it as safetensors") from error
    return _listed(index.get("weight_map"), files.place(INDEX))


def _listed(shards: Any, place: str) -> dict[str, str]:
    if not isinstance(shards, dict) or not shards or not all(isinstance(file, str) for file in shards.values()):
        raise CheckpointError(f"{place} has no weight_map from weights to files; download the checkpoint again")
    for file in shards.values():
        if not _inside(file):
            raise CheckpointError(f"{place} names {file!r}, which leads out of the checkpoint; do not use it")
    return shards


def _inside(file: str) -> bool:
    """Whether a name stays within the checkpoint, on any system."""
    path = PurePosixPath(file)
    leaves = path.is_absolute() or ".." in path.parts or "\\" in file or PureWindowsPath(file).drive
    return bool(path.parts) and file.isprintable() and not leaves


def json_object(content: bytes, place: str) -> dict[str, Any]:
    """What JSON says.

    Raises:
        CheckpointError: it is malformed, or no object.
    """
    with explained(f"{place} is not readable as JSON", "; download the checkpoint again"):
        found = json.loads(content.decode("utf-8"))
    if not isinstance(found, dict):
        raise CheckpointError(f"{place} is not a JSON object; download the checkpoint again")
    return found


@contextmanager
def explained(what: str, advice: str = "") -> Iterator[None]:
    """Turns whatever a library raises, of any type and of many lines, into one line: what, why, and what to do."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"{what} ({reason(error)}){advice}") from error


def reason(error: BaseException) -> str:
    """An error in one short line."""
    return shorten(f"{type(error).__name__}: {error}", 240, placeholder=" …")
