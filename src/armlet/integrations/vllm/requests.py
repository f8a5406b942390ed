"""Reads what a request to vLLM asks of ARM, in its `extra_args`: a setting, a strength, both, or neither."""

import json
import re
from typing import NamedTuple

import numpy as np

from armlet.integrations.vllm.settings import DEFAULT_KEY, OFF, ON, SETTING_KEY, Served, check_keys, served
from armlet.redistribution.errors import ArgumentError

REQUEST_SETTINGS = "extra_args (over HTTP: vllm_xargs)"  # where a request has it, in messages
NUMBER = re.compile("[0-9]*[.]?[0-9]+(e-?[0-9]+)?")  # not all that Python's float takes, such as spaces
CONFIGURED = -1.0  # in place of the strength of a token of a request that sets none

ExtraArgs = dict[str, object] | None
"""Settings of a request other than its prompt and sampling parameters."""


class Asked(NamedTuple):
    """The setting of a request's tokens, and their strength."""

    name: str | None  # one of `Served.settings`; None for no ARM
    strength: float  # in [0, 1], or CONFIGURED for that of the setting's policies


NOTHING = Asked(None, 0.0)


def read_request(extra_args: ExtraArgs, engine: Served) -> Asked:
    """Returns what a request asks for: "on" (the default), "off", a strength, a setting, or a setting's strength.

    Raises ArgumentError for any other value, and where "on" or a strength has no setting, as the engine's default is
    "off", or does nothing, as the setting's own strength is 0.
    """
    if SETTING_KEY not in (extra_args or {}):
        return NOTHING if engine.default == OFF else Asked(engine.default, CONFIGURED)
    value = (extra_args or {})[SETTING_KEY]
    if value == OFF or _strength(value) == 0:
        return NOTHING
    name, strength = _named(value)
    if strength is None or name not in (ON, *engine.settings):
        raise ArgumentError(_expected(value, engine))
    if name == ON and engine.default == OFF:
        raise ArgumentError(
            f"{REQUEST_SETTINGS}: {SETTING_KEY} {value!r} is for the engine's {DEFAULT_KEY}, which is 'off'; name a "
            f"setting, {_names(engine)}, or its strength, such as '{next(iter(engine.settings))}:0.5'"
        )
    example, name = (1, engine.default) if name == ON else (f'"{name}:1"', name)
    if strength == CONFIGURED and not any(placement["policy"].strength for placement in engine.settings[name]):
        raise ArgumentError(
            f"{REQUEST_SETTINGS}: {SETTING_KEY} {value!r} is as the engine is configured, which is strength 0; ask for "
            f'a strength, such as {{"{SETTING_KEY}": {example}}}'
        )
    return NOTHING if strength == 0 else Asked(name, strength)


def _named(value: object) -> tuple[str, float | None]:
    """The setting's name, ON for the default, and the strength; None for one that means nothing."""
    if not isinstance(value, str):
        return ON, _strength(value)
    name, colon, number = value.partition(":")
    if colon:
        return name, _strength(float(number)) if NUMBER.fullmatch(number) else None
    return name, CONFIGURED


def _strength(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= 1:
        return None
    return float(value) if np.float32(value) else 0.0  # strengths are float32, in which a tiny number is 0


def _expected(value: object, engine: Served) -> str:
    if ON in engine.settings:
        expected, example = "'on', 'off' or a strength in [0, 1]", "0.5"
    else:
        default = "" if engine.default == OFF else "'on', "
        of_default = "" if engine.default == OFF else ", a strength in [0, 1] of the default,"
        expected = (
            f"{default}'off'{of_default} or one of this engine's settings, {_names(engine)}, also with a strength"
        )
        example = f'"{next(iter(engine.settings))}:0.5"'
    problem = f"{SETTING_KEY} must be {expected}, found {value!r}"
    return f'{REQUEST_SETTINGS}: {problem}; for example {{"{SETTING_KEY}": {example}}}'


def _names(engine: Served) -> str:
    return ", ".join(map(repr, engine.settings))


def check_request(extra_args: ExtraArgs, additional_config: object) -> None:
    """Raises ArgumentError if a request's setting is invalid or misspelled, or if the engine cannot do what it says.

    "off" and 0 are what an engine without ARM does anyway.
    """
    check_keys(REQUEST_SETTINGS, extra_args or ())
    if SETTING_KEY not in (extra_args or {}):
        return
    if engine := served(additional_config):
        read_request(extra_args, engine)
    elif (value := (extra_args or {})[SETTING_KEY]) != OFF and _strength(value) != 0:
        raise ArgumentError(
            f"{REQUEST_SETTINGS}: {SETTING_KEY} is set, but this engine runs without ARM; start it with "
            f'--additional-config \'{{"{SETTING_KEY}": {{"policy": "outward"}}}}\', or leave {SETTING_KEY} out'
        )


def request_salt(cache_salt: str | None, extra_args: ExtraArgs, session: str | None = None) -> str | None:
    """Returns the salt of the prefix cache: requests share keys and values only at the same setting and strength.

    A request's own `cache_salt` cannot produce the salt of another setting. The engine's settings are not known here,
    so the names of one setting, such as "on" and its own name, do not share. A `session` shares with nobody.
    """
    value = (extra_args or {}).get(SETTING_KEY, ON)
    asked = 0.0 if value == OFF else value if isinstance(value, str) else _strength(value)
    if session is not None:
        return json.dumps([SETTING_KEY, cache_salt, asked, session])
    return None if asked == ON and cache_salt is None else json.dumps([SETTING_KEY, cache_salt, asked])
