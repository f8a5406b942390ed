"""ARM in mixtures of experts: the rows of each kernel, whole models on the CPU, and what is refused by name."""

import copy
import json
import subprocess
import sys
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
import torch
from test_families import HEADS, entry

from armlet import Outward, attach
from armlet.attachment.sites import UnsupportedModelError
from armlet.integrations.vllm.expert_sites import current_kernel, routed_site, shared_sites
from armlet.integrations.vllm.operator import RedistributedAndMul
from armlet.integrations.vllm.serving import WorkerArm
from armlet.integrations.vllm.settings import ON, Served
from armlet.redistribution.errors import ArmletError
from armlet.redistribution.noise import Noise
from engines import HERE, engine, greedy, hugging_face, tokens_of
from families import ROUTED_FAMILIES, prompt

PROMPTS = [prompt(length, seed=length)[0].tolist() for length in (3, 9, 17, 30)]
TOKENS = 16
ROUNDING = 1e-5
"""Outputs of up to 4, products of 64 values in float32 that are summed in another order."""


def counts_of(report):
    return {int(layer): [counts[name] for name in ("tokens", "moved", "passed")] for layer, counts in report.items()}


# --- kernels for GPUs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interpreted():
    run = subprocess.run(
        [sys.executable, str(HERE / "experts_interpreted.py")], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["gate", "up", "product", "one token"])
def test_tritons_kernels_with_arm_give_the_output_of_hugging_faces_experts(interpreted, case):
    result = interpreted[case]
    assert result["error"] < ROUNDING > result["error_without"]
    assert result["moved_by"] > 1e4 * ROUNDING
    assert result["vllm_counts"] == result["counts"]
    assert result["counts"][1] > 0


@pytest.mark.parametrize("case", ["gate", "up", "product"])
def test_tokens_without_arm_keep_the_bits_of_tritons_kernels(interpreted, case):
    assert interpreted[case]["off_has_its_bits"]
    assert interpreted[case]["on_has_its_bits"]


def test_two_arms_at_one_site_each_treat_their_own_tokens(interpreted):
    assert interpreted["gate"]["two_have_the_bits_of_one"]
    assert interpreted["up"]["two_have_the_bits_of_one"]


def test_each_row_of_marlins_product_is_that_of_its_token_and_expert_bit_for_bit(interpreted):
    assert len(interpreted["marlin"]) == 26
    assert all(interpreted["marlin"])


def test_a_row_of_no_expert_has_no_arm():
    from armlet.integrations.vllm.expert_operator import rows_of_routing

    topk_ids = torch.tensor([[2, 0], [-1, 5], [1, -1]], dtype=torch.int32)
    rows = rows_of_routing(topk_ids, 3, torch.tensor([7, 8, 9, 10]), torch.tensor([1.0, 0.5, 0.25, 1.0]))
    assert rows.positions.tolist() == [7, 7, 8, 8, 9, 9]
    assert rows.strengths.tolist() == [1, 1, 0, 0, 0.25, 0]
    assert rows.experts[rows.strengths > 0].tolist() == [2, 0, 1]


# --- whole models on the CPU -----------------------------------------------------------------------------------------

CHUNKS = {"max_num_batched_tokens": 16, "max_num_seqs": 8}
MODELS = {
    ("qwen2_moe", "all"): ({"shared_expert_intermediate_size": 32}, CHUNKS),
    ("qwen2_moe", "routed"): ({"shared_expert_intermediate_size": 32}, {}),
    ("granitemoeshared", "shared"): ({"shared_intermediate_size": 96}, {}),
    ("mixtral", "all"): ({}, {}),
    ("qwen3_moe", "all"): (HEADS["qwen3"], {}),
}


@pytest.mark.parametrize(("family", "experts"), MODELS, ids=["-".join(key) for key in MODELS])
def test_a_mixture_gives_the_tokens_and_the_counts_of_hugging_face(tiny_model, family, experts):
    changes, options = MODELS[family, experts]
    folder, model = tiny_model(family, families=ROUTED_FAMILIES, **changes)
    baseline = hugging_face(model, PROMPTS, TOKENS)
    with attach(model, Outward(), layers=[0, 2], experts=experts) as attachment:
        treated = hugging_face(model, PROMPTS, TOKENS)
        counts = attachment.report()
    settings = entry(Outward(), [0, 2]) | {"experts": experts}
    with engine(folder, settings, enable_prefix_caching=False, **options) as llm:
        on = tokens_of(greedy(llm, PROMPTS, TOKENS))
        (report,) = llm.collective_rpc("armlet_report")
        mixed = tokens_of(greedy(llm, PROMPTS, TOKENS, [None, {"armlet": "off"}] * 2))
    assert on == treated != baseline
    assert counts_of(report["layers"]) == counts_of(counts)
    assert mixed == [treated[0], baseline[1], treated[2], baseline[3]]


