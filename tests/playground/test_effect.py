"""What the page draws is what the library computes: the values of `redistribute`, at the places of `attach`."""

import numpy as np
import pytest
import torch
import transformers as hf

from armlet import Noise, attach, redistribute
from armlet.attachment.sites import UnsupportedModelError, find_layers
from armlet.checkpoints.given import NamedModel
from armlet.evaluation.conditions.placebos import GATE_PLACEBOS
from armlet.inspection.records import RoutedGates
from armlet.layer.capture import capturing
from armlet.layer.layer_map import PART_NAMES
from armlet.playground.effect import effect_of, rows_of_token, share_by_token
from armlet.playground.parts import different, layer_tensors, part_texts
from armlet.playground.reading import Reader
from armlet.redistribution.errors import ArgumentError
from families import FAMILIES, MIXTURES, ROUTED_FAMILIES, UNCOVERED
from playgrounds import reader, setting
from tiny_checkpoints import words

POLICIES = ("outward:band=0.4", "inward:knee=0.9", "transport:spread=0.5", "cut", "inward:limit=0.05,curve=tanh")


@pytest.mark.parametrize("policy", POLICIES)
def test_the_values_after_are_those_of_redistribute(policy):
    page = setting(policy=policy, layer=1, seed=3)
    reading = reader().read(page)
    effect = effect_of(reading, page)
    noise = Noise(3)
    expected = redistribute(reading.values[None], page.chosen(), noise=noise, positions=None)[0]
    if not policy.startswith("outward"):  # `redistribute` draws for layer 0
        assert torch.equal(effect.after, expected)
    assert torch.equal(effect.moved, effect.after != reading.values) or policy == "transport:spread=0.5"


@pytest.mark.parametrize("family", sorted({*FAMILIES, *MIXTURES}))
def test_with_arm_the_layer_on_the_page_computes_what_the_model_with_attach_computes(family):
    opened = reader(family)
    page = setting(policy="outward:band=0.5", layer=1, seed=2)
    reading = opened.read(page)
    effect, tensors = effect_of(reading, page), None
    assert reading.not_covered == ""
    tensors = layer_tensors(opened, reading, effect, page)
    expected = dict[str, torch.Tensor]()
    model, ids = opened.opened.model, reading.ids
    ((_, layer),) = find_layers(model, [1])
    with torch.no_grad(), attach(model, page.chosen(), layers=1, noise=Noise(2)):
        hook = layer.register_forward_hook(lambda _, __, y: expected.update(y=y if torch.is_tensor(y) else y[0]))
        model(input_ids=ids, use_cache=False)
        hook.remove()
    assert torch.allclose(tensors["y"], expected["y"].reshape(tensors["y"].shape), atol=1e-5)
    drawn = tensors["ARM"][0] if isinstance(reading.gate, torch.Tensor) else None
    if drawn is not None:
        assert torch.allclose(drawn, effect.after, atol=1e-6)
    assert set(part_texts(tensors)) >= set(PART_NAMES)


BEYOND = ("aria", "gemma4", "granitemoeshared", "lfm2_moe", "llama4", "longcat", "minimax_m3", "phimoe")


@pytest.mark.parametrize("family", [*sorted(UNCOVERED), *BEYOND])
def test_a_model_that_layer1_does_not_cover_shows_its_gate_and_says_why_not_more(family):
    opened = reader(family, families=UNCOVERED | ROUTED_FAMILIES)
    page = setting(policy="cut:band=1")
    reading = opened.read(page)
    assert reading.not_covered
    assert effect_of(reading, page).share_moved > 0
    tensors = layer_tensors(opened, reading, effect_of(reading, page), page)
    if isinstance(reading.gate, torch.Tensor):
        assert {"activation", "ARM", "up"} <= set(tensors)
    assert (reading.up is None) == (family in ("llama4", "longcat"))  # whose up `attach` refuses
    assert reading.up is None or reading.up.shape == reading.values.shape


@pytest.mark.parametrize("family", MIXTURES)
def test_an_expert_shows_its_own_rows(family):
    opened = reader(family)
    every = opened.read(setting(layer=1))
    assert isinstance(every.gate, RoutedGates)
    for expert in every.gate.experts.unique().tolist():
        page = setting(layer=1, expert=expert, policy="outward:band=0.5")
        reading = opened.read(page)
        rows = every.gate.experts == expert
        assert torch.equal(reading.values, every.values[rows])
        assert torch.equal(reading.up, every.up[rows])
        whole = effect_of(every, setting(layer=1, policy="outward:band=0.5"))
        assert torch.equal(effect_of(reading, page).after, whole.after[rows])
        shares = share_by_token(reading, effect_of(reading, page))
        assert [share is None for share in shares] == [
            rows_of_token(reading, t).numel() == 0 for t in range(len(shares))
        ]
    with pytest.raises(ArgumentError, match=f"expected one of {opened.expert_count} experts"):
        opened.read(setting(layer=1, expert=opened.expert_count))


