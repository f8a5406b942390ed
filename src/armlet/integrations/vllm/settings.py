"""Reads and checks ARM's settings in vLLM: `additional_config` of the engine, and `extra_args` of a request."""

# pyright: reportMissingImports=false

import json
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from armlet.attachment.config import (
    ARMLET_FILE,
    AttachArguments,
    all_placements,
    describe,
    load_config,
    parse_config,
    several_placements,
)
from armlet.attachment.sites import ALL_EXPERTS, GATE
from armlet.redistribution.built_in import POLICIES, is_user_policy
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise

if TYPE_CHECKING:
    from vllm.config import VllmConfig

SETTING_KEY = "armlet"  # key in `additional_config` and in a request's `extra_args` (`vllm_xargs` over HTTP)
REQUEST_SETTINGS = "extra_args (over HTTP: vllm_xargs)"  # where a request has it, in messages
CONFIGURED = -1.0  # in place of the strength of a token of a request that sets none
TYPO_CUTOFF = 0.8  # similarity above which another key is a misspelling: of "armlett", and not of "alert"
SWITCHES = {"on": None, "off": 0.0}  # words that a request may use; None means as the engine is configured

ExtraArgs = dict[str, object] | None
"""Settings of a request other than its prompt and sampling parameters."""


def resolve(additional_config: object, model: str) -> object:
    """Returns `additional_config` with ARM's entry, by default the model's armlet.json, as a `full_setting`.

    Raises ArgumentError, ConfigError: a misspelled key, or an entry of which `full_setting` says why.
    """
    if not isinstance(additional_config, Mapping):
        return additional_config
    check_keys("additional_config", additional_config)
    file = Path(model) / ARMLET_FILE
    entry = additional_config.get(SETTING_KEY, str(file) if file.is_file() else None)
    rest = {key: value for key, value in additional_config.items() if key != SETTING_KEY}
    return rest if entry is None or entry is False else rest | {SETTING_KEY: full_setting(entry)}


def configured(additional_config: object) -> list[AttachArguments]:
    """Returns the placements in the engine's configuration; none without ARM."""
    entry = additional_config.get(SETTING_KEY) if isinstance(additional_config, Mapping) else None
    return all_placements(parse_config(entry)) if entry else []


def full_setting(entry: object) -> dict[str, object]:
    """Returns the content of an armlet.json with all keys, from such an object or the path of a file or folder.

    The full content reaches all workers and is part of the hash of compiled artefacts, which must change when the file
    changes.

    Raises:
        ArgumentError, ConfigError: an entry that cannot be read or that vLLM does not support.
    """
    if not isinstance(entry, str | Mapping):
        raise ArgumentError(
            f"additional_config: {SETTING_KEY} must be an object such as {{'policy': 'outward'}}, the path of an "
            f"{ARMLET_FILE} or of its folder, or false, found {entry!r}"
        )
    parsed = load_config(entry) if isinstance(entry, str) else parse_config(dict(entry))
    contents = [_full_placement(arguments) for arguments in all_placements(parsed)]
    return contents[0] if len(contents) == 1 else several_placements(contents)


def _full_placement(arguments: AttachArguments) -> dict[str, object]:
    layers, scope, noise = arguments["layers"], arguments["scope"], arguments["noise"]
    if is_user_policy(arguments["policy"]):
        raise ArgumentError(
            f"vLLM runs ARM as an operator that knows the built-in policies alone, {', '.join(POLICIES)}: "
            f"{arguments['policy'].name} needs Hugging Face's model and attach()"
        )
    if scope != "token":
        raise ArgumentError(
            f"vLLM runs the tokens of many requests as one batch, and a prompt in chunks: results at scope {scope!r} "
            "would depend on other requests; use scope 'token'"
        )
    if not isinstance(noise, Noise):
        raise ArgumentError(
            f"vLLM may compute a token twice (preemption, cached prefixes), and {noise.kind} noise would then "
            "differ; use keyed noise"
        )
    indices = [layers] if isinstance(layers, int) else layers
    where = arguments.get("site", GATE), arguments.get("experts", ALL_EXPERTS)
    return describe(arguments["policy"], indices, scope, noise, *where)


