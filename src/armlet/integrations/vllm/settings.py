"""What vLLM is told of ARM: for the engine in `additional_config`, for one request in `extra_args`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from armlet.attachment.config import CONFIG_FILE, describe, load_config, parse_config
from armlet.attachment.sites import GATE
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise

KEY = "armlet"
"""Of `additional_config`, and of a request's `extra_args` (`vllm_xargs` over HTTP)."""

SWITCHES = {"on": None, "off": 0.0}
"""What a request may say in words; None: as the engine is configured."""


def resolve(additional_config: object, model: str) -> Any:
    """`additional_config` with its entry for ARM written out in full, as the content of an armlet.json.

    Written out before the engine is configured, it reaches all workers and enters the hash of compiled artefacts; the
    name of a file would not tell that the file changed.

    Args:
        additional_config: of the engine; its entry is an object as in armlet.json, the name of such a file or of its
            folder, or false. Without an entry, the armlet.json in the model's folder is taken where there is one.
        model: the engine's model.

    Raises:
        ArgumentError, ConfigError: an entry that is none, or that vLLM cannot serve.
    """
    if not isinstance(additional_config, Mapping):
        return additional_config
    entry = additional_config.get(KEY, _beside(model))
    rest = {key: value for key, value in additional_config.items() if key != KEY}
    return rest if entry is None or entry is False else rest | {KEY: _written_out(entry)}


def configured(additional_config: object) -> dict[str, Any] | None:
    """The arguments of `attach` that the engine was configured with; None without ARM."""
    entry = additional_config.get(KEY) if isinstance(additional_config, Mapping) else None
    return parse_config(entry) if entry else None


def _beside(model: str) -> str | None:
    file = Path(model) / CONFIG_FILE
    return str(file) if file.is_file() else None


def _written_out(entry: object) -> dict[str, Any]:
    if not isinstance(entry, str | Mapping):
        raise ArgumentError(
            f"additional_config: {KEY} must be an object such as {{'policy': 'outward'}}, the name of an {CONFIG_FILE} or of "
            f"its folder, or false; found {entry!r}"
        )
    arguments = load_config(entry) if isinstance(entry, str) else parse_config(dict(entry))
    policy, layers, scope, noise = (arguments[name] for name in ("policy", "layers", "scope", "noise"))
    if scope != "token":
        raise ArgumentError(
            f"vLLM runs the tokens of many requests as one batch, and a prompt in chunks: scope {scope!r} would depend "
            "on what else is running; only 'token' does not"
        )
    if arguments.get("site", GATE) != GATE:
        raise ArgumentError(
            f"vLLM computes activation and product with up in one step, and ARM is built into it at the site {GATE} "
            f"alone; site {arguments['site']!r} needs Hugging Face's model and attach()"
        )
    if not isinstance(noise, Noise):
        raise ArgumentError(
            f"vLLM may compute a token twice (preemption, cached prefixes), and {noise.kind} noise would differ; only "
            "keyed noise does not"
        )
    indices = [layers] if isinstance(layers, int) else layers
    return describe(policy, [], scope, noise) | {"layers": indices}


def request_strength(extra_args: Mapping[str, Any] | None) -> float | None:
    """The strength that a request asks for; None: as the engine is configured.

    Raises:
        ArgumentError: neither a number in [0, 1] nor "on" nor "off".
    """
    asked = (extra_args or {}).get(KEY, "on")
    if isinstance(asked, str) and asked in SWITCHES:
        return SWITCHES[asked]
    if isinstance(asked, int | float) and not isinstance(asked, bool) and 0 <= asked <= 1:
        return float(asked)
    raise ArgumentError(f"extra_args: {KEY} must be 'on', 'off' or a strength in [0, 1], found {asked!r}")


def check_request(extra_args: Mapping[str, Any] | None, additional_config: object) -> None:
    """Refuses a request before it reaches the engine.

    Raises:
        ArgumentError: it says something of ARM that means nothing, or the engine has no ARM.
    """
    if KEY not in (extra_args or {}):
        return
    request_strength(extra_args)
    if not configured(additional_config):
        raise ArgumentError(
            f"extra_args: {KEY} was given, but this engine runs without ARM; start it with --additional-config "
            f'\'{{"{KEY}": {{"policy": "outward"}}}}\''
        )


def salted(cache_salt: str | None, extra_args: Mapping[str, Any] | None) -> str | None:
    """The prefix cache's salt: keys and values behind an ARM of another strength are others.

    Written so that no salt of a request's own can be that of another strength.
    """
    strength = request_strength(extra_args)
    return None if strength is None and cache_salt is None else json.dumps([KEY, cache_salt, strength])
