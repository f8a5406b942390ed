"""Requests to a hub by huggingface_hub: retries after transient faults, and one clear error for all others."""

import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

from armlet.checkpoints.folder import CheckpointError, MissingFileError, reason
from armlet.checkpoints.network import without_passwords

ATTEMPTS = 5  # maximum number of attempts at a request
PAUSE = 0.5  # seconds before the second attempt, doubled before each further one
TRANSIENT = (408, 425, 429)  # transient HTTP statuses, in addition to 500 and above

Response = TypeVar("Response")


class UnreachableError(CheckpointError):
    """The hub does not answer, or this machine is in offline mode.

    Check the connection and `HF_ENDPOINT`, leave offline mode (`HF_HUB_OFFLINE`), or pass a folder instead of a hub id.
    """


def send_request(
    request: Callable[[], Response], repo: str, endpoint: str, *, repeat: bool = True, attempt: int = 1
) -> Response:
    """Sends a request, repeats it after a network fault, and returns the response.

    Errors of the network or the hub are converted by `_explain`; any other, such as a MemoryError, propagates at once.
    `repeat` is False if huggingface_hub repeats the request itself. Its version 1 does not repeat after a connection
    breaks half-way, so that fault is always repeated here.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        return request()
    except (OfflineModeIsEnabled, *_http_errors("HTTPError", "InvalidURL")) as error:
        repeated = isinstance(error, _http_errors("RemoteProtocolError")) or (repeat and _is_transient(error))
        if attempt == ATTEMPTS or not repeated:
            raise _explain(error, repo, endpoint) from error
    time.sleep(PAUSE * 2 ** (attempt - 1))
    return send_request(request, repo, endpoint, repeat=repeat, attempt=attempt + 1)


def _http_errors(*names: str) -> tuple[type[Exception], ...]:
    """Errors of the libraries by which huggingface_hub may send requests: httpx2, and httpx before its version 2."""
    libraries = [import_module(library) for library in ("httpx2", "httpx") if find_spec(library)]
    return tuple(getattr(library, name) for library in libraries for name in names)


def _is_transient(error: Exception) -> bool:
    """Returns whether another attempt may succeed."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT or error.response.status_code >= 500
    return isinstance(error, _http_errors("TimeoutException", "NetworkError", "RemoteProtocolError", "ProxyError"))


def _explain(error: Exception, repo: str, endpoint: str) -> CheckpointError:
    """Returns UnreachableError for network faults, MissingFileError for a missing file, else CheckpointError."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

    why, status = without_passwords(reason(error)), 0
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        why = f"HTTP {status}: {error.server_message or error.response.reason_phrase}"
    if isinstance(error, OfflineModeIsEnabled) or _is_transient(error):
        problem = f"{repo!r} is not a local folder, and the hub at {endpoint} did not provide it"
        return UnreachableError(f"{problem}: check the name or the network ({why})")
    if isinstance(error, EntryNotFoundError):
        return MissingFileError(f"{repo!r}: the hub at {endpoint} lacks a file ({why})")
    if status in (401, 403, 404):
        return CheckpointError(
            f"{repo!r}: the hub at {endpoint} has no such model or denies you access ({why}); "
            "check the name, and for a private or gated model run `hf auth login` and request access on its page"
        )
    return CheckpointError(f"{repo!r} cannot be read from the hub at {endpoint} ({why}); try again, or name a folder")
