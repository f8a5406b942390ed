"""What vLLM is told about ARM: for the engine in `additional_config`, for one request in `extra_args`; and refusals."""

# pyright: reportMissingImports=false

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from armlet.attachment.config import ARMLET_FILE, AttachArguments, describe, load_config, parse_config
from armlet.attachment.sites import GATE
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise

if TYPE_CHECKING:
    from vllm.config import VllmConfig

SETTING_KEY = "armlet"  # of `additional_config`, and of a request's `extra_args` (`vllm_xargs` over HTTP)
SWITCHES = {"on": None, "off": 0.0}  # the words that a request may use; None: as the engine is configured

ExtraArgs = dict[str, object] | None
"""What a request says beside its prompt and its sampling parameters."""


def resolve(additional_config: object, model: str) -> object:
    """`additional_config` with its entry for ARM, or the armlet.json in the model's folder, as by `full_setting`."""
    if not isinstance(additional_config, Mapping):
        return additional_config
    file = Path(model) / ARMLET_FILE
    entry = additional_config.get(SETTING_KEY, str(file) if file.is_file() else None)
    rest = {key: value for key, value in additional_config.items() if key != SETTING_KEY}
    return rest if entry is None or entry is False else rest | {SETTING_KEY: full_setting(entry)}


def configured(additional_config: object) -> AttachArguments | None:
    """The arguments of `attach` that the engine was configured with; None without ARM."""
    entry = additional_config.get(SETTING_KEY) if isinstance(additional_config, Mapping) else None
    return parse_config(entry) if entry else None


def full_setting(entry: object) -> dict[str, object]:
    """The content of an armlet.json with all its keys, from an object as there or the name of such a file or folder.

    In full it reaches all workers and enters the hash of compiled artefacts, which the name of a file would not change
    when the file does.

    Raises:
        ArgumentError, ConfigError: an entry that cannot be read, or that vLLM cannot serve.
    """
    if not isinstance(entry, str | Mapping):
        raise ArgumentError(
            f"additional_config: {SETTING_KEY} must be an object such as {{'policy': 'outward'}}, the name of an "
            f"{ARMLET_FILE} or of its folder, or false; found {entry!r}"
        )
    arguments = load_config(entry) if isinstance(entry, str) else parse_config(dict(entry))
    layers, scope, noise = arguments["layers"], arguments["scope"], arguments["noise"]
    if scope != "token":
        raise ArgumentError(
            f"vLLM runs the tokens of many requests as one batch, and a prompt in chunks: scope {scope!r} would depend "
            "on what else is running; only 'token' does not"
        )
    site = arguments.get("site", GATE)
    if site != GATE:
        raise ArgumentError(
            f"vLLM computes activation and product with up in one step, and ARM is built into it at the site {GATE} "
            f"alone; site {site!r} needs Hugging Face's model and attach()"
        )
    if not isinstance(noise, Noise):
        raise ArgumentError(
            f"vLLM may compute a token twice (preemption, cached prefixes), and {noise.kind} noise would differ; only "
            "keyed noise does not"
        )
    indices = [layers] if isinstance(layers, int) else layers
    return describe(arguments["policy"], [], scope, noise) | {"layers": indices}


def refuse(config: "VllmConfig", policy: str) -> None:
    """Refuses an engine's configuration in which a policy would act wrongly, or not at all, without a warning."""
    from vllm.platforms import current_platform as platform

    cache, parallel = config.cache_config, config.parallel_config
    microbatches = parallel.enable_dbo or parallel.ubatch_size > 1
    known_runner = platform.is_cpu() or platform.is_cuda_alike() or platform.is_xpu()
    reasons = {
        "KV of another instance may be one without ARM (kv_transfer_config)": config.kv_transfer_config,
        "later layers see a prompt's last token only (kv_sharing_fast_prefill)": cache.kv_sharing_fast_prefill,
        "overlapping microbatches share one table of positions (enable_dbo, ubatch_size)": microbatches,
        "a prompt split over ranks has other positions on each (prefill_context_parallel_size)": (
            parallel.prefill_context_parallel_size > 1
        ),
        "tokens split over ranks have other positions on each (sequence-parallel mixture of experts)": (
            parallel.use_sequence_parallel_moe
        ),
        "Outward's noise needs one position for each token, and this model has three (M-RoPE)": (
            policy == "outward" and config.model_config.uses_mrope
        ),
        "armlet feeds vLLM's model runner V1 (unset VLLM_USE_V2_MODEL_RUNNER)": config.use_v2_model_runner,
        f"vLLM's model runner for {platform.device_name} is one of its own": not known_runner,
    }
    for reason, applies in reasons.items():
        if applies:
            raise ArgumentError(f"ARM cannot be served so: {reason}")


def request_strength(extra_args: ExtraArgs) -> float | None:
    """The strength that a request asks for; None: as the engine is configured.

    Raises:
        ArgumentError: neither a number in [0, 1] nor "on" nor "off".
    """
    value = (extra_args or {}).get(SETTING_KEY, "on")
    if isinstance(value, str) and value in SWITCHES:
        return SWITCHES[value]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ArgumentError(f"extra_args: {SETTING_KEY} must be 'on', 'off' or a strength in [0, 1], found {value!r}")


def check_request(extra_args: ExtraArgs, additional_config: object) -> None:
    """An ArgumentError for a request whose setting of ARM is invalid, or whose engine has no ARM."""
    if SETTING_KEY not in (extra_args or {}):
        return
    request_strength(extra_args)
    if not configured(additional_config):
        raise ArgumentError(
            f"extra_args: {SETTING_KEY} was given, but this engine runs without ARM; start it with --additional-config "
            f'\'{{"{SETTING_KEY}": {{"policy": "outward"}}}}\''
        )


def salted(cache_salt: str | None, extra_args: ExtraArgs) -> str | None:
    """The salt of the prefix cache, so that requests share keys and values only at the same strength.

    No salt that a request brings can equal that of another strength.
    """
    strength = request_strength(extra_args)
    return None if strength is None and cache_salt is None else json.dumps([SETTING_KEY, cache_salt, strength])
