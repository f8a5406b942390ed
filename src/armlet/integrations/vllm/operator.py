"""The replacement of vLLM's fused activation and product: the same with ARM in between."""

# vLLM has an environment of its own, and no types to check against in this one.
# pyright: reportMissingImports=false

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from armlet.redistribution.backends.choice import backend_for
from armlet.redistribution.entry import counted
from armlet.redistribution.noise import WORD, Noise
from armlet.redistribution.operands import Operands
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import from_numbers, to_numbers

FUSED_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


# Opaque to torch.compile: the activation and the statistics keep the bits that they have in eager PyTorch, and so in
# Hugging Face. Everything that changes from step to step is in a tensor at a fixed address, for CUDA graphs.
@torch.library.custom_op("armlet::redistribute_gated", mutates_args=("totals",))
def redistribute_gated(
    gate_up: Tensor,
    plain: Tensor,
    positions: Tensor,
    strengths: Tensor,
    keys: Tensor,
    totals: Tensor,
    policy: str,
    settings: list[float],
    stream: int,
    activation: str,
    shard: int,
    shards: int,
) -> Tensor:
    """ARM(activation(gate)) · up, and `plain` for tokens of strength 0.

    Args:
        gate_up: `[tokens, 2·width/shards]`, this rank's part of gate, then of up.
        plain: `[tokens, width/shards]`, what the model gives without ARM.
        positions: `[at least tokens]` int64: each token's absolute position.
        strengths: `[at least tokens]` float32 in [0, 1], 0 where ARM is off.
        keys: of `Noise.keys`, of the whole width.
        totals: int64: calls, tokens, moved, passed; of the whole width, and the same on all ranks.
        policy: its name.
        settings: its numbers, of `to_numbers`; `strengths` replaces the strength among them.
        stream: of the keyed noise.
        activation: one of `FUSED_ACTIVATIONS`.
        shard: this rank's place along the width.
        shards: ranks along the width.

    Returns:
        `[tokens, width/shards]`.
    """
    flat = gate_up.reshape(-1, gate_up.shape[-1])
    count, width = len(flat), flat.shape[-1] // 2
    strength, moving = strengths[:count], from_numbers(policy, settings)
    fused = backend_for(flat[:, None, :width], moving).gated_rows if shards == 1 else None
    if fused:
        operands = Operands(keys, positions[:count], stream, strength=strength)
        treated, moved, passed = fused(flat.contiguous(), moving, activation, operands)
    else:
        # Contiguous as in Hugging Face: the last values of a row go through other instructions than the rest.
        a = FUSED_ACTIVATIONS[activation](flat[:, :width].contiguous())
        whole = _gather_width(a) if shards > 1 else a
        how = {"noise": Noise(stream=stream), "positions": positions[:count], "keys": keys, "strength": strength}
        values, moved, passed = counted(whole, moving, scope="token", **how)
        treated = values.narrow(-1, shard * width, width) * flat[:, width:]
    on = strength > 0
    increments = (on.any(), on.sum(), moved.sum(), (passed & on).sum())
    totals += torch.stack([increment.to(torch.int64) for increment in increments])
    return torch.where(on[:, None], treated, plain.reshape(-1, width)).view(plain.shape)


@redistribute_gated.register_fake
def _(_gate_up: Tensor, plain: Tensor, *_rest: object) -> Tensor:
    return torch.empty_like(plain, memory_format=torch.contiguous_format)


def _gather_width(a: Tensor) -> Tensor:
    from vllm.distributed import tensor_model_parallel_all_gather

    return tensor_model_parallel_all_gather(a, dim=-1)


class RedistributedAndMul(nn.Module):
    """`activation(gate) · up` with ARM after the activation.

    Args:
        plain: vLLM's own module, whose bits tokens without ARM keep.
        activation: its name in `FUSED_ACTIVATIONS`.
        policy: what moves.
        noise: keyed.
        layer: from 0.
        width: the whole intermediate size.
        shard, shards: this rank's place along the width, and how many there are.
        positions, strengths: the buffers of `Serving`, shared by all layers.
    """

    positions: Tensor
    strengths: Tensor
    keys: Tensor
    totals: Tensor

    def __init__(
        self,
        plain: nn.Module,
        activation: str,
        policy: Policy,
        noise: Noise,
        *,
        layer: int,
        width: int,
        shard: int,
        shards: int,
        positions: Tensor,
        strengths: Tensor,
    ) -> None:
        super().__init__()
        self.plain, self.activation, self.layer, self.width = plain, activation, layer, width
        self.shard, self.shards = shard, shards
        self.policy, self.settings = to_numbers(policy)  # type: ignore[arg-type] - one of ours, from an armlet.json
        self.stream = noise.stream & WORD
        device = positions.device
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("strengths", strengths, persistent=False)
        self.register_buffer("keys", noise.keys(width, layer).to(device), persistent=False)
        self.register_buffer("totals", torch.zeros(4, dtype=torch.int64, device=device), persistent=False)

    def forward(self, gate_up: Tensor) -> Tensor:
        """`[tokens, 2·width/shards]` to `[tokens, width/shards]`."""
        return redistribute_gated(
            gate_up,
            self.plain(gate_up),
            self.positions,
            self.strengths,
            self.keys,
            self.totals,
            self.policy,
            self.settings,
            self.stream,
            self.activation,
            self.shard,
            self.shards,
        )

    def report(self) -> dict[str, int | float]:
        """What happened so far, as `ARM.report`; calls are those with at least one token that asked for ARM."""
        calls, tokens, moved, passed = self.totals.tolist()
        share = moved / (tokens * self.width) if tokens else 0.0
        return {"calls": calls, "tokens": tokens, "moved": moved, "share_moved": share, "passed": passed}
