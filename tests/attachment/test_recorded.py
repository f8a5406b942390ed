"""A model with ARM in CUDA graphs: the bits of eager calls, and counters that count each replay."""

import pytest
import torch

from armlet import ARM, Cut, Inward, Outward, Transport, attach
from benchmarks.gpu.decoding import StaticDecoder
from benchmarks.gpu.recording import WARM_UPS, recorded
from devices import DEVICE
from families import FAMILIES, ROUTED_FAMILIES, tiny
from families import prompt as prompt_ids
from gates import same_bits

STEPS = 4
needs_cuda = pytest.mark.needs("cuda")


def model_on_device(family, dtype):
    model = tiny(family, families=ROUTED_FAMILIES | FAMILIES).to(DEVICE, dtype)
    if family in ROUTED_FAMILIES:
        model.set_experts_implementation("grouped_mm")  # the eager one waits for the routing
    return model


@pytest.mark.parametrize("scope", ["token", "sequence", "call"])
@pytest.mark.parametrize("policy", [Outward(), Inward(limit=0.5), Transport()], ids=lambda policy: policy.name)
@pytest.mark.parametrize(("family", "dtype"), [("llama", torch.float32), ("qwen2", torch.bfloat16)], ids=str)
def test_recorded_decoding_has_the_bits_of_eager_decoding(family, dtype, policy, scope):
    check_decoding(model_on_device(family, dtype), policy, scope)


@pytest.mark.parametrize("policy", [Outward(), Inward(limit=0.5)], ids=lambda policy: policy.name)
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_recorded_decoding_of_mixtures_has_them_too(family, policy):
    check_decoding(model_on_device(family, torch.bfloat16), policy, "token")


@torch.no_grad()
def check_decoding(model, policy, scope):
    """Decodes with ARM step by step and from a recording; the first step also differs from that without ARM."""
    decoder = StaticDecoder(model, prompt_ids(9, batch=2).to(DEVICE), room=STEPS + 2 * WARM_UPS)
    without = decoder.decoded(decoder.step, 1)[0]
    with attach(model, policy, layers="all", scope=scope) as arm:
        eager = decoder.decoded(decoder.step, STEPS)
        assert not same_bits(eager[0], without)
        decoder.rewind()
        step = recorded(decoder.step)
        arm.reset()

        def replayed():
            step.replay()
            return step.result

        for ours, theirs in zip(decoder.decoded(replayed, STEPS), eager, strict=True):
            assert same_bits(ours, theirs)
        assert {layer["calls"] for layer in arm.report().values()} == {STEPS}
        assert all(layer["moved"] for layer in arm.report().values())


@pytest.mark.parametrize("scope", ["sequence", "call"])
@torch.no_grad()
def test_a_recorded_prefill_with_position_ids_has_the_bits_of_an_eager_one(scope):
    model, ids = model_on_device("llama", torch.float32), prompt_ids(9, batch=2).to(DEVICE)
    positions = torch.arange(9, device=DEVICE)[None]
    with attach(model, Inward(0.8), scope=scope):  # continuous, as no band is
        eager = model(ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False).logits
        mask = torch.ones_like(ids)
        call = recorded(lambda: model(ids, position_ids=positions, attention_mask=mask, use_cache=False).logits)
        call.replay()
        # A recording cannot look into the mask of attention, so it takes another kernel for the same sums.
        torch.testing.assert_close(call.result, eager, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("policy", [Outward(), Inward(), Transport(), Cut()], ids=lambda policy: policy.name)
@pytest.mark.parametrize(
    ("family", "scope"), [("llama", "token"), ("llama", "sequence"), ("llama", "call"), ("mixtral", "token")]
)
@torch.no_grad()
def test_a_model_with_arm_reads_no_value_in_prefill_and_decoding(family, scope, policy):
    # On the device "meta" nothing has a value, so whoever waits for one, as for a GPU, gets an error.
    model = tiny(family, families=ROUTED_FAMILIES | FAMILIES).to("meta")
    if family in ROUTED_FAMILIES:
        model.set_experts_implementation("batched_mm")
    with attach(model, policy, layers="all", scope=scope):
        for arm in {part for module in model.modules() for part in module.modules() if isinstance(part, ARM)}:
            arm._buffers.update({name: part.to("meta") for name, part in arm._buffers.items() if part is not None})
        decoder = StaticDecoder(model, torch.zeros(2, 9, dtype=torch.int64, device="meta"), room=2)
        assert decoder.step().shape == (2, 1, 64)


@needs_cuda
@torch.no_grad()
def test_a_model_compiled_to_cuda_graphs_has_the_bits_of_the_same_code_without_them():
    model = tiny("llama", num_hidden_layers=1).to(DEVICE)
    inputs = [prompt_ids(9, batch=2, seed=seed).to(DEVICE) for seed in range(4)]
    results = []
    for mode in ("default", "reduce-overhead"):
        torch.compiler.reset()
        with attach(model, Outward()) as arm:
            compiled = torch.compile(model, mode=mode)
            results.append([compiled(ids, use_cache=False).logits.clone() for ids in inputs])
            assert arm.report()[0]["calls"] == len(inputs)
    assert all(map(same_bits, *results))
