"""`Layer1` agrees with Hugging Face for every family and its options, with ARM, prefilled and decoded."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from armlet import ARM, Cut, Inward, Noise, Outward, Transport, attach
from armlet.attachment.positions import cache_argument
from armlet.attachment.sites import UnsupportedModelError
from armlet.checkpoints.checkpoint import open_checkpoint
from armlet.layer import KVCache
from armlet.layer.decoder import Layer1
from armlet.layer.diagram import PARTS
from armlet.layer.families import FAMILIES as COVERED
from armlet.redistribution.errors import ArgumentError
from families import FAMILIES, MIXTURES, WITH_TOWERS, prompt, tiny
from fresh_interpreter import loaded_beyond_torch

DENSE = [*(family for family in FAMILIES if family != "deepseek_v3"), *WITH_TOWERS]
FAMILY_NAMES = [*DENSE, *MIXTURES]
POLICIES = [Outward(), Inward(knee=0.9), Transport(), Cut()]
each_family = pytest.mark.parametrize("family", FAMILY_NAMES)
each_dense_family = pytest.mark.parametrize("family", DENSE)
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)

LIMIT = 1e-5

LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}
MSCALE = {"mscale": 1.0, "mscale_all_dim": 0.7}
SMALLER_HEADS = {"v_head_dim": 4, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "kv_lora_rank": 12}
GEMMA3_ROPE = {
    "rope_parameters": {"full_attention": LINEAR, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
    "sliding_window_pattern": 2,  # every second layer sees everything
}
MULTIPLIERS = {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.25}
LISTED = {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "sliding_window": 7}
UNLISTED = {"layer_types": ["full_attention"] * 3, "sliding_window": None}
UPPER_WINDOW = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
NOPE = {"no_rope_layers": [1, 0, 1]}

# family, changes of its configuration, layer, and the option of the layer that they set.
CASES = {
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}, 1, "output_bias"),
    "wide heads": ("llama", {"head_dim": 16}, 1, None),
    "one head for keys": ("llama", {"num_key_value_heads": 1}, 1, None),
    "RoPE llama3": ("llama", {"rope_parameters": LLAMA3}, 1, "frequencies"),
    "RoPE linear": ("llama", {"rope_parameters": LINEAR}, 1, "frequencies"),
    "RoPE yarn": ("qwen3", {"rope_parameters": YARN}, 1, "rope_scale"),
    "RoPE yarn, attention factor": ("mistral", {"rope_parameters": YARN | {"attention_factor": 1.7}}, 0, "rope_scale"),
    "RoPE of one kind of attention": ("gemma3", GEMMA3_ROPE, 1, "frequencies"),
    "window of the upper layers": ("qwen2", UPPER_WINDOW, 1, "window"),
    "window of all layers": ("mistral", {"sliding_window": 7}, 1, "window"),
    "window of Phi-3": ("phi3", {"sliding_window": 7}, 0, "window"),
    "soft cap": ("gemma2", {"attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 8}, 1, "softcap"),
    "partial RoPE": ("phi3", {"partial_rotary_factor": 0.5}, 1, "frequencies"),
    "multipliers": ("granite", MULTIPLIERS, 1, "residual_scale"),
    "norms of heads": ("cohere", {"use_qk_norm": True}, 1, "qk_norm"),
    "biases of Q, K and V": ("stablelm", {"use_qkv_bias": True}, 1, "qkv_bias"),
    "parallel blocks": ("stablelm", {"use_parallel_residual": True}, 1, "parallel"),
    "no RoPE": ("smollm3", NOPE, 1, "frequencies"),
    "window without RoPE": ("smollm3", NOPE | UPPER_WINDOW, 1, "window"),
    "no RoPE without a window": ("cohere2", LISTED, 0, "frequencies"),
    "listed window": ("ministral", LISTED, 1, "window"),
    "partial RoPE of neighbours": ("glm4", {"partial_rotary_factor": 0.25}, 1, "frequencies"),
    "one key for all biases": ("ernie4_5", {"use_bias": True}, 1, "mlp_bias"),
    "no RoPE of EXAONE 4": ("exaone4", LISTED, 2, "frequencies"),
    "RoPE of EXAONE 4 without windows": ("exaone4", UNLISTED, 1, "frequencies"),
    "limit of Q, K and V": ("olmoe", {"clip_qkv": 0.3}, 1, "clip"),
    "Q without a short vector": ("deepseek_v3", {"q_lora_rank": None}, 1, "latent"),
    "biases of short vectors": ("deepseek_v3", {"attention_bias": True}, 1, "output_bias"),
    "heads of V of another size": ("deepseek_v3", SMALLER_HEADS, 1, "latent"),
    "halves rotated": ("deepseek_v3", {"rope_interleave": False}, 1, "interleaved"),
    "RoPE yarn of latent attention": ("deepseek_v3", {"rope_parameters": YARN | MSCALE}, 1, "attention_scale"),
    "sinks": ("gpt_oss", LISTED, 1, None),
    "experts in every second layer": ("qwen3_moe", {"decoder_sparse_step": 2, "mlp_only_layers": []}, 0, None),
    "weights of experts as they are": ("qwen2_moe", {"norm_topk_prob": False}, 1, "mixture"),
    "norm of heads as an option": ("glm4_moe", {"use_qk_norm": False}, 1, "qk_norm"),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)

TRACE_LABELS: dict[str, str] = {
    "x": "x", "RMSNorm_1": "RMSNorm", "Q": "Q", "K": "K", "V": "V", "RoPE": "RoPE", "Attention": "Attention",
    "Output": "Output", "add_1": "⊕", "RMSNorm_2": "RMSNorm", "gate": "gate", "activation": "SiLU", "ARM": "ARM",
    "up": "up", "multiply": "⊗", "down": "down", "add_2": "⊕", "y": "y",
}  # fmt: skip
"""Attribute of `Layer1` and key of its trace → label in the figure, in the order of the flow."""


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def model_of(family, **changes):
    """A tiny model with attention in plain operations, whose norms and biases matter."""
    model = tiny(family, **changes)
    model.set_attn_implementation("eager")
    if family in MIXTURES:
        model.set_experts_implementation("eager")  # the others cannot run in float64
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 1 or parameter.shape[0] <= 4:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    for name, buffer in model.named_buffers():
        if "e_score" in name:
            buffer.add_(0.3 * torch.randn(buffer.shape, generator=generator))
    return model


def in_and_out(model, layer, *, x=None, **inputs):
    """What goes into one of Hugging Face's layers (x in its place, if given) and what comes out, in one call."""
    seen = {}
    target = model.get_decoder().layers[layer]

    def before(_module, args):
        seen["x"] = args[0] if x is None else x
        return (seen["x"], *args[1:])

    hooks = [
        target.register_forward_pre_hook(before),
        target.register_forward_hook(lambda _module, _args, out: seen.update(y=out)),
    ]
    output = model(**inputs)
    for hook in hooks:
        hook.remove()
    return seen["x"], seen["y"], output


