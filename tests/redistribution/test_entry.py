"""What holds for every policy: scopes, masks, dtypes, purity, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from armlet.redistribution import Cut, Inward, Noise, Outward, Transport, redistribute
from armlet.redistribution.entry import redistribute_with_counts
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.outcome import outcome
from gates import DTYPES, POLICIES, each_policy, gate, gates, masked_gates, same_bits, uniforms

SCOPES = ["token", "sequence", "call"]
any_policy = st.sampled_from(POLICIES)


@given(gates(), any_policy, st.sampled_from(SCOPES), st.sampled_from(DTYPES))
def test_shape_dtype_and_input_are_kept(a, policy, scope, dtype):
    a = a.to(dtype)
    copy = a.clone()
    out = redistribute(a, policy, scope=scope)
    assert (out.shape, out.dtype) == (a.shape, a.dtype)
    assert same_bits(a, copy)


@given(gates(elements=st.floats(-65504, 65504, width=16)), any_policy, st.sampled_from(DTYPES))
def test_finite_values_stay_finite(a, policy, dtype):
    scale = torch.finfo(torch.float32).max / 6.6e4 if dtype in (torch.float32, torch.bfloat16) else 1
    assert redistribute((a * scale).to(dtype), policy).isfinite().all()


@given(gates(), st.sampled_from(["token", "sequence", "call"]), st.sampled_from(DTYPES))
def test_strength_zero_is_the_identity_bit_for_bit(a, scope, dtype):
    redrawn = Outward(strength=0), Outward(strength=0, write="add")
    for policy in (*redrawn, Inward(strength=0), Transport(strength=0), Cut(strength=0), Cut(threshold=1, strength=0)):
        result = outcome(a.to(dtype), policy, scope=scope, draw=lambda: uniforms(a))
        assert same_bits(result.values, a.to(dtype))
        assert not result.moved.any()


@each_policy
def test_token_scope_ignores_batch_mates(policy):
    a = gate(5, 7, 96)
    whole = redistribute(a, policy)
    for b in range(5):
        for t in range(7):
            alone = redistribute(a[b : b + 1, t : t + 1], policy, positions=torch.tensor([[t]]))
            assert same_bits(alone[0, 0], whole[b, t])


@each_policy
def test_token_scope_ignores_padding(policy):
    a = gate(1, 6, 96)
    left = torch.cat((gate(1, 3, 96, seed=9) * torch.nan, a), 1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4, 5]])
    out = redistribute(left, policy, mask=mask, positions=positions)
    assert same_bits(out[:, 3:], redistribute(a, policy))
    assert same_bits(out[:, :3], left[:, :3])


@each_policy
def test_sequence_scope_ignores_batch_mates_and_padding(policy):
    a, mate = gate(1, 6, 40), gate(1, 9, 40, seed=1)
    batch = torch.cat((torch.nn.functional.pad(a, (0, 0, 0, 3), value=7.0), mate))
    mask = torch.arange(9) < torch.tensor([[6], [9]])
    out = redistribute(batch, policy, scope="sequence", mask=mask)
    assert same_bits(out[0, :6], redistribute(a, policy, scope="sequence")[0])
    assert same_bits(out[0, 6:], batch[0, 6:])


@each_policy
def test_call_scope_takes_the_whole_tensor_as_one_row(policy):
    a = gate(2, 3, 40)
    u = uniforms(a)
    flat = redistribute(a.reshape(1, 1, -1), policy, noise=u.reshape(1, 1, -1))
    assert same_bits(redistribute(a, policy, scope="call", noise=u).flatten(), flat.flatten())


@given(masked_gates(), any_policy, st.sampled_from(SCOPES))
def test_padding_does_not_move(case, policy, scope):
    a, mask = case
    result = outcome(a, policy, scope=scope, draw=lambda: uniforms(a), mask=mask)
    assert same_bits(result.values[~mask], a[~mask])
    assert not result.moved[~mask].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("scope", SCOPES)
@each_policy
def test_scopes_with_nan_or_inf_pass_through_and_are_counted(policy, scope, bad):
    a = gate(3, 4, 40)
    a[1, 2, 5] = bad
    result = outcome(a, policy, scope=scope, draw=lambda: uniforms(a))
    hit = {"token": (slice(1, 2), slice(2, 3)), "sequence": (slice(1, 2),), "call": (slice(None),)}[scope]
    assert result.passed.sum() == 1
    assert same_bits(result.values[hit], a[hit])
    assert not result.moved[hit].any()
    clean = outcome(torch.where(a.isfinite(), a, 0.0), policy, scope=scope, draw=lambda: uniforms(a))
    keep = torch.ones_like(a, dtype=torch.bool)
    keep[hit] = False
    assert same_bits(result.values[keep], clean.values[keep])


@each_policy
def test_padding_with_nan_is_not_counted_as_passed(policy):
    a = gate(1, 4, 40)
    a[0, 3] = float("nan")
    mask = torch.tensor([[1, 1, 1, 0]])
    for scope in SCOPES:
        result = outcome(a, policy, scope=scope, draw=lambda: uniforms(a), mask=mask)
        assert result.passed.sum() == 0
        assert result.moved.any()


@each_policy
@pytest.mark.parametrize("scope", SCOPES)
def test_an_all_zero_row_stays_zero(policy, scope):
    assert same_bits(redistribute(torch.zeros(2, 3, 16), policy, scope=scope), torch.zeros(2, 3, 16))


@pytest.mark.parametrize("shape", [(0, 3, 8), (2, 0, 8), (2, 3, 0), (0,)])
@each_policy
def test_an_empty_tensor_is_returned_as_is(policy, shape):
    a = torch.empty(shape)
    for scope in SCOPES:
        assert redistribute(a, policy, scope=scope) is a


@each_policy
def test_a_tensor_without_batch_or_sequence_is_one_sequence_of_one_token(policy):
    a = gate(1, 4, 40)
    for scope in SCOPES:
        assert same_bits(redistribute(a[0], policy, scope=scope), redistribute(a, policy, scope=scope)[0])
        assert same_bits(redistribute(a[0, 0], policy, scope=scope), redistribute(a[:, :1], policy, scope=scope)[0, 0])


@each_policy
def test_gradients_are_finite_and_those_of_what_did_not_move_are_one(policy):
    a = gate(2, 3, 32)
    a[0, 0] = 0
    a[1, 1, 3] = float("inf")
    a.requires_grad_()
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    for scope in ("token", "sequence"):
        result = outcome(a, policy, scope=scope, draw=lambda: uniforms(a), mask=mask)
        (gradient,) = torch.autograd.grad(result.values.sum(), a)
        assert gradient.isfinite().all()
        assert (gradient[~result.moved] == 1).all()


@each_policy
def test_statistics_are_constant_to_autograd(policy):
    # What moves is cut off: the gradient of the others must not know of it.
    a = gate(1, 1, 32).double().requires_grad_()
    result = outcome(a, policy, scope="token", draw=lambda: uniforms(a))
    (gradient,) = torch.autograd.grad(result.values.masked_fill(result.moved, 0).sum(), a)
    assert torch.equal(gradient, (~result.moved).double())


@each_policy
def test_keyed_noise_and_pure_policies_leave_the_global_generator_alone(policy):
    before = torch.get_rng_state()
    redistribute(gate(1, 2, 16), policy, noise=Noise(3))
    assert torch.equal(torch.get_rng_state(), before)


@each_policy
def test_non_contiguous_values_are_no_error(policy):
    a = gate(3, 4, 40)
    turned = a.transpose(0, 1).contiguous().transpose(0, 1)
    assert same_bits(redistribute(turned, policy), redistribute(a, policy))


def test_integers_serve_as_mask_and_a_sequence_of_positions_serves_all():
    a = gate(2, 3, 16)
    positions = torch.tensor([4, 5, 6])
    expected = redistribute(a, Outward(), positions=positions.expand(2, 3))
    assert torch.equal(redistribute(a, Outward(), positions=positions), expected)
    assert torch.equal(redistribute(a, Outward(), positions=positions[None].int()), expected)
    assert torch.equal(redistribute(a, Outward(), positions=positions, mask=torch.ones(2, 3).int()), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"a": torch.ones(2, 3, 4, dtype=torch.int64)}, "expected a floating-point tensor"),
        ({"a": torch.tensor(1.0)}, "expected a floating-point tensor"),
        ({"a": [1.0, 2.0]}, r"as torch.as_tensor makes from numbers, found \[1.0, 2.0\]"),
        ({"policy": "outwards"}, r"policy: expected one of .*, found 'outwards'; did you mean outward\?$"),
        ({"policy": Outward}, "policy: expected Outward"),
        ({"scope": "batch"}, "scope: expected one of token, sequence, call, found 'batch'"),
        ({"mask": torch.ones(2, 4)}, r"mask: expected bool or integers of shape \[2, 3\]"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"found Tensor torch.bool \[2, 4\]"),
        ({"mask": torch.ones(2, 3)}, "mask: expected bool"),
        ({"mask": [[1, 1, 1]]}, "mask: expected bool"),
        ({"positions": torch.arange(4)}, r"positions: expected shape \[2, 3\] or \[3\]"),
        ({"positions": torch.rand(2, 3)}, "positions: expected integers"),
        ({"positions": 3}, "positions: expected integers"),
        ({"positions": torch.arange(4), "policy": Inward()}, "positions: expected shape"),
        ({"noise": torch.zeros(7), "policy": Transport()}, "needs the shape of the values"),
        ({"a": torch.ones(3, 4), "positions": torch.zeros(1, 3, dtype=torch.int64)}, "positions: expected shape"),
        ({"noise": torch.rand(2, 3)}, r"needs the shape of the values, expected \[2, 3, 4\], found \[2, 3\]"),
        ({"noise": 0.5}, "noise: expected"),
        ({"noise": torch.ones(2, 3, 4, dtype=torch.int64)}, "noise: expected .* a floating-point tensor, found Tensor"),
        ({"scope": np.ones((2, 2))}, r"scope: expected one of .*, found ndarray float64 \[2, 2\]"),
        ({"policy": torch.nn.Sequential(torch.nn.ReLU())}, "policy: expected .*, found a value of type Sequential$"),
        ({"policy": "x" * 1000}, "policy: expected .*, found a value of type str$"),
        ({"a": np.ones((2, 2))}, r"as torch.as_tensor makes from numbers, found ndarray float64 \[2, 2\]"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(arguments, message):
    call = {"a": gate(2, 3, 4), "policy": Outward()} | arguments
    with pytest.raises(ArgumentError, match=message) as caught:
        redistribute(call.pop("a"), **call)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_trace_with_symbolic_sizes_is_one_that_computes_the_same(tokens):
    a = gate(1, tokens, 64)
    traced = make_fx(lambda values: redistribute(values, Outward()), tracing_mode="symbolic")(a)
    assert same_bits(traced(a), redistribute(a, Outward()))


@pytest.mark.parametrize("policy", [Outward(), Inward(knee=0.8), Transport(), Cut()], ids=repr)
def test_a_strength_for_each_scope_is_read_by_value_and_not_by_place(policy):
    every_second = torch.tensor([0.0, 9.0, 0.5, 9.0, 1.0, 9.0, 0.25, 9.0])[::2]
    a, arguments = gate(1, 4, 64), {"scope": "token", "noise": Noise(0)}
    strided, packed = (
        redistribute_with_counts(a, policy, **arguments, strength=strength)
        for strength in (every_second, every_second.clone())
    )
    assert same_bits(strided.values, packed.values)
    assert torch.equal(strided.moved, packed.moved)


def test_text_is_a_policy():
    a = gate(3, 64)
    assert same_bits(redistribute(a, "outward:band=0.2"), redistribute(a, Outward(band=0.2)))


@pytest.mark.parametrize("policy", [Outward, None, 3], ids=repr)
def test_what_is_no_policy_is_refused_with_what_is_one(policy):
    advice = r"; call it: Outward\(\)" if policy is Outward else ""
    message = rf'^policy: expected Outward\(...\), .* or text such as "outward:band=0.2", found [^;]*{advice}$'
    with pytest.raises(ArgumentError, match=message):
        redistribute(torch.zeros(8), policy)
