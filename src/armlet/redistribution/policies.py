"""The policies, and their conversion to and from text, and to and from a name with settings (JSON)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from armlet.redistribution.arguments import check_policy
from armlet.redistribution.backends.interception import intercepted
from armlet.redistribution.built_in import BUILT_IN_POLICIES, POLICIES, PUBLISHED, is_user_policy
from armlet.redistribution.cut import Cut
from armlet.redistribution.errors import ArgumentError, description, did_you_mean
from armlet.redistribution.inward import Inward
from armlet.redistribution.near_zero import NearZero
from armlet.redistribution.policy_class import check_instance, default_settings, is_plain
from armlet.redistribution.presets import published
from armlet.redistribution.python_file import first_line, names_python_file
from armlet.redistribution.registry import (
    class_in_file,
    installed_class,
    installed_names,
    stored_class,
    stored_name,
)
from armlet.redistribution.rows import FRACTION, Policy

MAIN_SETTINGS = {
    "outward": ("band", "ceiling"),
    "inward": ("knee", "limit", "curve"),
    "transport": ("spread",),
    "cut": ("band",),
}

SETTING_MEANINGS = {
    "band": "half-width of the near-zero band, in robust standard deviations",
    "ceiling": "quantile that bounds positive draws",
    "share": "lowest and highest share of values that move",
    "proportion": "share of values that move, in place of band and share",
    "write": "whether a draw replaces the value (released code) or is added to it (paper)",
    "ceiling_of": "whether the ceiling is a quantile of a or of |a|",
    "knee": "quantile of |a| beyond which values move",
    "limit": "the largest |a| that does not move, in place of knee",
    "side": "whether values beyond the knee move on both sides, or above it only",
    "curve": "logarithmic contraction, clipping at the knee, or tanh, which moves every value",
    "target": "target distribution, of the magnitudes of each sign",
    "spread": "scale of the target, in robust standard deviations of the values",
    "threshold": "largest |a| that moves, in place of band, share and proportion",
    "strength": "how far values move: 0 leaves them unchanged, 1 moves them fully",
}
"""What each setting is; a setting of several policies has one meaning."""

COMMON_MEANINGS = {"strength": SETTING_MEANINGS["strength"]}
"""What a setting means in every policy, also a user's."""

PAPER_NAMES = {"band": "c", "ceiling": "p₁", "share": "p_min, p_max", "proportion": "p"}
"""The names of settings in arXiv 2510.01032 (docs/concepts/equations.md)."""

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
"""A decimal number; Python's `float` also reads "1_0", "١" and "nan"."""

WHOLE_NUMBER = re.compile("[+-]?[0-9]{1,300}")


@dataclass(frozen=True)
class Knob:
    """A setting of a policy."""

    policy: str
    name: str
    default: object
    allowed: str  # range or choices, as the policy checks them
    meaning: str
    paper: str | None  # its name in arXiv 2510.01032; None if the paper has no such setting


def knobs() -> list[Knob]:
    """Every setting of every policy, in order."""
    return [
        Knob(policy.name, name, default, policy.allowed[name].words, SETTING_MEANINGS[name], PAPER_NAMES.get(name))
        for policy in BUILT_IN_POLICIES
        for name, default in settings(policy()).items()
    ]


def installed_knobs(name: str) -> list[Knob]:
    """The settings of a policy that an installed package registers; raises ArgumentError if it cannot be used."""
    defaults = default_settings(installed_class(name))
    return [
        Knob(name, setting, default, _kind(setting, default), COMMON_MEANINGS.get(setting, ""), None)
        for setting, default in defaults.items()
    ]


def first_docstring_line(policy: type[Policy]) -> str:
    """The first line of a class's docstring."""
    return (policy.__doc__ or "no docstring").strip().splitlines()[0]


def _kind(name: str, default: object) -> str:
    if name in COMMON_MEANINGS:
        return FRACTION.words
    kinds = {tuple: "a pair of numbers", str: "a word", type(None): "a number, a word, or None"}
    return kinds.get(type(default), "a number")


def settings(policy: object) -> dict[str, object]:
    """Returns the fields of a policy, or of another dataclass of plain values, in order."""
    return {field.name: getattr(policy, field.name) for field in fields(policy)}  # type: ignore[arg-type]


