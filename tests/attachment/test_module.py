"""ARM as a module: the pure function with the layer's noise, counters, and no state of its own."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from armlet import ARM, Inward, Noise, Outward, attach, redistribute
from armlet.redistribution.errors import ArgumentError, ArmletError
from families import prompt, tiny
from gates import each_policy, gate, same_bits


@each_policy
def test_arm_is_redistribute(policy):
    a = gate(2, 5, 48)
    positions = torch.tensor([[0, 1, 2, 3, 4], [7, 8, 9, 10, 11]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    for scope in ("token", "sequence", "call"):
        arm = ARM(policy, width=48, scope=scope, noise=Noise(5))
        expected = redistribute(a, policy, scope=scope, noise=Noise(5), positions=positions, mask=mask)
        assert same_bits(arm(a, positions, mask), expected)


def test_layers_draw_differently_and_layer_zero_is_the_default():
    a = gate(1, 4, 256)
    first, second = (ARM(Outward(), width=256, layer=layer)(a) for layer in (0, 1))
    assert same_bits(first, redistribute(a, Outward()))
    assert not torch.equal(first, second)


def test_arm_adds_no_parameter_and_no_key():
    arm = ARM(Outward(), width=8)
    assert not list(arm.parameters())
    assert not arm.state_dict()


def test_draws_and_counters_survive_memory_without_values():
    arm, a = ARM(Outward(), width=48), gate(2, 3, 48)
    expected, before = arm(a), arm.report()
    arm.to_empty(device="cpu")
    assert arm.report() == before
    assert same_bits(arm(a), expected)


def test_counters_survive_a_change_of_dtype():
    arm = ARM(Outward(), width=16).half()
    arm(gate(1, 3, 16).half())
    assert arm.report()["tokens"] == 3
    assert same_bits(arm(gate(1, 3, 16)), redistribute(gate(1, 3, 16), Outward()))


def test_report_counts_calls_tokens_moved_and_passed():
    arm = ARM(Inward(knee=0.5, curve="clip"), width=4)
    assert arm.report() == {"calls": 0, "tokens": 0, "moved": 0, "share_moved": 0.0, "passed": 0}
    a = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [float("nan"), 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]])
    arm(a)
    arm(a, mask=torch.tensor([[1, 1, 0]]))
    # Two values of four lie beyond the median of a row; rows 0 and 2 move in the first call, row 0 in the second.
    assert arm.report() == {"calls": 2, "tokens": 5, "moved": 6, "share_moved": 6 / 20, "passed": 2}


def test_single_rows_and_others_are_counted_together_and_a_copy_counts_on_its_own():
    arm = ARM(Outward(), width=64)
    arm(gate(1, 1, 64))
    arm(gate(1, 3, 64), mask=torch.tensor([[0, 1, 1]]))
    copied = copy.deepcopy(arm)
    assert arm.report() == copied.report()
    copied(gate(1, 1, 64), mask=torch.zeros(1, 1, dtype=torch.int64))
    assert (arm.report()["calls"], arm.report()["tokens"]) == (2, 3)
    assert (copied.report()["calls"], copied.report()["tokens"]) == (3, 3)


def test_threads_lose_no_count_of_single_rows():
    arm, row = ARM(Outward(proportion=0.5), width=64), gate(1, 1, 64)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: [arm(row) for _ in range(200)], range(4)))
    assert arm.report() == {"calls": 800, "tokens": 800, "moved": 800 * 32, "share_moved": 0.5, "passed": 0}


def test_another_policy_acts_in_its_call_alone():
    arm = ARM("outward", width=64)
    for a in (gate(1, 1, 64), gate(2, 3, 64)):
        assert same_bits(arm(a), redistribute(a, Outward()))
        assert same_bits(arm(a, policy=Inward(knee=0.5)), redistribute(a, Inward(knee=0.5)))
        assert same_bits(arm(a), redistribute(a, Outward()))


def test_other_keys_count_from_the_next_row_on():
    arm, row = ARM(Outward(proportion=1), width=64), gate(1, 1, 64)
    arm(row)
    arm.keys = Noise(9).keys(64)
    assert same_bits(arm(row), redistribute(row, Outward(proportion=1), noise=Noise(9)))


def test_a_reset_sets_the_counts_of_single_rows_and_others_to_zero():
    arm = ARM(Outward(), width=64)
    arm(gate(1, 1, 64))
    arm(gate(1, 3, 64))
    arm.reset()
    assert arm.report() == {"calls": 0, "tokens": 0, "moved": 0, "share_moved": 0.0, "passed": 0}
    arm(gate(1, 1, 64))
    assert arm.report()["calls"] == 1


@pytest.mark.parametrize("positions", [torch.zeros(1, 1, 1).long(), torch.tensor(3), torch.tensor([[0.0]])], ids=str)
def test_positions_of_a_single_row_are_checked_too(positions):
    with pytest.raises(ArgumentError, match="positions: expected"):
        ARM(Outward(), width=8)(gate(1, 1, 8), positions)


def test_values_of_another_width_are_refused():
    with pytest.raises(ArgumentError, match=r"expected values of width 8, found shape \[1, 2, 4\]"):
        ARM(Outward(), width=8)(torch.zeros(1, 2, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width: expected an integer of at least 1"),
        ({"width": 8.0}, "width: expected an integer"),
        ({"width": 8, "layer": -1}, "layer: expected an integer of at least 0"),
        ({"width": 8, "scope": "row"}, "scope: expected one of"),
        ({"width": 8, "noise": 1}, "noise: expected"),
        ({"width": 8, "policy": None}, "policy: expected"),
        ({"width": 8, "policy": "inward:band=1"}, "inward: unknown band"),
    ],
)
def test_arguments_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        ARM(**({"policy": Outward()} | arguments))


@pytest.mark.slow
@each_policy
def test_arm_compiles_whole_with_the_same_values(policy):
    arm = ARM(policy, width=64, noise=Noise(2))
    compiled = torch.compile(arm, fullgraph=True)
    a, positions = gate(2, 3, 64), torch.tensor([[0, 1, 2], [5, 6, 7]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    expected = redistribute(a, policy, noise=Noise(2), positions=positions, mask=mask)
    # Another compiler may round a product differently: one float32 ulp of the largest value.
    torch.testing.assert_close(
        compiled(a, positions, mask), expected, rtol=2.0**-23, atol=2.0**-23 * a.abs().max().item()
    )
    assert arm.report()["tokens"] == 5


@pytest.mark.parametrize("scope", ["token", "sequence"])
@each_policy
def test_vmap_gives_the_values_of_a_batch_and_counts_one_call(policy, scope):
    arm, a = ARM(policy, width=48, scope=scope), gate(3, 5, 48)
    batched, expected = arm(a), arm.report()
    arm.reset()
    assert torch.equal(torch.vmap(lambda row: arm(row[None])[0])(a), batched)
    assert arm.report() == expected


@pytest.mark.slow
@pytest.mark.parametrize("site", ["gate", "product"])
def test_vmap_over_a_model_gives_the_values_of_a_batch(site):
    model, ids = tiny(), prompt(6, batch=3)
    model.set_attn_implementation("eager")
    with torch.no_grad(), attach(model, Outward(), layers="all", site=site) as attachment:
        batched, expected = model(ids, use_cache=False).logits, attachment.report()
        attachment.reset()
        mapped = torch.vmap(lambda row: model(row[None], use_cache=False).logits[0])(ids)
        assert attachment.report() == expected
    torch.testing.assert_close(mapped, batched, rtol=1e-4, atol=1e-4)  # products of matrices in another order


def test_an_ensemble_of_counters_cannot_be_mapped():
    arms, a = [ARM(Inward(), width=48) for _ in range(2)], gate(1, 5, 48)
    _, buffers = torch.func.stack_module_state(arms)
    with pytest.raises(ArmletError, match=r"torch\.vmap over the counters of ARM is not possible"):
        torch.vmap(lambda state: torch.func.functional_call(arms[0], state, a))(buffers)


def test_gradients_are_mapped_too():
    arm, a = ARM(Inward(knee=0.8), width=48), gate(3, 1, 5, 48)

    def loss(row):
        return arm(row).square().sum()

    mapped = torch.vmap(torch.func.grad(loss))(a)
    for row, gradient in zip(a, mapped, strict=True):
        torch.testing.assert_close(gradient, torch.func.grad(loss)(row))
