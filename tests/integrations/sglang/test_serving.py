"""ARM in the place of SGLang's activations, without SGLang: stand-ins for its modules; tests_sglang has its engine."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from armlet import Noise, Outward, redistribute
from armlet.attachment.sites import UnsupportedModelError
from armlet.integrations.sglang import serving
from armlet.integrations.sglang.serving import GatheredAndMul, RunnerArm
from armlet.integrations.vllm import serving as vllm_serving
from armlet.integrations.vllm.settings import ON, Served
from armlet.integrations.vllm.sites import FusedSite
from armlet.redistribution.errors import ArmletError

WIDTH = 24


class SiluAndMul(nn.Module):
    """SGLang's `forward_native`."""

    def forward(self, gate_up):
        gate, up = gate_up.chunk(2, -1)
        return functional.silu(gate) * up


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_up_proj, self.act_fn, self.fused = nn.Linear(8, 2 * WIDTH), SiluAndMul(), False
        self.gate_up_proj.output_sizes, self.gate_up_proj.tp_group = [WIDTH, WIDTH], None

    def forward(self, x):
        gate_up = self.gate_up_proj(x)
        return SiluAndMul()(gate_up) if self.fused else self.act_fn(gate_up)


@pytest.fixture
def mlp(monkeypatch):
    mlp = MLP()
    monkeypatch.setattr(vllm_serving, "decoder_layers", lambda _model: [mlp])
    monkeypatch.setattr(serving, "find_gated_sites", lambda _model, _layers: [site(mlp)])
    return mlp


def site(mlp, shard=0, shards=1):
    return FusedSite(0, mlp, "act_fn", "silu", WIDTH, shard, shards)


def arm(mlp, **changes):
    placement = {"policy": Outward(), "layers": [0], "scope": "token", "noise": Noise(3)} | changes
    return RunnerArm(mlp, Served({ON: [placement]}, ON), 8, torch.device("cpu"))


def test_each_token_has_the_bits_of_arm_at_its_position_and_strength(mlp):
    x, positions = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([7, 8, 9, 0, 31])
    gate, up = mlp.gate_up_proj(x).chunk(2, -1)
    plain = mlp(x)
    out = arm(mlp).run(lambda: mlp(x), positions, [3, 1, 1], [None, {"armlet": "off"}, {"armlet": 0.5}], "prefill")
    options = {"noise": Noise(3), "positions": positions[None]}
    on, half = (
        redistribute(functional.silu(gate.contiguous())[None], Outward(strength=strength), **options)[0] * up
        for strength in (1, 0.5)
    )
    assert torch.equal(out, torch.cat((on[:3], plain[3:4], half[4:])))
    assert not torch.equal(out[:3], plain[:3])


def test_rows_that_pad_a_graph_after_the_tokens_are_without_arm(mlp):
    installed, x = arm(mlp), torch.randn(8, 8)
    installed.run(lambda: mlp(x), torch.arange(8), [8], [None], "prefill")
    plain = SiluAndMul()(mlp.gate_up_proj(x))
    out = installed.run(lambda: mlp(x), torch.arange(2), [1, 1], [None, None], "decode")  # a graph of 8 rows
    assert torch.equal(out[2:], plain[2:])
    assert not torch.equal(out[:2], plain[:2])


@pytest.mark.parametrize("fused_in", ["prefill", "decode"])
def test_a_kernel_that_goes_round_the_activation_in_one_phase_is_an_error(mlp, fused_in):
    installed, x = arm(mlp), torch.randn(1, 8)
    installed.run(lambda: mlp(x), torch.arange(1), [1], [None], {"prefill": "decode", "decode": "prefill"}[fused_in])
    mlp.fused = True
    with pytest.raises(UnsupportedModelError, match=f"received no tokens in {fused_in}"):
        installed.run(lambda: mlp(x), torch.arange(1), [1], [None], fused_in)


def test_the_kernel_of_small_batches_that_has_no_activation_is_turned_off(mlp):
    mlp.dual_gemm = type("DualGemm", (), {"mode": "unquant"})()
    arm(mlp)
    assert mlp.dual_gemm.mode is None


@pytest.mark.parametrize("counts", [[1], [2, 1, 1]])
def test_a_batch_whose_tokens_are_not_those_of_its_requests_is_an_error(mlp, counts):
    with pytest.raises(ArmletError, match="SGLang runs 4 tokens"):
        arm(mlp).run(lambda: None, torch.arange(4), counts, [None] * 2, "prefill")


def test_two_shards_together_have_the_bits_of_the_whole_width(mlp):
    gate_up = torch.randn(3, 2 * WIDTH, generator=torch.Generator().manual_seed(1))
    positions, strengths = torch.arange(3), torch.ones(3)

    def output(shard, shards, values, group):
        module = GatheredAndMul(site(mlp, shard, shards), positions, group)
        for place in ("gate", "up", "product"):
            module.add(ON, strengths, place, Outward(), Noise(3))
        return module(values)

    gate, up = (part.chunk(2, -1) for part in gate_up.chunk(2, -1))
    whole = output(0, 1, gate_up, None)
    parts = [output(at, 2, torch.cat((gate[at], up[at]), -1), Group((gate, up))) for at in (0, 1)]
    assert torch.equal(torch.cat(parts, -1), whole)


class Group:
    """Two ranks of which one is here: what both would gather is known."""

    def __init__(self, values):
        self.values = [torch.cat(parts, -1) for parts in values]

    def all_gather(self, part, dim):
        return next(whole for whole in self.values if any(torch.equal(half, part) for half in whole.chunk(2, dim)))


def test_rows_after_the_tokens_of_a_pass_have_no_arm_with_which_a_graph_may_be_padded(mlp):
    served, (buffer,) = arm(mlp), [part.strengths for part in mlp.act_fn.arms]
    for tokens in (5, 2, 4, 1):
        served.run(lambda: mlp(torch.ones(tokens, 8)), torch.arange(tokens), [tokens], [None], "prefill")  # noqa: B023
        assert (buffer != 0).nonzero().flatten().tolist() == list(range(tokens))