def difference(one, other):
    return (one - other).abs().max().item()


# --- ours and theirs ------------------------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("index", [0, 1])
def test_the_layer_is_that_of_hugging_face(family, index, record_property):
    model = model_of(family)
    x, theirs, _ = in_and_out(model, index, input_ids=prompt(40, batch=2))
    found = difference(Layer1.from_model(model, index)(x), theirs)
    record_property("largest difference", found)
    assert found <= LIMIT


@each_case
def test_every_option_is_that_of_hugging_face(case, record_property):
    family, changes, index, option = case
    model = model_of(family, **changes)
    ours = Layer1.from_model(model, index)
    if option is not None:
        assert getattr(ours.options, option) != getattr(Layer1.from_model(model_of(family), index).options, option)
    x, theirs, _ = in_and_out(model, index, input_ids=prompt(40, batch=2))
    found = difference(ours(x), theirs)
    record_property("largest difference", found)
    assert found <= LIMIT


@pytest.mark.slow
def test_the_cases_cover_every_option():
    found = {}
    for family, changes, index in [(f, {}, 1) for f in FAMILY_NAMES] + [case[:3] for case in CASES.values()]:
        options = Layer1.from_model(model_of(family, **changes), index).options
        for part in filter(None, (options, options.mixture, options.latent)):
            for field in fields(part):
                found.setdefault(field.name, set()).add(getattr(part, field.name))
    constant = {name for name, values in found.items() if len(values) == 1}
    assert constant == {"d_model", "heads"}


