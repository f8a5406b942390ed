"""Operators for the rows of routed experts: ARM on each row, one token in one expert.

A row is known by the routing alone, `topk_ids`, as vLLM passes it to the experts: row r is token r // choices in expert
`topk_ids.flatten()[r]`. So nothing waits for the device, and no shape depends on the routing, as CUDA graphs need.
"""

# pyright: reportMissingImports=false

from typing import NamedTuple

import torch
from torch import Tensor, nn

from armlet.integrations.vllm.operator import (
    FUSED_ACTIVATIONS,
    arguments_of,
    count_call,
    is_idle,
    own_or_requested,
    policy_of,
)
from armlet.redistribution.entry import DETERMINISTIC_POLICIES, redistribute_with_counts
from armlet.redistribution.noise import WORD, Explicit, Midpoint, Noise
from armlet.redistribution.rows import Policy


class RoutedRows(NamedTuple):
    """Of each row, `[rows]`: its expert, its token's position, and its strength, 0 for rows without ARM."""

    experts: Tensor
    positions: Tensor
    strengths: Tensor


def rows_of_routing(topk_ids: Tensor, experts: int, positions: Tensor, strengths: Tensor) -> RoutedRows:
    """The rows of a routing `[tokens, choices]`, given position and strength of at least these tokens.

    An id that is no expert, as vLLM has for padding, is a row of strength 0.
    """
    tokens = len(topk_ids)
    valid = (topk_ids >= 0) & (topk_ids < experts)
    strength = torch.where(valid, strengths[:tokens, None], 0.0)
    position = positions[:tokens, None].expand(topk_ids.shape)
    return RoutedRows(topk_ids.clamp(0, experts - 1).reshape(-1).long(), position.reshape(-1), strength.reshape(-1))


# Opaque to torch.compile, as the operators for dense MLPs.
@torch.library.custom_op("armlet::redistribute_gated_rows", mutates_args=("totals",))
def redistribute_gated_rows(
    gate_up: Tensor,  # [rows, 2·width/shards]: this rank's part of gate, then of up
    untreated: Tensor,  # [rows, width/shards]: output without ARM
    topk_ids: Tensor,  # [tokens, choices] integers: the experts of each token; rows = tokens · choices
    positions: Tensor,  # [at least tokens] int64: each token's absolute position
    strengths: Tensor,  # [at least tokens] float32 in [0, 1], 0 for tokens without ARM; CONFIGURED for the policy's own
    keys: Tensor,  # [2, experts, width] int32: base with stream, and step, of the keyed noise
    totals: Tensor,  # int64: calls, rows, moved, passed for the whole width, equal on all ranks
    policy: str,  # name of the policy
    settings: list[float],  # the policy's numbers from `to_numbers`
    shard: int,  # this rank's index along the width
    shards: int,  # number of ranks along the width
    activation: str,  # one of `FUSED_ACTIVATIONS`
) -> Tensor:
    """Returns `[rows, width/shards]`: ARM(activation(gate)) · up, and `untreated` for rows of strength 0."""
    moving = policy_of(policy, settings)
    if is_idle(strengths[: len(topk_ids)], moving):
        return untreated.clone(memory_format=torch.contiguous_format)
    width = gate_up.shape[-1] // 2
    a = FUSED_ACTIVATIONS[activation](gate_up[:, :width].contiguous())
    values, active = _moved_rows(a, topk_ids, positions, strengths, keys, totals, moving, shard, shards)
    return torch.where(active, values * gate_up[:, width:], untreated)


@redistribute_gated_rows.register_fake
def _(_gate_up: Tensor, untreated: Tensor, *_rest: object) -> Tensor:
    return torch.empty_like(untreated, memory_format=torch.contiguous_format)


@torch.library.custom_op("armlet::redistribute_part_rows", mutates_args=("totals",))
def redistribute_part_rows(
    values: Tensor,  # [rows, width/shards]: this rank's part of up or of the product
    topk_ids: Tensor,  # this and the following as in `redistribute_gated_rows`
    positions: Tensor,
    strengths: Tensor,
    keys: Tensor,
    totals: Tensor,
    policy: str,
    settings: list[float],
    shard: int,
    shards: int,
) -> Tensor:
    """Returns ARM(values), `[rows, width/shards]`; rows of strength 0 stay as they are."""
    moving = policy_of(policy, settings)
    if is_idle(strengths[: len(topk_ids)], moving):
        return values.clone(memory_format=torch.contiguous_format)
    part = values.contiguous()
    moved, active = _moved_rows(part, topk_ids, positions, strengths, keys, totals, moving, shard, shards)
    return torch.where(active, moved, part)


@redistribute_part_rows.register_fake
def _(values: Tensor, *_rest: object) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


def _moved_rows(
    part: Tensor,
    topk_ids: Tensor,
    positions: Tensor,
    strengths: Tensor,
    keys: Tensor,
    totals: Tensor,
    policy: Policy,
    shard: int,
    shards: int,
) -> tuple[Tensor, Tensor]:
    """This rank's part of the redistributed rows, and which rows have ARM, `[rows, 1]`; adds to the totals."""
    width, a = part.shape[-1], part
    if shards > 1:
        from vllm.distributed import tensor_model_parallel_all_gather

        a = tensor_model_parallel_all_gather(a, dim=-1)
    rows = rows_of_routing(topk_ids, keys.shape[1], positions, own_or_requested(strengths, policy))
    noise = _draws(a, policy, keys, rows)
    values, moved, passed = redistribute_with_counts(a, policy, scope="token", noise=noise, strength=rows.strengths)
    active = count_call(totals, rows.strengths, moved, passed)
    return values.narrow(-1, shard * width, width), active[:, None]


def _draws(a: Tensor, policy: Policy, keys: Tensor, rows: RoutedRows) -> Explicit | Midpoint:
    if type(policy) in DETERMINISTIC_POLICIES:
        return Noise.midpoint()  # not used
    return Explicit(Noise().uniforms(a.shape, rows.positions, keys[:, rows.experts]))


class RowsArm(nn.Module):
    """The constants and counters of a setting's ARM at one site of a layer's routed experts.

    `strengths` is the buffer with the strength of each token. The expert e of width w has the channels from e·w.
    """

    keys: Tensor
    totals: Tensor
    strengths: Tensor

    def __init__(
        self,
        setting: str,
        strengths: Tensor,
        policy: Policy,
        noise: Noise,
        *,
        site: str,
        layer: int,
        experts: int,
        width: int,
    ) -> None:
        super().__init__()
        self.setting, self.site, self.policy, self.constants = setting, site, policy, arguments_of(policy)
        start, step, stride = noise.keys(experts * width, layer)
        # Only the lowest 32 bits matter, and rows gather their keys: int32 takes half the memory.
        keys = torch.stack((start + (noise.stream & WORD) * stride, step)).to(torch.int32).view(2, experts, width)
        totals = torch.zeros(4, dtype=torch.int64, device=strengths.device)
        for name, buffer in (("keys", keys.to(strengths.device)), ("totals", totals), ("strengths", strengths)):
            self.register_buffer(name, buffer, persistent=False)

    def report(self) -> dict[str, int | float]:
        """Returns the counts so far; a token counts once in each expert."""
        return dict(zip(("calls", "tokens", "moved", "passed"), self.totals.tolist(), strict=True))
