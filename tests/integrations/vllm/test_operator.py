"""The operator that stands in vLLM's place, without vLLM: the same bits as ARM between activation and product."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from armlet import Cut, Inward, Noise, Outward, Transport, redistribute
from armlet.integrations.vllm.operator import FUSED_ACTIVATIONS, redistribute_gated, redistribute_part
from armlet.integrations.vllm.requests import CONFIGURED
from armlet.redistribution.policy_numbers import to_numbers

POLICIES = [
    Outward(),
    Outward(proportion=0.4, write="add"),
    Inward(knee=0.8),
    Inward(knee=0.5, curve="clip"),
    Transport(),
    Cut(),
    Cut(threshold=0.3),
]
WIDTH = 40
NOISE = Noise(3, 1)


def arguments(policy, strengths, *, activation="silu", dtype=torch.float32, seed=0):
    count = len(strengths)
    gate_up = torch.randn(count, 2 * WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype) * 3
    positions = torch.arange(count + 5) * 7
    totals = torch.zeros(4, dtype=torch.int64)
    plain = FUSED_ACTIVATIONS[activation](gate_up[:, :WIDTH]) * gate_up[:, WIDTH:]
    padded = torch.tensor([*strengths, *[1.0] * 5])  # the buffers are longer than the batch
    keys = NOISE.keys(WIDTH, 0)
    return gate_up, plain, positions, padded, keys, totals, *to_numbers(policy), NOISE.stream, activation, 0, 1


def expected(policy, strength, a, up, position):
    treated = type(policy)(**(vars(policy) | {"strength": strength}))
    return redistribute(a[None], treated, noise=NOISE, positions=position[None])[0] * up


@given(
    policy=st.sampled_from(POLICIES),
    strengths=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1, width=32), min_size=1, max_size=6),
    activation=st.sampled_from(list(FUSED_ACTIVATIONS)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_each_row_has_the_bits_of_arm_at_its_strength(policy, strengths, activation, dtype, seed):
    given = arguments(policy, strengths, activation=activation, dtype=dtype, seed=seed)
    gate_up, plain, positions = given[:3]
    out = redistribute_gated(*given)
    # Of the whole batch: the same value may have other bits where torch's vectors end elsewhere.
    a, up = FUSED_ACTIVATIONS[activation](gate_up[:, :WIDTH].contiguous()), gate_up[:, WIDTH:]
    for at, strength in enumerate(strengths):
        row = plain[at] if strength == 0 else expected(policy, strength, a[at], up[at], positions[at])
        assert torch.equal(out[at], row)


@given(
    policy=st.sampled_from(POLICIES),
    strengths=st.lists(st.sampled_from([0.0, CONFIGURED, 0.25, 1.0]), min_size=1, max_size=6),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_up_and_product_have_the_bits_of_arm_at_the_strength_that_a_token_asks_for(policy, strengths, dtype):
    policy = replace(policy, strength=0.5)
    values = torch.randn(len(strengths), WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype) * 3
    _, _, positions, padded, keys, totals, name, numbers, *_ = arguments(policy, strengths)
    out = redistribute_part(values, positions, padded, keys, totals, name, numbers, NOISE.stream, 0, 1)
    for at, strength in enumerate(strengths):
        strength = 0.5 if strength == CONFIGURED else strength
        assert torch.equal(out[at], expected(policy, strength, values[at], 1, positions[at]))
    assert totals[1] == sum(strength != 0 for strength in strengths)


def test_a_token_that_asks_for_no_strength_has_the_policy_s_own_at_the_gate():
    asked, configured = (arguments(Outward(strength=0.5), [strength]) for strength in (0.5, CONFIGURED))
    assert torch.equal(redistribute_gated(*asked), redistribute_gated(*configured))


def test_counts_are_those_of_rows_that_are_on():
    gate_up, *rest = arguments(Inward(knee=0.8), [0.0, 1.0, 0.5, 1.0])
    gate_up[0, 0] = gate_up[3, 0] = torch.nan
    redistribute_gated(gate_up, *rest)
    # 8 of 40 values are beyond the knee in each of the two finite rows that are on; the third holds NaN.
    assert rest[4].tolist() == [1, 3, 16, 1]


def test_a_batch_that_asks_for_nothing_counts_for_nothing():
    given = arguments(Outward(), [0.0, 0.0])
    assert torch.equal(redistribute_gated(*given), given[1])
    assert given[5].tolist() == [0, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_operators_keep_torchs_rules(policy):
    given = arguments(policy, [1.0, 0.0, 0.5])
    torch.library.opcheck(redistribute_gated, given)
    torch.library.opcheck(redistribute_part, (given[1], *given[2:9], 0, 1))


def test_a_batch_of_three_dimensions_keeps_its_shape():
    gate_up, plain, *rest = arguments(Outward(), [1.0, 0.0])
    flat = redistribute_gated(gate_up, plain, *rest)
    assert torch.equal(redistribute_gated(gate_up[None], plain[None], *rest), flat[None])


def test_the_three_activations_are_torchs():
    x = torch.linspace(-4, 4, 33)
    assert torch.equal(FUSED_ACTIVATIONS["silu"](x), functional.silu(x))
    assert torch.equal(FUSED_ACTIVATIONS["gelu"](x), functional.gelu(x))
    assert torch.equal(FUSED_ACTIVATIONS["gelu_tanh"](x), functional.gelu(x, approximate="tanh"))