@each_family
@pytest.mark.parametrize("index", [0, 1])
def test_in_bfloat16_the_error_is_at_most_twice_theirs(family, index, record_property):
    half = model_of(family)
    for parameter in half.parameters():  # not half.bfloat16(), which would round their frequencies, too
        parameter.data = parameter.bfloat16()
    exact = copy.deepcopy(half)
    for parameter in exact.parameters():
        parameter.data = parameter.double()
    ids = prompt(40, batch=2)
    x, theirs, _ = in_and_out(half, index, input_ids=ids)
    _, reference, _ = in_and_out(exact, index, input_ids=ids, x=x.double())
    ours, trace = Layer1.from_model(half, index)(x, trace=True)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    kept = torch.ones(2, 40, dtype=torch.bool)
    if "experts" in trace:  # where two scores are nearly equal, rounding chooses another expert, in theirs as in ours
        chosen = Layer1.from_model(exact, index)(x.double(), trace=True)[1]["experts"]
        kept = (chosen.sort().values == trace["experts"].sort().values).all(-1)
        assert kept.double().mean() >= 0.95
    errors = [difference(y[kept].double(), reference[kept]) for y in (ours, theirs)]
    record_property("error, ours and theirs", errors)
    assert errors[0] <= 2 * errors[1]


STATELESS = {  # options that no tensor belongs to → what it is without them
    "soft cap": {"softcap": None},
    "window of all layers": {"window": None},
    "RoPE llama3": {"frequencies": ()},
    "RoPE yarn": {"rope_scale": 1.0},
    "multipliers": {"residual_scale": 1.0},
    "norms of heads": {"interleaved": False},
    "parallel blocks": {"parallel": False, "pre_norm": False},
}


@pytest.mark.parametrize(("name", "without"), STATELESS.items(), ids=STATELESS)
def test_without_its_option_the_layer_is_another(name, without):
    family, changes, index, _ = CASES[name]
    model = model_of(family, **changes)
    ours = Layer1.from_model(model, index)
    x, theirs, _ = in_and_out(model, index, input_ids=prompt(40, batch=2))
    other = Layer1(replace(ours.options, **without))
    other.load_state_dict(ours.state_dict(), strict=False)
    if "pre_norm" in without:
        other.RMSNorm_1 = ours.RMSNorm_1
    assert difference(other(x), theirs) > 1000 * LIMIT


@pytest.fixture
def eager_smollm2(smollm2):
    """The model with attention in plain operations, and ids `[1, 69]`."""
    model, tokenizer = smollm2
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    text = "A train covers 60 km in 45 minutes. What is its average speed in km/h? " * 3
    yield model, tokenizer(text, return_tensors="pt").input_ids
    model.set_attn_implementation(usual)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 14])
def test_the_layer_of_smollm2_is_that_of_hugging_face(eager_smollm2, index, record_property):
    model, ids = eager_smollm2
    x, theirs, _ = in_and_out(model, index, input_ids=ids)
    found = difference(Layer1.from_model(model, index)(x), theirs)
    record_property("largest difference, largest value", (found, theirs.abs().max().item()))
    assert found <= LIMIT


@pytest.mark.parametrize("index", [0, 14])
def test_the_layer_of_smollm2_in_bfloat16_has_at_most_twice_their_error(eager_smollm2, index, record_property):
    model, ids = eager_smollm2
    layer, given = model.model.layers[index], {}
    hook = layer.register_forward_pre_hook(lambda _, args, others: given.update(x=args[0], **others), with_kwargs=True)
    model(ids, use_cache=False)
    hook.remove()

    def run(dtype):
        module = copy.deepcopy(layer).bfloat16().to(dtype)
        others = {
            "position_embeddings": tuple(each.to(dtype) for each in given["position_embeddings"]),
            "attention_mask": given["attention_mask"].to(dtype),
        }
        return module.state_dict(), module(given["x"].bfloat16().to(dtype), **others)

    tensors, theirs = run(torch.bfloat16)
    ours = Layer1.from_tensors(model.config, tensors, index)(given["x"].bfloat16())
    _, reference = run(torch.float64)
    errors = difference(ours.double(), reference), difference(theirs.double(), reference)
    record_property("error, ours and theirs", errors)
    assert errors[0] <= 2 * errors[1]


