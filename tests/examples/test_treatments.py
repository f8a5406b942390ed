"""The examples of a user's own treatment run by the command of their docstring, and change what they say."""

from pathlib import Path

import pytest
import torch

from armlet.checkpoints.folder import ABACUS, abacus
from armlet.checkpoints.identity import LOGITS, model_state
from armlet.checkpoints.pretrained import load
from armlet.evaluation.conditions.interventions import read_intervention
from command_line import result

SCRIPT = Path(__file__).parents[2] / "examples" / "treatments.py"
FUNCTIONS = ("add_vector", "zero_channels")


@pytest.mark.slow
def test_the_examples_are_judged_with_a_verdict_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = [option for name in FUNCTIONS for option in ("--treatment", f"{SCRIPT}:{name}")]
    report = result("evaluate", ABACUS, "--items", "20", "--no-placebos", *named)
    (task,) = report["tasks"]
    assert [pair["condition"] for pair in task["comparisons"]] == [f"treatments.py:{name}" for name in FUNCTIONS]
    assert all(task["unchanged"][f"treatments.py:{name}"] < 20 for name in FUNCTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_example_leaves_the_model_as_it_was(name):
    model, _ = load(str(abacus()))
    before = model_state(model, whole=True)
    with read_intervention(f"{SCRIPT}:{name}").applied(model):
        assert model_state(model, whole=False)[LOGITS] != before[LOGITS]
        if name == "zero_channels":
            width = model.config.intermediate_size
            zero = [(layer.mlp.gate_proj.weight == 0).all(dim=1).sum() for layer in model.model.layers]
            assert torch.stack(zero).tolist() == [round(0.1 * width)] * len(zero)
    assert model_state(model, whole=True) == before
