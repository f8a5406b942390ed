"""Settings of the network in the environment: keys, proxies and certificates, shown without secrets."""

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from armlet.redistribution.errors import ArgumentError

PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
"""Environment variables with the address of a proxy; the clients also read their lower-case names."""

CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Environment variables with the certificates that are trusted."""


def read_key(variable: str) -> str | None:
    """The key in an environment variable, as `clean_key` returns it."""
    return clean_key(variable, os.environ.get(variable, ""))


def clean_key(source: str, text: str) -> str | None:
    """The key in a text, without characters added by a file or by copying; None if there is no key.

    White space and control characters are removed at both ends, and invisible characters everywhere. Raises
    ArgumentError, which contains `source` and not the key, for any other character that an HTTP header cannot have.
    """
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    key = re.sub(r"^[\s\x00-\x1f\x7f]+|[\s\x00-\x1f\x7f]+$", "", visible)
    for number, character in enumerate(key, 1):
        if not "!" <= character <= "~":
            kind = "is white space or a control character" if character.isascii() else "is not ASCII"  # no secret
            raise ArgumentError(f"{source}: character {number} of the key {kind}; copy the key again")
    return key or None


def without_passwords(text: object) -> str:
    """The text with "…" in place of the user and password in each address."""
    return re.sub(r"(\w://)[^/\s]*@", r"\1…@", str(text))


def proxies() -> list[str]:
    """The proxies of the environment, such as "ALL_PROXY=socks5://127.0.0.1:7890"."""
    return _environment_settings(*(name for proxy in PROXIES for name in (proxy, proxy.lower())))


@contextmanager
def connecting(what: str) -> Iterator[None]:
    """Raises an ArgumentError that names the settings if the environment keeps the block from opening a connection."""
    try:
        yield
    except OSError as error:
        settings, fault = _environment_settings(*CERTIFICATES)[:1], error  # the first is used
    except Exception as error:  # whatever the client's library raises for a proxy, and ImportError for SOCKS
        settings, fault = proxies(), error
    else:
        return
    if not settings:
        raise fault
    reason = without_passwords(" ".join(str(fault).split()))
    if isinstance(fault, ImportError):
        reason = "a SOCKS proxy needs an extra package, `pip install socksio`"
    stated = " and ".join(settings)
    raise ArgumentError(f"{what} cannot be reached with {stated} in the environment ({reason}): correct or unset it")


def check_hub_connection(endpoint: str) -> None:
    """Raises ArgumentError if huggingface_hub cannot send its token, or cannot connect with this environment."""
    from huggingface_hub import get_token
    from huggingface_hub.utils import get_session

    clean_key("HF_TOKEN", get_token() or "")
    with connecting(f"the hub at {without_passwords(endpoint)}"):
        get_session()


def _environment_settings(*names: str) -> list[str]:
    return [f"{name}={without_passwords(os.environ[name])}" for name in names if os.environ.get(name)]
