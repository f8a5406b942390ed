"""Requests to a hub by huggingface_hub: which faults are worth another attempt, and what is told of the others."""

import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from types import ModuleType
from typing import TypeVar

from armlet.checkpoints.folder import CheckpointError, MissingFileError, reason

ATTEMPTS = 5  # at a request
PAUSE = 0.5  # seconds before the second attempt, doubled before each further one

BUSY = (408, 425, 429)  # HTTP statuses that may pass, besides those from 500 on

Answer = TypeVar("Answer")


class UnreachableError(CheckpointError):
    """The hub does not answer, or this machine is told not to ask it."""


def ask(request: Callable[[], Answer], repo: str, endpoint: str, *, retried: bool = True) -> Answer:
    """The answer to a request, which is repeated after a network fault.

    What `request` raises and is not about the network, such as a MemoryError, is passed on at once.

    Args:
        request: calls huggingface_hub.
        repo: the hub id.
        endpoint: the hub's address.
        retried: False where huggingface_hub repeats the request itself. Version 1 does not do so where a connection
            breaks off half-way, so that this is repeated in any case.

    Raises:
        UnreachableError: network faults in all attempts, or this machine is told to be offline.
        MissingFileError: the repository has no such file.
        CheckpointError: the hub refuses.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    clients = _http_clients()
    faults = tuple(fault for client in clients for fault in (client.HTTPError, client.InvalidURL))
    broken = tuple(client.RemoteProtocolError for client in clients)
    for attempt in count(1):
        try:
            return request()
        except (OfflineModeIsEnabled, *faults) as error:
            offline = isinstance(error, OfflineModeIsEnabled)
            if not offline and not _is_transient(error, clients):
                raise _refusal(error, repo, endpoint) from error
            if offline or attempt == ATTEMPTS or not (retried or isinstance(error, broken)):
                raise UnreachableError(
                    f"{repo!r} is no folder here, and the hub at {endpoint} did not give it: "
                    f"check the name or the network ({_brief_reason(error)})"
                ) from error
        time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("count() does not end")


def _http_clients() -> list[ModuleType]:
    """The libraries that huggingface_hub may send requests with, by its version; both name their errors alike."""
    return [import_module(name) for name in ("httpx2", "httpx") if find_spec(name)]


def _is_transient(error: Exception, clients: list[ModuleType]) -> bool:
    """Whether another attempt may succeed."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY or error.response.status_code >= 500
    names = ("TimeoutException", "NetworkError", "RemoteProtocolError", "ProxyError")
    return isinstance(error, tuple(getattr(client, name) for client in clients for name in names))


def _refusal(error: Exception, repo: str, endpoint: str) -> CheckpointError:
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    why = _brief_reason(error)
    if isinstance(error, EntryNotFoundError):
        return MissingFileError(f"{repo!r}: the hub at {endpoint} lacks a file ({why})")
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        return CheckpointError(
            f"{repo!r}: the hub at {endpoint} has no such model or does not give it to you ({why}); "
            "check the name, and for a private or gated model run `hf auth login` and ask for access on its page"
        )
    return CheckpointError(f"{repo!r} cannot be read from the hub at {endpoint} ({why}); try again, or name a folder")


def _brief_reason(error: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return f"HTTP {error.response.status_code}: {error.server_message or error.response.reason_phrase}"
    return reason(error)
