"""Gated MLPs of unusual structure: nested, beside a recurrent block, with an activation that is a function."""

import copy

import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn import functional as F

from armlet import Noise, Outward, attach, redistribute
from armlet.attachment.attached import detach
from armlet.attachment.handle import AlreadyAttachedError
from armlet.attachment.sites import UnsupportedModelError, find_decoder
from attached import anatomy, each_site
from families import COMMON, prompt, tiny
from multimodal import IMAGE, VISION

POLICY, NOISE = Outward(share=(0.2, 0.5)), Noise(4)

FUNCTIONAL = {"conv_L_cache": 3, "layer_types": ["conv", "full_attention", "conv"]}
RECURRENT = {"lru_width": 32, "head_dim": 8, "attention_window_size": 16, "intermediate_size": 96}
NESTED = {
    "num_hidden_layers": 4,
    "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
    "n_mamba_heads": 8,
    "mamba_d_state": 8,
    "adapter_rank": 4,
    "chunk_size": 16,
}
STRUCTURES = {
    "lfm2": (hf.Lfm2Config, FUNCTIONAL | {"block_auto_adjust_ff_dim": False}),
    "lfm3": (getattr(hf, "Lfm3Config", None), FUNCTIONAL | {"head_dim": 8}),
    "lfm2_moe": (hf.Lfm2MoeConfig, FUNCTIONAL | {"num_dense_layers": 2, "num_experts": 4, "moe_intermediate_size": 16}),
    "modernbert": (hf.ModernBertDecoderConfig, {"local_attention": 8, "sep_token_id": 2, "cls_token_id": 1}),
    "recurrent_gemma": (hf.RecurrentGemmaConfig, RECURRENT),
    "zamba2": (hf.Zamba2Config, NESTED),
}
CASES = [  # family, layer, site, name of the module there
    ("lfm2", 1, "product", "feed_forward.w2"),
    ("lfm3", 0, "product", "feed_forward.w2"),
    ("lfm2_moe", 0, "product", "feed_forward.w2"),
    ("modernbert", 2, "gate", "mlp.act"),
    ("modernbert", 0, "product", "mlp.Wo"),
    ("recurrent_gemma", 0, "gate", "mlp_block.act_fn"),
    ("recurrent_gemma", 0, "product", "mlp_block.down_proj"),
    ("zamba2", 1, "gate", "shared_transformer.feed_forward.act_fn"),
    ("zamba2", 3, "product", "shared_transformer.feed_forward.down_proj"),
]
FAMILIES = [family for family, (config, _) in STRUCTURES.items() if config]  # older transformers have no LFM3
CASES = [case for case in CASES if case[0] in FAMILIES]


def structured(family):
    return tiny(family, families=STRUCTURES)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "layer", "site", "name"), CASES)
def test_arm_acts_where_a_hook_by_hand_does(family, layer, site, name):
    model, ids = structured(family), prompt(9, batch=2)
    module = find_decoder(model)[1][layer].get_submodule(name)
    before = anatomy(model)

    def moved(a):
        noise = NOISE.uniforms(a.shape, torch.arange(9)[None], NOISE.keys(a.shape[-1], layer))
        return redistribute(a, POLICY, noise=noise)

    with torch.no_grad():
        baseline = model(ids, use_cache=False).logits
        if site == "gate":
            handle = module.register_forward_hook(lambda _module, _args, output: moved(output))
        else:
            handle = module.register_forward_pre_hook(lambda _module, args: moved(args[0]))
        expected = model(ids, use_cache=False).logits
        handle.remove()
        with attach(model, POLICY, layers=layer, site=site, noise=NOISE) as attachment:
            assert torch.equal(model(ids, use_cache=False).logits, expected)
            assert attachment.report()[layer]["tokens"] == 18
            model.generate(ids, max_new_tokens=3, do_sample=False)
        assert torch.equal(model(ids, use_cache=False).logits, baseline)
    assert anatomy(model) == before
    assert not torch.equal(expected, baseline)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.startswith("lfm")])
def test_an_activation_inside_a_forward_is_refused_at_the_gate_with_the_site_that_works(family):
    with pytest.raises(UnsupportedModelError, match=r"ForCausalLM, layer 0: Lfm\w+MLP computes its .* site='product'"):
        attach(structured(family), Outward())


def test_a_mamba_layer_of_a_hybrid_is_refused():
    with pytest.raises(UnsupportedModelError, match="Zamba2ForCausalLM, layer 0: expected one gated MLP"):
        attach(structured("zamba2"), Outward(), layers="all")


@each_site
@pytest.mark.parametrize("shape", [{}, {"intermediate_size": 32}], ids=["wide", "as wide as the model"])
def test_an_activation_that_is_a_function_is_treated_as_a_module(site, shape):
    model, ids = tiny(**shape), prompt(6)
    with torch.no_grad(), attach(model, POLICY, layers="all", site=site):
        expected = model(ids).logits
    for layer in model.model.layers:
        del layer.mlp.act_fn
        layer.mlp.act_fn = F.silu
    before = anatomy(model)
    with torch.no_grad(), attach(model, POLICY, layers="all", site=site):
        assert torch.equal(model(ids).logits, expected)
        assert torch.equal(copy.deepcopy(model)(ids).logits, expected)
    assert anatomy(model) == before
    assert all(layer.mlp.act_fn is F.silu for layer in model.model.layers)


