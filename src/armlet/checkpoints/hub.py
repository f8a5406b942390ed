"""A checkpoint's files on a hub: of the large ones only ranges are downloaded, and nothing is written to disk.

What this machine's hub cache holds already, at the same commit, is read from there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from armlet.checkpoints.folder import (
    CONFIG,
    INDEX,
    Advance,
    FileShard,
    MissingFileError,
    Shard,
    explained,
    json_object,
    silent,
)
from armlet.checkpoints.header import FLOATS, LENGTH, Entry, header_length, parse_header
from armlet.checkpoints.ranges import RemoteFile, UnreachableError

THREADS = 8  # that fetch rows

T = TypeVar("T")


class RangeShard:
    """A safetensors file on a hub, of which the header is read at once.

    Raises:
        MissingFileError: no such file.
        CheckpointError: it cannot be read, or is damaged.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        first = _bytes(file.read(0, LENGTH, silent))
        with explained(f"{file.place} is damaged"):
            end = LENGTH + header_length(first, file.length)
        header = _bytes(file.read(LENGTH, end, silent))
        with explained(f"{file.place} is damaged"):
            self.entries = parse_header(header, file.length)

    def tensor(self, name: str, advance: Advance) -> Tensor:
        """Downloaded straight into its place in memory."""
        entry = self.entries[name]
        return _typed(self._file.read(entry.start, entry.start + entry.size, advance), entry, entry.shape)

    def rows(self, name: str, indices: list[int]) -> Tensor:
        """`[len(indices), d]`, several at a time."""
        entry = self.entries[name]
        size = entry.size // entry.shape[0]
        starts = [entry.start + index * size for index in indices]
        with ThreadPoolExecutor(THREADS) as pool:
            read = list(pool.map(lambda start: self._file.read(start, start + size, silent), starts))
        return _typed(torch.cat(read), entry, (len(indices), *entry.shape[1:]))


def _typed(data: Tensor, entry: Entry, shape: tuple[int, ...]) -> Tensor:
    return data.view(FLOATS[entry.dtype]).view(shape)


def _bytes(data: Tensor) -> bytes:
    return data.numpy().tobytes()


class Hub:
    """A checkpoint in a hub's repository, at the commit that its main branch has when the first file is read.

    The hub is the one in HF_ENDPOINT, as it is now.
    """

    def __init__(self, repo: str) -> None:
        from huggingface_hub.constants import ENDPOINT

        self.name = repo
        self.endpoint = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        self._revision: str | None = None  # a commit, or "main" where the hub does not name one
        self._proven = False  # that the hub serves files at that commit
        self._unreachable: UnreachableError | None = None
        self._shards: dict[str, Shard] = {}

    def place(self, file: str) -> str:
        """The file, the repository and the hub."""
        return f"{self.name}/{file} at {self.endpoint}"

    def json(self, file: str) -> dict[str, Any]:
        """The JSON object in a file; without a network, what the cache has in its place.

        Raises:
            MissingFileError: no such file.
            CheckpointError: refused, not reached, not what its hash says, or not a JSON object.
        """
        cached = self._cached(file)
        return json_object(cached.read_bytes() if cached else self._whole(file), self.place(file))

    def _whole(self, file: str) -> bytes:
        try:
            content, commit = self._at_commit(file, RemoteFile.whole)
        except UnreachableError as error:
            kept = None if self._revision else self._in_cache(file, "main")
            if not kept:
                raise
            self._revision, self._unreachable = kept.parent.name, error
            return kept.read_bytes()
        named = commit if commit and re.fullmatch(r"[0-9a-f]{40}", commit) else "main"
        self._revision = self._revision or named
        return content

    def shard(self, file: str) -> Shard:
        """A safetensors file; asked for twice, its header is downloaded once.

        Raises:
            MissingFileError: no such file.
            CheckpointError: refused, not reached or damaged.
        """
        if file not in self._shards:
            self._shards[file] = self._open(file)
        return self._shards[file]

    def _open(self, file: str) -> Shard:
        if cached := self._cached(file):
            return FileShard(cached)
        try:
            return self._at_commit(file, RangeShard)
        except MissingFileError as error:
            raise MissingFileError(f"{error}, though {INDEX} names it; name another checkpoint") from error

    def _cached(self, file: str) -> Path | None:
        return None if self._revision in (None, "main") else self._in_cache(file, self._revision)

    def _in_cache(self, file: str, revision: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.name, file, revision=revision)
        return Path(found) if isinstance(found, str) else None

    def _at_commit(self, file: str, read: Callable[[RemoteFile], T]) -> T:
        """Reads a file at the commit that was named; at main where the hub names commits and serves main alone."""
        try:
            found = read(self._remote(file))
        except MissingFileError:
            if self._unreachable or self._proven or self._revision in (None, "main"):
                raise
            self._proven = self._remote(CONFIG).exists()
            if self._proven:
                raise
            self._revision = "main"
            return read(self._remote(file))
        self._proven = self._proven or self._revision is not None
        return found

    def _remote(self, file: str) -> RemoteFile:
        if self._unreachable:  # the rest of what the cache has begun, of that commit or not at all
            raise MissingFileError(f"{self.place(file)} is not in this machine's cache: {self._unreachable}")
        with explained(f"{self.name!r} is no folder here, and no hub could hold it"):
            return RemoteFile(self.name, file, self._revision or "main", self.endpoint)

    def instead(self) -> str:
        """Nothing that is read, or nothing that can be asked for."""
        offline = f"this machine's cache has none ({self._unreachable})"
        return offline if self._unreachable else "found no others that are read, and pickle is never read"

    @contextmanager
    def progress(self, size: int, title: str) -> Iterator[Advance]:
        """A bar on a terminal, unless the hub's bars are switched off."""
        from huggingface_hub.utils import tqdm

        with tqdm(total=size, desc=title, unit="B", unit_scale=True, disable=None) as bar:
            yield bar.update
