"""Gated MLPs are found by structure, and what is none is refused with what was found and what to do."""

import numpy as np
import pytest
import torch
import transformers as hf
from torch import nn

from armlet import Outward, attach, detach
from armlet.attachment.sites import UnsupportedModelError, find_decoder, find_sites
from armlet.redistribution.errors import ArgumentError
from families import COMMON, FAMILIES, tiny

DENSE = [family for family in FAMILIES if family != "deepseek_v3"]


@pytest.mark.parametrize("family", DENSE)
def test_every_layer_of_a_dense_family_has_a_site(family):
    model = tiny(family)
    sites = find_sites(model, "all")
    assert [site.layer for site in sites] == [0, 1, 2]
    for site in sites:
        assert site.width == 48
        assert site.mlp is find_decoder(model)[1][site.layer].mlp
        assert site.module(torch.zeros(1, site.width)).shape == (1, site.width)


@pytest.mark.parametrize("family", DENSE)
def test_at_the_site_product_stands_the_linear_that_leads_back_to_the_model(family):
    for changes in ({}, {"intermediate_size": 32}, {"intermediate_size": 64}):
        model = tiny(family, **changes)
        width = changes.get("intermediate_size", 48)
        for site in find_sites(model, "all", "product"):
            assert site.attribute == "down_proj"
            assert site.module is site.mlp.down_proj
            assert (site.site, site.width) == ("product", width)


@pytest.mark.parametrize("site", ["down", "Gate", "", None, ["gate"]])
def test_a_site_that_does_not_exist_is_refused_in_one_line(site):
    with pytest.raises(ArgumentError, match=r"^site: expected gate, up or product, found ") as caught:
        attach(tiny(), Outward(), site=site)
    assert "\n" not in str(caught.value)


def test_a_mixture_of_experts_has_a_single_site_in_its_dense_first_layer_alone():
    model = tiny("deepseek_v3")
    assert [site.layer for site in find_sites(model)] == [0]
    for layers in ([1], [0, 1], "all"):
        with pytest.raises(UnsupportedModelError) as caught:
            find_sites(model, layers)
        message = str(caught.value)
        for part in ("DeepseekV3ForCausalLM", "layer 1", "DeepseekV3MoE", "mixture of experts", "choose other layers"):
            assert part in message


def test_shared_experts_beside_a_mixture_are_no_site():
    config = hf.Qwen2MoeConfig(**COMMON, moe_intermediate_size=16, shared_expert_intermediate_size=24, num_experts=4)
    with pytest.raises(UnsupportedModelError, match="Qwen2MoeForCausalLM, layer 0: Qwen2MoeSparseMoeBlock"):
        find_sites(hf.AutoModelForCausalLM.from_config(config))


def test_a_model_without_a_gated_mlp_is_refused_with_the_line_to_add():
    model = hf.GPT2LMHeadModel(
        hf.GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=64, bos_token_id=1, eos_token_id=2)
    )
    with pytest.raises(UnsupportedModelError) as caught:
        attach(model, Outward())
    message = str(caught.value)
    for part in ("GPT2LMHeadModel", "layer 0", "GPT2MLP(c_fc, c_proj, act, dropout)", "`act = arm(act)`", "armlet.ARM"):
        assert part in message
    assert "\n" not in message


def test_a_module_without_layers_is_refused():
    with pytest.raises(UnsupportedModelError, match="Linear, layer 0: no list of decoder layers"):
        attach(nn.Linear(2, 2), Outward())


@pytest.mark.parametrize("layers", [3, -1, [0, 7], "first", 1.5, True, [None], [], None])
def test_layers_that_do_not_exist_are_refused(layers):
    with pytest.raises(ArgumentError, match="layers:"):
        attach(tiny(), Outward(), layers=layers)


def test_layers_are_an_index_or_several_or_all():
    model = tiny()
    for layers, expected in (
        (2, [2]),
        ([2, 0, 2], [0, 2]),
        (range(1, 3), [1, 2]),
        (np.arange(2), [0, 1]),
        ("all", [0, 1, 2]),
    ):
        assert attach(model, Outward(), layers=layers).layers == expected
        detach(model)


class HandWritten(nn.Module):
    """A decoder that is not from transformers: other names, the same structure."""

    class Block(nn.Module):
        class FeedForward(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.w1, self.w2, self.w3 = nn.Linear(8, width), nn.Linear(width, 8), nn.Linear(8, width)
                self.swish, self.drop = nn.SiLU(), nn.Dropout(0.1)

            def forward(self, x):
                return self.w2(self.swish(self.w1(x)) * self.w3(x))

        def __init__(self, width):
            super().__init__()
            self.feed_forward = self.FeedForward(width)

        def forward(self, x):
            return x + self.feed_forward(x)

    def __init__(self, width=12):
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.blocks = nn.ModuleList([self.Block(width) for _ in range(2)])

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("site", ["gate", "product"])
def test_structure_counts_and_names_do_not(site):
    model = HandWritten()
    with attach(model, Outward(), layers="all", site=site) as attachment:
        model(torch.tensor([[1, 2, 3]]))
        assert [report["tokens"] for report in attachment.report().values()] == [3, 3]


def test_linears_of_one_shape_are_told_apart_by_name_or_refused():
    model = HandWritten(width=8)
    with attach(model, Outward()):  # the gate's activation is where it is
        pass
    with pytest.raises(UnsupportedModelError, match=r"layer 0: w1, w2, w3 have the same shape") as caught:
        attach(model, Outward(), site="product")
    assert "`product = arm(product)` before down" in str(caught.value)
    assert "\n" not in str(caught.value)
