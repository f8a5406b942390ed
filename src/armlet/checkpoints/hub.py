"""A checkpoint in a hub's repository, read by huggingface_hub's file system.

Only the necessary bytes are downloaded, and nothing is written to disk. Files that this machine's hub cache contains
at the same commit are read from the cache.
"""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from armlet.checkpoints.folder import CONFIG_FILE, Advance, CheckpointError, Files, FileShard, MissingFileError, reason
from armlet.checkpoints.header import FLOATS, LENGTH_BYTES, HeaderError, header_length, parse_header
from armlet.checkpoints.hub_requests import UnreachableError, send_request
from armlet.checkpoints.network import check_hub_connection, without_passwords

THREADS = 8  # concurrent requests
PIECE = 2**24  # maximum bytes of a request: an interrupted request is repeated as a whole


class HubShard:
    """A safetensors file on a hub. The header is read at once, tensors on demand.

    Raises MissingFileError if the file is missing, CheckpointError if it cannot be read or is damaged.
    """

    def __init__(self, hub: "Hub", file: str) -> None:
        self._hub, self._file = hub, file
        size = hub.size(file)
        try:
            first = hub.read(file, [(0, min(LENGTH_BYTES, size))]).numpy().tobytes()
            header = hub.read(file, [(LENGTH_BYTES, LENGTH_BYTES + header_length(first, size))]).numpy().tobytes()
            self.entries = parse_header(header, size)
        except HeaderError as error:
            raise CheckpointError(f"{hub.place(file)} is damaged ({reason(error)})") from error

    def tensor(self, name: str, advance: Advance | None = None) -> Tensor:
        """Downloads a whole tensor directly into its memory."""
        entry = self.entries[name]
        data = self._hub.read(self._file, [(entry.start, entry.start + entry.size)], advance)
        return data.view(FLOATS[entry.dtype]).view(entry.shape)

    def rows(self, name: str, indices: list[int]) -> Tensor:
        """Downloads rows `[len(indices), d]`, several at a time."""
        entry = self.entries[name]
        size = entry.size // entry.shape[0]
        starts = [entry.start + index * size for index in indices]
        data = self._hub.read(self._file, [(start, start + size) for start in starts])
        return data.view(FLOATS[entry.dtype]).view(len(indices), *entry.shape[1:])


class Hub(Files):
    """A checkpoint in a hub's repository, at the current commit of its main branch.

    The environment variable HF_ENDPOINT sets the hub. Without a network, commit and files come only from this machine's
    cache. Raises UnreachableError if the hub does not answer and the cache has no copy, CheckpointError if there is no
    such repository or no access to it.
    """

    def __init__(self, repo: str) -> None:
        from huggingface_hub import HfFileSystem, constants

        super().__init__(repo)
        self._address = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self.endpoint = without_passwords(self._address)
        check_hub_connection(self._address)
        self._unreachable: UnreachableError | None = None
        self._repo, self._commit = self._pin()
        self._file_system = HfFileSystem(endpoint=self._address, skip_instance_cache=True)

    def _pin(self) -> tuple[str, str]:
        """Returns the repository's full id and the commit of its main branch."""
        from huggingface_hub import HfApi, constants

        api, timeout = HfApi(self._address), constants.HF_HUB_ETAG_TIMEOUT
        try:
            info = send_request(lambda: api.model_info(self.name, timeout=timeout), self.name, self.endpoint)
        except UnreachableError as error:
            config = self._cached(CONFIG_FILE, "main")
            if config is None:
                raise
            self._unreachable = error
            return self.name, config.parent.name
        except ValueError as error:  # an impossible id, or an answer that is not JSON
            problem = f"{self.name!r} is not a local folder, and the hub at {self.endpoint} cannot have it"
            raise CheckpointError(f"{problem} ({reason(error)})") from error
        if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
            raise CheckpointError(f"{self.name!r}: the hub at {self.endpoint} does not say which commit it has")
        return info.id, str(info.sha)

    def place(self, file: str) -> str:
        """The file, the repository and the hub."""
        return f"{self.name}/{file} at {self.endpoint}"

    def without_safetensors(self) -> str:
        """Says that the repository has none, or that the hub cannot be reached."""
        offline = f"this machine's cache has none ({self._unreachable})"
        return offline if self._unreachable else "found no others that are read, and pickle is never read"

    @contextmanager
    def progress(self, size: int, title: str) -> Iterator[Advance]:
        """A bar on a terminal, unless huggingface_hub's bars are switched off."""
        from huggingface_hub.utils import tqdm

        with tqdm(total=size, desc=title, unit="B", unit_scale=True, disable=None) as bar:
            yield bar.update

    def _read(self, file: str) -> bytes:
        cached = self._cached(file, self._commit)
        return cached.read_bytes() if cached else self.read(file, [(0, self.size(file))]).numpy().tobytes()

    def _open(self, file: str) -> "FileShard | HubShard":
        cached = self._cached(file, self._commit)
        return FileShard(cached) if cached else HubShard(self, file)

    def size(self, file: str) -> int:
        """The length of a file in bytes; raises MissingFileError if there is no such file."""
        if self._unreachable:  # even if the network is back: the commit may have changed
            raise MissingFileError(f"{self.place(file)} is not in this machine's cache: {self._unreachable}")
        try:
            return send_request(lambda: self._file_system.info(self._path(file))["size"], self.name, self.endpoint)
        except FileNotFoundError as error:
            raise MissingFileError(f"{self.place(file)} is missing") from error

    def read(self, file: str, ranges: Sequence[tuple[int, int]], advance: Advance | None = None) -> Tensor:
        """Reads byte ranges (start, stop) of a file; returns them concatenated, uint8 `[bytes]`."""
        pieces = [(first, min(first + PIECE, stop)) for start, stop in ranges for first in range(start, stop, PIECE)]
        sizes = [stop - start for start, stop in pieces]
        data = torch.empty(sum(sizes), dtype=torch.uint8, device="cpu")

        def fill(target: Tensor, piece: tuple[int, int]) -> int:
            target.numpy()[:] = np.frombuffer(self._piece(file, *piece), np.uint8)
            return len(target)

        with ThreadPoolExecutor(THREADS) as pool:
            for byte_count in pool.map(fill, data.split(sizes), pieces):
                if advance:
                    advance(byte_count)
        return data

    def _piece(self, file: str, start: int, stop: int) -> bytes:
        request = partial(self._file_system.cat_file, self._path(file), start, stop, cache_type="none")  # no read-ahead
        content = cast("bytes", send_request(request, self.name, self.endpoint, repeat=False))
        if len(content) != stop - start:
            raise CheckpointError(
                f"{self.place(file)}: requested bytes {start} to {stop - 1}, the hub sent {len(content)} bytes; "
                f"download the model (`hf download {self.name}`) and name its folder"
            )
        return content

    def _path(self, file: str) -> str:
        return f"{self._repo}@{self._commit}/{file}"

    def _cached(self, file: str, revision: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.name, file, revision=revision)
        return Path(path) if isinstance(path, str) else None
