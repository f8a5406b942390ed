"""Checks that the class of a user's policy is what the protocol `Policy` asks for, before it moves anything."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from armlet.redistribution.built_in import BUILT_IN_POLICIES, POLICIES, PUBLISHED
from armlet.redistribution.conduct import check_conduct
from armlet.redistribution.errors import ArgumentError, description
from armlet.redistribution.near_zero import NearZero
from armlet.redistribution.python_file import first_line
from armlet.redistribution.rows import FRACTION, check_settings

POLICY_NAME, PLAIN_TEXT = re.compile("[a-z][a-z0-9_-]*"), re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
RESERVED_NAMES = frozenset(
    {PUBLISHED, "help", "none"} | {"baseline", "identity", "draw-only", "matched", "zeroed", "repeat", "temperature"}
)
"""Words that have another meaning where a policy's name is expected, and the names of other conditions."""

RESERVED_SETTINGS = frozenset(
    {"policy", "layers", "site", "experts", "scope", "noise", "seed", "stream", "origin"}
    | {"version", "placements", "placement", "sha256", "code"}
)
"""Names that an armlet.json or `Attachment.update` uses for something else."""

SEARCH_EXAMPLE = 'search: ClassVar = {"share": (0.05, 0.1, 0.2)}'


def check_class(policy: object, label: str) -> None:
    """Raises ArgumentError, in one line that begins with the label, for a class that cannot be used as a policy."""
    for problem in _problems(policy):
        raise ArgumentError(f"{label}: {problem}")
    assert isinstance(policy, type)
    try:
        instance = policy()
    except Exception as error:  # a user's class may raise anything
        raise ArgumentError(
            f"{label}: its default settings are refused ({first_line(error, policy.__module__)})"
        ) from error
    check_conduct(instance, label)
    _check_search(policy, label)


def check_instance(policy: Any) -> None:
    """Raises ArgumentError for a policy as an object that moves values wrongly, or that has another policy's name.

    Its settings need no defaults, which only a class that is made from text needs.
    """
    label = type(policy).__name__
    for problem in _problems_of_class(type(policy)):
        raise ArgumentError(f"{label}: {problem}")
    check_settings(policy, {"strength": FRACTION})
    values = {name: getattr(policy, name) for name in default_settings(policy)}
    for problem in _problems_of_values(values, "value"):
        raise ArgumentError(f"{label}: {problem}")
    check_conduct(policy, label)


def default_settings(policy: Any) -> dict[str, object]:
    """The settings of a policy's class at their defaults, in order; `dataclasses.MISSING` for one without a default."""
    return {field.name: _default(field) for field in fields(policy)}


def search_values(policy: object) -> Mapping[str, tuple[float, ...]]:
    """The values that a user's policy, or its class, proposes for a search, by setting; none if it proposes nothing."""
    return getattr(policy, "search", None) or {}


def _default(field: "Field[Any]") -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _problems(policy: object) -> list[str]:
    """What is wrong with a class that is made from text; only the first problem is certain to be one."""
    return _problems_of_class(policy) or _problems_of_settings(default_settings(policy))


def _problems_of_class(policy: object) -> list[str]:
    if not isinstance(policy, type) or not callable(getattr(policy, "move", None)):
        return [f"expected a class with a method move(self, rows, draw), found {description(policy)}"]
    if not is_dataclass(policy) or "__dataclass_fields__" not in vars(policy):
        return ["expected a frozen dataclass; write @dataclass(frozen=True) above the class"]
    if not policy.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return ["expected a frozen dataclass, found one that can change; write @dataclass(frozen=True)"]
    if "strength" not in default_settings(policy):
        return ["expected a setting strength; add strength: float = 1.0, by which armlet scales the move"]
    return _problems_of_name(policy) + _problems_of_fields(policy)


