"""Replaces vLLM's fused activation and product by the same operation with ARM on gate, up or product."""

# pyright: reportMissingImports=false

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from armlet.attachment.sites import ALL_EXPERTS, GATE, PRODUCT, UP, UnsupportedModelError
from armlet.integrations.vllm.requests import CONFIGURED
from armlet.integrations.vllm.settings import SETTING_KEY
from armlet.integrations.vllm.sites import FusedSite
from armlet.redistribution.backends.choice import backend_for
from armlet.redistribution.entry import redistribute_with_counts
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import WORD, Noise
from armlet.redistribution.operands import Operands
from armlet.redistribution.policy_numbers import from_numbers, to_numbers
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
    strengths: Tensor,  # [at least tokens] float32 in [0, 1], 0 for tokens without ARM; CONFIGURED for the policy's own
    keys: Tensor,  # `Noise.keys` for the whole width
    totals: Tensor,  # int64: calls, tokens, moved, passed for the whole width, equal on all ranks
    policy: str,  # name of the policy, after "matched/" or "draw-only/" for a placebo
    settings: list[float],  # the policy's numbers from `to_numbers`
    stream: int,  # stream of the keyed noise
    activation: str,  # one of `FUSED_ACTIVATIONS`
    shard: int,  # this rank's index along the width
    shards: int,  # number of ranks along the width
) -> Tensor:
    """Returns `[tokens, width/shards]`: ARM(activation(gate)) · up, and `untreated` for tokens of strength 0."""
    flat = gate_up.reshape(-1, gate_up.shape[-1])
    moving = policy_of(policy, settings)
    if is_idle(strengths[: len(flat)], moving):
        return untreated.clone(memory_format=torch.contiguous_format)
    operands = _operands(len(flat), moving, keys, positions, strengths, stream)
    gate = flat[:, None, : flat.shape[-1] // 2]
    fused = backend_for(gate, moving).gated_rows if shards == 1 else None
    gated_rows = fused or partial(_gated_rows, shard=shard, shards=shards)
    treated, moved, passed = gated_rows(flat.contiguous(), moving, activation, operands)
    active = count_call(totals, operands.strength, moved, passed)
    return torch.where(active[:, None], treated, untreated.reshape(treated.shape)).view(untreated.shape)


@torch.library.custom_op("armlet::redistribute_part", mutates_args=("totals",))
def redistribute_part(
    values: Tensor,  # [tokens, width/shards]: this rank's part of up or of the product
    positions: Tensor,  # this and the following as in `redistribute_gated`
    strengths: Tensor,
    keys: Tensor,
    totals: Tensor,
    policy: str,
    settings: list[float],
    stream: int,
    shard: int,
    shards: int,
) -> Tensor:
    """Returns ARM(values), `[tokens, width/shards]`; tokens of strength 0 stay as they are."""
    flat = values.reshape(-1, values.shape[-1]).contiguous()
    moving = policy_of(policy, settings)
    if is_idle(strengths[: len(flat)], moving):
        return values.clone(memory_format=torch.contiguous_format)
    operands = _operands(len(flat), moving, keys, positions, strengths, stream)
    treated, moved, passed = _redistributed(flat, moving, operands, shard, shards)
    active = count_call(totals, operands.strength, moved, passed)
    return torch.where(active[:, None], treated, flat).view(values.shape)


@redistribute_part.register_fake
def _(values: Tensor, *_rest: object) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


def is_idle(strengths: Tensor, policy: Policy) -> bool:
    """Whether no token has ARM, where that is known without waiting for a GPU."""
    return strengths.is_cpu and not own_or_requested(strengths, policy).any()


def own_or_requested(strengths: Tensor, policy: Policy) -> Tensor:
    """The strength of each token, in which `CONFIGURED` is the policy's own."""
    return torch.where(strengths == CONFIGURED, policy.strength, strengths)


def policy_of(name: str, settings: list[float]) -> Policy:
    """The policy or placebo of an operator's arguments."""
    placebo_name, _, policy_name = name.rpartition("/")
    policy = from_numbers(policy_name, settings)
    if not placebo_name:
        return policy
    from armlet.evaluation.conditions.placebos import placebo  # imports what a server rarely needs

    return placebo(placebo_name, policy)


def arguments_of(policy: Policy) -> tuple[str, list[float]]:
    """The arguments of `policy_of` for a built-in policy, or a placebo of one."""
    replaced = getattr(policy, "policy", None)
    name, settings = to_numbers(policy if replaced is None else replaced)  # type: ignore[arg-type] - see above
    return name if replaced is None else f"{policy.name}/{name}", settings


def _operands(tokens: int, policy: Policy, keys: Tensor, positions: Tensor, strengths: Tensor, stream: int) -> Operands:
    return Operands(keys, positions[:tokens], stream, strength=own_or_requested(strengths[:tokens], policy))


def count_call(totals: Tensor, strength: Tensor | None, moved: Tensor, passed: Tensor) -> Tensor:
    """Adds a call to the totals; returns which tokens, or rows, have ARM."""
    assert strength is not None
    active = strength > 0
    increments = (active.any(), active.sum(), moved.sum(), (passed & active).sum())
    totals += torch.stack([increment.to(torch.int64) for increment in increments])
    return active


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
    values, moved, passed = _redistributed(a, policy, operands, shard, shards)
    return values * flat[:, width:], moved, passed


def _redistributed(
    part: Tensor, policy: Policy, operands: Operands, shard: int, shards: int
) -> tuple[Tensor, Tensor, Tensor]:
    """This rank's part of a redistributed width, from its part of the values."""
    width, a = part.shape[-1], part
    if shards > 1:
        from vllm.distributed import tensor_model_parallel_all_gather

        a = tensor_model_parallel_all_gather(a, dim=-1)
    options = {"positions": operands.positions, "keys": operands.keys, "strength": operands.strength, "scope": "token"}
    values, moved, passed = redistribute_with_counts(a, policy, noise=Noise(stream=operands.stream), **options)
    return values.narrow(-1, shard * width, width), moved, passed


class RedistributedAndMul(nn.Module):
    """`activation(gate) · up` with ARM at some sites; `original` is vLLM's module, for tokens without ARM at the gate.

    `add` puts a setting's ARM at a site. A token has ARM of one setting at most; those of other settings leave it as it
    is.
    """

    positions: Tensor

    def __init__(self, site: FusedSite, positions: Tensor) -> None:
        super().__init__()
        self.original, self.site = site.mlp.get_submodule(site.attribute), site
        self.register_buffer("positions", positions, persistent=False)
        self.arms = nn.ModuleList()

    def add(
        self, setting: str, strengths: Tensor, site: str, policy: Policy, noise: Noise, experts: str = ALL_EXPERTS
    ) -> None:
        """Puts a setting's ARM at a site.

        `strengths` are those of the setting's tokens, a buffer of `WorkerArm` that all layers share.

        Raises:
            ArgumentError: the setting has ARM there already.
            UnsupportedModelError: a kind of experts, which a dense layer has not.
        """
        if experts != ALL_EXPERTS:
            raise UnsupportedModelError(
                f"layer {self.site.layer}: has no experts, so experts={experts!r} has no meaning there; choose layers "
                "with experts, or leave `experts` out"
            )
        if any((arm.setting, arm.place) == (setting, site) for arm in self._all()):
            raise ArgumentError(f"{SETTING_KEY}: two placements are both at the site {site} of layer {self.site.layer}")
        self.arms.append(FusedArm(self.site, setting, strengths, site, policy, noise))

    def put_in(self) -> None:
        """Puts this module in the place of vLLM's."""
        setattr(self.site.mlp, self.site.attribute, self)

    def take_out(self) -> None:
        """Puts vLLM's module back."""
        setattr(self.site.mlp, self.site.attribute, self.original)

    def forward(self, gate_up: Tensor) -> Tensor:
        """Maps `[tokens, 2·width/shards]` to `[tokens, width/shards]`."""
        shard, shards = self.site.shard, self.site.shards
        for arm in self._all(UP):
            gate, up = gate_up.chunk(2, -1)
            up = redistribute_part(up, self.positions, *arm.operands(), shard, shards)
            gate_up = torch.cat((gate, up), -1)
        product = self.original(gate_up)
        for arm in self._all(GATE):
            operands = self.positions, *arm.operands(), self.site.activation
            product = redistribute_gated(gate_up, product, *operands, shard, shards)
        for arm in self._all(PRODUCT):
            product = redistribute_part(product, self.positions, *arm.operands(), shard, shards)
        return product

    def _all(self, site: str | None = None) -> "list[FusedArm]":
        arms = [cast("FusedArm", arm) for arm in self.arms]
        return [arm for arm in arms if site in (None, arm.place)]

    def tokens(self, setting: str, *, own: bool) -> int | None:
        """How many tokens a setting's ARM got here; None without. `own`: only that whose own strength is not 0."""
        arms = [arm for arm in self._all() if arm.setting == setting and (arm.policy.strength or not own)]
        return sum(int(arm.report()["tokens"]) for arm in arms) if arms else None

    def report(self, setting: str) -> dict[str, int | float] | None:
        """Returns a setting's counts so far, as in `Attachment.report`: those of its sites together; None without."""
        reports = [arm.report() for arm in self._all() if arm.setting == setting]
        if not reports:
            return None
        total = {name: sum(report[name] for report in reports) for name in reports[0]}
        share = total["moved"] / (total["tokens"] * self.site.width) if total["tokens"] else 0.0
        return total | {"calls": max(report["calls"] for report in reports), "share_moved": share}


class FusedArm(nn.Module):
    """The constants and counters of a setting's ARM at one site of a layer."""

    strengths: Tensor
    keys: Tensor
    totals: Tensor

    def __init__(
        self, site: FusedSite, setting: str, strengths: Tensor, place: str, policy: Policy, noise: Noise
    ) -> None:
        super().__init__()
        self.setting, self.place, self.policy = setting, place, policy
        self.constants = *arguments_of(policy), noise.stream & WORD
        keys, totals = noise.keys(site.width, site.layer), torch.zeros(4, dtype=torch.int64)
        self.register_buffer("strengths", strengths, persistent=False)
        self.register_buffer("keys", keys.to(strengths.device), persistent=False)
        self.register_buffer("totals", totals.to(strengths.device), persistent=False)

    def operands(self) -> tuple[Any, ...]:
        """The arguments of the operators from `strengths` to `stream`."""
        return self.strengths, self.keys, self.totals, *self.constants

    def report(self) -> dict[str, int]:
        """Returns the counts so far; counts only calls with at least one token that uses ARM."""
        calls, tokens, moved, passed = self.totals.tolist()
        return {"calls": calls, "tokens": tokens, "moved": moved, "passed": passed}
