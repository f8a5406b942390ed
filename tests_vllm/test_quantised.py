"""Quantised gate_up weights: every scheme that vLLM runs on a CPU without AMX, on checkpoints written here by hand."""

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import silu

from armlet import Outward, redistribute
from engines import engine, greedy, tokens_of
from families import prompt

PROMPTS = [prompt(length, seed=length)[0].tolist() for length in (5, 12, 20, 33)]
OFF = {"armlet": "off"}
HALF = [OFF, None, OFF, None]
GROUP = 32
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
STATIC = 0.05


def pack(values, dim):
    """Levels 0 to 15, eight of them along `dim` in one int32, the first in the lowest bits."""
    eights = values.movedim(dim, -1).unflatten(-1, (-1, 8)).to(torch.int64)
    words = (eights << (4 * torch.arange(8))).sum(-1)
    return (words - (words >= 2**31) * 2**32).to(torch.int32).movedim(-1, dim).contiguous()


def int4(weight, dtype):
    """(levels, scales `[out, groups]`, weights that they stand for); level 8 is 0."""
    groups = weight.unflatten(1, (-1, GROUP))
    scale = (groups.abs().amax(-1) / 7).to(dtype)
    level = (groups / scale.float()[..., None]).round().clamp(-8, 7)
    return (level.flatten(1) + 8).to(torch.int64), scale, (level * scale.float()[..., None]).flatten(1)


def packed(weight, dtype):
    level, scale, stands_for = int4(weight, dtype)
    tensors = {"weight_packed": pack(level, 1), "weight_scale": scale, "weight_shape": torch.tensor(weight.shape)}
    return tensors, stands_for


def awq(weight, dtype):
    level, scale, stands_for = int4(weight, dtype)
    ordered = level.t().unflatten(1, (-1, 8))[..., AWQ_ORDER].flatten(1)
    zeros = pack(torch.full(scale.t().shape, 8), 1)
    return {"qweight": pack(ordered, 1), "qzeros": zeros, "scales": scale.t().contiguous()}, stands_for


def gptq(weight, dtype):
    level, scale, stands_for = int4(weight, dtype)
    zeros = pack(torch.full(scale.t().shape, 7), 1)  # one less, by the format
    groups = (torch.arange(weight.shape[1]) // GROUP).to(torch.int32)
    tensors = {"qweight": pack(level.t(), 0), "qzeros": zeros, "scales": scale.t().contiguous(), "g_idx": groups}
    return tensors, stands_for


def int8(weight, _dtype):
    scale = weight.abs().amax(1, keepdim=True) / 127
    level = (weight / scale).round()
    return {"weight": level.to(torch.int8), "weight_scale": scale}, level * scale


def int8_static(weight, dtype):
    tensors, stands_for = int8(weight, dtype)
    return tensors | {"input_scale": torch.tensor([STATIC])}, stands_for


def fp8(weight, _dtype):
    scale = weight.abs().amax(1, keepdim=True) / 448
    level = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": level, "weight_scale": scale}, level.float() * scale


TINY = 1e-12  # the embedding of padding is 0


def per_token(x):
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=TINY)
    return (x * scale.reciprocal()).round() * scale  # no division, which rounds otherwise


def asymmetric(x):
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    scale = ((high - low) / 255).clamp(min=TINY)
    zero = (-128 - low / scale).round()
    return ((x * scale.reciprocal() + zero).round().clamp(-128, 127) - zero) * scale


def static(x):
    return (x / STATIC).round().clamp(-128, 127) * STATIC


def float8(x):
    scale = (x.abs().amax(-1, keepdim=True) / 448).clamp(min=TINY)
    return (x * scale.reciprocal()).to(torch.float8_e4m3fn).float() * scale


def compressed(form, weights, activations=None):
    """The `quantization_config` of compressed-tensors."""
    group = {"targets": ["Linear"], "weights": weights | {"symmetric": True, "dynamic": False}}
    groups = {"group_0": group | {"input_activations": activations, "output_activations": None}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups, "ignore": ["lm_head"]}


