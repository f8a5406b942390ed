"""The files of a checkpoint, wherever they are; those in a local folder; and the errors of every reader.

Nothing is unpickled, and no file outside the folder is opened because a file inside names it.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from textwrap import shorten
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from armlet.checkpoints.header import TensorEntry
from armlet.redistribution.errors import ArmletError

if TYPE_CHECKING:
    from safetensors import safe_open
    from transformers import PreTrainedConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

Advance = Callable[[int], object]
"""Called with each number of bytes that has been read."""


class CheckpointError(ArmletError, OSError):
    """A model, or a part of one, that does not exist or cannot be read."""


class MissingFileError(CheckpointError):
    """A file that the checkpoint does not have."""


class Shard(Protocol):
    """One safetensors file."""

    entries: dict[str, TensorEntry]  # by the tensor's name

    def tensor(self, name: str, advance: Advance | None = None) -> Tensor:
        """The whole tensor."""
        ...

    def rows(self, name: str, indices: list[int]) -> Tensor:
        """Some rows of a tensor `[n, d]`: `[len(indices), d]`."""
        ...


class Files(ABC):
    """The files of a checkpoint, in a folder or on a hub."""

    def __init__(self, name: str) -> None:
        self.name = name  # the folder or the hub id
        self._shards: dict[str, Shard] = {}

    def json(self, file: str) -> dict[str, object]:
        """The JSON object in a file; MissingFileError without the file, CheckpointError for anything else in it."""
        place, content = self.place(file), self._read(file)
        with explained(f"{place} is not readable as JSON", "; download the checkpoint again"):
            parsed = json.loads(content.decode("utf-8"))
        if not isinstance(parsed, dict):
            raise CheckpointError(f"{place} is not a JSON object; download the checkpoint again")
        return parsed

    def shard(self, file: str) -> Shard:
        """A safetensors file, of which only the header is read. It must not change as long as the checkpoint is in use.

        MissingFileError without the file, CheckpointError for one that cannot be read or is damaged.
        """
        if file not in self._shards:
            try:
                self._shards[file] = self._open(file)
            except MissingFileError as error:
                raise MissingFileError(f"{error}, though {INDEX_FILE} names it; name a complete checkpoint") from error
        return self._shards[file]

    @cached_property
    def settings(self) -> dict[str, object]:
        """The content of config.json."""
        return self.json(CONFIG_FILE)

    def config(self, make: "Callable[[], PreTrainedConfig] | None" = None) -> "PreTrainedConfig":
        """The configuration, made by `make` if given; CheckpointError for one that transformers cannot read."""
        from transformers import CONFIG_MAPPING

        kind = self.settings.get("model_type")
        if isinstance(kind, str) and kind in CONFIG_MAPPING:
            with explained(f"{self.place(CONFIG_FILE)} is not a valid configuration of {kind}"):
                return make() if make else CONFIG_MAPPING[kind].from_dict(self.settings)
        raise self.config_refusal(f"model_type {kind!r}, which this version of transformers does not know")

    def config_refusal(self, problem: str) -> CheckpointError:
        """The error for the configuration: about code of its own where it needs that, else about its `problem`."""
        if "auto_map" in self.settings:
            return CheckpointError(
                f"{self.name} needs Python code of its own (auto_map in {CONFIG_FILE}), which armlet does not run; "
                "load the model in Python, after reading that code, and call armlet.attach(model, policy)"
            )
        return CheckpointError(f"{self.place(CONFIG_FILE)} has {problem}; name a causal language model")

    def weight_map(self) -> dict[str, str]:
        """Each tensor's name → the safetensors file that contains it. Of the files in an index, none is opened.

        CheckpointError without safetensors, or for an index that is malformed or names a file outside the checkpoint.
        """
        with suppress(MissingFileError):
            return dict.fromkeys(self.shard(WEIGHTS_FILE).entries, WEIGHTS_FILE)
        try:
            stated, place = self.json(INDEX_FILE).get("weight_map"), self.place(INDEX_FILE)
        except MissingFileError as error:
            neither = f"{self.name} has neither {WEIGHTS_FILE} nor {INDEX_FILE}: {self.without_safetensors()}"
            raise CheckpointError(f"{neither}; convert or download it as safetensors") from error
        if not isinstance(stated, dict) or not stated or not all(isinstance(file, str) for file in stated.values()):
            raise CheckpointError(f"{place} has no weight_map from weights to files; download the checkpoint again")
        for file in stated.values():
            path = PurePosixPath(file)
            leaves = path.is_absolute() or ".." in path.parts or "\\" in file or PureWindowsPath(file).drive
            if leaves or not path.parts or not file.isprintable():
                raise CheckpointError(f"{place} names {file!r}, which leads out of the checkpoint; do not use it")
        return stated

    def progress(self, size: int, title: str) -> AbstractContextManager[Advance | None]:
        """Shows how much of `size` bytes has been read; nothing where that takes no time."""
        return nullcontext()

    @abstractmethod
    def place(self, file: str) -> str:
        """The file's name in error messages."""

    @abstractmethod
    def without_safetensors(self) -> str:
        """What there is in place of safetensors, for the error message."""

    @abstractmethod
    def _read(self, file: str) -> bytes: ...

    @abstractmethod
    def _open(self, file: str) -> Shard: ...


