"""A model's folder and its hash."""

import subprocess
import sys
from functools import partial, wraps

import pytest
import torch
from tokenizers import normalizers, pre_tokenizers
from torch import nn

from armlet.checkpoints.folder import ABACUS, abacus
from armlet.checkpoints.given import load_or_use
from armlet.checkpoints.identity import fingerprint, loaded_fingerprint, model_folder
from armlet.checkpoints.pretrained import load
from armlet.redistribution.errors import ArgumentError
from tiny_checkpoints import save


def test_a_weight_changed_is_another_fingerprint(tmp_path):
    one, other = save(tmp_path / "one"), save(tmp_path / "other")
    assert fingerprint(one) == fingerprint(other)
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(one) != fingerprint(other)


def test_abacus_is_the_embedded_folder_and_any_other_name_a_folder_or_hub_id(tmp_path):
    assert model_folder(ABACUS) == abacus()
    assert model_folder(str(save(tmp_path / "tiny"))) == tmp_path / "tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_loads_of_one_checkpoint_have_one_fingerprint(dtype, folder, tmp_path):
    copy = save(tmp_path / "copy")
    model, tokenizer = load(str(copy), dtype=dtype)
    identity = loaded_fingerprint(model, tokenizer)
    assert identity == loaded_fingerprint(*load(str(folder), dtype=dtype))
    tokenizer("w1 w2", truncation=True, max_length=1)
    model.generate(torch.tensor([[1, 2]]), max_new_tokens=2)
    model(torch.tensor([[1, 2]]), output_hidden_states=True)  # transformers registers hooks of its own
    assert identity == loaded_fingerprint(model, tokenizer)  # their use does not change it


def change_weight(model, _):
    model.lm_head.weight.data[0, 0] += 1


def change_dtype(model, _):
    model.bfloat16()


def change_config(model, _):
    model.config.get_text_config().rms_norm_eps = 0.1


def change_vocabulary(_, tokenizer):
    tokenizer.add_tokens(["new"])


def change_special_token(_, tokenizer):
    tokenizer.eos_token = "w1"


def change_template(_, tokenizer):
    tokenizer.chat_template = "{{ messages }}"


def change_generation(model, _):
    model.generation_config.eos_token_id = [5]


