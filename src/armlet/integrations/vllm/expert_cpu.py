"""Routed experts in plain PyTorch, for vLLM's CPU kernels: one operator computes all, with nowhere to put ARM.

So tokens with ARM are computed a second time, from a copy of the layer's expert weights.
"""

# pyright: reportMissingImports=false

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from armlet.attachment.sites import UnsupportedModelError
from armlet.integrations.vllm.expert_sites import RoutedSite

BYTES_OF_INDEX = 4
BYTE = 256
NO_EXPERT = -1  # in a routing, for tokens that are not computed


def unpacked_weights(place: RoutedSite) -> dict[str, Tensor | None]:
    """The weights of a layer's experts on this rank: `gate_up`, `down`, `[experts, outputs, inputs]`, and biases.

    vLLM packs them for its kernel, and pads the width.

    Raises UnsupportedModelError if they are not what vLLM's packing makes of what is returned.
    """
    routed, kernel, width = place.routed, place.kernel, place.width // place.shards
    tensors: dict[str, Any] = dict(routed.named_parameters(recurse=False))
    gate_up, down = (_unpacked(tensors[name], kernel.isa, place.label) for name in ("w13_weight", "w2_weight"))
    bias = kernel.w1_bias
    return {
        "gate_up": _without_padding(gate_up, width),
        "gate_up_bias": None if bias is None else _without_padding(bias, width),
        "down": down[..., :width].contiguous(),
        "down_bias": kernel.w2_bias,
    }


def _without_padding(gate_up: Tensor, width: int) -> Tensor:
    gate, up = gate_up.chunk(2, 1)
    return torch.cat((gate[:, :width], up[:, :width]), 1)


def _unpacked(packed: Tensor, isa: str, label: str) -> Tensor:
    """The inverse of vLLM's `cpu_prepack_moe_weight`, which only reorders the values of each expert.

    The order is found by packing indices, byte by byte: every dtype of weights has the integers below 256.
    """
    from vllm._custom_ops import cpu_prepack_moe_weight

    experts, size = len(packed), packed[0].numel()
    index = torch.arange(size, device="cpu")
    order = torch.zeros(size, dtype=torch.int64, device="cpu")
    for place in range(BYTES_OF_INDEX):
        digit = (index // BYTE**place % BYTE).to(packed.dtype).view(1, *packed.shape[1:])
        order += cpu_prepack_moe_weight(digit, isa).reshape(-1).to(torch.int64) * BYTE**place
    weights = torch.empty_like(packed).view(experts, size)
    weights[:, order] = packed.detach().reshape(experts, size)
    weights = weights.view(packed.shape)
    if not torch.equal(cpu_prepack_moe_weight(weights, isa), packed):
        raise UnsupportedModelError(f"{label}: vLLM packs the weights of its experts in a way that armlet cannot undo")
    return weights


@torch.library.custom_op("armlet::linear_by_expert", mutates_args=())
def linear_by_expert(rows: Tensor, weights: Tensor, bias: Tensor | None, topk_ids: Tensor) -> Tensor:
    """Multiplies each row, `[rows, inputs]`, by the weights of its expert, `[experts, outputs, inputs]`.

    Rows of `NO_EXPERT` are 0.
    """
    result = rows.new_zeros(len(rows), weights.shape[1])
    experts = topk_ids.reshape(-1)
    for expert, weight in enumerate(weights):
        chosen = (experts == expert).nonzero()[:, 0]
        if len(chosen):
            result[chosen] = functional.linear(rows[chosen], weight, None if bias is None else bias[expert])
    return result


@linear_by_expert.register_fake
def _(rows: Tensor, weights: Tensor, _bias: Tensor | None, _topk_ids: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weights.shape[1])  # len() would fix the number of tokens


def weighted_sum(rows: Tensor, topk_ids: Tensor, topk_weights: Tensor | None) -> Tensor:
    """The sum of each token's rows, `[tokens, d_model]`, by the weights `[tokens, choices]` of the router, if given."""
    rows = rows.view(*topk_ids.shape, rows.shape[-1])
    summed = rows.float() if topk_weights is None else rows * topk_weights[..., None]
    return summed.sum(1).to(rows.dtype)
