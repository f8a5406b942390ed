"""The differences between the decoder layers of model families, read from a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from armlet.attachment.sites import UnsupportedModelError
from armlet.layer.families import COMMON, FAMILIES, REFUSED_KEYS, TextConfig
from armlet.layer.frequencies import rope_frequencies
from armlet.redistribution.errors import ArgumentError, description


@dataclass(frozen=True)
class Mixture:
    """The experts of a layer that has them in place of one MLP, and how its router chooses and weights them."""

    experts: int
    per_token: int  # experts that each token passes through
    score: Literal["softmax", "sigmoid"] = "softmax"  # from the router's logits; sigmoid: with a bias for the choice
    normalized: bool = False  # the weights of a token's experts add up to `scale`
    groups: int = 1  # groups of experts, of which a token's experts come from `groups_per_token` (sigmoid)
    groups_per_token: int = 1
    scale: float = 1.0
    bias: bool = False  # of the router, and of each expert's gate, up and down (gpt-oss)
    shared_width: int = 0  # width of the expert that every token passes through; 0: there is none
    shared_weighted: bool = False  # that expert's output is weighted by a sigmoid (Qwen2-MoE)


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V3): K and V, and Q, are maps of vectors with few values."""

    query_rank: int | None  # values of the vector for Q; None: Q is a map of x
    rank: int  # values of the vector for K and V
    rotated: int  # values at the end of each head that RoPE rotates; those of K are the same in all heads
    value_dim: int  # size of a head of V
    bias: bool  # of the maps to these vectors


@dataclass(frozen=True)
class Options:
    """The sizes of a layer, and how its family differs from Llama, whose options are the defaults."""

    family: str  # the configuration's `model_type`
    d_model: int
    width: int  # of the MLP, or of each expert
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    attention_scale: float
    frequencies: tuple[float, ...]  # RoPE's ω for each rotated pair; () is NoPE (SmolLM3)
    rope_scale: float = 1.0  # scale of cosine and sine (YaRN)
    interleaved: bool = False  # pairs are neighbours (Cohere), not halves of a head
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: Literal["none", "head", "heads", "projection"] = "none"  # heads: separate weights for each head (Cohere)
    pre_norm: bool = True
    post_norm: bool = False
    centered: bool = False  # LayerNorm instead of RMSNorm
    norm_bias: bool = False
    norm_offset: float = 0.0  # 1 in Gemma, which stores W − 1
    parallel: bool = False  # attention and MLP both read RMSNorm_1
    clip: float | None = None  # largest magnitude of Q, K and V (OLMoE)
    softcap: float | None = None  # smooth bound of attention scores
    sinks: bool = False  # each head may attend to nothing, with a learned score (gpt-oss)
    window: int | None = None  # number of tokens that attention reaches, including the token itself
    activation: Literal["SiLU", "GELU"] = "SiLU"  # GELU: the tanh approximation
    swiglu: tuple[float, float] | None = None  # gpt-oss: gate · σ(α · gate) · (up + 1), clamped; α and the limit
    mixture: Mixture | None = None
    latent: Latent | None = None
    residual_scale: float = 1.0
    embedding_scale: float = 1.0
    layer: int = 0  # the layer's index in the model, from 0

    @property
    def value_dim(self) -> int:
        """The size of a head of V."""
        return self.latent.value_dim if self.latent else self.head_dim


ACTIVATION_NAMES = {"silu": "SiLU", "swish": "SiLU", "gelu_pytorch_tanh": "GELU"}


def read_options(config: Any, layer: int, option: str = "layer") -> Options:
    """The options of one layer, counted from 0, from a Hugging Face configuration or its part for text.

    Raises UnsupportedModelError if `Layer1` does not cover the family or an option; ArgumentError, which names the
    command's `option`, without such a layer.
    """
    if not hasattr(config, "get_text_config"):
        raise ArgumentError(f"Layer1: expected a Hugging Face model's configuration, found {description(config)}")
    text = config.get_text_config()
    _check_covered(text, layer, option)
    try:
        return _resolve(text, layer)
    except UnsupportedModelError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        problem = f"layer {layer} of this {text.model_type} ({type(error).__name__}: {error})"
        raise UnsupportedModelError(f"Layer1 cannot read the configuration of {problem}; correct it") from error