def make_policy(name: str, values: Mapping[str, object], *, sha256: object = None) -> Policy:
    """Makes a policy from its name and settings, as an armlet.json states them; missing settings have defaults.

    Runs no file: sha256, of a class in a file, must be that of a file which this process has loaded.

    Raises ArgumentError if a name or a setting is unknown or out of range.
    """
    if sha256 is not None or names_python_file(name):
        pairs = _pairs_text(values)
        policy = stored_class(name, sha256, f"{name}:{pairs}" if pairs else name)
    else:
        policy = _named_class(name)
    return changed_policy(policy(), values)


def _named_class(name: str) -> type[Policy]:
    """The class of a built-in policy, or of one that an installed package registers; raises ArgumentError otherwise."""
    policy: type[Policy] | None = POLICIES.get(name) or installed_class(name)
    if policy is None:
        known = [*POLICIES, *installed_names()]
        advice = did_you_mean([name], [*known, PUBLISHED])
        raise ArgumentError(f"policy: expected one of {', '.join(known)}, found {description(name)}{advice}")
    return policy


def changed_policy(policy: Policy, values: Mapping[str, object]) -> Policy:
    """Returns the policy with other values of some settings; raises ArgumentError if one is unknown or out of range."""
    known = settings(policy) if is_dataclass(policy) else {}
    unknown = [name for name in values if name not in known]
    if unknown:
        expected = f"expected {', '.join(known)}{did_you_mean(unknown, [*known])}"
        raise ArgumentError(f"{policy.name}: unknown {', '.join(unknown)}; {expected}")
    if not values:
        return policy
    if type(policy) in BUILT_IN_POLICIES:
        return replace(policy, **values)  # type: ignore[type-var] - each policy checks its settings
    return _changed_user_policy(policy, values, known)


def _changed_user_policy(policy: Any, values: Mapping[str, object], known: Mapping[str, object]) -> Policy:
    values = {name: _as_setting(value, known[name]) for name, value in values.items()}
    for name, value in values.items():
        if not is_plain(value):
            raise ArgumentError(f"{policy.name}: {name} must be a number, a word or a pair of numbers, found {value!r}")
    try:
        changed = replace(policy, **values)
    except ArgumentError:
        raise
    except Exception as error:  # a user's class may raise anything
        raise ArgumentError(f"{policy.name}: {_pairs_text(values)} is refused ({first_line(error)})") from error
    return as_policy(changed)


def _as_setting(value: object, present: object) -> object:
    """A value from text or JSON, in which whole numbers may be floats, pairs are lists, and None is a word."""
    if isinstance(value, list | tuple):
        parts = present if isinstance(present, tuple) and len(present) == len(value) else [None] * len(value)
        return tuple(_as_setting(part, at) for part, at in zip(value, parts, strict=True))
    if value == "None":
        return None
    is_count = isinstance(present, int) and isinstance(value, float) and value.is_integer()
    return int(value) if is_count else value  # type: ignore[arg-type]


def as_policy(policy: Policy | str) -> Policy:
    """Parses text; checks an object of a user's class; returns anything else as it is."""
    if isinstance(policy, str):
        return parse_policy(policy)
    if is_user_policy(policy) and not intercepted():
        check_instance(policy)
    return policy


def parse_policy(text: str) -> Policy:
    """Parses a policy such as "outward", "outward:band=0.2,share=0.02/0.25" or "published:Qwen2.5-Math-7B/AIME24".

    A name may be one that an installed package registers (entry points of the group armlet.policies), or
    "file.py:Class", as in "file.py:Class:band=0.2", which runs the file.

    Raises ArgumentError for a policy or setting that is unknown, out of range or was not published.
    """
    if names_python_file(text):
        policy, rest = class_in_file(text)
        return policy_with(policy(), rest)
    name, colon, rest = text.partition(":")
    if name == PUBLISHED:
        model, _, task = rest.rpartition("/")
        return published(model, task)
    policy = _named_class(name)()
    return policy_with(policy, rest, colon)


