"""vLLM's experts for GPUs on the CPU, with ARM in them. Prints JSON.

`TritonExperts` runs its own `apply` and its own kernels, in Triton's interpreter, beside Hugging Face's experts: in a
process of its own, as vLLM decides at its first import whether there is a Triton. vLLM's CPU build lacks two operators
of `apply`, the alignment of rows by expert and the sum of a token's rows; both are here in PyTorch, and so is, for
`MarlinExperts`, the product with packed weights.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ["TRITON_INTERPRET"] = "1"
sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.functional import silu  # noqa: E402
from triton.backends import backends  # noqa: E402

backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True))

from vllm import _custom_ops as ops  # noqa: E402
from vllm.model_executor.layers.fused_moe import fused_moe, moe_align_block_size  # noqa: E402
from vllm.model_executor.layers.fused_moe.activation import MoEActivation  # noqa: E402
from vllm.model_executor.layers.fused_moe.config import (  # noqa: E402
    FUSED_MOE_UNQUANTIZED_CONFIG,
    FusedMoEConfig,
    FusedMoEParallelConfig,
    RoutingMethodType,
    int4_w4a16_moe_quant_config,
)
from vllm.model_executor.layers.fused_moe.experts import marlin_moe  # noqa: E402
from vllm.model_executor.layers.fused_moe.experts.triton_moe import TritonExperts  # noqa: E402

from armlet import Inward, Outward, attach, redistribute  # noqa: E402
from armlet.integrations.vllm.expert_sites import RoutedSite  # noqa: E402
from armlet.integrations.vllm.routed_arm import RoutedArm  # noqa: E402
from armlet.redistribution.noise import Noise  # noqa: E402
from families import ROUTED_FAMILIES, prompt, tiny  # noqa: E402

BLOCKS = {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 32, "BLOCK_SIZE_K": 16, "GROUP_SIZE_M": 1}
LAYER, NOISE = 1, Noise(7, stream=2)


def align(topk_ids, num_experts, block_size, sorted_ids, expert_ids, num_tokens_post_pad, *_rest):
    """`moe_align_block_size`: rows sorted by expert, each expert's padded to whole blocks."""
    experts, order = topk_ids.flatten().sort(stable=True)
    sorted_ids.fill_(topk_ids.numel())
    start = 0
    for expert in range(num_experts):
        rows = order[experts == expert]
        blocks = -(-len(rows) // block_size)
        sorted_ids[start : start + len(rows)] = rows
        expert_ids[start // block_size : start // block_size + blocks] = expert
        start += blocks * block_size
    num_tokens_post_pad.fill_(start)


def moe_config(experts, width, hidden, choices, dtype=torch.float32):
    return FusedMoEConfig(
        num_experts=experts,
        experts_per_token=choices,
        hidden_dim=hidden,
        intermediate_size=width,
        num_local_experts=experts,
        num_logical_experts=experts,
        activation=MoEActivation.SILU,
        device="cpu",
        routing_method=RoutingMethodType.Default,
        moe_parallel_config=FusedMoEParallelConfig.make_no_parallel(),
        in_dtype=dtype,
    )


def applied(kernel, w1, w2, hidden, topk_ids, topk_weights):
    """`apply`, with the buffers that vLLM allocates for it."""
    sizes = len(hidden), kernel.moe_problem_size(hidden, w1, w2, topk_ids)[2], hidden.shape[1], topk_ids.shape[1]
    shapes = kernel.workspace_shapes(*sizes, len(w1), len(w1), None, MoEActivation.SILU)
    workspace13, workspace2, output = (torch.full(shape, float("nan"), dtype=hidden.dtype) for shape in shapes)
    kernel.apply(
        output=output,
        hidden_states=hidden,
        w1=w1,
        w2=w2,
        topk_weights=topk_weights,
        topk_ids=topk_ids,
        activation=MoEActivation.SILU,
        global_num_experts=len(w1),
        expert_map=None,
        a1q_scale=None,
        a2_scale=None,
        workspace13=workspace13,
        workspace2=workspace2,
        expert_tokens_meta=None,
        apply_router_weight_on_input=False,
    )
    return output


def arm_in(kernel, experts, width, positions):
    routed = nn.Module()
    routed.quant_method = SimpleNamespace(moe_kernel=SimpleNamespace(fused_experts=kernel))
    return RoutedArm(RoutedSite(LAYER, "tiny", routed, kernel, "silu", experts, width, 0, 1, on_cpu=False), positions)


def hugging_face(policy, site, length, experts):
    """The routed experts of a tiny model, their arguments, their output with ARM and without, and ARM's counts."""
    model, seen = tiny("mixtral", families=ROUTED_FAMILIES, hidden_size=64, num_local_experts=experts), []
    (module,) = (part for name, part in model.named_modules() if name.endswith(f"layers.{LAYER}.mlp.experts"))
    with torch.no_grad(), attach(model, policy, layers=LAYER, site=site, noise=NOISE) as attachment:
        handle = module.register_forward_hook(lambda _module, *call: seen.append(call))
        model(prompt(length, seed=3))
        handle.remove()
        counts = attachment.report()[LAYER]
    ((arguments, treated),) = seen
    with torch.no_grad():
        return module, arguments, treated, module(*arguments), counts


def triton(policy, site, length, experts=4):
    """How far the outputs are from Hugging Face's, and whether tokens without ARM keep vLLM's bits."""
    module, arguments, treated, untreated, counts = hugging_face(policy, site, length, experts)
    topk_ids = arguments[1]
    width = module.down_proj.shape[-1]
    kernel = TritonExperts(moe_config(experts, width, 64, topk_ids.shape[1]), FUSED_MOE_UNQUANTIZED_CONFIG)
    weights = module.gate_up_proj.detach(), module.down_proj.detach()
    plain = applied(kernel, *weights, *arguments)
    strengths = torch.full((length + 5,), -1.0)
    arm = arm_in(kernel, experts, width, torch.arange(length + 5))
    arm.add("one", strengths, site, policy, NOISE)
    arm.put_in()
    on = applied(kernel, *weights, *arguments)
    (report,) = arm.reports("one")
    off = torch.arange(length) % 3 == 1
    strengths[:length][off] = 0
    mixed = applied(kernel, *weights, *arguments)
    others = torch.zeros(length + 5)
    others[:length][off] = -1
    arm.add("other", others, site, policy, NOISE)  # the same policy, for the tokens that have none of the first
    joint = applied(kernel, *weights, *arguments)
    names = ("tokens", "moved", "passed")
    return {
        "moved_by": float((treated - untreated).abs().max()),
        "error": float((on - treated).abs().max()),
        "error_without": float((plain - untreated).abs().max()),
        "counts": [counts[name] for name in names],
        "vllm_counts": [report[name] for name in names],
        "off_has_its_bits": torch.equal(mixed[off], plain[off]),
        "on_has_its_bits": torch.equal(mixed[~off], on[~off]),
        "two_have_the_bits_of_one": torch.equal(joint, on),
    }


def marlin(length=13, experts=4, width=64, hidden=32, choices=2):
    """Whether each row of the product is that of its token and expert, bit for bit."""
    generator, seen = torch.Generator().manual_seed(0), []
    w1, w2 = (
        torch.randn(experts, out, into, generator=generator) for out, into in ((2 * width, hidden), (hidden, width))
    )
    packed1, packed2 = torch.zeros(experts, hidden // 16, 1), torch.zeros(experts, width // 16, 2 * hidden)
    scale = torch.ones(experts, 1, 1)

    def product(a, c, packed, *rest, top_k, size_m, moe_block_size, **_options):
        """Each row to its place, in the order of the blocks."""
        sorted_ids, expert_ids, weights = rest[6], rest[7], w1 if packed is packed1 else w2
        for place, row in enumerate(sorted_ids.tolist()):
            if row < size_m * top_k:
                weight = weights[expert_ids[place // moe_block_size]]
                c[row] = (weight @ a[row // top_k].float()).to(c.dtype)
        seen.append((a.clone(), c.clone()))
        return c

    marlin_moe.ops.moe_wna16_marlin_gemm, marlin_moe.get_marlin_workspace = product, lambda _device: None
    config = moe_config(experts, width, hidden, choices, torch.bfloat16)
    kernel = marlin_moe.MarlinExperts(config, int4_w4a16_moe_quant_config(scale, scale))
    strengths = torch.full((length,), -1.0)
    strengths[::3] = 0
    positions = torch.randperm(length, generator=generator) + 40
    arm = arm_in(kernel, experts, width, positions)
    arm.add("one", strengths, "gate", Outward(), NOISE)
    arm.put_in()
    topk_ids = torch.rand(length, experts, generator=generator).argsort(-1)[:, :choices]
    x = torch.randn(length, hidden, generator=generator).bfloat16()
    applied(kernel, packed1, packed2, x, topk_ids, torch.ones(length, choices))
    (_, gate_up), (rows, _) = seen
    equal = []
    for row, expert in enumerate(topk_ids.flatten().tolist()):
        token = row // choices
        gate, up = gate_up[row].chunk(2)
        if token % 3 == 0:
            untreated = torch.empty(1, width, dtype=torch.bfloat16)
            torch.ops._C.silu_and_mul(untreated, gate_up[row][None])
            equal.append(torch.equal(rows[row], untreated[0]))
            continue
        channels = NOISE.keys(experts * width, LAYER)[:, expert * width : (expert + 1) * width]
        uniforms = NOISE.uniforms(gate.shape, positions[token], channels)
        equal.append(torch.equal(rows[row], redistribute(silu(gate), Outward(), noise=uniforms) * up))
    return equal


def main():
    ops.moe_align_block_size = moe_align_block_size.ops.moe_align_block_size = align
    ops.moe_sum = lambda rows, output, *_rest: torch.sum(rows, 1, out=output)
    fused_moe.try_get_optimal_moe_config.__globals__["get_default_config"] = lambda *_args: BLOCKS
    cases = {"gate": Outward(), "up": Inward(knee=0.8), "product": Outward(strength=0.5)}
    results = {site: triton(policy, site, 21) for site, policy in cases.items()}
    results["one token"] = triton(Outward(), "gate", 1, experts=8)  # few rows: vLLM does not sort them
    print(json.dumps(results | {"marlin": marlin()}))


if __name__ == "__main__":
    main()
