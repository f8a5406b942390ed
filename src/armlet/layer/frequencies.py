"""The frequencies of RoPE, from a configuration."""

import torch

from armlet.attachment.sites import UnsupportedModelError
from armlet.layer.families import TextConfig

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""The types whose frequencies do not depend on the length of the text."""


def rope_frequencies(text: TextConfig, layer: int, head_dim: int, share: float) -> tuple[tuple[float, ...], float]:
    """Returns ω for each rotated pair, and the scale of cosine and sine.

    head_dim, share: the size of a head, and the share of its values that the family's code rotates.

    Raises:
        UnsupportedModelError: the type of RoPE is unknown, or depends on the length of the text.
        ValueError: the configuration has frequencies for another number of values.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = text.layer_types[layer] if text.model_type == "gemma3_text" else None  # each has its own RoPE
    parameters = text.rope_parameters[kind] if kind else text.rope_parameters
    name = parameters["rope_type"]
    if name not in ROPE_TYPES:
        raise UnsupportedModelError(
            f"Layer1 does not cover RoPE of type {name!r}, only {', '.join(ROPE_TYPES)}: other types are unknown to "
            "transformers, or depend on the length of the text"
        )
    if name != "default":
        tensor, scale = ROPE_INIT_FUNCTIONS[name](text, layer_type=kind)
    else:
        # Not head_dim: where a family's attention ignores the key of this name, its RoPE still reads it.
        dim = int((getattr(text, "head_dim", None) or head_dim) * share)
        tensor, scale = 1.0 / parameters["rope_theta"] ** (torch.arange(0, dim, 2) / dim), 1.0
    if 2 * len(tensor) != int(head_dim * share):
        sizes = f"{2 * len(tensor)} values of a head, where {int(head_dim * share)} are rotated"
        raise ValueError(f"RoPE has frequencies for {sizes}")
    return tuple(tensor.tolist()), scale
