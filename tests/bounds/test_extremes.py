"""The largest values of each layer, against a slow oracle that keeps every tensor."""

import pytest
import torch

import armlet.bounds.extremes
from armlet import Inward, attach
from armlet.attachment.sites import find_sites
from armlet.bounds.extremes import Peak, Peaks, watching_layers, watching_products
from armlet.bounds.formats import q8_1_sums
from armlet.errors import UnsupportedModelError
from armlet.prompts.losses import window_losses
from attached import anatomy
from families import FAMILIES, prompt, tiny

WINDOWS = prompt(16, batch=40, seed=3)  # two batches
DENSE = [name for name in FAMILIES if name != "deepseek_v3"]


def watched(model, windows=WINDOWS, see=lambda *_: None):
    peaks = Peaks(windows.shape[1])
    with watching_layers(model, peaks, see):
        losses = window_losses(model, windows)
    return peaks, losses


def oracle(model, windows=WINDOWS):
    """The largest magnitude of each quantity in each layer of a model like Llama, from every tensor, with its place."""
    tensors = {}

    def keep(name):
        def hook(_module, args, output=None):
            values = args[0] if output is None else output
            tensors.setdefault(name, []).append(values.detach().clone())

        return hook

    handles = []
    for index, layer in enumerate(model.model.layers):
        handles.append(layer.mlp.act_fn.register_forward_hook(keep((index, "gate"))))
        handles.append(layer.mlp.up_proj.register_forward_hook(keep((index, "up"))))
        handles.append(layer.mlp.down_proj.register_forward_pre_hook(keep((index, "product"))))
        handles.append(layer.register_forward_hook(keep((index, "residual"))))
    window_losses(model, windows)
    for handle in handles:
        handle.remove()
    peaks = {}
    for key, parts in tensors.items():
        rows = torch.cat(parts).float()
        places = [(rows[w, t].abs().max().item(), -w, -t) for w in range(len(rows)) for t in range(rows.shape[1])]
        value, window, token = max(places)
        peaks[key] = Peak(value, -window, -token)
    return peaks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peaks_are_those_of_an_oracle_that_keeps_every_tensor(dtype):
    model = tiny(intermediate_size=64).to(dtype)
    expected = oracle(model)
    peaks, _ = watched(model)
    assert {key: peak for key, peak in peaks.largest.items() if key[1] != "q8_1 sum"} == expected


def test_the_sums_of_blocks_are_those_of_the_products():
    model, seen = tiny(intermediate_size=64), {}
    peaks, _ = watched(model, see=lambda layer, product, _: seen.setdefault(layer, []).append(product.clone()))
    for layer, products in seen.items():
        assert peaks.largest[layer, "q8_1 sum"].value == q8_1_sums(torch.cat(products)).max().item()


@pytest.mark.parametrize("family", DENSE)
def test_every_quantity_of_every_family_is_read_and_the_model_stays_as_it_was(family):
    model = tiny(family)
    before, plain = anatomy(model), window_losses(model, WINDOWS)
    seen = []
    peaks, losses = watched(model, see=lambda layer, product, gate: seen.append((layer, product, gate)))
    assert losses == plain
    assert anatomy(model) == before
    peaks.check(len(WINDOWS))
    assert {
        (layer, name) for layer in range(3) for name in ("gate", "up", "product", "residual")
    } == peaks.largest.keys()
    for _, product, gate in seen:
        assert product.shape == gate.shape


def test_a_planted_spike_is_found_at_its_token():
    model = tiny()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(100)
    windows = WINDOWS.clone()
    peaks, _ = watched(model, windows)
    assert peaks.largest[1, "product"].value > 10 * peaks.largest[0, "product"].value
    peak = peaks.largest[1, "up"]
    alone = tiny()
    with torch.no_grad():
        alone.model.layers[1].mlp.up_proj.weight.mul_(100)
    one, _ = watched(alone, windows[peak.window : peak.window + 1])
    assert one.largest[1, "up"].position == peak.position


def test_what_attach_cannot_reach_is_absent_and_not_guessed(monkeypatch):
    real = armlet.bounds.extremes.find_sites

    def find(model, layers, site):
        if site in ("gate", "up") and layers == [1]:
            raise UnsupportedModelError("not here")
        return real(model, layers, site=site)

    monkeypatch.setattr("armlet.bounds.extremes.find_sites", find)
    seen = []
    peaks, losses = watched(tiny(), see=lambda layer, _, gate: seen.append((layer, gate is None)))
    assert losses == window_losses(tiny(), WINDOWS)
    assert set(seen) == {(0, False), (1, True), (2, False)}
    for layer, names in ((0, {"gate", "up"}), (1, set())):
        assert {name for at, name in peaks.largest if at == layer} == {"product", "residual", *names}


def test_products_are_seen_after_arm():
    model = tiny()
    downs = {site.layer: site.module for site in find_sites(model, "all", site="product")}
    peaks = Peaks(WINDOWS.shape[1])
    with attach(model, Inward(limit=0.25, curve="clip"), layers="all", site="product"), watching_products(downs, peaks):
        window_losses(model, WINDOWS)
    assert [peaks.largest[layer, "product"].value for layer in downs] == [0.25] * 3


def test_ties_are_given_to_the_first_token():
    peaks = Peaks(3)
    peaks.add(0, "gate", torch.tensor([[[1.0], [-2.0], [2.0]], [[2.0], [0.0], [0.0]]]))
    peaks.add(0, "gate", torch.tensor([[[2.0], [2.0], [2.0]]]))
    assert peaks.largest[0, "gate"] == Peak(2.0, 0, 1)


def test_a_value_that_is_no_number_stays_the_largest():
    peaks = Peaks(2)
    for value in (1.0, float("nan"), 3.0):
        peaks.add(0, "gate", torch.tensor([[[value], [0.0]]]))
    assert not peaks.largest[0, "gate"].value <= float("inf")


def test_a_layer_that_runs_twice_is_refused():
    peaks = Peaks(2)
    for _ in range(2):
        peaks.add(1, "product", torch.ones(4, 2, 3))
    with pytest.raises(UnsupportedModelError, match="layer 1 computed product for 8 windows of 4"):
        peaks.check(4)


def test_several_streams_of_hidden_states_are_one_row_for_each_token():
    peaks, streams = Peaks(2), torch.zeros(3, 1, 2, 4)
    streams[2, 0, 1, 0] = -7
    peaks.add(0, "residual", streams)
    peaks.check(1)
    assert peaks.largest[0, "residual"] == Peak(7.0, 0, 1)
