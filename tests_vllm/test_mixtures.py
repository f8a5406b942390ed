"""ARM in mixtures of experts: the rows of each kernel, whole models on the CPU, and what is refused by name."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from armlet import Inward, Outward, attach
from armlet.attachment.sites import UnsupportedModelError
from armlet.redistribution.errors import ArgumentError, ArmletError
from engines import HERE, engine, greedy, hugging_face, tokens_of
from families import ROUTED_FAMILIES, prompt
from test_families import HEADS, entry

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


def test_each_row_of_marlins_product_is_that_of_its_token_and_expert_bit_for_bit(interpreted):
    assert len(interpreted["marlin"]) == 26
    assert all(interpreted["marlin"])


def test_a_row_of_no_expert_has_no_arm():
    from armlet.integrations.vllm.expert_operator import routed_rows

    topk_ids = torch.tensor([[2, 0], [-1, 5], [1, -1]], dtype=torch.int32)
    rows = routed_rows(topk_ids, 3, torch.tensor([7, 8, 9, 10]), torch.tensor([1.0, 0.5, 0.25, 1.0]))
    assert rows.positions.tolist() == [7, 7, 8, 8, 9, 9]
    assert rows.strengths.tolist() == [1, 1, 0, 0, 0.25, 0]
    assert rows.experts[rows.strengths > 0].tolist() == [2, 0, 1]


# --- whole models on the CPU -----------------------------------------------------------------------------------------

MODELS = {
    "qwen2_moe": {"shared_expert_intermediate_size": 32},
    "mixtral": {},
    "qwen3_moe": HEADS["qwen3"],
    "granitemoeshared": {"shared_intermediate_size": 96},
}


@pytest.fixture(scope="module")
def mixture(tiny_model):
    return lambda family: tiny_model(family, families=ROUTED_FAMILIES, **MODELS[family])


@pytest.mark.parametrize("family", MODELS)
def test_a_mixture_gives_the_tokens_and_the_counts_of_hugging_face(mixture, family):
    folder, model = mixture(family)
    baseline = hugging_face(model, PROMPTS, TOKENS)
    with attach(model, Outward(), layers=[0, 2]) as attachment:
        treated = hugging_face(model, PROMPTS, TOKENS)
        counts = attachment.report()
    with engine(folder, entry(Outward(), [0, 2])) as llm:
        on = tokens_of(greedy(llm, PROMPTS, TOKENS))
        (report,) = llm.collective_rpc("armlet_report")
        mixed = tokens_of(greedy(llm, PROMPTS, TOKENS, [None, {"armlet": "off"}] * 2))
    assert on == treated != baseline
    assert counts_of(report["layers"]) == counts_of(counts)
    assert mixed == [*map(lambda on, off, answer: (on, off)[answer % 2], treated, baseline, range(4))]
