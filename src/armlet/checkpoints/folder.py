"""The files of a checkpoint, in general and in a local folder, and the errors that all readers raise.

Nothing is unpickled, and a file cannot make the reader open files outside the checkpoint.
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

ABACUS = "abacus"
"""The name of the small model that is part of this package."""

Advance = Callable[[int], object]
"""Called after each read with the number of bytes read."""


class CheckpointError(ArmletError, OSError):
    """A model, or a part of one, that does not exist or cannot be read.

    Check the name: a folder needs `config.json` and safetensors files. Download an incomplete checkpoint again.
    """


class MissingFileError(CheckpointError):
    """A file that the checkpoint does not have.

    Use a complete checkpoint, with the file that the message names.
    """


class Shard(Protocol):
    """One safetensors file."""

    entries: dict[str, TensorEntry]  # by the tensor's name

    def tensor(self, name: str, advance: Advance | None = None) -> Tensor:
        """Reads a whole tensor."""
        ...

    def rows(self, name: str, indices: list[int]) -> Tensor:
        """Reads rows of a tensor `[n, d]`; returns `[len(indices), d]`."""
        ...


class Files(ABC):
    """The files of a checkpoint, in a folder or on a hub."""

    def __init__(self, name: str) -> None:
        self.name = name  # the folder or the hub id
        self._shards: dict[str, Shard] = {}

    def json(self, file: str) -> dict[str, object]:
        """Reads a JSON object; raises MissingFileError if it is missing, CheckpointError for other content."""
        place, content = self.place(file), self._read(file)
        with one_line_errors(f"{place} is not readable as JSON", "; download the checkpoint again"):
            parsed = json.loads(content.decode("utf-8"))
        if not isinstance(parsed, dict):
            raise CheckpointError(f"{place} is not a JSON object; download the checkpoint again")
        return parsed

    def shard(self, file: str) -> Shard:
        """Opens a safetensors file and reads its header. The file must not change while the checkpoint is in use.

        Raises MissingFileError if the file is missing, CheckpointError if it cannot be read or is damaged.
        """
        if file not in self._shards:
            try:
                self._shards[file] = self._open(file)
            except MissingFileError as error:
                raise MissingFileError(f"{error}, though {INDEX_FILE} names it; use a complete checkpoint") from error
        return self._shards[file]

    @cached_property
    def settings(self) -> dict[str, object]:
        """The content of config.json."""
        return {name: _with_floats(value) for name, value in self.json(CONFIG_FILE).items()}

    def config(self, make: "Callable[[], PreTrainedConfig] | None" = None) -> "PreTrainedConfig":
        """The configuration, from `make` if passed; raises CheckpointError if transformers cannot read it."""
        from transformers import CONFIG_MAPPING

        kind = self.settings.get("model_type")
        if kind == "mistral" and "layer_types" in self.settings:  # as AutoConfig reads it
            kind = "ministral"
        if isinstance(kind, str) and kind in CONFIG_MAPPING:
            with one_line_errors(f"{self.place(CONFIG_FILE)} is not a valid configuration of {kind}"):
                return make() if make else CONFIG_MAPPING[kind].from_dict(self.settings | {"model_type": kind})
        raise self.config_refusal(f"model_type {kind!r}, which this version of transformers does not know")

    def config_refusal(self, problem: str) -> CheckpointError:
        """The error for a configuration: it needs its own code if it has auto_map, otherwise it has this `problem`."""
        if "auto_map" in self.settings:
            return CheckpointError(
                f"{self.name} needs Python code of its own (auto_map in {CONFIG_FILE}), which armlet does not run; "
                "load the model in Python, after reading that code, and call armlet.attach(model, policy)"
            )
        return CheckpointError(f"{self.place(CONFIG_FILE)} has {problem}; use a causal language model")

    def weight_map(self) -> dict[str, str]:
        """Each tensor's name → the safetensors file that contains it. Files that an index names are not opened.

        Raises CheckpointError if there are no safetensors files, or an index is malformed or names a file outside.
        """
        with suppress(MissingFileError):
            return dict.fromkeys(self.shard(WEIGHTS_FILE).entries, WEIGHTS_FILE)
        try:
            files, place = self.json(INDEX_FILE).get("weight_map"), self.place(INDEX_FILE)
        except MissingFileError as error:
            neither = f"{self.name} has neither {WEIGHTS_FILE} nor {INDEX_FILE}: {self.without_safetensors()}"
            raise CheckpointError(f"{neither}; convert or download it as safetensors") from error
        if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
            raise CheckpointError(f"{place} has no weight_map from weights to files; download the checkpoint again")
        for file in files.values():
            path = PurePosixPath(file)
            leaves = path.is_absolute() or ".." in path.parts or "\\" in file or PureWindowsPath(file).drive
            if leaves or not path.parts or not file.isprintable():
                raise CheckpointError(f"{place} names {file!r}, which leads out of the checkpoint; do not use it")
        return files

    def progress(self, size: int, title: str) -> AbstractContextManager[Advance | None]:
        """Shows how much of `size` bytes has been read; shows nothing by default."""
        return nullcontext()

    @abstractmethod
    def place(self, file: str) -> str:
        """The file's name in error messages."""

    @abstractmethod
    def without_safetensors(self) -> str:
        """The part of the error message that says what was found in place of safetensors."""

    @abstractmethod
    def _read(self, file: str) -> bytes: ...

    @abstractmethod
    def _open(self, file: str) -> Shard: ...