def test_an_expert_to_which_no_token_goes_is_refused():
    opened = reader("mixtral")
    every = opened.read(setting(text="w3", layer=1))
    absent = next(e for e in range(opened.expert_count) if e not in every.gate.experts)
    with pytest.raises(ArgumentError, match=rf"no token of this text goes to expert {absent}; choose one of \d"):
        opened.read(setting(text="w3", layer=1, expert=absent))


def test_an_expert_of_a_dense_model_is_refused():
    with pytest.raises(ArgumentError, match="as no layer has experts"):
        reader().read(setting(expert=1))


def test_the_share_of_a_token_is_the_share_of_its_values():
    page = setting(policy="cut:band=0.8", layer=2)
    reading = reader().read(page)
    effect = effect_of(reading, page)
    assert share_by_token(reading, effect) == pytest.approx(effect.moved.float().mean(-1).tolist())
    assert effect.share_moved == pytest.approx(np.mean(share_by_token(reading, effect)))


@pytest.mark.parametrize("name", GATE_PLACEBOS)
def test_a_placebo_acts_in_place_of_the_policy(name):
    page = setting(policy="outward:band=0.5", placebo=name)
    reading = reader().read(page)
    effect = effect_of(reading, page)
    untouched = name in ("identity", "draw-only")
    assert torch.equal(effect.after, reading.values) == untouched
    assert (effect.share_moved == 0) == untouched
    if name == "zeroed":
        assert (effect.after[effect.moved] == 0).all()


def test_rows_with_nan_are_left_out_and_counted():
    opened = reader()
    page = setting()
    reading = opened.read(page)
    broken = reading.values.clone()
    broken[2, 5] = torch.nan
    effect = effect_of(type(reading)(**{**vars(reading), "gate": broken}), page)
    assert effect.passed == 1
    assert effect.panel.before.size == reading.values.numel() - reading.values.shape[1]
    with pytest.raises(ArgumentError, match="every token contains NaN or Inf"):
        effect_of(type(reading)(**{**vars(reading), "gate": torch.full_like(broken, torch.nan)}), page)


def test_the_gate_on_the_page_is_the_gate_in_the_model():
    opened = reader("qwen2")
    reading = opened.read(setting(layer=2))
    with capturing(opened.opened.model, [2]) as run:
        assert torch.equal(run(reading.ids)[2]["activation"][0], reading.values)


def test_a_sample_has_a_gate_and_no_model():
    reading = reader().read(setting(sample="modes", policy="transport"))
    assert (reading.words, reading.layer, reading.up) == ([], None, None)
    effect = effect_of(reading, setting(sample="modes", policy="transport"))
    assert (effect.measures_before["modes"], effect.measures_after["modes"]) == (5, 1)


def test_an_expert_of_a_dense_layer_in_a_mixture_is_refused():
    with pytest.raises(ArgumentError, match="layer 0 has no experts"):
        reader("deepseek_v3").read(setting(expert=1))


def test_an_expert_whose_up_cannot_be_read_is_shown_without_it():
    opened = reader("longcat", families=ROUTED_FAMILIES)
    expert = int(opened.read(setting()).gate.experts[0])
    reading = opened.read(setting(expert=expert))
    assert reading.up is None
    assert effect_of(reading, setting(expert=expert)).panel.before.size


def test_a_model_without_a_gated_mlp_is_refused_with_its_class():
    model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2)).eval()
    with pytest.raises(UnsupportedModelError, match="GPT2LMHeadModel, layer 0"):
        Reader(NamedModel("gpt2", model, words()))


def test_the_parts_to_choose_from_are_those_of_the_map_and_what_differs_from_them():
    opened = reader()
    reading = opened.read(setting())
    names = different(layer_tensors(opened, reading, effect_of(reading, setting()), setting()))
    assert set(names) == {*PART_NAMES, "Attention_weights"}
    normed = reader("qwen3")
    reading = normed.read(setting())
    names = different(layer_tensors(normed, reading, effect_of(reading, setting()), setting()))
    assert set(names) == {*PART_NAMES, "Attention_weights", "RMSNorm_Q", "RMSNorm_K"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_up_is_that_of_the_model(dtype):
    opened = reader("qwen2")
    opened.opened.model.to(dtype)
    reading = opened.read(setting(layer=1))
    with capturing(opened.opened.model, [1], site="up") as run:
        expected = run(reading.ids)[1]["up"][0]
    assert reading.up.dtype == expected.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0  # the layer's code sums in another order
    assert torch.allclose(reading.up, expected, atol=tolerance, rtol=0)