def check_config(config: "VllmConfig", policies: Collection[str]) -> None:
    """Raises ArgumentError if a policy would act wrongly or not at all with an engine's configuration."""
    from vllm.platforms import current_platform as platform

    cache, parallel = config.cache_config, config.parallel_config
    microbatches = parallel.enable_dbo or parallel.ubatch_size > 1
    known_runner = platform.is_cpu() or platform.is_cuda_alike() or platform.is_xpu()
    reasons = {
        "keys and values may come from an instance without ARM (kv_transfer_config)": config.kv_transfer_config,
        "later layers process only a prompt's last token (kv_sharing_fast_prefill)": cache.kv_sharing_fast_prefill,
        "overlapping microbatches share one table of positions (enable_dbo, ubatch_size)": microbatches,
        "a prompt split over ranks has other positions on each (prefill_context_parallel_size)": (
            parallel.prefill_context_parallel_size > 1
        ),
        "tokens split over ranks have other positions on each (sequence-parallel mixture of experts)": (
            parallel.use_sequence_parallel_moe
        ),
        "Outward's noise needs one position for each token, and this model has three (M-RoPE)": (
            "outward" in policies and config.model_config.uses_mrope
        ),
        "armlet only supports vLLM's model runner V1 (unset VLLM_USE_V2_MODEL_RUNNER)": config.use_v2_model_runner,
        f"armlet does not support vLLM's model runner for {platform.device_name}": not known_runner,
    }
    for reason, applies in reasons.items():
        if applies:
            raise ArgumentError(f"vLLM cannot serve ARM with this configuration: {reason}")


def request_strength(extra_args: ExtraArgs) -> float | None:
    """Returns the strength that a request sets; None means as the engine is configured.

    Raises ArgumentError if the setting is not a number in [0, 1], "on" or "off".
    """
    value = (extra_args or {}).get(SETTING_KEY, "on")
    if isinstance(value, str) and value in SWITCHES:
        return SWITCHES[value]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ArgumentError(
        f"{REQUEST_SETTINGS}: {SETTING_KEY} must be 'on', 'off' or a strength in [0, 1], found {value!r}; for example "
        f'{{"{SETTING_KEY}": 0.5}}'
    )


def check_request(extra_args: ExtraArgs, additional_config: object) -> None:
    """Raises ArgumentError if a request's setting is invalid or misspelled, or if the engine cannot do what it says.

    "off" and 0 are what an engine without ARM does anyway. "on" means nothing where the engine's own strength is 0.
    """
    check_keys(REQUEST_SETTINGS, extra_args or ())
    if SETTING_KEY not in (extra_args or {}):
        return
    if placements := configured(additional_config):
        if request_strength(extra_args) is None and not any(placement["policy"].strength for placement in placements):
            raise ArgumentError(
                f"{REQUEST_SETTINGS}: {SETTING_KEY} 'on' is as the engine is configured, which is strength 0; ask for "
                f'a strength, such as {{"{SETTING_KEY}": 1}}'
            )
    elif not _turns_off(extra_args):
        raise ArgumentError(
            f"{REQUEST_SETTINGS}: {SETTING_KEY} is set, but this engine runs without ARM; start it with "
            f'--additional-config \'{{"{SETTING_KEY}": {{"policy": "outward"}}}}\', or leave {SETTING_KEY} out'
        )


def _turns_off(extra_args: ExtraArgs) -> bool:
    try:
        return request_strength(extra_args) == 0
    except ArgumentError:
        return False


def check_keys(where: str, keys: Iterable[object]) -> None:
    """Raises ArgumentError for a key that is nearly `SETTING_KEY`: vLLM ignores keys that it does not know."""
    for key in keys:
        word = str(key).lower()
        if key != SETTING_KEY and (word == "arm" or get_close_matches(word, [SETTING_KEY], cutoff=TYPO_CUTOFF)):
            raise ArgumentError(f"{where}: {key!r} means nothing here; did you mean {SETTING_KEY!r}?")


def request_salt(cache_salt: str | None, extra_args: ExtraArgs) -> str | None:
    """Returns the salt of the prefix cache, so that requests share keys and values only at the same strength.

    A request's own `cache_salt` cannot produce the salt of another strength.
    """
    strength = request_strength(extra_args)
    return None if strength is None and cache_salt is None else json.dumps([SETTING_KEY, cache_salt, strength])
