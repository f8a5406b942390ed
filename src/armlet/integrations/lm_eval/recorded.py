"""Reads the model of a run of lm-eval from its results: `model_args`, a text or a dict, and further facts."""

from collections.abc import Mapping
from typing import Any

from armlet.integrations.sides import SECRETS, without_secrets
from armlet.integrations.treatment import DEFAULTS

FACTS = ("model_dtype", "model_sha", "peft_sha", "delta_sha")
"""Facts that lm-eval records of a loaded model in addition to its arguments."""

PLACES = (
    *("batch_size", "max_batch_size", "device", "device_map", "device_map_option", "trust_remote_code", "logits_cache"),
    *("parallelize", "gpus", "max_memory_per_gpu", "max_cpu_memory", "offload_folder", "tp_plan"),
    *("tensor_parallel_size", "data_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization", "swap_space"),
    *("base_url", "num_concurrent", "max_retries", "timeout", "additional_config"),
)
"""Arguments that say where and how fast a model runs, or attach ARM in vLLM, not which model it is."""

NORMAL = {"revision": "main", "dtype": "auto"}
"""Values with the same effect as leaving the argument out."""


def recorded_model(config: Mapping[str, Any]) -> dict[str, str]:
    """The facts that determine the model and its precision: arguments except those of ARM and `PLACES`, and `FACTS`.

    A text and a dict with the same arguments have the same result.
    """
    facts = {key: str(config[key]) for key in FACTS if config.get(key)}
    # The dtype of the weights, where it is recorded, says more than the argument.
    ignored = {*DEFAULTS, "config", *PLACES, *(["dtype"] if "model_dtype" in facts else [])}
    return {key: value for key, value in model_arguments(config).items() if key not in ignored} | facts


def shown_arguments(config: Mapping[str, Any]) -> object:
    """The arguments of the model as they were recorded, without `SECRETS`."""
    given = config.get("model_args") or {}
    if isinstance(given, Mapping):
        return without_secrets(given)
    return ",".join(part for part in str(given).split(",") if part.partition("=")[0].strip() not in SECRETS)


def model_arguments(config: Mapping[str, Any]) -> dict[str, str]:
    """The arguments of the model as texts, without `SECRETS` and without those at their normal value."""
    given = shown_arguments(config)
    pairs = given.items() if isinstance(given, Mapping) else _split_arguments(str(given))
    texts = {str(key).strip(): _argument_text(value) for key, value in pairs}
    return {key: text for key, text in texts.items() if text not in ("", "None", NORMAL.get(key))}


def _split_arguments(text: str) -> list[tuple[str, str]]:
    """The arguments in a text such as "pretrained=MODEL,dtype=float32", as lm-eval splits it."""
    parts = (part.partition("=") for part in text.split(",") if part.strip())
    return [(name, value) for name, _, value in parts]


def _argument_text(value: object) -> str:
    """A value as it is written in Python, so that "true" is True; without quotes, and the slash after a folder."""
    text = str(value).strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text.capitalize() if text.lower() in ("true", "false", "none") else text.rstrip("/")
