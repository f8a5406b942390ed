"""`checkpoints/pretrained.py` loads models, and refuses the rest in one line. Needs no network."""

import json
from logging import INFO
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, ViTConfig
from transformers.utils import logging

from armlet.checkpoints import pretrained
from armlet.checkpoints.pretrained import DEFAULT_FOLDER, DEFAULT_ID, CheckpointError, default_model, load
from armlet.redistribution.errors import ArgumentError, ArmletError

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole checkpoint of a tiny Llama with a tokenizer of 64 words."""
    folder = tmp_path / "tiny"
    torch.manual_seed(0)
    LlamaForCausalLM(tiny()).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(63)} | {"[UNK]": 63}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    return folder


def tiny() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )


def shard(folder: Path) -> list[Path]:
    """Replaces the only file of weights by several and their index."""
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    LlamaForCausalLM(tiny()).save_pretrained(folder, max_shard_size="5KB")
    return sorted(folder.glob("model-*.safetensors"))


def change_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    weights = {name: tensor for name, tensor in (load_file(file) | changes).items() if tensor is not None}
    save_file(weights, file, metadata={"format": "pt"})


def refusal(model_id: str | Path) -> str:
    """Return the message with which `load` refuses: one line, typed for the API and the command line."""
    with pytest.raises(CheckpointError) as caught:
        load(str(model_id))
    assert isinstance(caught.value, ArmletError)
    assert isinstance(caught.value, OSError)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def hub_asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that were requested from a hub that answers as if there were no network."""
    asked = []

    def no_network(model_id: str, **_: object) -> str:
        asked.append(model_id)
        raise ConnectionError("Name or service not known\n\nPlease check your connection.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_network)
    return asked


def test_load_gives_the_saved_model_in_eval_mode_and_its_tokenizer(folder: Path) -> None:
    model, tokenizer = load(str(folder))
    saved = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert tokenizer("w3 w5")["input_ids"] == [3, 5]


def test_load_reads_sharded_weights(folder: Path) -> None:
    whole = load(str(folder))[0].state_dict()
    assert len(shard(folder)) > 1
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load(str(folder))[0].state_dict().items())


def test_dtype_is_the_checkpoints_unless_asked_for(folder: Path) -> None:
    assert load(str(folder))[0].dtype == torch.float32
    assert load(str(folder), dtype="bfloat16")[0].dtype == torch.bfloat16
    assert load(str(folder), dtype=torch.float64)[0].dtype == torch.float64


def test_model_goes_to_the_device_asked_for(folder: Path) -> None:
    assert load(str(folder), device="meta")[0].device.type == "meta"


def test_device_that_cannot_be_used_is_named(folder: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^device 'nowhere' cannot be used here \(.*\)$"):
        load(str(folder), device="nowhere")


def test_home_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load("~/tiny")[0].config.hidden_size == 16


@pytest.mark.parametrize("model_id", ["./no", "/no/such", "~nobody/x", "a/b/c"])
def test_what_looks_like_a_folder_is_never_asked_of_the_hub(model_id: str, hub_asked: list[str]) -> None:
    assert "found nothing there" in refusal(model_id)
    assert hub_asked == []


@pytest.mark.parametrize("model_id", ["nobody/nothing", "nothing"])
def test_hub_id_that_cannot_be_reached_is_named_with_the_reason(model_id: str, hub_asked: list[str]) -> None:
    message = refusal(model_id)
    assert message.startswith(f"'{model_id}' is not a local folder, and the hub did not provide it")
    assert "Name or service not known" in message
    assert hub_asked == [model_id]


def test_a_hub_that_cannot_be_reached_is_one_plain_sentence_and_the_demo_builds_only_its_own_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def not_cached(_id: str, **_: object) -> str:
        raise LocalEntryNotFoundError("Cannot find an appropriate snapshot") from ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", not_cached)
    ending = ": check the name or the network (ConnectionError: no network)"
    assert refusal("nobody/nothing").endswith(ending)
    assert refusal(DEFAULT_ID).endswith(f"{ending}; in a checkout of armlet, `make demo` builds {DEFAULT_FOLDER}")


def test_id_that_the_hub_could_never_hold_is_refused() -> None:
    assert "'no such id'" in refusal("no such id")


def test_hub_snapshot_is_loaded_like_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    assert load("somebody/tiny")[0].config.hidden_size == 16


def test_file_in_place_of_a_folder_is_refused(folder: Path) -> None:
    assert "found a file there" in refusal(folder / "model.safetensors")


def test_missing_config_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert f"{folder / 'config.json'} is missing" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "", "\xff", "[]", '"llama"'])
def test_malformed_config_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert f"{folder / 'config.json'} is not" in refusal(folder)


