"""The clamps that a checkpoint was trained with, read from its configuration, as arguments of `attach`.

Sources: the modelling code of transformers 5.24.0; docs/reference/bounds.md has file and line for each model.
"""

from collections.abc import Callable, Collection, Iterator
from math import inf
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from armlet.redistribution.errors import ArgumentError, description
from armlet.redistribution.inward import Inward
from armlet.redistribution.rows import LARGEST_LIMIT, SMALLEST_LIMIT
from armlet.redistribution.text_settings import Settings, limits_in, text_settings

VECTORS = 64  # values: whole vectors of a CPU, whose last bit can differ from that of single values


class TrainedPlacement(TypedDict):
    """Arguments of `attach`; `experts` is absent where all experts of a layer are clamped, or the layer has none."""

    policy: Inward
    layers: list[int]
    site: str
    experts: NotRequired[str]


class ConfiguredLimit(NamedTuple):
    """A limit of the configuration in some layers."""

    limit: float
    layers: list[int]
    experts: str = ""  # "routed", "shared", or "" for the whole layer


class Family(NamedTuple):
    """How the models of one type clamp."""

    keys: tuple[str, ...]  # of the configuration, with limits or what belongs to them
    clamps: Callable[[Settings], list[ConfiguredLimit]]
    gate_limit: Callable[[Settings, float], float]  # a configured limit → the largest activated gate


def trained(config: object) -> list[TrainedPlacement]:
    """Returns the clamps that a checkpoint was trained with: `attach(model, presets.trained(config))`.

    Each clamp gives two placements. At the site "gate" it is `Inward(limit=..., side="above", curve="clip")`. Where a
    model clamps the gate before its activation f, the limit is f(L), the float32 number that torch computes on the CPU,
    because f(min(g, L)) = min(f(g), f(L)) for L > 0. At the site "up" it is `Inward(limit=L, curve="clip")`. A model in
    bfloat16 gets the bits of its own clamp too with the limits of published checkpoints, 7, 10 and 16; with another
    limit, one that bfloat16 cannot represent, or with g · sigmoid(alpha · g), the last bit can differ.

    Args:
        config: a configuration of transformers, of a text model or with one inside it, or a dict, the content of a
            config.json. A dict has to state what the clamps depend on, since defaults are those of a class.

    Returns:
        Arguments of `attach`, one dict for each policy, site and kind of experts; [], which `attach` refuses, if no
        clamp is configured. Only the text decoder counts: clamps of image towers and of layers for multi-token
        prediction are left out.

    Raises:
        ArgumentError: a model type that is not known here has a setting that looks like a limit, a dict lacks a key, or
            a limit is not a number above 0.
    """
    try:
        model_type, settings, around = text_settings(config)
        family = FAMILIES.get(model_type)
        _refuse_unknown_limits(model_type, settings, family.keys if family else ())
        _refuse_unknown_limits(model_type, around, ())
    except RecursionError:
        raise ArgumentError("presets: the configuration contains itself") from None
    if family is None:
        return []
    clamps = [clamp for clamp in family.clamps(settings) if clamp.layers and clamp.limit != inf]
    return [placement for clamp in clamps for placement in _placements(clamp, family, settings)]


def _refuse_unknown_limits(model_type: str, settings: Settings, known: Collection[str]) -> None:
    """Raises ArgumentError for a setting that looks like a limit and is not known."""
    for path, value in limits_in(settings):
        if path not in known:
            raise ArgumentError(
                f"presets: {path}={description(value)} looks like a limit of the MLP, but of model type {model_type!r} "
                f"it is not known how; known are {', '.join(FAMILIES)}; give attach() the placements themselves"
            )


def _placements(clamp: ConfiguredLimit, family: Family, settings: Settings) -> Iterator[TrainedPlacement]:
    up = Inward(limit=clamp.limit, curve="clip")  # checks the limit
    gate = Inward(limit=family.gate_limit(settings, clamp.limit), side="above", curve="clip")
    for site, policy in {"gate": gate, "up": up}.items():
        placement: TrainedPlacement = {"policy": policy, "layers": list(clamp.layers), "site": site}
        if clamp.experts:
            placement["experts"] = clamp.experts
        yield placement


def _required(settings: Settings, key: str) -> Any:
    if key not in settings:
        raise ArgumentError(
            f"presets: the configuration has no {key}, on which the clamps depend, and a default is not assumed; pass "
            "AutoConfig.from_pretrained(...) of a transformers that knows the model"
        )
    return settings[key]


