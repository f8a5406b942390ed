"""Reads and checks ARM's settings of an SGLang engine, in its `json_model_override_args`, and those of its requests."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from armlet.attachment.config import ConfigError
from armlet.integrations.vllm import requests, settings
from armlet.integrations.vllm.settings import Served
from armlet.redistribution.errors import ArgumentError

OVERRIDES = "json_model_override_args"
CUSTOM_PARAMS = "custom_params"

NAMES = {
    "additional_config": OVERRIDES,
    "--additional-config": "--json-model-override-args",
    requests.REQUEST_SETTINGS: CUSTOM_PARAMS,
    "vLLM": "SGLang",
}
"""What SGLang's users call what a message about vLLM names."""

UNUSED = (None, False, "", "null")
"""Values of an option of SGLang that mean that the feature is not used; for `SIZES`, also 1."""

SIZES = ("attn_dp_size", "attn_cp_size", "dcp_size", "tokenizer_worker_num")

REFUSED = {
    "keys and values may come from an engine with other settings": (
        "disaggregation_mode", "hicache_storage_backend", "enable_lmcache", "enable_flexkv",
        "enable_unified_cache_external_linker",
    ),
    "a session keeps keys and values of earlier turns, which may have had other settings": (
        "enable_streaming_session", "enable_session_radix_cache",
    ),
    "the prefix cache may not be separated by setting": ("radix_cache_backend",),
    "tokens split over ranks or batches have other positions on each": (
        *SIZES[:3], "enable_attn_tp_input_scattered", "enable_layernorm_sp", "enable_dense_mlp_attn_tp",
        "moe_dense_tp_size", "enable_two_batch_overlap", "enable_pdmux",
    ),
    "a kernel of the whole layer computes the MLP without ARM": ("enable_nvidia_megakernel", "enable_amd_monokernel"),
    "its requests do not pass the check of what they ask": ("tokenizer_worker_num", "grpc_port", "smg_grpc_mode"),
    "armlet was not run with it": (
        "speculative_algorithm", "dllm_algorithm", "enable_lora", "enable_torch_compile", "elastic_ep_backend",
    ),
}  # fmt: skip
"""Why ARM would be wrong or is unknown with options of SGLang."""


@contextmanager
def _named_as_in_sglang() -> Iterator[None]:
    try:
        yield
    except (ArgumentError, ConfigError) as error:
        message = str(error)
        for name, other in NAMES.items():
            message = message.replace(name, other)
        raise type(error)(message) from error


@lru_cache(maxsize=8)
def full_overrides(overrides: str, model: str) -> str:
    """Returns `json_model_override_args` with ARM's full entry, by default the armlet.json in the folder of the model.

    Raises ArgumentError, ConfigError: a misspelled key, or an entry that cannot be read or that no engine supports.
    """
    given = json.loads(overrides or "{}")
    with _named_as_in_sglang():
        full = settings.resolve(given, model)
    return overrides if full == given else json.dumps(full)


@lru_cache(maxsize=8)
def served_with(overrides: str, model: str) -> Served | None:
    """Returns the settings of an engine with these `json_model_override_args` and this model path; None without ARM."""
    return settings.served(json.loads(full_overrides(overrides, model)))


def check_options(options: object) -> None:
    """Raises ArgumentError if ARM would act wrongly or not at all with an engine's resolved options."""
    for reason, names in REFUSED.items():
        for name in names:
            value = getattr(options, name)
            if value not in UNUSED and (name, value) not in [(size, 1) for size in SIZES]:
                raise ArgumentError(f"SGLang cannot serve ARM with {name}={value!r}: {reason}")
    if os.environ.get("SGLANG_RUST_SERVER", "0").lower() not in ("", "0", "false"):
        raise ArgumentError("SGLang cannot serve ARM with SGLANG_RUST_SERVER: it does not check what requests ask")


def check_custom_params(
    sampling_params: Mapping[str, Any], engine: Served | None, overrides: str, *, session: bool
) -> None:
    """Raises ArgumentError if a request's setting is invalid or misspelled, or if the engine cannot do what it says.

    Args:
        sampling_params: the request's, as sent.
        engine: the settings of the engine; None without ARM.
        overrides: the engine's `json_model_override_args`, as in `full_overrides`.
        session: whether the request continues a session.
    """
    given = sampling_params.get(CUSTOM_PARAMS)
    if given is not None and not isinstance(given, Mapping):
        raise ArgumentError(f"{CUSTOM_PARAMS}: expected an object, found {given!r}")
    with _named_as_in_sglang():
        requests.check_request(None if given is None else dict(given), json.loads(overrides))
    if engine and session:
        raise ArgumentError("session_params: SGLang keeps a session's keys and values whatever their setting of ARM")
    if engine and (sampling_params.get("beam_width") or 1) > 1:
        raise ArgumentError(
            "beam_width: SGLang's beams are rows of a batch without a request, whose setting of ARM is unknown"
        )
