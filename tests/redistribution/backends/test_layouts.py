"""However arguments lie in memory, and whatever is left out, every backend gives the bits of the plain path."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from armlet import ARM, Cut, Inward, Noise, Outward, Transport, redistribute
from gates import same_bits


def gate(*shape):
    return torch.nn.functional.silu(2 * torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def both(monkeypatch, call):
    """What `call` gives with the backend chosen by itself and with plain PyTorch."""
    fast = call()
    monkeypatch.setenv("ARMLET_BACKEND", "torch")
    return fast, call()


@pytest.mark.parametrize("scope", ["token", "sequence", "call"])
@pytest.mark.parametrize("shape", [(4, 1, 40), (3, 5, 40), (2, 1, 7), (6, 40), (40,)], ids=str)
def test_positions_left_out_are_the_same_for_every_backend(monkeypatch, shape, scope):
    assert same_bits(*both(monkeypatch, lambda: redistribute(gate(*shape), Outward(band=0.5), scope=scope)))


def test_positions_left_out_are_the_same_in_a_module(monkeypatch):
    arm = ARM(Outward(band=0.5), width=40, layer=2, noise=Noise(5, 1))
    assert same_bits(*both(monkeypatch, lambda: arm(gate(4, 1, 40))))


@pytest.mark.parametrize("policy", [Outward(band=0.5), Inward(knee=0.8)], ids=lambda policy: policy.name)
@pytest.mark.parametrize("scope", ["token", "sequence", "call"])
def test_masks_and_positions_may_be_transposed_or_expanded(monkeypatch, policy, scope):
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 1], [1, 1, 1]]).t()
    for positions in (torch.arange(15).view(5, 3).t(), torch.arange(5).expand(3, 5), torch.arange(5)[None]):
        how = {"scope": scope, "mask": mask, "positions": positions}
        assert same_bits(*both(monkeypatch, lambda how=how: redistribute(gate(3, 5, 40), policy, **how)))
        monkeypatch.delenv("ARMLET_BACKEND")


@pytest.mark.parametrize(
    "policy", [Outward(write="add", strength=0.5), Inward(knee=0.8), Inward(curve="clip")], ids=repr
)
def test_second_derivatives_are_those_of_the_plain_path(monkeypatch, policy):
    def product():
        a = gate(2, 3, 40).requires_grad_()
        (first,) = torch.autograd.grad((redistribute(a, policy) ** 3).sum(), a, create_graph=True)
        return torch.autograd.grad(first.square().sum(), a)[0]

    fast, plain = both(monkeypatch, product)
    # Autograd adds up the same terms in another order: a few roundings of float32.
    torch.testing.assert_close(fast, plain, rtol=1e-6, atol=1e-6)
    assert fast.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own use
@pytest.mark.parametrize("policy", [Outward(), Outward(write="add"), Inward(knee=0.8), Transport(), Cut()], ids=repr)
def test_forward_derivatives_are_those_of_backward(policy):
    a = gate(2, 3, 33)
    jacobians = [
        jacobian(lambda row: redistribute(row[None, None], policy)[0, 0])(a[0, 0])
        for jacobian in (torch.func.jacfwd, torch.func.jacrev)
    ]
    torch.testing.assert_close(*jacobians, rtol=0, atol=1e-6)  # statistics are constants to both
    assert jacobians[0].count_nonzero() > 0 or policy == Transport()


def test_a_tensor_that_is_stored_with_the_other_sign_is_read_with_its_own():
    stored = gate(1, 1, 40)
    assert same_bits(redistribute(torch._neg_view(stored), Outward(band=0.5)), redistribute(-stored, Outward(band=0.5)))


def test_the_curvature_of_the_log_curve_is_that_of_ln():
    a = torch.cat([torch.linspace(0.1, 1, 99, dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64)])
    a.requires_grad_()
    (first,) = torch.autograd.grad(redistribute(a, Inward(knee=0.95))[-1], a, create_graph=True)
    (second,) = torch.autograd.grad(first[-1], a)
    assert second[-1] == pytest.approx(
        -float(first[-1].detach()) / 4
    )  # (T·(1 + ln(a/T)))″ = −T/a², and T/a is the slope


@pytest.mark.parametrize("policy", [Outward(), Inward()], ids=lambda policy: policy.name)
def test_an_exported_module_takes_any_batch_and_length(policy):
    arm = ARM(policy, width=40)
    sizes = {0: torch.export.Dim("batch", min=2, max=64), 1: torch.export.Dim("seq", min=2, max=64)}
    program = torch.export.export(arm, (gate(3, 5, 40),), dynamic_shapes=(sizes,))
    assert same_bits(program.module()(gate(4, 7, 40)), arm(gate(4, 7, 40)))


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Outward(), Inward()], ids=lambda policy: policy.name)
@pytest.mark.parametrize("scope", ["sequence", "call"])
def test_training_is_not_compiled_anew_for_each_length(policy, scope):
    torch.compiler.reset()
    count = CompileCounterWithBackend("aot_eager")

    def loss(a):
        return redistribute(a, policy, scope=scope).square().sum()

    compiled = torch.compile(loss, backend=count, dynamic=True, fullgraph=True)
    for length in (5, 8, 13, 21, 34):
        a = gate(2, length, 48).requires_grad_()
        ours, theirs = (torch.autograd.grad(each(a), a)[0] for each in (compiled, loss))
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert count.frame_count < 3
