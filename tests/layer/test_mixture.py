"""The layer of a mixture of experts: its router, its experts, ARM on each expert's gate, and its tensors on disk."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import oracle
from armlet import ARM, Noise, Outward, attach, redistribute
from armlet.attachment.sites import UnsupportedModelError
from armlet.checkpoints.folder import WEIGHTS_FILE, FileShard
from armlet.layer import KVCache
from armlet.layer.decoder import Layer1
from armlet.layer.reading import open_model
from armlet.redistribution.errors import ArgumentError
from families import MIXTURES, prompt, tiny
from tiny_checkpoints import save

LIMIT = 1e-5
LAYER = 1  # has experts in every family of `MIXTURES`
SHARED = ("deepseek_v3", "dots1", "glm4_moe", "qwen2_moe")
each_mixture = pytest.mark.parametrize("family", MIXTURES)
each_shared = pytest.mark.parametrize("family", SHARED)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def layer_of(family):
    """A layer with experts, and x `[2, 9, 32]`."""
    x = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(3))
    return Layer1.from_model(tiny(family), LAYER), x


def with_arm(family, noise, policy=None):
    layer, x = layer_of(family)
    policy = policy or Outward(band=0.5)
    layer.ARM = ARM(policy, width=layer.options.width, layer=LAYER, noise=noise)
    if layer.shared is not None:
        layer.shared.ARM = ARM(policy, width=layer.options.mixture.shared_width, layer=LAYER, noise=noise)
    return layer, x


# --- the flow -------------------------------------------------------------------------------------------------------


@each_mixture
def test_the_trace_holds_router_and_experts_and_recomputes_y(family):
    layer, x = layer_of(family)
    y, t = layer(x, trace=True)
    o = layer.options.mixture
    shared = [f"shared_{name}" for name in ("gate", "activation", "ARM", "up", "multiply", "down", "weight")]
    names = [
        "RMSNorm_2",
        "router",
        "experts",
        "weights",
        "gate",
        "activation",
        "ARM",
        "up",
        "multiply",
        "down",
        "routed",
    ]
    names += [*(shared if o.shared_width else []), "mixture", "RMSNorm_down", "add_2", "y"]
    assert [name for name in t if name in names] == names
    assert t["router"].shape == (2, 9, o.experts)
    assert t["experts"].shape == t["weights"].shape == (2, 9, o.per_token)
    assert t["gate"].shape == t["ARM"].shape == (2, 9, o.per_token, layer.options.width)
    assert all(len(set(row)) == o.per_token for row in t["experts"].flatten(0, 1).tolist())
    assert torch.equal(y, t["add_1"] + t["RMSNorm_down"])
    for token, slot in ((0, 0), (8, 1)):
        expert, row = t["experts"][1, token, slot], t["RMSNorm_2"][1, token]
        assert (t["gate"][1, token, slot] - layer.gate[expert](row)).abs().max() <= LIMIT
        assert (t["down"][1, token, slot] - layer.down[expert](t["multiply"][1, token, slot])).abs().max() <= LIMIT
    routed = sum(t["weights"][..., k, None] * t["down"][..., k, :] for k in range(o.per_token))
    assert (routed - t["routed"]).abs().max() <= LIMIT
    rest = t["shared_weight"] * t["shared_down"] if o.shared_width else 0
    assert (t["mixture"] - t["routed"] - rest).abs().max() <= LIMIT


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "qwen3_moe"])
def test_normalized_weights_add_up_to_their_scale(family):
    layer, x = layer_of(family)
    _, t = layer(x, trace=True)
    total = layer.options.mixture.scale if layer.options.mixture.normalized else t["weights"].sum(-1)
    assert (t["weights"].sum(-1) - total).abs().max() <= LIMIT
    assert torch.equal(t["experts"], t["router"].topk(layer.options.mixture.per_token).indices)


@each_mixture
def test_experts_make_a_difference(family):
    """Without them, agreement with Hugging Face would mean little."""
    layer, x = layer_of(family)
    y, t = layer(x, trace=True)
    assert (y - t["add_1"]).abs().max() > 1000 * LIMIT


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("glm4_moe", {"groups": 1, "groups_per_token": 1}),
        ("glm4_moe", {"normalized": False}),
        ("glm4_moe", {"scale": 1.0}),
        ("glm4_moe", {"score": "softmax"}),
        ("olmoe", {"normalized": True}),
        ("olmoe", {"per_token": 1}),
        ("qwen2_moe", {"shared_weighted": False}),
    ],
)
def test_with_another_router_the_layer_is_another(family, changes):
    layer, x = layer_of(family)
    other = Layer1(replace(layer.options, mixture=replace(layer.options.mixture, **changes)))
    other.load_state_dict(layer.state_dict(), strict=False)
    assert (layer(x) - other(x)).abs().max() > 1000 * LIMIT


@pytest.mark.parametrize(
    "changes", [{"swiglu": (1.702, 0.5)}, {"swiglu": (1.0, 1.0)}, {"swiglu": None}, {"sinks": False}]
)
def test_without_its_options_the_layer_of_gpt_oss_is_another(changes):
    layer, x = layer_of("gpt_oss")
    other = Layer1(replace(layer.options, **changes))
    other.load_state_dict(layer.state_dict(), strict=False)
    assert (layer(20 * x) - other(20 * x)).abs().max() > 1000 * LIMIT


# --- ARM ------------------------------------------------------------------------------------------------------------


@each_mixture
def test_a_row_is_one_token_in_one_expert_with_its_channels_of_the_noise(family):
    noise = Noise(seed=5, stream=2)
    layer, x = with_arm(family, noise)
    positions = torch.arange(9) + torch.tensor([[0], [40]])
    _, t = layer(x, positions, trace=True)
    f = layer.options.width
    for b, s, k in [(0, 0, 0), (0, 5, 1), (1, 8, 1), (1, 2, 0)]:
        expert = int(t["experts"][b, s, k])
        channels = range(expert * f, (expert + 1) * f)
        u = torch.tensor([oracle.uniform(int(positions[b, s]), channel, 5, 2, LAYER) for channel in channels])
        expected = redistribute(t["activation"][b, s, k], layer.ARM.policy, noise=u)
        assert torch.equal(t["ARM"][b, s, k], expected)
        assert not torch.equal(expected, t["activation"][b, s, k])


@each_shared
def test_the_shared_expert_has_the_arm_of_a_dense_mlp(family):
    layer, x = with_arm(family, Noise(5))
    _, t = layer(x, trace=True)
    arm = ARM(layer.ARM.policy, width=layer.options.mixture.shared_width, layer=LAYER, noise=Noise(5))
    assert torch.equal(t["shared_ARM"], arm(t["shared_activation"]))
    assert layer.shared.ARM.report()["tokens"] == 2 * 9


@each_mixture
def test_arm_in_the_layer_does_what_attach_does_to_the_model(family):
    """Differences are those of the layer without ARM: float32, in another order of sums."""
    model, noise = tiny(family), Noise(seed=5, stream=2)
    layer, _ = with_arm(family, noise)
    states = list[torch.Tensor]()
    hook = model.model.layers[LAYER].register_forward_hook(
        lambda _module, inputs, output: states.extend((inputs[0], output[0] if isinstance(output, tuple) else output))
    )
    with attach(model, layer.ARM.policy, layers=LAYER, noise=noise) as attachment:
        model(prompt(9))
        rows = attachment.report()[LAYER]["tokens"]
    hook.remove()
    x, y = states
    assert (layer(x) - y).abs().max() <= LIMIT < (Layer1.from_model(model, LAYER)(x) - y).abs().max()
    shared = layer.shared.ARM.report()["tokens"] if layer.shared is not None else 0
    assert rows == layer.ARM.report()["tokens"] + shared


@pytest.mark.slow
@each_mixture
def test_with_arm_a_text_in_pieces_or_padded_gives_what_it_gives_at_once(family):
    layer, x = with_arm(family, Noise(7))
    whole, cache = layer(x), KVCache()
    pieces = torch.cat([layer(piece, cache=cache) for piece in x.split([4, 1, 4], dim=1)], dim=1)
    padded = layer(torch.cat((x.new_ones(2, 3, 32), x), 1), mask=torch.tensor([[0] * 3 + [1] * 9] * 2))[:, 3:]
    assert (pieces - whole).abs().max() <= LIMIT
    assert (padded - whole).abs().max() <= LIMIT


def test_the_report_counts_the_rows_of_experts_without_padding():
    layer, x = with_arm("mixtral", Noise(7))
    _, t = layer(x, mask=torch.tensor([[1] * 6 + [0] * 3, [1] * 9]), trace=True)
    report = layer.ARM.report()
    moved = (t["ARM"] != t["activation"])[torch.tensor([[1] * 6 + [0] * 3, [1] * 9]).bool()].sum()
    assert report["calls"] == 1
    assert report["tokens"] == (6 + 9) * 2
    assert report["moved"] == pytest.approx(int(moved), abs=2)  # a draw may equal the value
    assert torch.equal(t["ARM"][0, 6:], t["activation"][0, 6:])


def test_midpoint_and_fresh_noise_draw_for_each_row():
    for noise in (Noise.midpoint(), Noise.fresh(torch.Generator().manual_seed(1))):
        layer, x = with_arm("olmoe", noise)
        _, t = layer(x, trace=True)
        assert not torch.equal(t["ARM"], t["activation"])


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"scope": "sequence"}, "scope 'sequence' has no meaning in a mixture of experts"),
        ({"scope": "call"}, "use scope 'token'"),
        ({"width": 17}, r"expected values of width 17, found shape \[2, 18, 48\]"),
    ],
)
def test_an_arm_that_does_not_fit_experts_is_refused(arm, message):
    layer, x = layer_of("mixtral")
    layer.ARM = ARM(Outward(), **({"width": layer.options.width} | arm))
    with pytest.raises(ArgumentError, match=message):
        layer(x)


# --- on disk --------------------------------------------------------------------------------------------------------

RELEASED = {
    "deepseek_v3": (
        "self_attn.kv_a_proj_with_mqa.weight",
        "mlp.experts.0.up_proj.weight",
        "mlp.shared_experts.down_proj.weight",
    ),
    "dots1": (
        "mlp.experts.3.gate_proj.weight",
        "mlp.gate.e_score_correction_bias",
        "mlp.shared_experts.up_proj.weight",
    ),
    "glm4_moe": ("mlp.experts.7.down_proj.weight", "mlp.gate.e_score_correction_bias"),
    "gpt_oss": ("mlp.experts.gate_up_proj", "mlp.experts.down_proj_bias", "mlp.router.bias", "self_attn.sinks"),
    "mixtral": ("block_sparse_moe.experts.0.w1.weight", "block_sparse_moe.gate.weight"),
    "olmoe": ("mlp.experts.5.up_proj.weight", "mlp.gate.weight"),
    "qwen2_moe": (
        "mlp.experts.0.gate_proj.weight",
        "mlp.shared_expert_gate.weight",
        "mlp.shared_expert.up_proj.weight",
    ),
    "qwen3_moe": ("mlp.experts.0.down_proj.weight", "mlp.gate.weight"),
}
"""Family → names of tensors, after "model.layers.1.", in released checkpoints."""


@pytest.mark.slow
@each_mixture
def test_experts_are_read_one_by_one_and_fused(family, tmp_path):
    model = tiny(family)
    model.save_pretrained(tmp_path)
    assert {f"model.layers.{LAYER}.{name}" for name in RELEASED[family]} <= load_file(tmp_path / WEIGHTS_FILE).keys()
    expected = Layer1.from_model(model, LAYER).state_dict()
    for fused in (False, True):
        if fused:
            tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
            save_file(tensors, tmp_path / WEIGHTS_FILE, metadata={"format": "pt"})
        ours = Layer1.from_checkpoint(tmp_path, LAYER).state_dict()
        assert ours.keys() == expected.keys() - {"embedding.weight"}
        assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.items())


def test_only_the_tensors_of_the_layer_are_read(tmp_path, monkeypatch):
    tiny("mixtral").save_pretrained(tmp_path)
    names = []
    read = FileShard.tensor
    monkeypatch.setattr(FileShard, "tensor", lambda self, name, *args: names.append(name) or read(self, name, *args))
    Layer1.from_checkpoint(tmp_path, LAYER)
    assert len(names) == len(set(names)) == 4 + 2 + 1 + 3 * 6
    assert all(name.startswith(f"model.layers.{LAYER}.") for name in names)


def test_the_bias_of_the_choice_keeps_its_dtype(tmp_path):
    """In bfloat16, biases that differ by less than 1/256 of their size could not be told apart."""
    tiny("glm4_moe").bfloat16().save_pretrained(tmp_path)
    name = f"model.layers.{LAYER}.mlp.gate.e_score_correction_bias"
    bias = torch.linspace(8, 8.01, 8)
    save_file(load_file(tmp_path / WEIGHTS_FILE) | {name: bias}, tmp_path / WEIGHTS_FILE, metadata={"format": "pt"})
    layer = Layer1.from_checkpoint(tmp_path, LAYER)
    assert torch.equal(layer.router.e_score_correction_bias, bias)
    assert layer.Q.weight.dtype == torch.bfloat16


def test_missing_and_unknown_experts_are_named_and_counted():
    model = tiny("olmoe")
    tensors = model.model.layers[0].state_dict()
    lacking = {name: tensor for name, tensor in tensors.items() if "experts" not in name}
    with pytest.raises(UnsupportedModelError, match=r"'mlp.experts.0.down_proj.weight'.*\(18 in all\).* are missing"):
        Layer1.from_tensors(model.config, lacking)
    fewer = tensors | {"mlp.experts.gate_up_proj": tensors["mlp.experts.gate_up_proj"][:5]}
    with pytest.raises(UnsupportedModelError, match=r"5.gate_proj.weight', 'mlp.experts.5.up_proj.weight'\]"):
        Layer1.from_tensors(model.config, fewer)


def test_the_configuration_says_which_layers_have_experts(tmp_path):
    folder = str(save(tmp_path / "qwen", "qwen3_moe"))
    assert json.loads((tmp_path / "qwen" / "config.json").read_text())["mlp_only_layers"] == [0]
    dense, routed = open_model(folder, last=1).layers()
    assert dense.options.mixture is None
    assert routed.options.mixture.experts == 6


def test_prompts_of_no_token_pass():
    layer, x = with_arm("mixtral", Noise(1))
    assert layer(x[:, :0]).shape == (2, 0, 32)
    assert layer.embed(prompt(3)).shape == (1, 3, 32)