class Written(nn.Module):
    """A decoder of hand-written layers with three linears each."""

    class Layer(nn.Module):
        class Mlp(nn.Module):
            def __init__(self, combine):
                super().__init__()
                self.first, self.second, self.third = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
                self.dropout, self.combine = nn.Dropout(0.5), combine

            def forward(self, x):
                return self.third(self.dropout(self.combine(self.first(x), self.second(x))))

        def __init__(self, combine):
            super().__init__()
            self.mlp = self.Mlp(combine)

        def forward(self, x):
            return x + self.mlp(x)

    def __init__(self, combine):
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.layers = nn.ModuleList([self.Layer(combine) for _ in range(2)])

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return x


GATED = {
    "silu": lambda gate, up: F.silu(gate) * up,
    "up first": lambda up, gate: up * F.gelu(gate),
    "relu squared": lambda gate, up: F.relu(gate).square() * up,
}
NOT_GATED = {
    "sum": lambda gate, up: F.silu(gate) + up,
    "no activation": lambda gate, up: gate * up,
    "two activations": lambda gate, up: F.silu(gate) * F.silu(up),
    "over channels": lambda gate, up: torch.softmax(gate, -1) * up,
    "scan": lambda gate, up: F.silu(gate).cumsum(-1) * up,
    "part": lambda gate, up: F.silu(gate)[..., :4] * up[..., :4],
}


@pytest.mark.parametrize("combine", GATED.values(), ids=GATED)
def test_a_product_in_any_order_is_found_and_no_random_number_is_used(combine):
    model, state = Written(combine).train(), torch.get_rng_state()
    with attach(model, Outward(), layers="all", site="product") as attachment:
        assert torch.equal(torch.get_rng_state(), state)
        model(torch.tensor([[1, 2, 3]]))
        assert attachment.report()[1]["tokens"] == 3


class Clamped(nn.Module):
    """A gated MLP with clamps, and with its activation in its code."""

    def __init__(self, *, alpha=1.702, scale=1.0, dropout=0.0, fused=False):
        super().__init__()
        self.linears = 1 if fused else 2
        if fused:
            self.gate_up = nn.Linear(8, 24)
        else:
            self.up, self.gate = nn.Linear(8, 12), nn.Linear(8, 12)
        self.down = nn.Linear(12, 8)
        if dropout:
            self.dropout = nn.Dropout(dropout)
        self.limit, self.alpha, self.slope, self.scale = 0.25, 1.702, alpha, scale

    def product(self, x, move=lambda gate: gate):
        gate, up = (self.gate(x), self.up(x)) if self.linears == 2 else self.gate_up(x).chunk(2, -1)
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return (up + 1) * move(gate * torch.sigmoid(gate * self.slope))

    def forward(self, x):
        output = self.down(self.product(x))
        return output if self.scale == 1 else output * self.scale


def written(**changes):
    model = Written(None)
    for layer in model.layers:
        layer.mlp = Clamped(**changes)
    return model


@pytest.mark.parametrize("fused", [False, True])
def test_a_gate_in_the_code_of_forward_is_reached_where_the_code_has_a_known_formula(fused):
    model, ids = written(fused=fused), torch.tensor([[1, 2, 3]])
    before, baseline = anatomy(model), model(ids)
    x = model.embed(ids)
    for index, layer in enumerate(model.layers):
        keys = NOISE.keys(12, index)
        x = x + layer.mlp.down(
            layer.mlp.product(
                x,
                lambda gate, keys=keys: redistribute(
                    gate, POLICY, noise=NOISE.uniforms(gate.shape, torch.arange(3)[None], keys)
                ),
            )
        )
    with attach(model, POLICY, layers="all", noise=NOISE):
        treated = model(ids)
        assert torch.equal(treated, x)
        assert list(model.state_dict()) == before[1]
        with pytest.raises(AlreadyAttachedError, match="layer 0 already has ARM at the site gate"):
            attach(model, POLICY)
        with attach(model, POLICY, site="up"), attach(model, POLICY, site="product"):
            assert not torch.equal(model(ids), treated)
        twin = copy.deepcopy(model)
        assert torch.equal(twin(ids), treated)
        detach(twin)
        assert torch.equal(twin(ids), baseline)
        assert anatomy(twin) == before
    assert torch.equal(model(ids), baseline)
    assert anatomy(model) == before


def test_a_gate_in_the_code_of_forward_follows_the_module_s_limit_and_takes_its_argument_by_name():
    model, ids = written(), torch.tensor([[1, 2, 3]])
    for layer in model.layers:
        layer.forward = lambda x, layer=layer: x + layer.mlp(x=x)
    with attach(model, Outward(strength=0.0), layers="all") as attachment:
        for limit in (0.25, 0.1):
            for layer in model.layers:
                layer.mlp.limit = limit
            with attachment.paused():
                expected = model(ids)
            assert torch.equal(model(ids), expected)


