"""Policies that armlet does not bring: of an installed package, of a user's Python file, or of a Python session.

A package registers its classes as entry points of the group `armlet.policies`, and they have names as built-in ones. A
class in a file is named "file.py:Class". Text from a user may name a file, which is then run. A setting that was
stored, such as an armlet.json, may not: it names a class in a file only together with the file's sha256, and only a
class that this process has already loaded, because its user named the same file, is taken.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast
from uuid import uuid4

from armlet.redistribution.built_in import POLICIES
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policy_class import check_class
from armlet.redistribution.python_file import FileObject, first_line, read_file_object, run_file_object
from armlet.redistribution.rows import Policy

GROUP = "armlet.policies"
SESSION = "session:"  # in place of the sha256 of a file, for a class that is in none

_classes: dict[tuple[str, str], type[Policy]] = {}  # by the text and the sha256 in a stored setting
_identities: dict[type, tuple[str, str]] = {}  # the same, by class


def installed_names() -> list[str]:
    """The names of the policies that installed packages register, in order."""
    return sorted(entry_points(group=GROUP).names)


def package_of(name: str) -> str:
    """The package that registers a policy, with its version; of several, all of them."""
    return " and ".join(dict.fromkeys(_package(point) for point in entry_points(group=GROUP, name=name)))


def installed_class(name: str) -> type[Policy] | None:
    """The class that an installed package registers under a name; None if none does.

    Raises ArgumentError if several do, or the class cannot be imported or is no policy.
    """
    points = [*entry_points(group=GROUP, name=name)]
    if not points:
        return None
    label = f"policy {name} of {package_of(name)}"
    if len(points) > 1:
        raise ArgumentError(f"policy {name}: registered by {package_of(name)}; uninstall all but one")
    try:
        policy = points[0].load()
    except Exception as error:  # a package may raise anything
        raise ArgumentError(f"{label}: {points[0].value} cannot be imported ({first_line(error)})") from error
    check_class(policy, label)
    if policy.name != name:
        raise ArgumentError(f"{label}: the class calls itself {policy.name!r}; give class and entry point one name")
    _code_of(policy)  # now, before its files change
    return policy


def class_in_file(text: str) -> tuple[type[Policy], str]:
    """The class of "file.py:Class:settings", whose file is run unless it was before, and the text of the settings.

    Raises ArgumentError if the file cannot be read or run, or the class is no policy.
    """
    named = read_file_object(text, option="policy", kind="class")
    known = _classes.get(_identity_in_file(named))
    return known or remember_class_in_file(named, run_file_object(named)), named.settings


def remember_class_in_file(named: FileObject, policy: object) -> type[Policy]:
    """Checks a class of a file that was run, and remembers it, so that a stored setting may name it."""
    label = f"policy {named.file.name}:{named.name}"
    module = getattr(policy, "__module__", None)
    if isinstance(policy, type) and module != named.module_name:
        advice = "name the file that defines it, or register it as an entry point of"
        raise ArgumentError(f"{label}: is a class of {module}, whose code is not in this file; {advice} {GROUP}")
    check_class(policy, label)
    checked = cast("type[Policy]", policy)
    if checked.name in installed_names():
        raise ArgumentError(f"{label}: its name {checked.name!r} is that of {package_of(checked.name)}; choose another")
    _remember(checked, _identity_in_file(named))
    return checked


def stored_name(policy: Policy) -> dict[str, str]:
    """How an armlet.json names the class of a policy: by name alone, or by its file or session with the sha256."""
    kind = type(policy)
    if POLICIES.get(policy.name) is kind or (kind not in _identities and is_installed(policy)):
        return {"policy": policy.name}
    if kind not in _identities:
        _remember(kind, (kind.__qualname__, f"{SESSION}{uuid4().hex}"))
    text, digest = _identities[kind]
    return {"policy": text, "sha256": digest}


def is_in_session(stored: Mapping[str, object]) -> bool:
    """Whether only this Python session has the class of a stored setting, which no text can name."""
    return str(stored.get("sha256")).startswith(SESSION)


def is_installed(policy: Policy) -> bool:
    """Whether the class of a policy is what an installed package registers under its name."""
    return policy.name in installed_names() and installed_class(policy.name) is type(policy)


def stored_class(text: str, digest: object, advice: str) -> type[Policy]:
    """The class of a stored setting, if this process has loaded it from the same file; runs nothing.

    advice: the text by which a user names the class with these settings.

    Raises ArgumentError otherwise.
    """
    known = _classes.get((text, str(digest)))
    if known is not None:
        return known
    if is_in_session({"sha256": digest}):
        problem = "was a class of a Python session, which a file cannot name; register it"
        raise ArgumentError(f"policy: {text} {problem} as an entry point of {GROUP}")
    if any(name == text for name, _ in _classes):
        problem = f"has changed since it was stored: pass the policy {advice!r}"
    else:
        problem = "is in a file, which armlet runs only if you name it: "
        problem += f"add --policy {text}, or call parse_policy({text!r}) in Python"
    raise ArgumentError(f"policy: {text} {problem}, or register the class as an entry point of {GROUP}")


def code_identity(policy: Policy) -> dict[str, str]:
    """The sha256 of the code of an installed policy, which its name does not tell; nothing for other policies."""
    return {} if policy.name in POLICIES or "sha256" in stored_name(policy) else {"code": _code_of(type(policy))}


@cache
def _code_of(policy: type[Policy]) -> str:
    """The sha256 of the version and of all Python files of the package of a class, as they were when it was loaded.

    Without files that can be read, it is of the version alone.
    """
    module = sys.modules.get(policy.__module__.partition(".")[0])
    digest = sha256(package_of(policy.name).encode())
    folders, file = [Path(place) for place in getattr(module, "__path__", [])], getattr(module, "__file__", None)
    files = [source for folder in folders for source in sorted(folder.rglob("*.py"))]
    for source in files or ([Path(file)] if file else []):
        with suppress(OSError):
            digest.update(sha256(source.name.encode() + b"\0" + source.read_bytes()).digest())
    return digest.hexdigest()


def _remember(policy: type[Policy], identity: tuple[str, str]) -> None:
    _classes[identity], _identities[policy] = policy, identity


def _identity_in_file(named: FileObject) -> tuple[str, str]:
    return f"{named.file.name}:{named.name}", named.sha256


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