class FileShard:
    """A safetensors file on disk. Tensors are memory-mapped: only what is used of them is read.

    CheckpointError for a file that is truncated or damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._version = file, _file_version(file)
        with self._opened() as tensors:  # safe_open compares the header with the file's length
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            self.entries = {name: TensorEntry(s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}

    @contextmanager
    def _opened(self) -> "Iterator[safe_open]":
        from safetensors import safe_open

        damaged = explained(f"{self._file} is truncated or damaged", "; download the checkpoint again")
        with damaged, safe_open(self._file, framework="pt") as tensors:
            yield tensors
        if _file_version(self._file) != self._version:
            raise CheckpointError(f"{self._file} was replaced while it was read; try again")

    def tensor(self, name: str, advance: Advance | None = None) -> Tensor:
        """A view of the file, which must not change as long as the tensor is in use."""
        with self._opened() as tensors:
            tensor = tensors.get_tensor(name)
        if advance:
            advance(tensor.nbytes)
        return tensor

    def rows(self, name: str, indices: list[int]) -> Tensor:
        """`[len(indices), d]`, copied."""
        return self.tensor(name)[indices]


def _file_version(file: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Folder(Files):
    """A checkpoint in a local folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def place(self, file: str) -> str:
        """The path."""
        return str(self.path / file)

    def without_safetensors(self) -> str:
        """Pickled weights, or nothing."""
        pickled = sorted(file.name for file in self.path.glob("*.bin"))
        return f"found {pickled[0]}, and pickle is never read" if pickled else "found no weights"

    def _read(self, file: str) -> bytes:
        return self._existing(file).read_bytes()

    def _open(self, file: str) -> FileShard:
        return FileShard(self._existing(file))

    def _existing(self, file: str) -> Path:
        if (self.path / file).is_file():
            return self.path / file
        raise MissingFileError(f"{self.place(file)} is missing")


def named_folder(model: str | Path) -> Path | None:
    """The folder that a model's name stands for; None for a hub id.

    A name stands for a folder if it is a `Path`, starts with ".", "/" or "~", exists here, or has more than one slash:
    then no hub is asked for it, and CheckpointError says that it is no folder.
    """
    if not str(model):
        raise CheckpointError("no model is named: expected a folder or a hub id")
    folder = Path(os.path.expanduser(model))  # unlike Path.expanduser, keeps the name of an unknown user
    is_path = isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") > 1
    if not (is_path or folder.exists()):
        return None
    if not folder.is_dir():
        actual = "a file" if folder.exists() else "nothing"
        expected = f"a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
        raise CheckpointError(f"{str(model)!r} should be {expected}; found {actual} there")
    return folder


@contextmanager
def explained(problem: str, advice: str = "") -> Iterator[None]:
    """Turns an exception of a library, of any type and length, into one line: the problem, its reason, the advice."""
    try:
        yield
    except MemoryError:  # which is no fault of the checkpoint
        raise
    except Exception as error:
        raise CheckpointError(f"{problem} ({reason(error)}){advice}") from error


def reason(error: BaseException) -> str:
    """An error in one short line."""
    return shorten(f"{type(error).__name__}: {error}", 240, placeholder=" …")