def change_normalizer(_, tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("w", "v")


def change_splitting(_, tokenizer):
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()


def change_spaces(_, tokenizer):
    tokenizer.clean_up_tokenization_spaces = not tokenizer.clean_up_tokenization_spaces


def change_rotation(model, _):
    model.model.rotary_emb.inv_freq.mul_(0.5)


def change_activation(model, _):
    model.model.layers[0].mlp.act_fn = nn.ReLU()


def change_attention(model, _):
    model.set_attn_implementation("eager")


def change_attribute(model, _):
    model.model.layers[0].self_attn.scaling *= 2


def change_forward(model, _):
    model.model.layers[0].mlp.forward = torch.relu


def add_hook(model, _):
    model.model.layers[0].register_forward_hook(lambda *_: None)


def add_pre_hook(model, _):
    model.model.layers[0].register_forward_pre_hook(lambda *_: None)


def change_decoding(_, tokenizer):
    tokenizer.decode = lambda *_, **__: "42"


def change_rendering(_, tokenizer):
    tokenizer.apply_chat_template = lambda *_, **__: "42"


CHANGES = [
    change_decoding,
    change_rendering,
    change_weight,
    change_dtype,
    change_config,
    change_vocabulary,
    change_special_token,
    change_template,
]
CHANGES += [change_generation, change_normalizer, change_splitting, change_spaces, change_rotation, change_activation]
CHANGES += [change_attention, change_attribute, change_forward, add_hook, add_pre_hook]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_loaded_model_or_its_tokenizer_is_another_fingerprint(change, folder):
    model, tokenizer = load(str(folder), dtype="float32")
    identity = loaded_fingerprint(model, tokenizer)
    change(model, tokenizer)
    assert loaded_fingerprint(model, tokenizer) != identity


@pytest.mark.slow
def test_what_a_model_does_is_seen_where_its_attributes_are_not(folder, monkeypatch):
    model, tokenizer = load(str(folder), dtype="float32")
    layer, factors = model.model.layers[0], {"default": 1.0}
    layer.register_forward_hook(lambda _module, _inputs, output: output * factors["default"])  # reads what is elsewhere
    layer.mlp._offset = torch.zeros(1)
    original, offset = type(layer.mlp).forward, lambda module: getattr(module, "_offset", 0)
    identity = loaded_fingerprint(model, tokenizer)
    factors["default"] = 2.0
    assert loaded_fingerprint(model, tokenizer) != identity
    factors["default"] = 1.0
    assert loaded_fingerprint(model, tokenizer) == identity
    monkeypatch.setattr(type(layer.mlp), "forward", lambda module, x: original(module, x) + offset(module))
    assert loaded_fingerprint(model, tokenizer) == identity  # the offset is 0
    layer.mlp._offset += 1
    assert loaded_fingerprint(model, tokenizer) != identity


@pytest.mark.slow
def test_a_fingerprint_leaves_the_model_and_the_random_state_as_they_are(folder):
    model, tokenizer = load(str(folder), dtype="float32")
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.model.layers[0].register_forward_hook(lambda _module, _inputs, output: output + torch.rand(1))
    before = torch.get_rng_state()
    assert loaded_fingerprint(model, tokenizer) == loaded_fingerprint(model, tokenizer)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_a_template_with_the_date_does_not_end_a_run_at_midnight(folder):
    model, tokenizer = load(str(folder), dtype="float32")
    tokenizer.chat_template = "{{ strftime_now('%f') }}"  # changes with each microsecond
    assert loaded_fingerprint(model, tokenizer) == loaded_fingerprint(model, tokenizer)


def scaled(factor):
    return lambda _module, _inputs, output, offset=0: output * factor + offset


def wrapped(method, factor):
    """A replaced method that claims the name of the method that it replaces."""
    return wraps(method)(lambda *args: method(*args) * factor)


@pytest.mark.slow
def test_a_hook_and_a_replaced_method_are_equal_only_to_themselves(folder):
    model, tokenizer = load(str(folder), dtype="float32")
    plain, original, doubled = loaded_fingerprint(model, tokenizer), model.lm_head.forward, scaled(2)
    identities = {plain}
    for hook in (doubled, scaled(3), partial(scaled(4), offset=1)):
        handle = model.lm_head.register_forward_hook(hook)
        identities.add(loaded_fingerprint(model, tokenizer))
        assert loaded_fingerprint(model, tokenizer) in identities
        handle.remove()
    for factor in (2, 3, 4):
        model.lm_head.forward = wrapped(original, factor)
        identities.add(loaded_fingerprint(model, tokenizer))
        del model.lm_head.forward
    assert len(identities) == 7
    model.lm_head.register_forward_hook(doubled)  # again
    assert loaded_fingerprint(model, tokenizer) in identities - {plain}


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh"])
def test_two_processes_give_one_checkpoint_one_fingerprint(activation, tmp_path):
    folder = save(tmp_path / "tiny", hidden_act=activation)  # the second one stores a partial function
    program = (
        "import sys; from armlet.checkpoints.given import load_or_use; from armlet.checkpoints.pretrained import load\n"
        "print(load_or_use(*load(sys.argv[1])).fingerprint)"
    )
    run = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == load_or_use(*load(str(folder))).fingerprint


@pytest.mark.slow
def test_a_call_hashes_a_model_once_and_the_next_call_again(folder):
    model, tokenizer = load(str(folder))
    named = load_or_use(model, tokenizer)
    identity = named.fingerprint
    change_weight(model, tokenizer)
    assert named.fingerprint == identity != load_or_use(model, tokenizer).fingerprint
    assert load_or_use(str(folder), tokenizer).fingerprint == identity  # files with another tokenizer are hashed loaded


@pytest.mark.slow
def test_a_model_without_its_values_in_memory_has_no_fingerprint(folder):
    model, tokenizer = load(str(folder))
    with pytest.raises(ArgumentError, match="has no values in memory"):
        loaded_fingerprint(model.to("meta"), tokenizer)