def _with_floats(value: object) -> object:
    """A value of a configuration, with the numbers that transformers writes as {"__float__": "Infinity"}."""
    if isinstance(value, dict):
        if (number := value.get("__float__")) in ("Infinity", "-Infinity", "NaN"):
            return float(number)
        return {name: _with_floats(part) for name, part in value.items()}
    return [_with_floats(part) for part in value] if isinstance(value, list) else value


class FileShard:
    """A safetensors file on disk. Tensors are memory-mapped: only the parts in use are read.

    Raises CheckpointError if the file is truncated or damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._version = file, _file_version(file)
        with self._opened() as tensors:  # safe_open compares the header with the file's length
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            self.entries = {name: TensorEntry(s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}

    @contextmanager
    def _opened(self) -> "Iterator[safe_open]":
        from safetensors import safe_open

        damaged = one_line_errors(f"{self._file} is truncated or damaged", "; download the checkpoint again")
        with damaged, safe_open(self._file, framework="pt") as tensors:
            yield tensors
        if _file_version(self._file) != self._version:
            raise CheckpointError(f"{self._file} was replaced while it was read; try again")

    def tensor(self, name: str, advance: Advance | None = None) -> Tensor:
        """A view of the file, which must not change while the tensor is in use."""
        with self._opened() as tensors:
            tensor = tensors.get_tensor(name)
        if advance:
            advance(tensor.nbytes)
        return tensor

    def rows(self, name: str, indices: list[int]) -> Tensor:
        """`[len(indices), d]`, copied."""
        return self.tensor(name)[indices]


def _file_version(file: Path) -> tuple[int, ...]:
    """Values that change when a file is replaced or written to."""
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
        """Names pickled weights, if there are any."""
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


def abacus() -> Path:
    """The folder of the model `ABACUS`."""
    return Path(__file__).parent / ABACUS


def named_folder(model: str | Path) -> Path | None:
    """The folder that a model's name denotes; None for a hub id.

    The text `ABACUS` denotes `abacus()`, even if a folder here has this name; "./abacus" denotes that folder. Another
    name denotes a folder if it is a `Path`, starts with ".", "/" or "~", exists here, or has more than one slash. Such
    a name is never looked up on a hub; if it is not a folder, CheckpointError is raised.
    """
    if not str(model):
        raise CheckpointError("no model is named: expected a folder or a hub id")
    if model == ABACUS:
        return abacus()
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
def one_line_errors(problem: str, advice: str = "") -> Iterator[None]:
    """Turns a library's exception, of any type and length, into one line with problem, reason and advice."""
    try:
        yield
    except MemoryError:  # not caused by the checkpoint
        raise
    except Exception as error:
        raise CheckpointError(f"{problem} ({reason(error)}){advice}") from error


def reason(error: BaseException) -> str:
    """Shortens an error to one line."""
    return shorten(f"{type(error).__name__}: {error}", 240, placeholder=" …")
