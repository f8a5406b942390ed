"""`explain` takes every model that `attach` takes: where `Layer1` cannot read a layer, the whole model runs."""

import numpy as np
import pytest
import torch
import transformers as hf

from armlet import attach
from armlet.attachment.sites import UnsupportedModelError, mixture_block
from armlet.mechanism import explain, run
from armlet.mechanism.measure import MIXTURE_GATE, UNEVEN
from armlet.mechanism.whole_model import NO_WEIGHTS
from armlet.redistribution.errors import ArgumentError
from families import FAMILIES, MIXTURES, ROUTED_FAMILIES, WITH_TOWERS, prompt, tiny
from tiny_checkpoints import save, words

ASKED = {"prompt": ["w20 w21 w22", "w23 w24"], "system": "w10 w11", "filler": "w7", "count": (0, 2, 4)}
COVERED = FAMILIES | MIXTURES | WITH_TOWERS
LFM2 = {"lfm2": (hf.Lfm2Config, {"conv_L_cache": 3, "layer_types": ["conv", "full_attention", "conv"]})}


def refuse(*_):
    raise UnsupportedModelError("tested")


@pytest.mark.slow
@pytest.mark.parametrize("family", COVERED)
def test_the_whole_model_gives_the_numbers_of_layer1(family, monkeypatch):
    model = tiny(family)
    by_layers = explain(model, words(), **ASKED)
    monkeypatch.setattr(run, "_read_layers", refuse)
    by_model = explain(model, words(), **ASKED)
    assert by_model.reading == ["read from the whole model: tested", *by_layers.reading]
    assert by_layers.layers == by_model.layers
    for one, other in zip(by_layers.findings, by_model.findings, strict=True):
        for first, second in zip([one.without, *one.filled], [other.without, *other.filled], strict=True):
            for name in first:
                # Some families' maps are fused in the model and single in Layer1, which sums in another order.
                np.testing.assert_allclose(first[name], second[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(one.treated, other.treated)
        assert (one.experts, one.width, one.moved) == (other.experts, other.width, other.moved)
        torch.testing.assert_close(one.received, other.received, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.slow
def test_a_path_and_a_loaded_model_of_another_family_give_the_same_and_say_what_a_mixtures_gate_is(tmp_path):
    loaded = explain(tiny("deepseek_v2"), words(), **ASKED)
    by_path = explain(save(tmp_path, "deepseek_v2"), **ASKED)
    assert by_path.to_dict()["rows"] == loaded.to_dict()["rows"]
    because = "read from the whole model: Layer1 does not cover 'deepseek_v2'"
    expected = [because, f"layer 1, 2 (a mixture of experts): {MIXTURE_GATE}"]
    assert by_path.sentences()[:2] == loaded.sentences()[:2] == by_path.to_dict()["reading"] == expected


@pytest.mark.slow
def test_a_layer_whose_tokens_go_to_different_numbers_of_experts_is_left_out_or_refused():
    model = tiny("llama4", families=ROUTED_FAMILIES)
    experts = mixture_block(model.model.layers[1]).experts

    def without_a_token(_experts, arguments):  # Llama 4 passes zeros to the experts that a token does not go to
        (hidden,) = arguments
        return (hidden.unflatten(0, (4, -1)).index_fill(1, torch.tensor([3]), 0).flatten(0, 1),)

    experts.register_forward_pre_hook(without_a_token)
    explanation = explain(model, words(), **ASKED)
    assert explanation.layers == [0, 2]
    assert explanation.reading[1] == f"left out: layer 1 ({UNEVEN})"
    with pytest.raises(UnsupportedModelError, match=f"^explain: layer 1 of .*: {UNEVEN}$"):
        explain(model, words(), layers=1, **ASKED)


@pytest.mark.slow
def test_a_gate_that_cannot_be_read_is_named_without_advice_about_arm():
    with pytest.raises(UnsupportedModelError) as caught:
        explain(tiny("lfm2", families=LFM2), words(), layers=1, **ASKED)
    reason = "Lfm2MLP computes its activation inside its forward, where ARM cannot act on the activated gate"
    assert str(caught.value) == f"explain: layer 1 of Lfm2ForCausalLM: its activated gate cannot be read: {reason}"


@pytest.mark.slow
@pytest.mark.parametrize("layers", [3, "0-9"])
def test_a_layer_out_of_range_is_refused_before_the_whole_model_is_loaded(layers, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "load_or_use", lambda *_, **_how: pytest.fail("loaded"))
    for model in ((save(tmp_path, "deepseek_v2"),), (tiny("deepseek_v2"), words())):
        with pytest.raises(ArgumentError, match=r"^layers: deepseek_v2 has layers 0 to 2, found [39]$"):
            explain(*model, layers=layers, **ASKED)


@pytest.mark.slow
def test_a_changed_model_is_explained_as_what_it_computes_and_left_as_it_was():
    model = tiny()
    plain = explain(model, words(), layers=[0, 1], **ASKED)
    model.model.layers[1].mlp.act_fn = torch.nn.ReLU().eval()
    arm = attach(model, "outward", layers=1)
    state, kind, logits = str(model), model.config._attn_implementation, model(prompt(5)).logits
    changed = explain(model, words(), layers=[0, 1], **ASKED)
    assert "layer 1 of the loaded model computes something else" in changed.reading[0]
    np.testing.assert_allclose(changed.findings[0].without["l1"], plain.findings[0].without["l1"], rtol=1e-5)
    assert (changed.findings[1].without["near_zero"] > plain.findings[1].without["near_zero"]).all()
    assert (str(model), model.config._attn_implementation, arm.state) == (state, kind, "attached")
    assert torch.equal(model(prompt(5)).logits, logits)


@pytest.mark.slow
def test_a_layer_without_attention_weights_is_left_out_or_refused(monkeypatch):
    model = tiny("deepseek_v2", first_k_dense_replace=3)
    attention = model.model.layers[1].self_attn
    plain = attention.forward
    monkeypatch.setattr(attention, "forward", lambda *args, **named: (plain(*args, **named)[0], None))
    assert explain(model, words(), **ASKED).reading[1] == f"left out: layer 1 ({NO_WEIGHTS})"
    with pytest.raises(UnsupportedModelError, match=f"explain: layer 1 of .*: {NO_WEIGHTS}"):
        explain(model, words(), layers=1, **ASKED)


@pytest.mark.slow
def test_a_model_that_runs_an_mlp_twice_is_refused(monkeypatch):
    model = tiny("deepseek_v2", first_k_dense_replace=3)
    mlp = model.model.layers[1].mlp
    once = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda x: once(once(x)))
    with pytest.raises(UnsupportedModelError, match=r"layer 1 computes .* several times for one text"):
        explain(model, words(), layers=1, **ASKED)
