"""The replacement of vLLM's fused activation and product: the same with ARM in between."""

# pyright: reportMissingImports=false

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from armlet.integrations.vllm.sites import FusedSite
from armlet.redistribution.backends.choice import backend_for
from armlet.redistribution.entry import counted
from armlet.redistribution.noise import WORD, Noise
from armlet.redistribution.operands import Operands
from armlet.redistribution.policies import from_numbers, to_numbers
from armlet.redistribution.rows import Policy

FUSED_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


# Opaque to torch.compile: the activation and the statistics keep the bits that they have in eager PyTorch, and so in
# Hugging Face. Everything that changes from step to step is in a tensor at a fixed address, for CUDA graphs.
@torch.library.custom_op("armlet::redistribute_gated", mutates_args=("totals",))
def redistribute_gated(
    gate_up: Tensor,  # [tokens, 2·width/shards]: this rank's part of gate, then of up
    plain: Tensor,  # [tokens, width/shards]: what the model gives without ARM
    positions: Tensor,  # [at least tokens] int64: each token's absolute position
    strengths: Tensor,  # [at least tokens] float32 in [0, 1], 0 where ARM is off
    keys: Tensor,  # of `Noise.keys`, of the whole width
    totals: Tensor,  # int64: calls, tokens, moved, passed; of the whole width, and the same on all ranks
    policy: str,  # its name
    settings: list[float],  # its numbers, of `to_numbers`; `strengths` replaces the strength among them
    stream: int,  # of the keyed noise
    activation: str,  # one of `FUSED_ACTIVATIONS`
    shard: int,  # this rank's place along the width
    shards: int,  # ranks along the width
) -> Tensor:
    """ARM(activation(gate)) · up, and `plain` for tokens of strength 0: `[tokens, width/shards]`."""
    flat = gate_up.reshape(-1, gate_up.shape[-1])
    strength, moving = strengths[: len(flat)], from_numbers(policy, settings)
    operands = Operands(keys, positions[: len(flat)], stream, strength=strength)
    gate = flat[:, None, : flat.shape[-1] // 2]
    fused = backend_for(gate, moving).gated_rows if shards == 1 else None
    gated_rows = fused or partial(_gated_rows, shard=shard, shards=shards)
    treated, moved, passed = gated_rows(flat.contiguous(), moving, activation, operands)
    on = strength > 0
    increments = (on.any(), on.sum(), moved.sum(), (passed & on).sum())
    totals += torch.stack([increment.to(torch.int64) for increment in increments])
    return torch.where(on[:, None], treated, plain.reshape(treated.shape)).view(plain.shape)


@redistribute_gated.register_fake
def _(_gate_up: Tensor, plain: Tensor, *_rest: object) -> Tensor:
    return torch.empty_like(plain, memory_format=torch.contiguous_format)


def _gated_rows(
    flat: Tensor, policy: Policy, activation: str, operands: Operands, shard: int, shards: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`gated_rows` of the backends, on every device and for a width that is split over ranks."""
    width = flat.shape[-1] // 2
    # Contiguous as in Hugging Face: the last values of a row go through other instructions than the rest.
    a = FUSED_ACTIVATIONS[activation](flat[:, :width].contiguous())
    if shards > 1:
        from vllm.distributed import tensor_model_parallel_all_gather

        a = tensor_model_parallel_all_gather(a, dim=-1)
    how = {"positions": operands.positions, "keys": operands.keys, "strength": operands.strength}
    values, moved, passed = counted(a, policy, scope="token", noise=Noise(stream=operands.stream), **how)
    return values.narrow(-1, shard * width, width) * flat[:, width:], moved, passed


class RedistributedAndMul(nn.Module):
    """`activation(gate) · up` with ARM after the activation; `plain` is vLLM's module, for tokens without ARM.

    `positions` and `strengths` are the buffers of `Serving`, shared by all layers.
    """

    positions: Tensor
    strengths: Tensor
    keys: Tensor
    totals: Tensor

    def __init__(self, site: FusedSite, policy: Policy, noise: Noise, positions: Tensor, strengths: Tensor) -> None:
        super().__init__()
        self.plain, self.width = site.mlp.get_submodule(site.attribute), site.width
        numbers = to_numbers(policy)  # type: ignore[arg-type] - one of ours, from an armlet.json
        self.constants = (*numbers, noise.stream & WORD, site.activation, site.shard, site.shards)
        keys = noise.keys(site.width, site.layer).to(positions.device)
        totals = torch.zeros(4, dtype=torch.int64, device=positions.device)
        buffers = {"positions": positions, "strengths": strengths, "keys": keys, "totals": totals}
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, gate_up: Tensor) -> Tensor:
        """`[tokens, 2·width/shards]` to `[tokens, width/shards]`."""
        buffers = self.positions, self.strengths, self.keys, self.totals
        return redistribute_gated(gate_up, self.plain(gate_up), *buffers, *self.constants)

    def report(self) -> dict[str, int | float]:
        """What happened so far, as `ARM.report`; calls are those with at least one token that asked for ARM."""
        calls, tokens, moved, passed = self.totals.tolist()
        share = moved / (tokens * self.width) if tokens else 0.0
        return {"calls": calls, "tokens": tokens, "moved": moved, "share_moved": share, "passed": passed}