def of(kind, strategy, *, bits=8, symmetric=True, dynamic=True):
    return {"num_bits": bits, "type": kind, "strategy": strategy, "symmetric": symmetric, "dynamic": dynamic}


CHANNELS = of("int", "channel")
LEFT = {"modules_to_not_convert": ["lm_head"]}
FOUR = {"bits": 4, "group_size": GROUP}


@dataclass(frozen=True)
class Scheme:
    """How weights are written, what the checkpoint says of them, and what the layer does to its input."""

    write: Any
    config: dict
    rounded: Any = None


SCHEMES = {
    "int8": Scheme(int8, compressed("int-quantized", CHANNELS, of("int", "token")), per_token),
    "int8-asymmetric": Scheme(
        int8, compressed("int-quantized", CHANNELS, of("int", "token", symmetric=False)), asymmetric
    ),
    "int8-static": Scheme(
        int8_static, compressed("int-quantized", CHANNELS, of("int", "tensor", dynamic=False)), static
    ),
    "fp8": Scheme(fp8, compressed("float-quantized", of("float", "channel"), of("float", "token")), float8),
    "int4": Scheme(packed, compressed("pack-quantized", of("int", "group", bits=4) | {"group_size": GROUP})),
    "awq": Scheme(awq, {"quant_method": "awq", "zero_point": True, "version": "gemm"} | FOUR | LEFT),
    "gptq": Scheme(gptq, {"quant_method": "gptq", "desc_act": False, "sym": True, "lm_head": False} | FOUR),
}
# int8 and fp8 run in all three dtypes, the rest in the 16-bit ones; all of them passed once, which takes ten minutes.
# With AMX vLLM takes another product for symmetric int8, which refuses float32.
AMX = torch.cpu._is_amx_tile_supported()
CASES = [(name, "bfloat16" if AMX else "float32") for name in ("int8", "int8-static")]
CASES += [(name, "float32") for name in ("int8-asymmetric", "fp8")]
CASES += [(name, "bfloat16") for name in ("int4", "awq", "gptq")]


@pytest.fixture(scope="module")
def written(tiny_model, tmp_path_factory):
    """`written(scheme, dtype)` gives (folder, a model of the weights that the quantised ones stand for)."""
    source, model = tiny_model("llama")
    config = json.loads((source / "config.json").read_text())

    def write(name, dtype):
        folder, scheme = tmp_path_factory.mktemp(name), SCHEMES[name]
        tensors, stands_for = {}, copy.deepcopy(model)
        for key, value in load_file(source / "model.safetensors").items():
            if not key.endswith("_proj.weight"):
                tensors[key] = value.to(getattr(torch, dtype))
                continue
            parts, weight = scheme.write(value, getattr(torch, dtype))
            tensors |= {key.removesuffix("weight") + part: tensor for part, tensor in parts.items()}
            stands_for.get_parameter(key).data.copy_(weight)
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": scheme.config}))
        shutil.copy(source / "generation_config.json", folder)
        return folder, stands_for

    return write


def answers(llm, extra_args=None):
    """Tokens, and their log-probabilities."""
    outputs = greedy(llm, PROMPTS, 24, extra_args, logprobs=0)
    chosen = [
        [s[t].logprob for t, s in zip(o.outputs[0].token_ids, o.outputs[0].logprobs, strict=True)] for o in outputs
    ]
    return list(zip(tokens_of(outputs), chosen, strict=True))


def watched(llm, ids):
    """Of layer 0, forward pass by forward pass: the input of gate_up, its output, and what the activation gives."""
    seen = []

    def watch(model):
        mlp = model.model.layers[0].mlp
        first = mlp.gate_up_proj.register_forward_hook(lambda _m, args, out: seen.append([args[0], out[0]]))
        last = mlp.act_fn.register_forward_hook(lambda _m, _args, out: seen[-1].append(out))
        return first, last

    (hooks,) = llm.apply_model(watch)
    greedy(llm, [ids], 6)
    for hook in hooks:
        hook.remove()
    return [[tensor.clone() for tensor in step] for step in seen]


