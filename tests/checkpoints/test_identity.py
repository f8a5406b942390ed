"""A model's folder and its hash."""

import pytest
import torch

from armlet.checkpoints.folder import ABACUS, abacus
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [change_weight, change_dtype, change_config, change_vocabulary, change_special_token, change_template],
)
def test_a_change_of_a_loaded_model_or_its_tokenizer_is_another_fingerprint(change, folder):
    model, tokenizer = load(str(folder), dtype="float32")
    identity = loaded_fingerprint(model, tokenizer)
    change(model, tokenizer)
    assert loaded_fingerprint(model, tokenizer) != identity


@pytest.mark.slow
def test_a_model_without_its_values_in_memory_has_no_fingerprint(folder):
    model, tokenizer = load(str(folder))
    with pytest.raises(ArgumentError, match="has no values in memory"):
        loaded_fingerprint(model.to("meta"), tokenizer)
