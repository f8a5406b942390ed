"""Reads and checks ARM's settings of a vLLM engine, in its `additional_config`."""

# pyright: reportMissingImports=false

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
from armlet.redistribution.entry import DETERMINISTIC_POLICIES
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise

if TYPE_CHECKING:
    from vllm.config import VllmConfig

SETTING_KEY = "armlet"  # key in `additional_config` and in a request's `extra_args` (`vllm_xargs` over HTTP)
TYPO_CUTOFF = 0.8  # similarity above which another key is a misspelling: of "armlett", and not of "alert"
ON, OFF = "on", "off"  # words of requests: as the engine is configured, and without ARM
NAME = re.compile("[A-Za-z][A-Za-z0-9_-]*")
SETTINGS_KEY, DEFAULT_KEY, PLACEBO_KEY = "settings", "default", "placebo"


class Served(NamedTuple):
    """The settings of an engine, and the one of requests that name none."""

    settings: dict[str, list[AttachArguments]]  # placements by name; of an engine with one unnamed setting, that is ON
    default: str  # a name, or OFF

    @property
    def placements(self) -> list[AttachArguments]:
        """The placements of all settings."""
        return [placement for placements in self.settings.values() for placement in placements]


def resolve(additional_config: object, model: str) -> object:
    """Returns `additional_config` with ARM's entry, by default the model's armlet.json, as a `full_entry`.

    Raises ArgumentError, ConfigError: a misspelled key, or an entry of which `full_entry` says why.
    """
    if not isinstance(additional_config, Mapping):
        return additional_config
    check_keys("additional_config", additional_config)
    file = Path(model) / ARMLET_FILE
    entry = additional_config.get(SETTING_KEY, str(file) if file.is_file() else None)
    rest = {key: value for key, value in additional_config.items() if key != SETTING_KEY}
    if entry is None:
        return rest
    return rest | {SETTING_KEY: False if entry is False else full_entry(entry)}


def served(additional_config: object) -> Served | None:
    """Returns the settings in the engine's configuration as `resolve` returned it; None without ARM."""
    entry = additional_config.get(SETTING_KEY) if isinstance(additional_config, Mapping) else None
    if not entry:
        return None
    if SETTINGS_KEY not in entry:
        return Served({ON: _placements(entry)}, ON)
    return Served({name: _placements(content) for name, content in entry[SETTINGS_KEY].items()}, entry[DEFAULT_KEY])


def _placements(content: Mapping[str, Any]) -> list[AttachArguments]:
    placements = all_placements(parse_config({key: value for key, value in content.items() if key != PLACEBO_KEY}))
    if PLACEBO_KEY in content:
        from armlet.evaluation.conditions.placebos import placebo  # imports what a server rarely needs

        for placement in placements:
            placement["policy"] = placebo(content[PLACEBO_KEY], placement["policy"])
    return placements


def full_entry(entry: object) -> dict[str, object]:
    """Returns ARM's whole entry in `additional_config`: a `full_setting`, or several by name and the default's name.

    Raises:
        ArgumentError, ConfigError: an entry that cannot be read or that vLLM does not support.
    """
    if not isinstance(entry, Mapping) or SETTINGS_KEY not in entry:
        if isinstance(entry, Mapping) and "policy" not in entry and (near := get_close_matches(SETTINGS_KEY, entry)):
            raise ArgumentError(f"additional_config: {near[0]!r} means nothing here; did you mean {SETTINGS_KEY!r}?")
        return full_setting(entry)
    settings, default = entry[SETTINGS_KEY], entry.get(DEFAULT_KEY, OFF)
    if not isinstance(settings, Mapping) or not settings or not set(entry) <= {SETTINGS_KEY, DEFAULT_KEY}:
        raise ArgumentError(
            f"additional_config: {SETTING_KEY} with several settings must be {{'{SETTINGS_KEY}': {{'calm': "
            f"{{'policy': 'inward'}}, ...}}, '{DEFAULT_KEY}': 'off' or a name}}, found {entry!r}"
        )
    if default not in (OFF, *settings):
        expected = ", ".join([OFF, *map(str, settings)])
        raise ArgumentError(f"additional_config: {DEFAULT_KEY} must be one of {expected}, found {default!r}")
    return {SETTINGS_KEY: {name: _named(name, content) for name, content in settings.items()}, DEFAULT_KEY: default}