def _positive(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ArgumentError(f"presets: {name} must be a number above 0, found {description(value)}")
    if not (SMALLEST_LIMIT <= value <= LARGEST_LIMIT or value == inf):
        raise ArgumentError(f"presets: {name} must be a number that float32 can have, found {description(value)}")
    return value


# --- which layers and experts ---------------------------------------------------------------------------------------


def _all_layers(settings: Settings) -> list[ConfiguredLimit]:
    """One limit everywhere: in dense layers, and in routed and shared experts."""
    limit = _positive("swiglu_limit", _required(settings, "swiglu_limit"))
    return [ConfiguredLimit(limit, list(range(_layer_count(settings))))]


def _routed_experts(settings: Settings) -> list[ConfiguredLimit]:
    """One limit in all routed experts; dense layers and shared experts have none."""
    limit = _positive("swiglu_limit", _required(settings, "swiglu_limit"))
    layers = [layer for layer, is_mixture in enumerate(_mixtures(settings)) if is_mixture]
    return [ConfiguredLimit(limit, layers, "routed")]


def _by_layer(settings: Settings) -> list[ConfiguredLimit]:
    """A limit for each layer's routed experts, and one for its shared expert or its dense MLP."""
    routed, shared = (_layer_limits(settings, key) for key in ("swiglu_limits", "swiglu_limits_shared"))
    if not any(routed + shared):
        return []
    layers: dict[tuple[float, str], list[int]] = {}
    for layer, is_mixture in enumerate(_mixtures(settings)):
        limits = {"routed": routed[layer], "shared": shared[layer]} if is_mixture else {"": shared[layer]}
        if len(set(limits.values())) == 1:
            limits = {"": shared[layer]}
        for experts, limit in limits.items():
            if limit:
                layers.setdefault((limit, experts), []).append(layer)
    return [ConfiguredLimit(limit, indices, experts) for (limit, experts), indices in layers.items()]


def _layer_count(settings: Settings) -> int:
    count = _required(settings, "num_hidden_layers")
    if type(count) is not int or count < 1:
        raise ArgumentError(f"presets: num_hidden_layers must be an integer of at least 1, found {description(count)}")
    return count


def _layer_list(settings: Settings, key: str, values: object) -> list[Any]:
    """The decoder layers' entries of a list, without those of the layers for multi-token prediction at its end."""
    count = _layer_count(settings)
    further = settings.get("num_nextn_predict_layers") or 0
    if type(further) is not int or further < 0:
        raise ArgumentError(f"presets: num_nextn_predict_layers must be a count, found {description(further)}")
    padded = count + further
    if not isinstance(values, list | tuple) or len(values) not in (count, padded):
        expected = f"one entry for each of the {count} layers"
        raise ArgumentError(f"presets: {key} must have {expected}, found {description(values)}")
    return list(values[:count])


def _layer_limits(settings: Settings, key: str) -> list[float]:
    """The limits of all layers, 0 without one."""
    values = _required(settings, key) or [0] * _layer_count(settings)
    limits = [value or 0 for value in _layer_list(settings, key, values)]
    return [_positive(f"{key}[{layer}]", limit) if limit else 0 for layer, limit in enumerate(limits)]


def _mixtures(settings: Settings) -> list[bool]:
    """Whether each layer has experts."""
    indices = settings.get("moe_layers_enum")  # of Step's files, text such as "3,4,5" or a list
    if settings.get("mlp_layer_types") is None and indices is not None:
        chosen = _indices("moe_layers_enum", indices, _layer_count(settings))
        return [layer in chosen for layer in range(_layer_count(settings))]
    kinds = _layer_list(settings, "mlp_layer_types", _required(settings, "mlp_layer_types"))
    if unknown := [kind for kind in kinds if kind not in ("dense", "sparse")]:
        raise ArgumentError(f"presets: mlp_layer_types must be dense or sparse, found {description(unknown[0])}")
    return [kind == "sparse" for kind in kinds]


def _indices(name: str, values: object, count: int) -> set[int]:
    """The indices of layers in a text such as "3,4,5" or in a list."""
    parts = values.split(",") if isinstance(values, str) else values
    texts = [str(part).strip() for part in parts] if isinstance(parts, list | tuple) else [""]
    if not all(text.isdecimal() and int(text) < count for text in texts):
        raise ArgumentError(f"presets: {name} must be indices of the {count} layers, found {description(values)}")
    return {int(text) for text in texts}


# --- the limit of the activated gate --------------------------------------------------------------------------------


def _float32(function: Callable[[Tensor], Tensor], limit: float) -> float:
    return function(torch.full((VECTORS,), limit, dtype=torch.float32, device="cpu"))[0].item()


def _after_silu(_settings: Settings, limit: float) -> float:
    return _float32(F.silu, limit)


def _after_hidden_act(settings: Settings, limit: float) -> float:
    activation = _required(settings, "hidden_act")
    if activation not in ("silu", "swish"):
        raise ArgumentError(
            f"presets: hidden_act is {description(activation)}, but the limit of a gate that is clamped before its "
            "activation is known for silu only; give attach() the placements themselves"
        )
    return _float32(F.silu, limit)


def _after_scaled_silu(settings: Settings, limit: float) -> float:
    """g · sigmoid(alpha · g), which like SiLU increases above 0 and is negative below."""
    alpha = _positive("swiglu_alpha", _required(settings, "swiglu_alpha"))
    if alpha == inf:
        raise ArgumentError("presets: swiglu_alpha must be a finite number, found inf")
    return _float32(lambda gate: gate * torch.sigmoid(gate * alpha), limit)


def _as_configured(_settings: Settings, limit: float) -> float:
    """Step-3.7 clamps the activated gate."""
    return limit


LIMIT, ALPHA = ("swiglu_limit",), ("swiglu_limit", "swiglu_alpha")
FAMILIES = {
    "gpt_oss": Family(ALPHA, _all_layers, _after_scaled_silu),
    "minimax_m3_vl_text": Family(ALPHA, _all_layers, _after_scaled_silu),
    "deepseek_v4": Family(LIMIT, _all_layers, _after_hidden_act),
    "glm5_next_text": Family(LIMIT, _all_layers, _after_hidden_act),
    "hy_v4": Family(LIMIT, _routed_experts, _after_silu),
    "hy_v4_vl_text": Family(LIMIT, _routed_experts, _after_silu),
    "step3p5": Family(("swiglu_limits", "swiglu_limits_shared"), _by_layer, _as_configured),
}
"""Model type of the text decoder → how it clamps."""
