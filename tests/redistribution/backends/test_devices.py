"""Plain PyTorch on a GPU: it has the CPU's bits, waits for no value, and a CUDA graph can record it.

`make gpu` runs this on a GPU, with Triton where it takes the call. On the CPU, `as_on_a_gpu` leaves out the checks
that only a CPU can afford.
"""

import pytest
import torch

from armlet import Noise, Outward, Transport, redistribute
from armlet.redistribution import near_zero, order, outcome
from armlet.redistribution.backends import plain
from benchmarks.gpu.recording import recorded
from devices import DEVICE, ON_GPU
from gates import DTYPES, POLICIES, each_policy, gate, same_bits

each_scope = pytest.mark.parametrize("scope", ["token", "sequence", "call"])
needs_cuda = pytest.mark.needs("cuda")
MASK = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
SPECIAL = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 0.5, -0.5, 0.5, 65504.0])


def values(dtype, width=300, seed=0):
    """`[3, 5, width]` with ties, zeros of both signs, denormals, a large number, and tokens with NaN and Inf."""
    a = gate(3, 5, width, seed=seed)
    a[:, 1, : len(SPECIAL)] = SPECIAL
    a[2, 0, 7], a[2, 4, 0] = torch.nan, torch.inf
    return a.to(dtype)


@pytest.fixture(params=["torch", "triton"] if ON_GPU else ["torch"])
def as_on_a_gpu(request, monkeypatch):
    """A function that sets a backend of a GPU; on the CPU, PyTorch without the checks that would wait for a GPU."""

    def use():
        monkeypatch.setenv("ARMLET_BACKEND", request.param)
        for module in (near_zero, order, outcome):
            monkeypatch.setattr(module, "cheaply_true", lambda *_: False)

    return use


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", [None, torch.cat((MASK, MASK[:1]))], ids=["whole", "padded"])
@each_scope
@each_policy
def test_a_gpu_has_the_bits_of_the_cpu(policy, scope, mask, dtype, as_on_a_gpu):
    a = values(dtype)
    settings = {"scope": scope, "noise": Noise(3, 2), "positions": torch.tensor([9, 8, 2**33, 6, 5])}
    expected = redistribute(a, policy, mask=mask, **settings)
    as_on_a_gpu()
    there = redistribute(a.to(DEVICE), policy, mask=None if mask is None else mask.to(DEVICE), **settings)
    assert there.device.type == DEVICE.type
    assert same_bits(there.cpu(), expected)


# Tensors on the device "meta" have no values: what reads one, for which a GPU's caller has to wait, raises an error.
# So does an operation on them and on a tensor of the CPU.
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [1, 5])
@each_scope
@each_policy
def test_no_value_is_read_on_the_way(policy, scope, tokens, masked):
    a = torch.empty(2, tokens, 300, device="meta")
    mask = torch.ones(2, tokens, dtype=torch.bool, device="meta") if masked else None
    assert redistribute(a, policy, scope=scope, mask=mask).shape == a.shape


READS = {"item": torch.Tensor.item, "nonzero": torch.nonzero, "bool": bool, "mask": lambda a: a[a > 0]}


@pytest.mark.parametrize("read", READS)
def test_that_test_can_fail(read, monkeypatch):
    monkeypatch.setattr(plain, "outcome", lambda a, *_args, **_how: READS[read](a.sum()))
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        redistribute(torch.empty(2, 1, 300, device="meta"), Outward())


@needs_cuda
@pytest.mark.parametrize("masked", [False, True])
@each_scope
@each_policy
def test_no_call_waits_for_the_gpu(policy, scope, masked, as_on_a_gpu):
    as_on_a_gpu()
    a, mask = values(torch.bfloat16).to(DEVICE), torch.ones(3, 5, dtype=torch.bool, device=DEVICE) if masked else None
    redistribute(a, policy, scope=scope, mask=mask)  # compiles, and copies the keys of the noise
    torch.cuda.set_sync_debug_mode("error")
    try:
        redistribute(a, policy, scope=scope, mask=mask)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_scope
@each_policy
def test_a_recorded_call_has_the_bits_of_an_eager_one(policy, scope, dtype, as_on_a_gpu):
    as_on_a_gpu()
    inputs = [values(dtype, seed=seed).to(DEVICE) for seed in range(3)]
    a = inputs[0].clone()
    call = recorded(lambda: redistribute(a, policy, scope=scope))
    for other in inputs[1:]:
        a.copy_(other)
        call.replay()
        assert same_bits(call.result, redistribute(other, policy, scope=scope))


@needs_cuda
def test_positions_made_in_a_recording_are_not_those_of_other_calls():
    a = gate(1, 7, 40).to(DEVICE)
    redistribute(a[:, :3], Outward())  # compiles, and copies the keys
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        redistribute(a, Outward())  # 7 tokens for the first time, and not replayed
    assert same_bits(redistribute(a, Outward()).cpu(), redistribute(a.cpu(), Outward()))


@needs_cuda
@pytest.mark.parametrize(("policy", "scope"), [(Outward(), "token"), (Transport(), "call")], ids=repr)
def test_a_compiled_call_in_cuda_graphs_has_the_bits_of_an_eager_one(policy, scope):
    torch.compiler.reset()
    compiled = torch.compile(lambda a: redistribute(a, policy, scope=scope), mode="reduce-overhead", fullgraph=True)
    for seed in range(4):  # the first runs, the second is recorded, the others are replayed
        a = values(torch.float32, seed=seed).to(DEVICE)
        assert same_bits(compiled(a).clone(), redistribute(a, policy, scope=scope))


def test_every_policy_is_among_these():
    assert {type(policy).__name__ for policy in POLICIES} == {"Outward", "Inward", "Transport", "Cut"}