# --- what is refused -------------------------------------------------------------------------------------------------

KERNELS = "vllm.model_executor.layers.fused_moe.experts"


@pytest.fixture(scope="module")
def model(tiny_model):
    """A mixture with shared experts in an engine, with ARM in layer 0."""
    folder, _ = tiny_model("qwen2_moe", families=ROUTED_FAMILIES, shared_expert_intermediate_size=32)
    with engine(folder, entry(Outward(), [0])) as llm:
        (model,) = llm.apply_model(lambda model: model)
        yield model


@pytest.fixture(scope="module")
def served(model):
    """ARM in layer 0."""
    return model.armlet.modules[0]


@pytest.fixture
def runner(served, monkeypatch):
    """vLLM's runner of that layer, whose configuration a test may change; its kernel becomes `TritonExperts`."""
    runner = served.place.module.mlp.experts
    monkeypatch.setattr(runner, "moe_config", copy.copy(runner.moe_config))
    monkeypatch.setattr(runner.moe_config, "moe_parallel_config", copy.copy(runner.moe_config.moe_parallel_config))
    monkeypatch.setattr(runner.moe_config, "intermediate_size_per_partition_unpadded", 16)
    use(runner, monkeypatch, "triton_moe:TritonExperts")
    return runner


def use(runner, monkeypatch, name):
    """Puts a kernel of another class into vLLM's method."""
    method = runner.routed_experts.quant_method
    cls = resolve_name(f"{KERNELS}.{name}")
    kernel = object.__new__(cls)
    kernel.__dict__ |= vars(method.moe_kernel.fused_experts)
    kernel.quant_config, kernel.activation_config = copy.copy(kernel.quant_config), copy.copy(kernel.activation_config)
    both = SimpleNamespace(fused_experts=kernel, prepare_finalize=method.moe_kernel.prepare_finalize)
    monkeypatch.setattr(method, "moe_kernel", both)


REACHED = ["triton_moe:TritonExperts", "triton_moe:TritonWNA16Experts", "marlin_moe:MarlinExperts"]


@pytest.mark.parametrize("name", REACHED)
def test_a_kernel_whose_rows_are_known_has_a_place_for_arm(served, runner, monkeypatch, name):
    use(runner, monkeypatch, name)
    place = routed_site(served.place)
    assert (place.experts, place.width, place.shards, place.on_cpu) == (4, 16, 1, False)


REFUSED = {
    "trtllm_bf16_moe:TrtLlmBf16ExpertsMonolithic": "routing and experts in one kernel",
    "trtllm_bf16_moe:TrtLlmBf16ExpertsModular": "inside a kernel, or on rows whose order was never checked",
    "fused_batched_moe:BatchedTritonExperts": "groups its rows by expert",
    "marlin_moe:BatchedMarlinExperts": "groups its rows by expert",
    "deep_gemm_moe:DeepGemmExperts": "inside a kernel, or on rows whose order was never checked",
    "cutlass_moe:CutlassExpertsFp8": "inside a kernel, or on rows whose order was never checked",
    "flashinfer_cutlass_moe:FlashInferExperts": "inside a kernel, or on rows whose order was never checked",
}


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_another_kernel_is_refused_by_its_name_and_with_the_option_that_helps(
    served, runner, monkeypatch, name, reason
):
    use(runner, monkeypatch, name)
    with pytest.raises(UnsupportedModelError, match=f"{name.partition(':')[2]} .*{reason}.*--moe-backend triton"):
        routed_site(served.place)


def test_a_method_without_a_kernel_is_refused_by_its_name(served, runner, monkeypatch):
    monkeypatch.setattr(runner.routed_experts.quant_method, "moe_kernel", None)
    with pytest.raises(UnsupportedModelError, match="UnquantizedFusedMoEMethod computes them in a function of its own"):
        routed_site(served.place)