def policy_with(policy: Policy, text: str, colon: str = "") -> Policy:
    """The policy with settings from text; a colon without settings after it is an error."""
    values, present = dict[str, object](), settings(policy)
    for pair in text.split(",") if colon or text else []:
        field, equals, value = pair.partition("=")
        if not equals:
            form = "expected settings as name=value, and a pair as share=0.02/0.25"
            raise ArgumentError(f"{policy.name}: {form}, found {pair!r}")
        if field in values:
            raise ArgumentError(f"{policy.name}: {field} is given twice")
        values[field] = _parse_value(value, present.get(field))
    return changed_policy(policy, values)


def policy_text(policy: Policy) -> str:
    """The text that `parse_policy` reads as this policy: its name, and the settings that differ from the defaults."""
    pairs, name = _pairs_text(_changed_settings(policy)), stored_name(policy)["policy"]
    return f"{name}:{pairs}" if pairs else name


def _changed_settings(policy: Policy) -> dict[str, object]:
    """The settings that differ from the defaults; one without a default always does."""
    defaults = default_settings(type(policy))
    return {name: value for name, value in settings(policy).items() if value != defaults[name]}


def _pairs_text(values: Mapping[str, object]) -> str:
    return ",".join(f"{name}={_value_text(value)}" for name, value in values.items())


def _value_text(value: object) -> str:
    if isinstance(value, tuple | list):
        return "/".join(map(_value_text, value))
    return str(value).removesuffix(".0")


def parse_policies(policy: Policy | str | Iterable[Policy | str], scope: str = "token") -> list[Policy]:
    """The distinct policies of one or several objects or texts (see `parse_policy`), in order.

    Raises ArgumentError if one of them is no policy, or the scope is unknown.
    """
    several = policy if isinstance(policy, Iterable) and not isinstance(policy, str) else [policy]
    parsed = [as_policy(item) for item in several]
    for item in parsed:
        check_policy(item, scope)
    return list(dict.fromkeys(parsed))


def parse_one_policy(policy: Policy | str | Iterable[Policy | str], scope: str = "token") -> Policy:
    """The only one of `parse_policies`; raises ArgumentError if there are several or none."""
    policies = parse_policies(policy, scope)
    if len(policies) != 1:
        raise ArgumentError(f"policy: expected one, found {len(policies)}")
    return policies[0]


def _parse_value(text: str, present: object) -> object:
    texts = text.split("/")
    if len(texts) == 1:
        return _parse_number(text, present)
    return tuple(map(_parse_number, texts, present if isinstance(present, tuple) else [None] * len(texts)))


def _parse_number(text: str, present: object) -> float | str:
    """A float, or a word; an int in place of one, which as a float may be another number."""
    is_whole = isinstance(present, int) and WHOLE_NUMBER.fullmatch(text)
    return int(text) if is_whole else float(text) if NUMBER.fullmatch(text) else text


def detail(policy: Policy) -> str:
    """Describes a policy by its main settings and all settings that differ from their defaults."""
    values, changed = settings(policy), _changed_settings(policy)
    names = values.keys() - {"strength"} if is_user_policy(policy) else MAIN_SETTINGS[policy.name]
    main = set(names).difference(_replaced_settings(policy)[1])
    shown = [name for name, value in values.items() if name in changed or (name in main and value is not None)]
    return ", ".join(f"{name} {values[name]}" for name in shown)


def without_effect(policy: Policy) -> list[str]:
    """Says which settings change nothing, whatever the values are."""
    if policy.strength == 0:
        return [f"{policy.name}: strength 0 changes nothing"]
    by, replaced = _replaced_settings(policy)
    changed = [name for name in replaced if getattr(policy, name) != getattr(type(policy), name)]
    names = " and ".join(filter(None, [", ".join(replaced[:-1]), *replaced[-1:]]))
    return [f"{policy.name}: {name} has no effect, because {by} replaces {names}" for name in changed]


def _replaced_settings(policy: Policy) -> tuple[str, tuple[str, ...]]:
    """The setting that replaces others, and the settings that it replaces; none for most policies."""
    if isinstance(policy, Cut) and policy.threshold is not None:
        return "threshold", ("band", "share", "proportion")
    if isinstance(policy, Inward) and policy.limit is not None:
        return "limit", ("knee",)
    if isinstance(policy, NearZero) and policy.proportion is not None:
        return "proportion", ("band", "share")
    return "", ()