FOUR_BITS = ("int4", "awq", "gptq")
VNNI = any(name in Path("/proc/cpuinfo").read_text() for name in ("avx512_vnni", "avx_vnni"))


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def served(request, written):
    """All that two engines give, without ARM and with it."""
    name, dtype = request.param
    if name in FOUR_BITS and not torch.cpu._is_avx512_supported():
        pytest.skip("vLLM's library for CPUs without AVX-512 has no product with 4-bit weights")
    folder, model = written(name, dtype)
    with engine(folder, dtype=dtype) as llm:
        baseline = answers(llm)
    with engine(folder, {"policy": "outward"}, dtype=dtype, enable_prefix_caching=False) as llm:
        answered = {"on": answers(llm), "off": answers(llm, OFF), "mixed": answers(llm, HALF)}
        (report,) = llm.collective_rpc("armlet_report")
        steps = watched(llm, PROMPTS[-1])
    return SimpleNamespace(
        name=name, dtype=getattr(torch, dtype), model=model, baseline=baseline, report=report, steps=steps, **answered
    )


def test_off_by_request_keeps_the_bits_of_the_quantised_baseline(served):
    assert served.off == served.baseline
    assert served.on != served.baseline


def test_batch_mates_without_arm_keep_the_tokens_of_the_quantised_baseline(served):
    assert [answer[0] for answer in served.mixed[::2]] == [answer[0] for answer in served.baseline[::2]]


def test_it_fired(served):
    counts = served.report["layers"]["0"]
    assert counts["moved"] > 0 == counts["passed"]


def test_the_activated_gate_is_redistributed_at_its_position_before_the_product_with_up(served):
    assert sum(len(step[0]) for step in served.steps) == len(PROMPTS[-1]) + 5
    at = 0
    for _, gate_up, out in served.steps:
        gate, up = (half.contiguous() for half in gate_up.chunk(2, -1))
        positions = torch.arange(at, at + len(gate))[None]
        arm = redistribute(silu(gate)[None], Outward(), positions=positions)[0]
        assert torch.equal(out, arm * up)
        at += len(gate)


def test_gate_and_up_are_those_that_the_quantised_weights_stand_for(served):
    if served.name.startswith("int8") and not VNNI:
        pytest.skip("vLLM's int8 products saturate in 16 bits on CPUs without VNNI, with ARM and without")
    mlp, rounded = served.model.model.layers[0].mlp, SCHEMES[served.name].rounded
    weight = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).double()
    for x, gate_up, _ in served.steps:
        x = (x.float() if rounded is None else rounded(x.float())).double()
        # At most a weight, its scale and the result are rounded to the dtype, each by half its eps; sums are float32.
        bound = 1.5 * torch.finfo(served.dtype).eps * (x.abs() @ weight.abs().T)
        assert ((gate_up - x @ weight.T).abs() <= bound).all()


def test_vllms_fused_activation_and_quantisation_gives_way_to_arm(tiny_model, monkeypatch):
    """On GPUs, vLLM's Llama would rather call one kernel for SiluAndMul and down's input quantisation."""
    from vllm.model_executor.layers.activation import SiluAndMul
    from vllm.model_executor.layers.fusion import fused_act_quant
    from vllm.model_executor.layers.quantization.utils.quant_utils import kFp8StaticTensorSym

    key = (SiluAndMul, kFp8StaticTensorSym)
    monkeypatch.setitem(fused_act_quant._FUSED_ACT_QUANT, key, lambda _x, _linear: "fused")
    down = SimpleNamespace(_input_quant_key=kFp8StaticTensorSym)
    with engine(tiny_model("llama")[0], {"policy": "outward"}) as llm:
        (acts,) = llm.apply_model(lambda model: [layer.mlp.act_fn for layer in model.model.layers])
        with_arm, without = (fused_act_quant.maybe_fused_act_quant(act, torch.ones(2, 192), down) for act in acts[:2])
    assert without == "fused"
    assert with_arm.shape == (2, 96)