def quantised(name, **options):
    from vllm.model_executor.layers.fused_moe import config

    scale = torch.ones(4, 1, 1)
    return getattr(config, name)(scale, scale, a1_scale=None, a2_scale=None, **options)


CHANGES = {
    "their activation is swigluoai": lambda runner, _kernel: setattr(
        runner.routed_experts, "activation", SimpleNamespace(value="swigluoai")
    ),
    "clamped or scaled": lambda _runner, kernel: setattr(
        kernel, "activation_config", SimpleNamespace(clamp_limit=7.0, alpha=1.0, beta=0.0)
    ),
    "expert parallelism": lambda runner, _kernel: setattr(runner.moe_config.moe_parallel_config, "use_ep", True),
    "the tokens of other ranks": lambda runner, _kernel: setattr(runner.moe_config.moe_parallel_config, "dp_size", 2),
    "enable_lora": lambda runner, _kernel: setattr(runner.moe_config, "is_lora_enabled", True),
    "their width is padded": lambda runner, _kernel: setattr(runner.moe_config, "intermediate_size_per_partition", 32),
    "rounding to fp8 by blocks": lambda _runner, kernel: setattr(
        kernel, "quant_config", quantised("fp8_w8a8_moe_quant_config", block_shape=[128, 128])
    ),
    "one scale for all tokens": lambda _runner, kernel: setattr(
        kernel, "quant_config", quantised("int8_w8a8_moe_quant_config")
    ),
}


@pytest.mark.parametrize(("reason", "change"), CHANGES.items(), ids=CHANGES)
def test_what_would_change_the_rows_or_the_formula_is_refused_with_the_kernels_name(served, runner, reason, change):
    routed, kept = runner.routed_experts, runner.routed_experts.activation
    change(runner, routed.quant_method.moe_kernel.fused_experts)
    try:
        with pytest.raises(UnsupportedModelError, match=rf"\(TritonExperts\) cannot have ARM, as .*{reason}"):
            routed_site(served.place)
    finally:
        routed.activation = kept


def test_an_mlp_beside_the_experts_that_arm_cannot_reach_is_refused_unless_routed_ones_are_asked_for(served):
    mlp = served.place.module.mlp.shared_expert
    arm, mlp.act_fn = mlp.act_fn, torch.nn.Identity()
    try:
        with pytest.raises(UnsupportedModelError, match=r"Qwen2MoeMLP runs beside the experts.*experts='routed'"):
            shared_sites(served.place)
    finally:
        mlp.act_fn = arm


def test_a_kernel_that_vllm_makes_anew_is_noticed(served, monkeypatch):
    served.check_in_place()
    use(served.place.module.mlp.experts, monkeypatch, "triton_moe:TritonExperts")
    with pytest.raises(ArmletError, match="a new kernel for the experts, without ARM"):
        served.check_in_place()


def test_weights_that_change_after_arm_copied_them_are_noticed(served):
    (_, weight), *_ = served.place.module.mlp.experts.routed_experts.named_parameters(recurse=False)
    with torch.no_grad():
        weight.copy_(weight.clone())
    with pytest.raises(ArmletError, match="or changed their weights"):
        served.check_in_place()


def test_a_dense_layer_has_no_kind_of_experts():
    dense = SimpleNamespace(site=SimpleNamespace(layer=5))
    with pytest.raises(UnsupportedModelError, match="layer 5: has no experts, so experts='routed'"):
        RedistributedAndMul.add(dense, "on", torch.ones(1), "gate", Outward(), Noise(0), "routed")


def test_a_model_with_a_layer_that_is_refused_stays_unchanged(model, monkeypatch):
    other = model.model.layers[1].mlp.experts.routed_experts
    monkeypatch.setattr(other, "activation", SimpleNamespace(value="swigluoai"))
    modules = list(model.modules())
    placement = {"policy": Outward(), "layers": [1, 2], "scope": "token", "noise": Noise(0)}
    with pytest.raises(
        UnsupportedModelError, match=r"layer 1: .*CPUUnquantizedExperts.* their activation is swigluoai"
    ):
        WorkerArm(model, Served({ON: [placement | {"layers": [2]}, placement]}, ON), 64, torch.device("cpu"))
    assert list(model.modules()) == modules
    assert "apply" not in vars(current_kernel(model.model.layers[2].mlp.experts.routed_experts))
