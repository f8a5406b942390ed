"""`inspect` takes every model that `attach` takes: where `Layer1` cannot read a layer, the whole model runs."""

from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from armlet import attach
from armlet.attachment.sites import SITES, UnsupportedModelError
from armlet.checkpoints.folder import WEIGHTS_FILE
from armlet.inspection import inspect, run
from armlet.redistribution.errors import ArgumentError, ArmletError
from attached import each_site
from families import FAMILIES, MIXTURES, ROUTED_FAMILIES, UNCOVERED, WITH_TOWERS, tiny
from tiny_checkpoints import save, words

PROMPTS = ["w1 w2 w3 w4 w5", "w9", "w30 w20 w10"]
COVERED = FAMILIES | MIXTURES | WITH_TOWERS


def gates(inspection, which="before"):
    return [getattr(effect.panel, which) for effect in inspection.effects]


@cache
def both_ways(family, site="gate"):
    """An inspection of layer 1 by `Layer1`, and one of the whole model, with the same policies."""
    model, arguments = tiny(family), {"layer": 1, "prompt": PROMPTS, "seed": 3, "site": site}
    by_layers = inspect(model, words(), **arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_gates_of_layers", refuse)
        return by_layers, inspect(model, words(), **arguments)


def refuse(*_):
    raise UnsupportedModelError("tested")


@pytest.mark.slow
@each_site
@pytest.mark.parametrize("family", COVERED)
def test_the_whole_model_gives_the_values_of_layer1_before_and_after(family, site):
    by_layers, by_model = both_ways(family, site)
    assert by_layers.sample.experts == by_model.sample.experts
    assert (by_layers.sample.experts > 0) == (family in MIXTURES)
    for which in ("before", "after"):
        for one, other in zip(gates(by_layers, which), gates(by_model, which), strict=True):
            # The limit that Layer1 keeps against Hugging Face's own layer.
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_result_says_how_and_why_the_gates_were_read():
    by_layers, by_model = both_ways("olmoe")
    assert [by_layers.to_dict()[key] for key in ("experts", "tokens", "width")] == [6, 18, 48]
    assert by_model.to_dict().keys() - by_layers.to_dict().keys() == {"reading"}
    assert by_model.to_dict()["reading"] == ["read from the whole model: tested"] == by_model.sentences()
    title = str(by_model.tables()[0].title)
    assert title.endswith("layer 1, 18 rows, each a token in one of 6 routed experts, scope token")
    assert not {"reading", "experts"} & inspect(tiny(), words(), prompt=PROMPTS).to_dict().keys()


ALL = {**ROUTED_FAMILIES, **UNCOVERED}
GATE_ONLY = ("llama4", "longcat")  # their experts compute the product in their forward
PLACES = [(family, site) for family in ALL for site in SITES if site == "gate" or family not in GATE_ONLY]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "site"), PLACES)
def test_what_moves_is_what_attach_moves(family, site):
    model = tiny(family, families=ALL)
    if family == "aria" and not model._can_set_experts_implementation():
        pytest.skip("this version of transformers keeps Aria's experts apart")
    inspection = inspect(model, words(), layer=1, prompt=PROMPTS, seed=3, site=site)
    for effect in inspection.effects:
        with attach(model, effect.policy, layers=1, experts="routed", site=site) as arm, torch.no_grad():
            for text in PROMPTS:
                model(words()(text, return_tensors="pt")["input_ids"])
            report = arm.report()[1]
        assert (inspection.tokens, inspection.passed) == (report["tokens"], 0)
        assert effect.share_moved == pytest.approx(report["share_moved"], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_rows_of_experts_come_in_one_order_whatever_computes_them(implementation):
    model = tiny("phimoe", families=ROUTED_FAMILIES)
    one = inspect(model, words(), prompt=PROMPTS)
    model.set_experts_implementation(implementation)
    other = inspect(model, words(), prompt=PROMPTS)
    np.testing.assert_allclose(gates(one, "after"), gates(other, "after"), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_changed_model_is_read_as_what_it_computes_with_arm_left_as_it_was():
    model = tiny()
    model.model.layers[1].mlp.act_fn = torch.nn.ReLU().eval()
    arm = attach(model, "outward", layers=[0, 1])
    state = str(model)
    inspection = inspect(model, words(), layer=1, prompt=PROMPTS)
    assert "layer 1 of the loaded model computes something else" in inspection.sentences()[0]
    assert gates(inspection)[0].min() == 0
    assert (str(model), arm.state, arm.report()[1]["calls"]) == (state, "attached", 0)
    assert not inspect(model, words(), layer=0, prompt=PROMPTS).sample.read_because


@pytest.mark.slow
def test_a_path_and_a_loaded_model_give_the_same(tmp_path):
    by_path = inspect(save(tmp_path, "deepseek_v2"), layer=1, prompt=PROMPTS)
    loaded = inspect(tiny("deepseek_v2"), words(), layer=1, prompt=PROMPTS)
    assert by_path.to_dict() | {"source": ""} == loaded.to_dict() | {"source": ""}
    assert by_path.figure().axes


@pytest.mark.slow
def test_a_tensor_that_the_model_does_not_read_does_not_stop_the_reading(tmp_path):
    folder = save(tmp_path)
    tensors = load_file(folder / WEIGHTS_FILE) | {"model.layers.0.self_attn.masked_bias": torch.zeros(1)}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    inspection = inspect(folder, prompt=PROMPTS)
    assert "['self_attn.masked_bias'] unknown" in inspection.sentences()[0]
    np.testing.assert_allclose(gates(inspection), gates(inspect(tiny(), words(), prompt=PROMPTS)), atol=1e-5)


@pytest.mark.slow
def test_a_layer_out_of_range_is_refused_before_the_whole_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "load_or_use", lambda *_, **_how: pytest.fail("loaded"))
    for model in ((save(tmp_path, "deepseek_v2"),), (tiny("deepseek_v2"), words())):
        with pytest.raises(ArgumentError, match=r"^layer: deepseek_v2 has layers 0 to 2, found 3$"):
            inspect(*model, layer=3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mixtral", "deepseek_v2"])
def test_statistics_of_a_row_of_an_expert_are_of_that_row(family):
    with pytest.raises(ArgumentError, match=r"^scope: in a mixture of experts .* use scope 'token', not 'sequence'"):
        inspect(tiny(family), words(), layer=1, prompt=PROMPTS, scope="sequence")


@pytest.mark.slow
def test_what_attach_refuses_is_refused():
    model = tiny("phimoe", families=ROUTED_FAMILIES)
    model.model.layers[0].mlp.experts.act_fn = torch.nn.Sequential(torch.nn.Linear(2, 2)).eval()
    with pytest.raises(ArmletError, match="computes its experts in a way in which ARM cannot tell"):
        inspect(model, words(), prompt=PROMPTS)