def test_positions_are_those_of_hugging_face():
    model = model_of("llama")
    positions = torch.tensor([[0, 1, 2, 3, 3, 3, 4], [5, 6, 7, 8, 90, 91, 92]])
    inputs = {"position_ids": positions, "attention_mask": torch.ones(2, 7)}
    x, theirs, _ = in_and_out(model, 1, input_ids=prompt(7, batch=2), **inputs)
    layer = Layer1.from_model(model, 1)
    assert difference(layer(x, positions), theirs) <= LIMIT
    assert difference(layer(x), theirs) > 1000 * LIMIT


# --- chunks, cache, padding -----------------------------------------------------------------------------------------


def ours_in_chunks(layer, x, sizes, mask=None):
    """y of x `[batch, seq, d_model]`, passed to the layer in pieces."""
    cache, parts = KVCache(), []
    for chunk in x.split(sizes, dim=1):
        seen = None if mask is None else mask[:, : cache.length + chunk.shape[1]]
        parts.append(layer(chunk, mask=seen, cache=cache))
    assert cache.length == x.shape[1]
    return torch.cat(parts, dim=1)


def theirs_in_chunks(model, index, ids, sizes):
    """(x, y) of one layer of Hugging Face's model, with the tokens passed in pieces."""
    output, parts = None, []
    for chunk in ids.split(sizes, dim=1):
        cached = cache_argument(model, output) if output else {}
        x, y, output = in_and_out(model, index, input_ids=chunk, use_cache=True, **cached)
        parts.append((x, y))
    return [torch.cat(part, dim=1) for part in zip(*parts, strict=True)]


WAYS = {"prefill": [12], "chunks": [5, 1, 6], "token by token": [1] * 12}
each_way = pytest.mark.parametrize("sizes", WAYS.values(), ids=WAYS)


@each_family
@each_way
def test_a_text_in_pieces_gives_what_it_gives_at_once(family, sizes, record_property):
    model = model_of(family, **({"sliding_window": 8} if family in ("gemma2", "gemma3") else {}))
    layer = Layer1.from_model(model)
    x, theirs = theirs_in_chunks(model, 0, prompt(12, batch=2), sizes)
    ours = ours_in_chunks(layer, x, sizes)
    record_property("from theirs, from all at once", (difference(ours, theirs), difference(ours, layer(x))))
    assert difference(ours, theirs) <= LIMIT
    assert difference(ours, layer(x)) <= LIMIT


def padded(side):
    """Prompts of 5, 24 and 17 tokens padded to 24, and their mask."""
    rows = [prompt(length, seed=length)[0] for length in (5, 24, 17)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side=side)
    return ids, (ids != 0).long()


@each_family
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(family, side):
    model = model_of(family)
    ids, mask = padded(side)
    real = mask.bool()
    x, theirs, _ = in_and_out(model, 1, input_ids=ids, attention_mask=mask)
    layer = Layer1.from_model(model, 1)
    together = layer(x, mask=mask)
    assert together.isfinite().all()
    assert difference(together[real], theirs[real]) <= LIMIT
    assert difference(ours_in_chunks(layer, x, [7, 16, 1], mask)[real], together[real]) <= LIMIT
    for row, keep, one in zip(x, real, together, strict=True):
        assert difference(layer(row[keep][None])[0], one[keep]) <= LIMIT


# --- with ARM -------------------------------------------------------------------------------------------------------


def with_arm(model, index, policy, noise):
    layer = Layer1.from_model(model, index)
    layer.ARM = ARM(policy, width=layer.options.width, layer=layer.options.layer, noise=noise)
    return layer


@pytest.mark.slow
@each_dense_family
@each_policy
@each_way
def test_with_arm_the_layer_is_that_of_an_attached_model(family, policy, sizes, record_property):
    model, ids = model_of(family), prompt(12, batch=2)
    with attach(model, policy, layers=1, noise=Noise(4)):
        x, theirs = theirs_in_chunks(model, 1, ids, sizes)
    layer = with_arm(model, 1, policy, Noise(4))
    found = difference(ours_in_chunks(layer, x, sizes), theirs)
    record_property("largest difference", found)
    assert found <= LIMIT
    assert layer.ARM.report()["moved"] > 0


