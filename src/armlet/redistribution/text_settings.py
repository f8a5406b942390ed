"""The settings of a model's text decoder in its configuration, and which of them look like a limit of its MLPs."""

import re
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

from armlet.redistribution.errors import ArgumentError, description

Settings = Mapping[str, Any]

LIMIT_KEY = re.compile(
    r"swiglu\w*(limit|alpha|clamp|cap|clip|max)|(clamp|clip|limit)\w*swiglu"
    r"|(^|_)(mlp|ffn|glu|gate|up|experts?|act|activation)_(\w*_)?(limit|clamp|clip)"
    r"|(^|_)(mlp|ffn|experts?)_\w*soft_?cap",
    re.IGNORECASE,
)
"""Keys of a configuration that look like a limit of an MLP, such as swiglu_limit, or mlp_up_softcap of Inkling 2."""

NO_LIMIT = (None, 0, inf)
TEXT_CONFIG = "text_config"
TEXT_TYPES = {
    "glm5_next": "glm5_next_text",
    "hy_v4_vl": "hy_v4_vl_text",
    "minimax_m3_vl": "minimax_m3_vl_text",
    "step3p7": "step3p5",
}
"""The model types of text parts in files that do not state them."""


def text_settings(config: object) -> tuple[str, Settings, Settings]:
    """The model type and the settings of the text decoder, and those around it that belong to no part of the model."""
    if isinstance(config, Mapping):
        model_type, settings = _text_of_file(config)
        return model_type, settings, {} if settings is config else _without_parts(config)
    if not hasattr(config, "get_text_config") or not hasattr(config, "to_dict"):
        expected = "a configuration of transformers, or a dict, the content of a config.json"
        raise ArgumentError(f"presets: config must be {expected}, found {description(config)}")
    try:
        settings: Settings = config.get_text_config().to_dict()  # pyright: ignore[reportAttributeAccessIssue]
    except ValueError as error:  # several text models
        raise ArgumentError(f"presets: {type(config).__name__}: {error}") from error
    whole: Settings = config.to_dict()  # pyright: ignore[reportAttributeAccessIssue]
    return str(settings.get("model_type")), settings, {} if whole == settings else _without_parts(whole)


def _without_parts(settings: Settings) -> Settings:
    """Settings without the configurations of parts, such as an image tower."""
    return {key: value for key, value in settings.items() if not isinstance(value, Mapping)}


def _text_of_file(config: Settings) -> tuple[str, Settings]:
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise ArgumentError("presets: the dict has no model_type; pass the content of a model's config.json")
    text = config.get(TEXT_CONFIG)
    if isinstance(text, Mapping):
        # As transformers does, which ignores the type that Step-3.7 states for its own code.
        stated = None if model_type == "step3p7" else text.get("model_type")
        return str(stated or TEXT_TYPES.get(model_type, model_type)), text
    if model_type == "glm5_next":  # text only: its settings are at the top
        return TEXT_TYPES[model_type], config
    return model_type, config


def limits_in(settings: Settings, path: str = "") -> Iterator[tuple[str, Any]]:
    """All settings that look like a limit and are set, also inside of others; a path such as "per_layer.3.x"."""
    for key, value in settings.items():
        values = value if isinstance(value, list | tuple) else [value]
        if LIMIT_KEY.search(str(key)) and any(_is_set(value) for value in values):
            yield f"{path}{key}", value
        else:
            for part in values:
                if isinstance(part, Mapping):
                    yield from limits_in(part, f"{path}{key}.")


def _is_set(value: object) -> bool:
    return not isinstance(value, int | float | None) or value not in NO_LIMIT
