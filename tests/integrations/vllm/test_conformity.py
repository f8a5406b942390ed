"""The clamps of vLLM's MLPs, tried in modules of the same structure; with vLLM itself in tests_vllm/."""

from math import inf

import pytest
import torch
from torch import nn

from armlet.bounds.conform_parts import Clamp
from armlet.integrations.vllm.conformity import FUSED_EXPERTS, NO_LAYER, joined, rank_trials

CLAMP = Clamp(2.0, 2.0)
HIDDEN, WIDTH = 16, 24


class FusedLinear(nn.Module):
    """A linear that returns a pair, as vLLM's do."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(sum(outputs), inputs, generator=torch.Generator().manual_seed(0)))
        self.input_size, self.output_size, self.tp_size = inputs, sum(outputs), 1
        if len(outputs) > 1:
            self.output_sizes = list(outputs)

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype)), None


class Activation(nn.Module):
    """silu(min(gate, limit)) · clip(up, limit)."""

    def __init__(self, gate, up):
        super().__init__()
        self.gate, self.up = gate, up

    def forward(self, gate_up):
        gate, up = gate_up.chunk(2, -1)
        return nn.functional.silu(gate.clamp(max=self.gate)) * up.clamp(-self.up, self.up)


class Mlp(nn.Module):
    def __init__(self, gate=2.0, up=2.0):
        super().__init__()
        self.gate_up_proj = FusedLinear(HIDDEN, [WIDTH, WIDTH])
        self.act_fn = Activation(gate, up)
        self.down_proj = FusedLinear(WIDTH, [HIDDEN])

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_up_proj(x)[0]))[0]


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts, self.shared_expert = nn.Linear(1, 1), Mlp(gate=4.0)


def layer(mlp):
    module = nn.Module()
    module.mlp = mlp
    return module


def checks(layers, clamps, dtype=torch.float32):
    return joined([rank_trials(layers, clamps, dtype)], clamps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_mlps_without_their_clamp_are_told_from_those_with_it(dtype):
    mlps = [Mlp(), Mlp(inf, inf), Mlp(gate=inf), Mlp(up=inf), Mlp(up=4.0)]
    results = checks([layer(mlp) for mlp in mlps], {(index, ""): CLAMP for index in range(5)}, dtype)
    missing = [[verdict.site for verdict in check.verdicts if verdict.missing] for check in results]
    assert missing == [[], ["gate", "up"], ["gate"], ["up"], ["up"]]
    assert [check.status for check in results] == ["yes", "NO", "NO", "NO", "NO"]
    assert results[4].verdicts[1].applied == pytest.approx(4.0, rel=0.02)


def test_a_layer_without_a_configured_clamp_is_not_judged():
    (first, second) = checks([layer(Mlp(inf, inf)), layer(Mlp())], {(1, ""): CLAMP})
    assert (first.status, second.status) == (None, "yes")


def test_the_experts_of_a_mixture_are_not_verified_and_the_shared_one_is():
    routed, shared = checks([layer(Mixture())], {(0, ""): CLAMP})
    assert (routed.kind, routed.status, routed.reason) == ("routed", "not verified", FUSED_EXPERTS)
    assert (shared.kind, shared.status, [v.site for v in shared.verdicts if v.missing]) == ("shared", "NO", ["gate"])


def test_a_layer_that_no_rank_has_is_not_verified():
    ranks = [rank_trials([layer(Mlp()), nn.Identity()], {(0, ""): CLAMP, (1, ""): CLAMP}, torch.float32)]
    first, second = joined(ranks, {(0, ""): CLAMP, (1, ""): CLAMP})
    assert (first.status, second.status, second.reason) == ("yes", "not verified", NO_LAYER)


def test_ranks_with_layers_of_their_own_are_joined_in_order():
    clamps = {(index, ""): CLAMP for index in range(2)}
    first = rank_trials([layer(Mlp()), nn.Identity()], clamps, torch.float32)
    second = rank_trials([nn.Identity(), layer(Mlp(inf, inf))], clamps, torch.float32)
    assert [(check.layer, check.status) for check in joined([second, first], clamps)] == [(0, "yes"), (1, "NO")]


def test_an_mlp_whose_code_fails_is_not_verified_and_says_why():
    mlp = Mlp()
    mlp.act_fn = nn.Identity()  # down gets twice its width
    (check,) = checks([layer(mlp)], {(0, ""): CLAMP})
    assert check.status == "not verified"
    assert check.reason.startswith("RuntimeError: ")