@pytest.mark.slow
@each_policy
def test_with_arm_the_layer_of_smollm2_is_that_of_the_attached_model(eager_smollm2, policy, record_property):
    model, ids = eager_smollm2
    sizes = [40, ids.shape[1] - 42, 1, 1]
    with attach(model, policy):
        x, theirs = theirs_in_chunks(model, 0, ids, sizes)
    found = difference(ours_in_chunks(with_arm(model, 0, policy, Noise(0)), x, sizes), theirs)
    record_property("largest difference", found)
    assert found <= LIMIT


@each_policy
@pytest.mark.parametrize("side", ["left", "right"])
def test_with_arm_padding_is_left_alone(policy, side):
    model = model_of("llama")
    ids, mask = padded(side)
    with attach(model, policy, noise=Noise(4)) as attachment:
        x, theirs, _ = in_and_out(model, 0, input_ids=ids, attention_mask=mask)
    layer = with_arm(model, 0, policy, Noise(4))
    y, trace = layer(x, mask=mask, trace=True)
    real = mask.bool()
    assert difference(y[real], theirs[real]) <= LIMIT
    assert torch.equal(trace["ARM"][~real], trace["activation"][~real])
    assert layer.ARM.report() == attachment.report()[0]


# --- the figure -----------------------------------------------------------------------------------------------------


@each_dense_family
def test_the_labels_drawn_are_the_attributes(family):
    layer = Layer1.from_model(model_of(family))
    assert tuple(TRACE_LABELS.values()) == tuple(part.label for part in PARTS)
    parts = [name for name, _ in layer.named_children() if name in TRACE_LABELS]
    assert ["x", *parts, "y"] == list(TRACE_LABELS)