def test_config_with_a_value_of_the_wrong_type_is_named(folder: Path) -> None:
    change_config(folder, hidden_size="wide")
    message = refusal(folder)
    assert f"{folder / 'config.json'} is not a valid configuration of llama" in message
    assert "hidden_size" in message


@pytest.mark.parametrize("kind", ["unheard-of", None, ["llama"]])
def test_unknown_architecture_is_named(folder: Path, kind: object) -> None:
    change_config(folder, model_type=kind)
    assert f"model_type {kind!r}, which this version of transformers does not know" in refusal(folder)


def test_config_that_transformers_cannot_build_is_refused(folder: Path) -> None:
    change_config(folder, hidden_act="unheard-of")
    message = refusal(folder)
    assert f"{folder} cannot be loaded as a language model" in message
    assert "unheard-of" in message


def test_model_that_is_no_causal_language_model_is_refused(folder: Path) -> None:
    ViTConfig().save_pretrained(folder)
    assert "model_type 'vit', which is neither a causal language model nor an image-text model" in refusal(folder)


def test_remote_code_is_not_run(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w').close()")
    change_config(folder, model_type="unheard-of", auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"})
    message = refusal(folder)
    assert "Python code of its own" in message
    assert "armlet.attach(model, policy)" in message
    assert not ran.exists()


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert f"{folder} has neither model.safetensors nor model.safetensors.index.json" in refusal(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert "found pytorch_model.bin, and pickle is never read" in refusal(folder)


def test_missing_shard_is_named(folder: Path) -> None:
    gone = shard(folder)[1]
    gone.unlink()
    assert f"{gone} is missing, though model.safetensors.index.json names it" in refusal(folder)


@pytest.mark.parametrize("index", ["{", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": []}'])
def test_malformed_index_is_named(folder: Path, index: str) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(index)
    assert str(folder / "model.safetensors.index.json") in refusal(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights_are_named(folder: Path, kept: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert f"{file} is truncated or damaged" in refusal(folder)


def test_weights_that_are_not_safetensors_are_named(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert f"{folder / 'model.safetensors'} is truncated or damaged" in refusal(folder)


def test_weight_that_the_checkpoint_lacks_is_never_made_up(folder: Path) -> None:
    change_weights(folder, **{UP: None})
    message = refusal(folder)
    assert "lacks weights of LlamaForCausalLM" in message
    assert UP in message


def test_weight_of_another_shape_is_never_made_up(folder: Path) -> None:
    change_weights(folder, **{UP: torch.zeros(3, 3)})
    assert UP in refusal(folder)


def test_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert f"no tokenizer can be read from {folder}" in refusal(folder)


def test_tokenizer_without_a_vocabulary_does_not_pass_for_one(folder: Path) -> None:
    """Transformers returns an empty Qwen2 tokenizer if the files are missing: every prompt would be empty."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    message = refusal(folder)
    assert f"no tokenizer can be read from {folder}" in message
    assert "vocab.json" in message


def test_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    assert f"no tokenizer can be read from {folder}" in refusal(folder)


def test_load_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(str(folder))
    change_weights(folder, **{UP: None})  # of which transformers warns at length
    refusal(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bars", [True, False])
def test_load_leaves_the_logging_of_transformers_as_it_was(folder: Path, bars: bool) -> None:
    logging.set_verbosity_info()
    switch = enable_progress_bars if bars else disable_progress_bars
    try:
        switch()
        load(str(folder))
        (folder / "config.json").unlink()
        refusal(folder)
        assert logging.get_verbosity() == INFO
        assert logging.is_progress_bar_enabled()
        assert are_progress_bars_disabled() is not bars
    finally:
        logging.set_verbosity_warning()
        enable_progress_bars()


def test_default_model_is_the_local_folder_where_it_exists_and_the_hub_id_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_model() == pretrained.DEFAULT_ID
    pretrained.DEFAULT_FOLDER.mkdir(parents=True)
    assert default_model() == str(pretrained.DEFAULT_FOLDER)