def activation_label(config: Any) -> str:
    """The figure's name of the gate's activation in any configuration: SiLU, GELU, or the configuration's own name."""
    text = config.get_text_config()
    keys = ("hidden_activation", "hidden_act", "activation_function")
    name = next((value for key in keys if isinstance(value := getattr(text, key, None), str)), "σ")
    return "GELU" if "gelu" in name else ACTIVATION_NAMES.get(name, name)


def _check_covered(text: TextConfig, layer: int, option: str) -> None:
    count = getattr(text, "num_hidden_layers", None)
    whole = hasattr(layer, "__index__") and not isinstance(layer, bool)
    if count is not None and not (whole and layer in range(count)):  # of any family, before a whole model is loaded
        raise ArgumentError(f"{option}: {text.model_type} has layers 0 to {count - 1}, found {description(layer)}")
    if text.model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"Layer1 does not cover {text.model_type!r}, only {', '.join(FAMILIES)}; attach() supports others, too"
        )
    refused = [name for name in REFUSED_KEYS.get(text.model_type, ()) if getattr(text, name, None)]
    if not getattr(text, "is_causal", True):  # read by transformers' masks, for every family
        refused.append("is_causal: false")
    if refused:
        raise UnsupportedModelError(f"Layer1 does not cover {text.model_type} with {', '.join(refused)}")


def _resolve(text: TextConfig, layer: int) -> Options:
    values = _read({**COMMON, **FAMILIES[text.model_type]}, text, layer)
    values |= {"family": text.model_type, "layer": layer, "activation": _activation(values["activation"])}
    sizes = {name: values[name] for name in ("d_model", "width", "heads", "kv_heads", "head_dim")}
    if min(sizes.values()) < 1:
        raise UnsupportedModelError(f"Layer1: {text.model_type} cannot have sizes {sizes}; download the model again")
    values.setdefault("attention_scale", values["head_dim"] ** -0.5)
    if values.get("window") is not None and values["window"] < 1:
        raise ValueError(f"sliding_window is {values['window']}")
    rotated = values.pop("rope_head_dim", values["head_dim"]), values.pop("rotated_share", 1.0)
    rope = rope_frequencies(text, layer, *rotated) if values.pop("rope", True) else ((), 1.0)
    values["frequencies"], values["rope_scale"] = rope
    mixture = _read(values.pop("mixture", {"present": False}), text, layer)
    if mixture.pop("present", True):
        values["width"] = mixture.pop("width", values["width"])
        values["mixture"] = _possible_router(Mixture(**mixture))
    if "latent" in values:
        values["latent"] = Latent(**_read(values["latent"], text, layer))
    return Options(**values)


def _possible_router(mixture: Mixture) -> Mixture:
    """The mixture; raises ValueError if a token cannot pass through as many of its experts or groups."""
    m = mixture
    fits = 1 <= m.per_token <= m.experts and 1 <= m.groups_per_token <= m.groups and m.experts % m.groups == 0
    if not fits or m.per_token * m.groups > m.experts * m.groups_per_token:
        raise ValueError(f"its experts do not fit together: {mixture}")
    return mixture


def _read(family: Mapping[str, object], text: TextConfig, layer: int) -> dict[str, Any]:
    return {name: value(text, layer) if callable(value) else value for name, value in family.items()}


def _activation(name: str) -> str:
    if name not in ACTIVATION_NAMES:
        raise UnsupportedModelError(
            f"Layer1 does not cover the activation {name!r}, only {', '.join(ACTIVATION_NAMES)}"
        )
    return ACTIVATION_NAMES[name]
