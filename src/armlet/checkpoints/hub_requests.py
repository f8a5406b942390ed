"""Requests to a hub by huggingface_hub: which faults are worth another attempt, and one clear error for the others."""

import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

from armlet.checkpoints.folder import CheckpointError, MissingFileError, reason

ATTEMPTS = 5  # at a request
PAUSE = 0.5  # seconds before the second attempt, doubled before each further one
BUSY = (408, 425, 429)  # HTTP statuses that may pass, besides those from 500 on

Answered = TypeVar("Answered")


class UnreachableError(CheckpointError):
    """The hub does not answer, or this machine is told not to ask it."""


def ask(
    request: Callable[[], Answered], repo: str, endpoint: str, *, repeat: bool = True, attempt: int = 1
) -> Answered:
    """The answer to a request, which is repeated after a network fault.

    What `request` raises for another reason than the network or the hub, such as a MemoryError, is passed on at once;
    for what the others become, see `_explain`. `repeat` is False where huggingface_hub repeats the request itself; but
    its version 1 does not do so where a connection breaks off half-way, so that this is repeated in any case.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        return request()
    except (OfflineModeIsEnabled, *_http_errors("HTTPError", "InvalidURL")) as error:
        repeated = isinstance(error, _http_errors("RemoteProtocolError")) or (repeat and _is_transient(error))
        if attempt == ATTEMPTS or not repeated:
            raise _explain(error, repo, endpoint) from error
    time.sleep(PAUSE * 2 ** (attempt - 1))
    return ask(request, repo, endpoint, repeat=repeat, attempt=attempt + 1)


def _http_errors(*names: str) -> tuple[type[Exception], ...]:
    """Errors of both libraries that huggingface_hub may send requests with: httpx2, and httpx before its version 2."""
    libraries = [import_module(library) for library in ("httpx2", "httpx") if find_spec(library)]
    return tuple(getattr(library, name) for library in libraries for name in names)


def _is_transient(error: Exception) -> bool:
    """Whether another attempt may succeed."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY or error.response.status_code >= 500
    return isinstance(error, _http_errors("TimeoutException", "NetworkError", "RemoteProtocolError", "ProxyError"))


def _explain(error: Exception, repo: str, endpoint: str) -> CheckpointError:
    """UnreachableError for network faults, MissingFileError for a missing file, CheckpointError for any refusal."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

    why, status = reason(error), 0
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        why = f"HTTP {status}: {error.server_message or error.response.reason_phrase}"
    if isinstance(error, OfflineModeIsEnabled) or _is_transient(error):
        problem = f"{repo!r} is no folder here, and the hub at {endpoint} did not give it"
        return UnreachableError(f"{problem}: check the name or the network ({why})")
    if isinstance(error, EntryNotFoundError):
        return MissingFileError(f"{repo!r}: the hub at {endpoint} lacks a file ({why})")
    if status in (401, 403, 404):
        return CheckpointError(
            f"{repo!r}: the hub at {endpoint} has no such model or does not give it to you ({why}); "
            "check the name, and for a private or gated model run `hf auth login` and ask for access on its page"
        )
    return CheckpointError(f"{repo!r} cannot be read from the hub at {endpoint} ({why}); try again, or name a folder")