def test_a_gate_in_the_code_of_forward_is_left_exactly_below_a_later_hook_of_accelerate():
    hooks = pytest.importorskip("accelerate.hooks")
    model, ids = written(), torch.tensor([[1, 2, 3]])
    before, baseline, mlp = anatomy(model), model(ids), model.layers[0].mlp
    attachment = attach(model, POLICY)
    treated = model(ids)
    hooks.add_hook_to_module(mlp, hooks.ModelHook())
    assert torch.equal(model(ids), treated)
    with pytest.raises(AlreadyAttachedError, match="layer 0 already has ARM at the site gate"):
        attach(model, POLICY, layers="all")
    attachment.detach()
    assert torch.equal(model(ids), baseline)
    hooks.remove_hook_from_module(mlp)
    assert torch.equal(model(ids), baseline)
    assert anatomy(model) == before


@pytest.mark.parametrize("change", [{"alpha": 1.7021}, {"scale": 0.5}, {"dropout": 0.1}], ids=str)
def test_a_gate_in_the_code_of_forward_is_refused_where_the_code_does_more_or_anything_else(change):
    model = written(**change)
    with pytest.raises(UnsupportedModelError, match="computes its activation inside its forward"):
        attach(model, POLICY)
    with attach(model, POLICY, site="product") as attachment:
        model(torch.tensor([[1, 2, 3]]))
        assert attachment.report()[0]["tokens"] == 3


@pytest.mark.parametrize("combine", NOT_GATED.values(), ids=NOT_GATED)
def test_three_linears_without_a_gated_product_are_no_gated_mlp(combine):
    for site in ("gate", "product"):
        with pytest.raises(UnsupportedModelError, match=r"Written, layer 0: expected one gated MLP .* found 0 in Mlp"):
            attach(Written(combine), Outward(), site=site)


def test_layers_that_share_one_mlp_are_refused():
    model = tiny()
    model.model.layers[2].mlp = model.model.layers[0].mlp
    with pytest.raises(UnsupportedModelError, match=r"LlamaForCausalLM, layer 0: layers \[0, 2\] share one LlamaMLP"):
        attach(model, Outward())
    attach(model, Outward(), layers=1).detach()


# --- the decoder, and where none can be told -------------------------------------------------------------------------


class Towers(nn.Module):
    """Two decoders, of which nothing says which one reads the text."""

    def __init__(self):
        super().__init__()
        self.action, self.text = tiny().model, tiny(seed=1).model


def test_two_towers_are_refused_and_each_can_be_attached_to():
    model = Towers()
    with pytest.raises(UnsupportedModelError, match=r"layer 0: action and text have .* attach\(model.action, ...\)"):
        attach(model, Outward())
    with attach(model.text, Outward()) as attachment:
        model.text(prompt(4))
        assert attachment.report()[0]["tokens"] == 4


def test_a_decoder_with_a_tower_inside_is_found():
    class WithTower(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder, self.head = Written(GATED["silu"]), nn.Linear(8, 16)
            self.decoder.tower = tiny().model

    model = WithTower()
    assert find_decoder(model)[1] is model.decoder.layers


def test_a_decoder_inside_other_modules_is_found():
    class Parallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    model = tiny()
    assert find_decoder(Parallel(model))[0] is model.model


@pytest.mark.slow
def test_the_action_expert_of_a_robot_model_is_not_taken_for_its_text_decoder():
    text = {**COMMON, "head_dim": 8, "model_type": "gemma"}
    vision = VISION | {"patch_size": 8, "vision_use_head": False, "model_type": "siglip_vision_model"}
    language = {"model_type": "paligemma", "text_config": text, "vision_config": vision, "image_token_index": IMAGE}
    model = hf.PI0ForConditionalGeneration(
        hf.PI0Config(vlm_config=language | {"projection_dim": 32, "hidden_size": 32}, dit_config=text)
    )
    with pytest.raises(
        UnsupportedModelError, match=r"layer 0: model.dit and model.vlm have .* attach\(model.model.dit"
    ):
        attach(model, Outward())
    assert find_decoder(model.model.vlm)[0] is model.model.vlm.language_model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            hf.HrmTextConfig(**COMMON | {"num_layers_per_stack": 2}),
            "L_module and model.H_module have layers of their own",
        ),
        (
            hf.xLSTMConfig(vocab_size=64, hidden_size=64, num_heads=4, num_hidden_layers=2),
            "no argument (position_ids|cache)",
        ),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_a_decoder_that_cannot_give_positions_is_refused_at_attach(config, message):
    model = hf.AutoModelForCausalLM.from_config(config)
    before = anatomy(model)
    for site in ("gate", "product"):
        with pytest.raises(UnsupportedModelError, match=message):
            attach(model, Outward(), site=site)
    assert anatomy(model) == before