@each_dense_family
def test_the_trace_holds_the_figure_in_its_order_and_recomputes_y(family):
    model = model_of(family)
    layer = with_arm(model, 1, Outward(), Noise(2))
    x, _, _ = in_and_out(model, 1, input_ids=prompt(9, batch=2))
    y, t = layer(x, trace=True)
    assert [name for name in t if name in TRACE_LABELS] == list(TRACE_LABELS)
    assert torch.equal(y, layer(x))
    assert torch.equal(t["y"], y)
    assert torch.equal(t["x"], x)
    o = layer.options
    source = {
        "RMSNorm_1": "x",
        **dict.fromkeys(("Q", "K", "V"), "RMSNorm_1"),
        "RMSNorm_Q": "Q",
        "RMSNorm_K": "K",
        "Output": "Attention",
        "RMSNorm_Output": "Output",
        "RMSNorm_2": "RMSNorm_1" if o.parallel else "add_1",
        **dict.fromkeys(("gate", "up"), "RMSNorm_2"),
        "activation": "gate",
        "ARM": "activation",
        "down": "multiply",
        "RMSNorm_down": "down",
    }
    for name, before in source.items():
        assert torch.equal(t[name], getattr(layer, name)(t[before])), name
    assert torch.equal(t["multiply"], t["ARM"] * t["up"])
    assert torch.equal(t["add_1"], x + o.residual_scale * t["RMSNorm_Output"])
    assert torch.equal(y, t["add_1"] + o.residual_scale * t["RMSNorm_down"])
    turned_k = t["RoPE"][:, o.heads :]
    assert turned_k.shape == (2, o.kv_heads, 9, o.head_dim)
    assert torch.equal(turned_k[:, :, 0], t["RMSNorm_K"][:, 0].unflatten(-1, (-1, o.head_dim)) * o.rope_scale)
    v = t["V"].unflatten(-1, (-1, o.head_dim)).transpose(1, 2).repeat_interleave(o.heads // o.kv_heads, dim=1)
    assert difference((t["Attention_weights"] @ v).transpose(1, 2).flatten(-2), t["Attention"]) <= LIMIT
    assert difference(t["Attention_weights"].sum(-1), torch.ones(2, o.heads, 9)) <= LIMIT
    assert (t["Attention_weights"].triu(1) == 0).all()


def test_attention_reaches_as_far_as_its_window():
    model = model_of("mistral", sliding_window=7)
    x, _, _ = in_and_out(model, 0, input_ids=prompt(20))
    weights = Layer1.from_model(model)(x, trace=True)[1]["Attention_weights"]
    distance = torch.arange(20)[:, None] - torch.arange(20)
    assert torch.equal(weights[0, 0] > 0, (distance >= 0) & (distance < 7))


@each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embed_gives_what_goes_into_layer_0(family, dtype):
    changes = {"embedding_multiplier": 12.0} if family == "granite" else {}
    model, ids = model_of(family, **changes).to(dtype), prompt(9, batch=2)
    layer = Layer1.from_model(model)
    x, _, _ = in_and_out(model, 0, input_ids=ids)
    assert torch.equal(layer.embed(ids), x)
    assert (layer.options.embedding_scale != 1) == (family in ("gemma", "gemma2", "gemma3", "granite"))


# --- where it comes from --------------------------------------------------------------------------------------------


def test_a_layer_from_a_model_shares_nothing_with_it():
    model, ids = model_of("phi3"), prompt(9)
    layer = Layer1.from_model(model)
    expected = layer(layer.embed(ids))
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(layer(layer.embed(ids)), expected)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert {type(module).__module__.split(".")[0] for module in layer.modules()} == {"armlet", "torch"}


@pytest.mark.parametrize("family", [family for family in FAMILY_NAMES if family != "deepseek_v3"])  # copies K and V
def test_a_layer_from_tensors_holds_them_and_copies_none(family):
    model = model_of(family)
    theirs = {name: tensor.detach() for name, tensor in model.get_decoder().layers[1].state_dict().items()}
    table = model.get_input_embeddings().weight.detach()
    before = copy.deepcopy(model.config.to_dict())
    layer = Layer1.from_tensors(model.config, theirs, 1, table)
    held = {tensor.untyped_storage().data_ptr() for tensor in layer.state_dict().values()}
    assert held == {tensor.untyped_storage().data_ptr() for tensor in [*theirs.values(), table]}
    x, y, _ = in_and_out(model, 1, input_ids=prompt(9))
    assert difference(layer(x), y) <= LIMIT
    assert model.config.to_dict() == before


@each_family
@pytest.mark.parametrize("size", ["20KB", "1GB"])
def test_a_layer_from_a_checkpoint_is_that_of_the_model(family, size, tmp_path):
    model_of(family).save_pretrained(tmp_path, max_shard_size=size)
    auto = AutoModelForImageTextToText if family in WITH_TOWERS else AutoModelForCausalLM
    model, ids = auto.from_pretrained(tmp_path), prompt(9, batch=2)
    for index in (0, 1):
        theirs, ours = Layer1.from_model(model, index), Layer1.from_checkpoint(tmp_path, index)
        assert ours.options == theirs.options
        expected = {name: tensor for name, tensor in theirs.state_dict().items() if name != "embedding.weight"}
        held = ours.state_dict()
        assert held.keys() == expected.keys()
        assert all(torch.equal(held[name], expected[name]) for name in expected)
        assert torch.equal(ours.embed(ids), theirs.embed(ids))
        # Not equal bits in a mixture: the product of an expert and its few tokens depends on where its weights lie.
        limit = LIMIT if family in MIXTURES else 0.0
        assert difference(ours(ours.embed(ids)), theirs(theirs.embed(ids))) <= limit
        assert not any(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rows_follow_the_layer_to_another_dtype(dtype, tmp_path):
    """Gemma scales them, and its scale is rounded to their dtype."""
    model_of("gemma2").save_pretrained(tmp_path)
    model, ids = AutoModelForCausalLM.from_pretrained(tmp_path), prompt(9)
    ours = Layer1.from_checkpoint(tmp_path).to(dtype)
    assert ours.embed(ids).dtype == dtype
    assert torch.equal(ours.embed(ids), Layer1.from_model(model.to(dtype)).embed(ids))
    assert ours.embedding(ids).dtype == torch.float32


def test_rows_follow_the_layer_to_another_device(tmp_path):
    model_of("llama").save_pretrained(tmp_path)
    layer = Layer1.from_checkpoint(tmp_path).to("meta")
    assert layer.embed(prompt(9)).device.type == layer(layer.embed(prompt(9))).device.type == "meta"


def test_layers_of_one_checkpoint_share_their_rows(tmp_path):
    model_of("llama").save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    layers = [Layer1.from_checkpoint(checkpoint, index) for index in (0, 2)]
    assert [layer.options.layer for layer in layers] == [0, 2]
    assert layers[0].embedding is layers[1].embedding


def test_a_model_with_arm_attached_gives_the_layer_without():
    model = model_of("llama")
    expected = Layer1.from_model(model)
    with attach(model, Outward()):
        layer = Layer1.from_model(model)
    x = expected.embed(prompt(9))
    assert torch.equal(layer(x), expected(x))


def test_the_text_part_of_a_model_with_other_towers_is_taken():
    import transformers as hf

    text = model_of("gemma3")
    config = hf.Gemma3Config(text_config=text.config.to_dict(), vision_config={"num_hidden_layers": 1})
    whole, part = (Layer1.from_tensors(c, text.model.layers[0].state_dict()) for c in (config, text.config))
    assert whole.options == part.options


def test_a_layer_moved_to_bfloat16_keeps_its_frequencies():
    model, x = model_of("llama"), torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    moved = Layer1.from_model(model).bfloat16()
    assert torch.equal(moved(x), Layer1.from_model(model.bfloat16())(x))


def test_every_family_covered_is_tested():
    assert {tiny(family).config.get_text_config().model_type for family in FAMILY_NAMES} == set(COVERED)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("deepseek_v2", {}, "does not cover 'deepseek_v2', only cohere, cohere2"),
        ("llama", {"hidden_act": "relu"}, "does not cover the activation 'relu', only silu"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "of type 'dynamic'"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_what_is_not_covered_is_refused(family, changes, message):
    with pytest.raises(UnsupportedModelError, match=message):
        Layer1.from_model(tiny(family, **changes))


@pytest.mark.parametrize("layer", [3, -1, "0", None])
def test_a_layer_that_is_not_there_is_refused(layer):
    with pytest.raises(ArgumentError, match="llama has layers 0 to 2, found"):
        Layer1.from_model(tiny(), layer)


def test_tensors_that_are_missing_unknown_or_of_another_shape_are_named():
    model = tiny("phi3")
    theirs = model.model.layers[0].state_dict()
    lacking = {name: tensor for name, tensor in theirs.items() if name != "self_attn.o_proj.weight"}
    with pytest.raises(UnsupportedModelError, match=r"\['self_attn.o_proj.weight'\] are missing and \[\] unknown"):
        Layer1.from_tensors(model.config, lacking)
    with pytest.raises(UnsupportedModelError, match=r"\['self_attn.q_proj.bias'\] unknown"):
        Layer1.from_tensors(model.config, theirs | {"self_attn.q_proj.bias": torch.zeros(32)})
    with pytest.raises(UnsupportedModelError, match=r"mlp.down_proj.weight of shape \[32, 48\], found \[32, 40\]"):
        Layer1.from_tensors(model.config, theirs | {"mlp.down_proj.weight": torch.zeros(32, 40)})
    with pytest.raises(UnsupportedModelError, match=r"\['mlp.gate_up_proj.weight'\] unknown"):
        Layer1.from_tensors(model.config, theirs | {"mlp.gate_up_proj.weight": torch.zeros(90, 32)})


def test_inputs_of_another_dtype_or_kind_are_refused():
    layer = Layer1.from_model(tiny())
    with pytest.raises(ArgumentError, match=r"in torch.float32, found Tensor torch.bfloat16 \[1, 4, 32\]"):
        layer(layer.embed(prompt(4)).bfloat16())
    for wrong in ({"input_ids": prompt(4)}, torch.ones(1, 4)):
        with pytest.raises(ArgumentError, match="expected a tensor of token ids"):
            layer.embed(wrong)


@pytest.mark.parametrize("layer", [True, 1.0, "0", None])
def test_a_layer_is_an_index(layer):
    with pytest.raises(ArgumentError, match="has layers 0 to 2, found"):
        Layer1.from_model(tiny(), layer)


def test_inputs_of_another_shape_are_refused():
    layer = Layer1.from_model(tiny())
    x, cache = layer.embed(prompt(4, batch=2)), KVCache()
    layer(x, cache=cache)
    with pytest.raises(
        ArgumentError, match=r"expected x \[batch, seq, 32\] in torch.float32, found Tensor .* \[4, 32\]"
    ):
        layer(x[0])
    with pytest.raises(ArgumentError, match=r"found Tensor torch.float32 \[32\]"):
        layer(x[0, 0])
    with pytest.raises(
        ArgumentError, match=r"expected mask of all tokens \[2, 8\], found Tensor torch.float32 \[2, 4\]"
    ):
        layer(x, mask=torch.ones(2, 4), cache=cache)


def test_a_layer_from_what_it_is_not_made_of_names_the_right_way():
    for wrong in ("models/a-folder", None, [1]):
        with pytest.raises(ArgumentError, match=r"expected a loaded model, found .*; use Layer1.from_checkpoint for"):
            Layer1.from_model(wrong)
    with pytest.raises(ArgumentError, match="expected a Hugging Face model's configuration, found None"):
        Layer1.from_model(torch.nn.Linear(1, 1))
    for wrong in (tiny(), 3, None):
        with pytest.raises(ArgumentError, match=r"expected a folder or hub id, found .*; use Layer1.from_model for"):
            Layer1.from_checkpoint(wrong)
    with pytest.raises(ArgumentError, match=r"use Layer1.from_checkpoint\(a folder or hub id\) or Layer1.from_model"):
        Layer1("models/a-folder")
    with pytest.raises(ArgumentError, match="expected tensors by their names, found 3"):
        Layer1.from_tensors(tiny().config, 3)
    theirs = tiny().model.layers[0].state_dict()
    with pytest.raises(ArgumentError, match=r"expected an embedding .* found 3"):
        Layer1.from_tensors(tiny().config, theirs, embedding=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": [1.0]}, r"expected x \[batch, seq, 32\] in torch.float32, found \[1.0\]"),
        ({"positions": 3}, r"expected positions \[2, 4\] or \[1, 4\], found 3"),
        ({"positions": torch.arange(4)}, r"expected positions \[2, 4\] or \[1, 4\], found Tensor torch.int64 \[4\]"),
        ({"mask": [1]}, r"expected mask of all tokens \[2, 4\], found \[1\]"),
        ({"cache": ()}, r"expected cache to be an armlet.layer.KVCache, found \(\)"),
    ],
)
def test_inputs_of_another_kind_are_refused(wrong, message):
    layer = Layer1.from_model(tiny())
    with pytest.raises(ArgumentError, match=message):
        layer(**({"x": layer.embed(prompt(4, batch=2))} | wrong))


def test_ids_outside_the_vocabulary_are_refused():
    layer = Layer1.from_model(tiny())
    for unknown in (-1, 64):
        with pytest.raises(ArgumentError, match=f"input_ids: the vocabulary has ids 0 to 63, found {unknown}$"):
            layer.embed(torch.tensor([[3, unknown]]))
    with pytest.raises(ArgumentError, match="expected a tensor of token ids"):
        layer.embed(torch.tensor([[True]]))


def test_a_layer_without_an_embedding_says_so():
    model = tiny()
    layer = Layer1.from_tensors(model.config, model.model.layers[0].state_dict())
    with pytest.raises(ArgumentError, match="created without an embedding"):
        layer.embed(prompt(4))


@pytest.mark.slow
def test_importing_the_decoder_does_not_import_transformers():
    assert loaded_beyond_torch("import armlet.layer.decoder") == ["armlet"]


@pytest.mark.parametrize("value", ["outward", None, Outward()], ids=repr)
def test_only_a_module_can_be_the_layers_arm(value):
    layer = Layer1.from_model(model_of("llama"))
    with pytest.raises(ArgumentError, match=r"^Layer1: ARM: expected a module, such as armlet.ARM\(.*, found [^\n]+$"):
        layer.ARM = value
    assert isinstance(layer.ARM, torch.nn.Identity)