def _problems_of_name(policy: type) -> list[str]:
    name = getattr(policy, "name", None)
    if not isinstance(name, str) or not POLICY_NAME.fullmatch(name):
        form = "small letters, digits, _ and -"
        return [f'expected a name of {form}, as in name: ClassVar[str] = "my_policy", found {description(name)}']
    if name in POLICIES or name in RESERVED_NAMES:
        taken = "a built-in policy" if name in POLICIES else "a word with another meaning"
        return [f"its name {name!r} is that of {taken}; choose another"]
    return []


def _problems_of_fields(policy: Any) -> list[str]:
    """What keeps two settings of a class from being told apart, or from being stored."""
    if issubclass(policy, (*BUILT_IN_POLICIES, NearZero)):
        return ["expected a class of its own, found a subclass of a built-in policy, as which armlet would run it"]
    if not policy.__dataclass_params__.eq:
        return ["expected a dataclass whose objects are compared by their settings, found eq=False; leave it out"]
    unlike = [field.name for field in fields(policy) if not field.init or not field.compare or field.hash is False]
    expected = "expected one that is given, compared and hashed; leave out init, compare and hash"
    problems = [f"the setting {name}: {expected}" for name in unlike]
    taken = [field.name for field in fields(policy) if field.name in RESERVED_SETTINGS]
    return problems + [
        f"the setting {name} has a name that armlet.json uses for something else; rename it" for name in taken
    ]


def _problems_of_settings(defaults: Mapping[str, object]) -> list[str]:
    problems = [
        f"the setting {name} has no default; give it one" for name, value in defaults.items() if value is MISSING
    ]
    if "name" in defaults:
        problems.append('name is a setting; write name: ClassVar[str] = "my_policy"')
    if defaults["strength"] != 1:
        problems.append(f"strength: expected the default 1.0, found {description(defaults['strength'])}")
    return problems + _problems_of_values(defaults, "default")


def _problems_of_values(values: Mapping[str, object], use: str) -> list[str]:
    expected = f"expected a number, a word, a pair of numbers or None as {use}"
    wrong = {name: value for name, value in values.items() if not is_plain(value)}
    return [f"the setting {name}: {expected}, found {description(value)}" for name, value in wrong.items()]


def is_plain(value: object) -> bool:
    """Whether a setting can be written as text and in an armlet.json."""
    if isinstance(value, tuple):
        return len(value) == 2 and all(_is_finite_number(part) for part in value)
    is_word = isinstance(value, str) and PLAIN_TEXT.fullmatch(value) is not None and value != "None"
    return value is None or is_word or _is_finite_number(value)


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _check_search(policy: type, label: str) -> None:
    """Raises ArgumentError if a class proposes values for a search that are no numbers, or that it refuses."""
    proposed, names = search_values(policy), default_settings(policy)
    expected = f"expected two or more ascending numbers for a setting, as in {SEARCH_EXAMPLE}"
    if not isinstance(proposed, Mapping) or not set(proposed) <= set(names):
        raise ArgumentError(f"{label}: search: {expected}, found {description(proposed)}")
    for name, values in proposed.items():
        if not isinstance(values, tuple) or len(values) < 2 or not all(map(_is_finite_number, values)):
            raise ArgumentError(f"{label}: search: {expected}, found {description(values)} for {name}")
        if list(values) != sorted(set(values)):
            raise ArgumentError(f"{label}: search: {expected}, found {description(values)} for {name}")
        if name == "strength" and not all(map(FRACTION.includes, values)):
            raise ArgumentError(f"{label}: search: strength must be {FRACTION.words}, found {description(values)}")
        if isinstance(names[name], int) and not all(isinstance(value, int) for value in values):
            raise ArgumentError(f"{label}: search: {name} is a whole number, found {description(values)}")
        for value in values:
            try:
                policy(**{name: value})
            except Exception as error:
                raise ArgumentError(f"{label}: search: {name}={value} is refused ({first_line(error)})") from error
