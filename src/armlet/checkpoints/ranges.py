"""One file of a hub, whole or a range of bytes, over connections that may break.

Of a range no hash is known, only of the whole file. What is checked instead: every answer states the range that was
asked for, has exactly its bytes, and belongs to the same version of the file (ETag and length) as the answers before;
all requests name one commit; and the transport is encrypted as far as the hub's address is.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from armlet.checkpoints.folder import Advance, CheckpointError, MissingFileError, reason

ATTEMPTS = 5  # in a row, without a byte of progress
PAUSE = 0.5  # seconds before the second attempt, and twice as long before each one after it
TIMEOUT = 10.0  # seconds without a byte

RETRIED = (408, 425, 429)  # and whatever is the server's fault
HASHES = {40: "sha1", 64: "sha256"}  # digits of an ETag → how a hub has made it

T = TypeVar("T")


class UnreachableError(CheckpointError):
    """The hub does not answer, or this machine is told not to ask it."""


class RemoteFile:
    """A file of a repository at one revision.

    Args:
        repo: the hub id.
        file: its path in the repository.
        revision: a commit or a branch.
        endpoint: the hub's address.
    """

    def __init__(self, repo: str, file: str, revision: str, endpoint: str) -> None:
        from huggingface_hub import hf_hub_url

        self.repo, self.endpoint = repo, endpoint
        self.place = f"{repo}/{file} at {endpoint}"
        self.length = 0  # in bytes; 0 until a range was read
        self._url = hf_hub_url(repo, file, revision=revision, endpoint=endpoint)
        self._etags: dict[str, str] = {}

    def whole(self) -> tuple[bytes, str | None]:
        """The content of a small file, checked against its hash where the hub states one, and the commit it is of.

        Raises:
            MissingFileError: the repository has no such file.
            UnreachableError: no answer.
            CheckpointError: refused, or not what the hash says.
        """

        def attempt() -> tuple[bytes, Any]:
            with self._asked({}) as response:
                return response.read(), response

        content, response = self._persist(attempt, lambda: 0)
        etag = _etag(response)[1]
        if not _has_hash(content, etag):
            raise CheckpointError(f"{self.place} is not what its hash {etag} says; try again, or another network")
        return content, _stated(response, "X-Repo-Commit")

    def exists(self) -> bool:
        """Whether the repository has the file at this revision; nothing of it is sent.

        Raises:
            UnreachableError, CheckpointError: as in `whole`.
        """

        def attempt() -> bool:
            with self._asked({}, "HEAD"):
                return True

        try:
            return self._persist(attempt, lambda: 0)
        except MissingFileError:
            return False

    def read(self, start: int, stop: int, advance: Advance) -> Tensor:
        """Bytes from `start` up to `stop`, uint8 `[stop - start]`; no byte that has arrived is asked for again.

        Raises:
            MissingFileError, UnreachableError: as in `whole`.
            CheckpointError: refused, not served in ranges, damaged, or replaced in the meantime.
        """
        into = torch.empty(stop - start, dtype=torch.uint8, device="cpu")
        array: Any = into.numpy()  # shares the memory
        view, reached = memoryview(array), start

        def attempt() -> None:
            nonlocal reached
            for chunk in self._chunks(reached, stop):
                view[reached - start : reached - start + len(chunk)] = chunk
                reached += len(chunk)
                advance(len(chunk))
            if reached < stop:
                raise ConnectionError(f"the answer ended {stop - reached} bytes early")

        if start < stop:
            self._persist(attempt, lambda: reached)
        return into

    def _chunks(self, start: int, stop: int) -> Iterator[bytes]:
        with self._asked({"Range": f"bytes={start}-{stop - 1}"}) as response:
            self._check_range(response, start, stop)
            for chunk in response.iter_raw():
                start += len(chunk)
                if start > stop:
                    raise CheckpointError(f"{self.place}: the hub sent more bytes than the range has; try again")
                yield chunk

    def _check_range(self, response: Any, start: int, stop: int) -> None:
        if response.status_code == 200:
            raise CheckpointError(
                f"{self.repo}: the hub at {self.endpoint} does not serve ranges; download the model "
                f"(`hf download {self.repo}`) and name its folder"
            )
        stated = response.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes\s+(\d+)-(\d+)/(\d+)", stated.strip(), re.IGNORECASE)
        first, last, length = map(int, found.groups()) if found else (-1, -1, -1)
        compressed = response.headers.get("Content-Encoding", "identity") != "identity"
        if response.status_code != 206 or (first, last) != (start, stop - 1) or last >= length or compressed:
            raise CheckpointError(
                f"{self.place}: asked for bytes {start}-{stop - 1}, the hub answered with {stated or 'no range'!r}"
                f"{', compressed' if compressed else ''}; download the model (`hf download {self.repo}`)"
            )
        self._check_version(response, length)

    def _check_version(self, response: Any, length: int) -> None:
        kind, etag = _etag(response)
        known = self._etags.setdefault(kind, etag)
        self.length = self.length or length
        if (known, self.length) != (etag, length):
            raise CheckpointError(f"{self.place} was replaced while it was read; try again")

    @contextmanager
    def _asked(self, headers: dict[str, str], method: str = "GET") -> Iterator[Any]:
        """The response, its body not read yet."""
        from huggingface_hub.utils import get_session

        sent = _identity() | headers
        request = get_session().stream(method, self._url, headers=sent, timeout=TIMEOUT, follow_redirects=True)
        with request as response:
            if not response.is_success:
                raise self._refusal(response)
            yield response

    def _refusal(self, response: Any) -> Exception:
        status, code = response.status_code, response.headers.get("X-Error-Code", "")
        said = f"HTTP {status}: {response.headers.get('X-Error-Message') or response.reason_phrase}"
        if status in RETRIED or status >= 500:
            return ConnectionError(said)
        if status == 404 and code not in ("RepoNotFound", "RevisionNotFound"):
            return MissingFileError(f"{self.place} is missing ({said})")
        if status in (401, 403, 404):
            return CheckpointError(
                f"{self.repo!r}: the hub at {self.endpoint} has no such model or does not give it to you ({said}); "
                "check the name, and for a private or gated model run `hf auth login` and ask for access on its page"
            )
        return CheckpointError(f"{self.place} cannot be read ({said}); try again, or name a folder")

    def _persist(self, attempt: Callable[[], T], reached: Callable[[], int]) -> T:
        """Tries until it succeeds, or has failed too often without getting any further."""
        from huggingface_hub.errors import OfflineModeIsEnabled

        failed, before = 0, reached()
        while True:
            try:
                return attempt()
            except CheckpointError:
                raise
            except Exception as error:  # of whichever library the session is made
                failed, before = (0 if reached() > before else failed + 1), reached()
                if failed == ATTEMPTS or isinstance(error, OfflineModeIsEnabled):
                    raise UnreachableError(
                        f"{self.repo!r} is no folder here, and the hub at {self.endpoint} did not give it: "
                        f"check the name or the network ({reason(error)})"
                    ) from error
            time.sleep(PAUSE * 2 ** max(0, failed - 1))


def _identity() -> dict[str, str]:
    """Who asks; the session takes the token to no other host. `build_hf_headers` would ask the hub more than this."""
    from huggingface_hub.utils import get_token_to_send

    token = get_token_to_send(None)  # of HF_TOKEN or `hf auth login`, unless the environment forbids it
    # Kept open, an idle connection would keep a server that serves one at a time from the threads that fetch rows.
    names = {"User-Agent": "armlet", "Accept-Encoding": "identity", "Connection": "close"}
    return names | ({"Authorization": f"Bearer {token}"} if token else {})


def _stated(response: Any, header: str) -> str | None:
    """A header of the hub's own, which stands on the redirect where there is one."""
    return next((r.headers[header] for r in [*response.history, response] if header in r.headers), None)


def _etag(response: Any) -> tuple[str, str]:
    """An ETag, and whose it is: the hub's, or another server's, whose ETags say something else."""
    linked = _stated(response, "X-Linked-Etag")
    kind, etag = ("hub", linked) if linked else (response.url.host, response.headers.get("ETag", ""))
    return kind, etag.removeprefix("W/").strip('"')


def _has_hash(content: bytes, etag: str) -> bool:
    """Whether a file may have this ETag: any, where it is no hash."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag):
        return True
    heads = (b"", b"blob %d\0" % len(content))  # as it is, and as git hashes a file
    return any(
        hashlib.new(HASHES[len(etag)], head + content, usedforsecurity=False).hexdigest() == etag for head in heads
    )
