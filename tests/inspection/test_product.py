"""`inspect` at the site "product" measures what `down` gets, in dense layers and in mixtures of experts."""

import numpy as np
import pytest
import torch
import transformers as hf
from torch.nn import functional as F

from armlet import Noise, attach, redistribute
from armlet.attachment.sites import UnsupportedModelError, find_decoder, mixture_block
from armlet.inspection import inspect
from families import ROUTED_FAMILIES, tiny
from tiny_checkpoints import save, words

PROMPTS, SEED = ["w1 w2 w3 w4 w5", "w9", "w30 w20 w10"], 3
ASKED = {"prompt": PROMPTS, "seed": SEED, "site": "product"}
LFM2 = {"lfm2": (hf.Lfm2Config, {"conv_L_cache": 3, "layer_types": ["conv", "full_attention", "conv"]})}


def run(model):
    model.set_attn_implementation("eager")  # as Layer1 has it
    with torch.no_grad():
        for text in PROMPTS:
            model(**words()(text, return_tensors="pt"))


def products_by_hook(model, layer, name):
    """What `down` gets, `[seq, width]` for each prompt."""
    products = []
    down = find_decoder(model)[1][layer].get_submodule(name)
    handle = down.register_forward_pre_hook(lambda _, arguments: products.append(arguments[0][0]))
    run(model)
    handle.remove()
    return products


def check(inspection, products, draws):
    """Compares the values before and after with the products, redistributed with uniforms of their shape."""
    assert inspection.tokens == sum(map(len, products))
    for effect in inspection.effects:
        pairs = zip(products, draws, strict=True)
        after = torch.cat([redistribute(a, effect.policy, noise=uniforms) for a, uniforms in pairs])
        for values, expected in ((effect.panel.before, torch.cat(products)), (effect.panel.after, after)):
            np.testing.assert_allclose(values.reshape(expected.shape), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "layer", "name"),
    [("llama", 2, "mlp.down_proj"), ("gemma2", 0, "mlp.down_proj"), ("deepseek_v2", 0, "mlp.down_proj")],
)
def test_in_a_dense_layer_it_is_the_input_of_down_by_path_and_loaded(family, layer, name, tmp_path):
    model = tiny(family)
    products = products_by_hook(model, layer, name)
    draws = [Noise(SEED).uniforms(a.shape, torch.arange(len(a)), Noise(SEED).keys(a.shape[1], layer)) for a in products]
    for given in ((save(tmp_path, family),), (tiny(family), words())):
        check(inspect(*given, layer=layer, **ASKED), products, draws)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v2"])
def test_in_a_mixture_it_is_a_row_for_each_token_in_each_of_its_experts_by_path_and_loaded(family, tmp_path):
    model = tiny(family)
    experts, products, draws = mixture_block(model.model.layers[1]).experts, [], []
    count, width = experts.down_proj.shape[0], experts.down_proj.shape[2]
    keys = Noise(SEED).keys(count * width, 1).view(3, count, width)

    def compute(_experts, arguments):
        hidden, routing = arguments[:2]
        for position, (x, chosen) in enumerate(zip(hidden, routing.tolist(), strict=True)):
            for expert in sorted(chosen):
                gate, up = (experts.gate_up_proj[expert] @ x).chunk(2)
                products.append((F.silu(gate) * up)[None])
                draws.append(Noise(SEED).uniforms((1, width), torch.tensor([position]), keys[:, expert]))

    handle = experts.register_forward_pre_hook(compute)
    run(model)
    handle.remove()
    for given in ((save(tmp_path, family),), (tiny(family), words())):
        check(inspect(*given, layer=1, **ASKED), products, draws)


@pytest.mark.slow
def test_a_model_whose_gate_cannot_be_reached_is_inspected_at_the_product():
    model = tiny("lfm2", families=LFM2)
    products = products_by_hook(model, 1, "feed_forward.w2")
    draws = [Noise(SEED).uniforms(a.shape, torch.arange(len(a)), Noise(SEED).keys(a.shape[1], 1)) for a in products]
    inspection = inspect(model, words(), layer=1, **ASKED)
    check(inspection, products, draws)
    assert inspection.sentences()[0] == "read from the whole model: Layer1 does not cover 'lfm2'"
    with pytest.raises(UnsupportedModelError, match=r"cannot act on the activated gate: use site='product' or 'up'$"):
        inspect(model, words(), layer=1, prompt=PROMPTS)


@pytest.mark.slow
def test_a_product_that_attach_does_not_reach_is_refused_with_its_reason_and_without_advice_on_shared_experts():
    model = tiny("llama4", families=ROUTED_FAMILIES)
    with pytest.raises(UnsupportedModelError, match=r"a row of the product belongs .* another site, another layer$"):
        inspect(model, words(), layer=1, **ASKED)


@pytest.mark.slow
def test_tables_figure_and_json_name_the_site_and_only_there():
    model = tiny()
    product, gate = (inspect(model, words(), **ASKED | {"site": site}) for site in ("product", "gate"))
    assert str(product.tables()[0].title).startswith("product (input of down) of ")
    assert str(gate.tables()[0].title).startswith("activated gate of ")
    assert product.to_dict()["site"] == "product"
    assert product.to_dict().keys() - gate.to_dict().keys() == {"site"}
    figure = product.figure()
    labels = {axes.get_xlabel() for axes in figure.axes} - {""}
    assert figure.get_suptitle().startswith("Product (input of down) of ")
    assert {label.partition(",")[0] for label in labels} == {"product (input of down)"}


@pytest.mark.slow
def test_arm_attached_at_the_product_is_left_as_it_was():
    model = tiny("deepseek_v2")
    plain = inspect(model, words(), layer=0, **ASKED)
    arm = attach(model, "outward", layers=[0, 1], site="product")
    state = str(model)
    attached = inspect(model, words(), layer=0, **ASKED)
    assert attached.to_dict() == plain.to_dict()
    assert (str(model), arm.state, arm.report()[0]["calls"]) == (state, "attached", 0)