def _named(name: object, content: object) -> dict[str, object]:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower() in (ON, OFF):
        expected = "a letter, then letters, digits, - and _, and neither 'on' nor 'off'"
        raise ArgumentError(f"additional_config: a setting's name must be {expected}, found {name!r}")
    try:
        return full_setting(content)
    except ArmletError as error:
        raise ArgumentError(f"additional_config: setting {name!r}: {error}") from error


def full_setting(entry: object) -> dict[str, object]:
    """Returns the content of an armlet.json with all keys, from such an object or the path of a file or folder.

    An object may also have a "placebo", which is kept. The full content reaches all workers and is part of the hash of
    compiled artefacts, which must change when the file changes.

    Raises:
        ArgumentError, ConfigError: an entry that cannot be read or that vLLM does not support.
    """
    if not isinstance(entry, str | Mapping):
        raise ArgumentError(
            f"additional_config: {SETTING_KEY} must be an object such as {{'policy': 'outward'}}, the path of an "
            f"{ARMLET_FILE} or of its folder, or false, found {entry!r}"
        )
    if isinstance(entry, Mapping) and PLACEBO_KEY in entry:
        rest = {key: value for key, value in entry.items() if key != PLACEBO_KEY}
        return full_setting(rest) | {PLACEBO_KEY: _placebo_name(entry[PLACEBO_KEY], rest)}
    parsed = load_config(entry) if isinstance(entry, str) else parse_config(dict(entry))
    contents = [_full_placement(arguments) for arguments in all_placements(parsed)]
    return contents[0] if len(contents) == 1 else several_placements(contents)


def _placebo_name(name: object, content: Mapping[str, Any]) -> object:
    """A placebo of all policies in a content; not "identity", which is a request for no ARM."""
    from armlet.evaluation.conditions.placebos import IDENTITY, placebo_names  # imports what a server rarely needs

    for policy in (placement["policy"] for placement in _placements(content)):
        names = [known for known in placebo_names(policy, first=True) if known != IDENTITY]
        if name not in names:
            expected = f"must be one of {', '.join(names)} for {policy.name}"
            raise ArgumentError(f"{PLACEBO_KEY} {expected}, found {name!r}")
    return name


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


def check_config(config: "VllmConfig", engine: Served | None) -> None:
    """Raises ArgumentError if a policy would act wrongly or not at all with an engine's configuration."""
    from vllm.platforms import current_platform as platform

    cache, parallel = config.cache_config, config.parallel_config
    microbatches = parallel.enable_dbo or parallel.ubatch_size > 1
    policies = [placement["policy"] for placement in engine.placements] if engine else []
    drawing = sorted({policy.name for policy in policies if type(policy) not in DETERMINISTIC_POLICIES})
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
        f"the noise of {' and '.join(drawing)} needs one position for each token, and this model has three (M-RoPE)": (
            drawing and config.model_config.uses_mrope
        ),
        "only the GPU knows how many draft tokens of each request run (enable_adaptive_verification)": getattr(
            config.speculative_config, "enable_adaptive_verification", False
        ),
        f"armlet does not support vLLM's model runner for {platform.device_name}": not known_runner,
    }
    for reason, applies in reasons.items():
        if applies:
            raise ArgumentError(f"vLLM cannot serve ARM with this configuration: {reason}")


def check_keys(where: str, keys: Iterable[object]) -> None:
    """Raises ArgumentError for a key that is nearly `SETTING_KEY`: vLLM ignores keys that it does not know."""
    for key in keys:
        word = str(key).lower()
        if key != SETTING_KEY and (word == "arm" or get_close_matches(word, [SETTING_KEY], cutoff=TYPO_CUTOFF)):
            raise ArgumentError(f"{where}: {key!r} means nothing here; did you mean {SETTING_KEY!r}?")
