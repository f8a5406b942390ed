"""Addresses of servers, and which server a key is for."""

import os
from urllib.parse import urlsplit

from armlet.redistribution.errors import ArgumentError

SERVER_KEY, TREATED_SERVER_KEY = "OPENAI_API_KEY", "OPENAI_TREATED_API_KEY"  # environment variables
NO_KEY = "none"  # sent in place of a key: many servers need none, but the client does


def checked_url(option: str, url: str) -> str:
    """The address of an API, without a slash at its end; without a path, /v1 is added.

    Raises:
        ArgumentError: another scheme, no host, or a password or key in it, which a report would show.
    """
    try:
        parts = urlsplit(url)
        complete = parts.hostname and parts.port != 0  # raises where the port is not a number
    except ValueError:
        parts, complete = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not complete:
        raise ArgumentError(f"{option}: expected an address such as http://127.0.0.1:8000/v1, found {url!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ArgumentError(f"{option}: give the address alone; a key belongs in {SERVER_KEY}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def server_keys(url: str, treated_url: str | None) -> dict[str, str]:
    """The key for each address, from the environment. Each key is sent to its own server only.

    The treated server gets the other one's key only if it has the same scheme and host, whatever its port.
    """
    keys = {url: os.environ.get(SERVER_KEY) or NO_KEY}
    if treated_url and treated_url != url:
        hosts = {(parts.scheme, parts.hostname) for parts in map(urlsplit, (url, treated_url))}
        inherited = keys[url] if len(hosts) == 1 else NO_KEY
        keys[treated_url] = os.environ.get(TREATED_SERVER_KEY) or inherited
    return keys
