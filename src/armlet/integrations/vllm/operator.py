"""Replaces vLLM's fused activation and product by the same operation with ARM in between."""

# pyright: reportMissingImports=false

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from armlet.integrations.vllm.sites import FusedSite
from armlet.redistribution.backends.choice import backend_for
from armlet.redistribution.entry import redistribute_with_counts
from armlet.redistribution.noise import WORD, Noise
from armlet.redistribution.operands import Operands
from armlet.redistribution.policies import from_numbers, to_numbers
from armlet.redistribution.rows import Policy

FUSED_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


# Opaque to torch.compile, so that activation and statistics have the bits of eager PyTorch and thus of Hugging Face.
# Everything that changes between steps is in a tensor at a fixed address, for CUDA graphs.
@torch.library.custom_op("armlet::redistribute_gated", mutates_args=("totals",))
def redistribute_gated(
    gate_up: Tensor,  # [tokens, 2·width/shards]: this rank's part of gate, then of up
    untreated: Tensor,  # [tokens, width/shards]: output without ARM
    positions: Tensor,  # [at least tokens] int64: each token's absolute position
    strengths: Tensor,  # [at least tokens] float32 in [0, 1], 0 for tokens without ARM
    keys: Tensor,  # `Noise.keys` for the whole width
    totals: Tensor,  # int64: calls, tokens, moved, passed for the whole width, equal on all ranks
    policy: str,  # name of the policy
    settings: list[float],  # the policy's numbers from `to_numbers`, whose strength is overridden by `strengths`
    stream: int,  # stream of the keyed noise
    activation: str,  # one of `FUSED_ACTIVATIONS`
    shard: int,  # this rank's index along the width
    shards: int,  # number of ranks along the width
) -> Tensor:
    """Returns `[tokens, width/shards]`: ARM(activation(gate)) · up, and `untreated` for tokens of strength 0."""
    flat = gate_up.reshape(-1, gate_up.shape[-1])
    strength, moving = strengths[: len(flat)], from_numbers(policy, settings)
    operands = Operands(keys, positions[: len(flat)], stream, strength=strength)
    gate = flat[:, None, : flat.shape[-1] // 2]
    fused = backend_for(gate, moving).gated_rows if shards == 1 else None
    gated_rows = fused or partial(_gated_rows, shard=shard, shards=shards)
    treated, moved, passed = gated_rows(flat.contiguous(), moving, activation, operands)
    active = strength > 0
    increments = (active.any(), active.sum(), moved.sum(), (passed & active).sum())
    totals += torch.stack([increment.to(torch.int64) for increment in increments])
    return torch.where(active[:, None], treated, untreated.reshape(treated.shape)).view(untreated.shape)


@redistribute_gated.register_fake
def _(_gate_up: Tensor, untreated: Tensor, *_rest: object) -> Tensor:
    return torch.empty_like(untreated, memory_format=torch.contiguous_format)


def _gated_rows(
    flat: Tensor, policy: Policy, activation: str, operands: Operands, shard: int, shards: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`gated_rows` for every device, also for a width that is split over ranks."""
    width = flat.shape[-1] // 2
    # Contiguous as in Hugging Face, because other instructions process the last values of a row.
    a = FUSED_ACTIVATIONS[activation](flat[:, :width].contiguous())
    if shards > 1:
        from vllm.distributed import tensor_model_parallel_all_gather

        a = tensor_model_parallel_all_gather(a, dim=-1)
    options = {"positions": operands.positions, "keys": operands.keys, "strength": operands.strength, "scope": "token"}
    values, moved, passed = redistribute_with_counts(a, policy, noise=Noise(stream=operands.stream), **options)
    return values.narrow(-1, shard * width, width) * flat[:, width:], moved, passed


class RedistributedAndMul(nn.Module):
    """`activation(gate) · up` with ARM after the activation; `original` is vLLM's module, for tokens without ARM.

    `positions` and `strengths` are the buffers of `WorkerArm`, which all layers share.
    """

    positions: Tensor
    strengths: Tensor
    keys: Tensor
    totals: Tensor

    def __init__(self, site: FusedSite, policy: Policy, noise: Noise, positions: Tensor, strengths: Tensor) -> None:
        super().__init__()
        self.original, self.width = site.mlp.get_submodule(site.attribute), site.width
        numbers = to_numbers(policy)  # type: ignore[arg-type] - always a built-in policy, from an armlet.json
        self.constants = (*numbers, noise.stream & WORD, site.activation, site.shard, site.shards)
        keys = noise.keys(site.width, site.layer).to(positions.device)
        totals = torch.zeros(4, dtype=torch.int64, device=positions.device)
        buffers = {"positions": positions, "strengths": strengths, "keys": keys, "totals": totals}
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, gate_up: Tensor) -> Tensor:
        """Maps `[tokens, 2·width/shards]` to `[tokens, width/shards]`."""
        buffers = self.positions, self.strengths, self.keys, self.totals
        return redistribute_gated(gate_up, self.original(gate_up), *buffers, *self.constants)

    def report(self) -> dict[str, int | float]:
        """Returns the counts so far, as in `ARM.report`; counts only calls with at least one token that uses ARM."""
        calls, tokens, moved, passed = self.totals.tolist()
        share = moved / (tokens * self.width) if tokens else 0.0
        return {"calls": calls, "tokens": tokens, "moved": moved, "share_moved": share, "passed": passed}
