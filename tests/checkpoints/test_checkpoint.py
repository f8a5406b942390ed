"""`checkpoints/checkpoint.py` on local folders reads the right bits and no others, and refuses the rest in one line."""

import copy
import json
import pickle
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from armlet import Layer1
from armlet.attachment.sites import UnsupportedModelError
from armlet.checkpoints.checkpoint import open_checkpoint
from armlet.checkpoints.folder import INDEX_FILE, WEIGHTS_FILE
from armlet.layer.options import read_options
from armlet.redistribution.errors import ArgumentError
from families import FAMILIES, prompt, tiny
from tiny_checkpoints import only_in, refusal, saved, shards_of

FAMILY_NAMES = [family for family in FAMILIES if family != "deepseek_v3"]
each_family = pytest.mark.parametrize("family", FAMILY_NAMES)
SIZES = {"sharded": "20KB", "in one file": "1GB"}
each_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def change_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_weights(folder, change):
    """Rewrites the only file of weights; `change` maps a dictionary of tensors to another."""
    save_file(change(load_file(folder / WEIGHTS_FILE)), folder / WEIGHTS_FILE, metadata={"format": "pt"})


def test_numbers_that_are_not_finite_are_read_as_transformers_writes_them(tmp_path):
    saved(tmp_path)
    change_config(tmp_path, some_limits=[0.0, {"__float__": "-Infinity"}])
    assert open_checkpoint(tmp_path).config.some_limits == [0.0, float("-inf")]
    change_config(tmp_path, some_limits={"__float__": "wide"})
    assert open_checkpoint(tmp_path).config.some_limits == {"__float__": "wide"}


# --- what it reads --------------------------------------------------------------------------------------------------


@each_family
@each_size
def test_each_layer_is_read_bit_for_bit(family, size, tmp_path):
    model = saved(tmp_path, family, size=size)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.layers == len(model.model.layers)
    for index, layer in enumerate(model.model.layers):
        theirs, ours = layer.state_dict(), checkpoint.read(index)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_those_of_the_embedding_bit_for_bit(family, dtype, tmp_path):
    table = saved(tmp_path, family, dtype=dtype).get_input_embeddings().weight
    rows = open_checkpoint(tmp_path).rows
    for ids in (prompt(9, batch=2), prompt(9, batch=2, seed=1), torch.tensor([[5, 5, 0, 63]])):
        assert rows(ids).dtype == dtype
        assert torch.equal(rows(ids), table[ids])
    assert rows(torch.zeros(2, 0, dtype=torch.long)).shape == (2, 0, table.shape[1])
    assert list(rows.parameters()) == list(rows.buffers()) == []


@each_family
def test_options_are_those_that_transformers_reads(family, tmp_path):
    saved(tmp_path, family)
    ours, theirs = open_checkpoint(tmp_path).config, hf.AutoConfig.from_pretrained(tmp_path)
    assert type(ours) is type(theirs)
    assert all(read_options(ours, layer) == read_options(theirs, layer) for layer in range(3))


@pytest.mark.parametrize(
    "prefix", ["language_model.model.", "model.language_model.", "model.text_model.", "language_model.", ""]
)
def test_the_layers_are_found_under_other_names(prefix, tmp_path):
    saved(tmp_path, size="1GB")
    expected, rows = open_checkpoint(tmp_path).read(1), open_checkpoint(tmp_path).rows(prompt(5))
    tower = {"vision_tower.layers.1.mlp.up_proj.weight": torch.zeros(2, 2)}
    change_weights(tmp_path, lambda old: {n.replace("model.", prefix, 1): t for n, t in old.items()} | tower)
    found = open_checkpoint(tmp_path)
    assert {n: torch.equal(t, expected[n]) for n, t in found.read(1).items()} == dict.fromkeys(expected, True)
    assert torch.equal(found.rows(prompt(5)), rows)


def test_the_text_part_of_a_model_with_other_towers_is_read(tmp_path):
    text = tiny("gemma3")
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = hf.Gemma3Config(text_config=text.config.to_dict(), vision_config=vision | {"image_size": 28})
    whole = hf.Gemma3ForConditionalGeneration(config)
    whole.save_pretrained(tmp_path)
    theirs = whole.model.language_model.layers[2].state_dict()
    ours = open_checkpoint(tmp_path).read(2)
    assert {n: torch.equal(t, theirs[n]) for n, t in ours.items()} == dict.fromkeys(theirs, True)


def test_the_buffer_of_old_checkpoints_is_left_out(tmp_path):
    saved(tmp_path, size="1GB")
    expected = open_checkpoint(tmp_path).read(1).keys()
    old = {"model.layers.1.self_attn.rotary_emb.inv_freq": torch.zeros(4, dtype=torch.int64)}
    change_weights(tmp_path, lambda weights: weights | old)
    assert open_checkpoint(tmp_path).read(1).keys() == expected


def test_layer_1_is_not_layer_10(tmp_path):
    model = saved(tmp_path, num_hidden_layers=11)
    up = open_checkpoint(tmp_path).read(1)["mlp.up_proj.weight"]
    assert torch.equal(up, model.model.layers[1].mlp.up_proj.weight)


def test_a_checkpoint_stays_itself_and_says_where_it_is_from(tmp_path):
    saved(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    assert open_checkpoint(checkpoint) is checkpoint
    assert checkpoint.source == str(tmp_path)


def test_symbolic_links_are_followed(tmp_path):
    """The hub's cache consists of links."""
    saved(tmp_path / "blobs")
    (tmp_path / "links").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "links" / file.name).symlink_to(file)
    ours, theirs = (open_checkpoint(tmp_path / name).read(1) for name in ("links", "blobs"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_layer_with_rows_can_be_copied(tmp_path):
    saved(tmp_path)
    layer = Layer1.from_checkpoint(tmp_path)
    layer.embed(prompt(3))
    twin = copy.deepcopy(layer)
    assert torch.equal(twin.embed(prompt(9)), layer.embed(prompt(9)))


# --- what it does not read ------------------------------------------------------------------------------------------


def test_a_missing_shard_that_is_not_needed_is_not_missed(tmp_path):
    model = saved(tmp_path)
    for file in set(tmp_path.glob("*.safetensors")) - shards_of(tmp_path, "layers.1."):
        file.unlink()
    ours = open_checkpoint(tmp_path).read(1)
    assert all(torch.equal(ours[n], t) for n, t in model.model.layers[1].state_dict().items())


@pytest.mark.parametrize(("gone", "kept"), [("layers.1.", "layers.0."), ("embed_tokens", "layers.1.")])
def test_a_missing_shard_that_is_needed_is_named(gone, kept, tmp_path):
    saved(tmp_path)
    file = only_in(tmp_path, gone, kept)
    file.unlink()
    checkpoint = open_checkpoint(tmp_path)
    act = (lambda: checkpoint.rows(prompt(3))) if gone == "embed_tokens" else (lambda: checkpoint.read(1))
    assert refusal(act).startswith(f"{file} is missing, though {INDEX_FILE} names it")


def test_a_truncated_shard_is_named(tmp_path):
    saved(tmp_path)
    file = only_in(tmp_path, "layers.1.", "layers.0.")
    file.write_bytes(file.read_bytes()[:-1])
    assert f"{file} is truncated or damaged" in refusal(lambda: open_checkpoint(tmp_path).read(1))
    open_checkpoint(tmp_path).read(0)


def test_a_file_replaced_while_a_layer_lives_is_refused(tmp_path):
    saved(tmp_path, size="1GB")
    layer = Layer1.from_checkpoint(tmp_path)
    layer.embed(prompt(3))
    copy = tmp_path / "copy"
    copy.write_bytes((tmp_path / "model.safetensors").read_bytes())
    copy.replace(tmp_path / "model.safetensors")
    assert "model.safetensors was replaced while it was read" in refusal(lambda: layer.embed(prompt(3, seed=1)))


def test_tensors_of_several_dtypes_become_the_one_that_the_configuration_states(tmp_path):
    saved(tmp_path, size="1GB", dtype=torch.bfloat16)
    change_weights(tmp_path, lambda old: {n: t.float() if "up_proj" in n or "norm" in n else t for n, t in old.items()})
    for stated in (torch.bfloat16, torch.float32):
        change_config(tmp_path, dtype=str(stated).removeprefix("torch."))
        layer, theirs = Layer1.from_checkpoint(tmp_path, 1), hf.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert {weight.dtype for weight in layer.parameters()} == {theirs.dtype} == {stated}
        for name, weight in Layer1.from_model(theirs, 1).named_parameters():
            assert name.startswith("embedding") or torch.equal(weight, layer.get_parameter(name))


def test_tensors_become_the_dtype_that_the_configuration_states(tmp_path):
    saved(tmp_path, size="1GB")
    change_config(tmp_path, dtype="bfloat16")
    layer, theirs = Layer1.from_checkpoint(tmp_path), hf.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(layer.embed(prompt(5)), theirs.get_input_embeddings()(prompt(5)))
    for name, weight in Layer1.from_model(theirs).named_parameters():
        assert name.startswith("embedding") or torch.equal(weight, layer.get_parameter(name))


@pytest.mark.parametrize("prefix", ["", "language_model."])
def test_rows_are_those_of_the_output_table_alone_if_the_two_are_tied(prefix, tmp_path):
    """transformers ties them in both directions."""
    table = saved(tmp_path, size="1GB", tie_word_embeddings=True).get_input_embeddings().weight.detach()

    def rename(name):
        return prefix + ("lm_head.weight" if "embed_tokens" in name else name)

    change_weights(tmp_path, lambda old: {rename(name): tensor for name, tensor in old.items()})
    assert torch.equal(open_checkpoint(tmp_path).rows(prompt(5)), table[prompt(5)])
    change_config(tmp_path, tie_word_embeddings=False)
    message = refusal(lambda: open_checkpoint(tmp_path).rows(prompt(5)))
    assert "model.embed_tokens.weight; use a complete checkpoint" in message


@pytest.mark.parametrize("shape", [(), (64,), (64, 16), (0, 32)])
def test_an_embedding_of_another_shape_is_refused(shape, tmp_path):
    saved(tmp_path, size="1GB", tie_word_embeddings=True)
    change_weights(tmp_path, lambda old: old | {"model.embed_tokens.weight": torch.zeros(shape)})
    layer = Layer1.from_checkpoint(tmp_path)
    expected = f"embed_tokens.weight of shape {list(shape)}, expected [vocabulary, 32]"
    assert expected in refusal(lambda: layer.embed(prompt(3)))


def test_a_name_that_is_none_is_refused():
    assert "no model is named" in refusal(lambda: open_checkpoint(""))


@pytest.mark.parametrize("sizes", [{"head_dim": -16}, {"intermediate_size": 0}])
def test_sizes_that_no_layer_has_are_refused(sizes, tmp_path):
    saved(tmp_path, size="1GB")
    change_config(tmp_path, **sizes)
    with pytest.raises(UnsupportedModelError, match="cannot have sizes"):
        Layer1.from_checkpoint(tmp_path)


def test_a_shard_that_lacks_what_the_index_says_is_named(tmp_path):
    saved(tmp_path)
    file = only_in(tmp_path, "layers.1.", "layers.0.")
    save_file({"other": torch.zeros(1)}, file)
    assert f"{file} lacks model.layers.1." in refusal(lambda: open_checkpoint(tmp_path).read(1))


class Bomb:
    """Runs code when it is unpickled: it writes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_that_bomb_goes_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("beside", [True, False])
def test_pickles_are_never_opened(beside, tmp_path):
    saved(tmp_path, size="1GB")
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    if beside:
        Layer1.from_checkpoint(tmp_path)
    else:
        (tmp_path / WEIGHTS_FILE).unlink()
        message = refusal(lambda: Layer1.from_checkpoint(tmp_path))
        assert "found pytorch_model.bin, and pickle is never read" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["llama", "unheard-of"])
def test_code_in_the_folder_is_never_run(kind, tmp_path):
    saved(tmp_path)
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    change_config(tmp_path, model_type=kind, auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"})
    if kind == "llama":
        Layer1.from_checkpoint(tmp_path)
    else:
        assert "needs Python code of its own" in refusal(lambda: Layer1.from_checkpoint(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../x.safetensors", "/x", "a\\b"])
def test_an_index_that_leads_out_of_the_folder_is_refused(name, tmp_path):
    saved(tmp_path)
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"model.layers.0.a": name}}))
    assert "which leads out of the checkpoint" in refusal(lambda: open_checkpoint(tmp_path))


@pytest.mark.parametrize("layer", [3, -1, "0", None])
def test_a_layer_that_is_not_there_is_refused_before_anything_is_read(layer, tmp_path):
    saved(tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ArgumentError, match="layers 0 to 2, found"):
        Layer1.from_checkpoint(tmp_path, layer)


def test_a_family_that_is_not_covered_is_refused_before_anything_is_read(tmp_path):
    saved(tmp_path, "deepseek_v2")
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(UnsupportedModelError, match="Layer1 does not cover 'deepseek_v2'"):
        Layer1.from_checkpoint(tmp_path)


# --- what it cannot read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.int8, "I8"), (torch.int32, "I32"), (torch.uint8, "U8"), (torch.float8_e4m3fn, "F8_E4M3")]
)
@pytest.mark.parametrize("part", ["layers.1.mlp.up_proj.weight", "embed_tokens.weight"])
def test_quantised_tensors_are_refused(part, dtype, name, tmp_path):
    saved(tmp_path, size="1GB")
    change_weights(tmp_path, lambda old: {n: t.to(dtype) if part in n else t for n, t in old.items()})
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.read(0)
    act = (lambda: checkpoint.rows(prompt(3))) if "embed" in part else (lambda: checkpoint.read(1))
    message = refusal(act)
    assert f"{part} as {name}" in message
    assert "Layer1 reads float64, float32, bfloat16 and float16" in message


@pytest.mark.parametrize("ids", [[[1, 64]], [[-1]], [[1.0]], [[True]]])
def test_ids_that_are_not_in_the_vocabulary_are_refused(ids, tmp_path):
    saved(tmp_path)
    rows = open_checkpoint(tmp_path).rows
    with pytest.raises(ArgumentError, match=r"^input_ids: the vocabulary has ids 0 to 63, found"):
        rows(torch.tensor(ids))


def test_a_checkpoint_without_layers_or_embedding_is_refused(tmp_path):
    saved(tmp_path, size="1GB")
    change_weights(tmp_path, lambda old: {n: t for n, t in old.items() if "embed" not in n})
    without = open_checkpoint(tmp_path)
    without.read(1)
    assert "has no model.embed_tokens.weight" in refusal(lambda: without.rows(prompt(3)))
    change_weights(tmp_path, lambda old: {n: t for n, t in old.items() if "layers" not in n})
    assert "has no decoder layers under the names model.layers, " in refusal(lambda: open_checkpoint(tmp_path).read(0))


def test_a_configuration_that_is_none_is_refused(tmp_path):
    saved(tmp_path)
    change_config(tmp_path, hidden_size="wide")
    assert "is not a valid configuration of llama" in refusal(lambda: open_checkpoint(tmp_path))
    change_config(tmp_path, model_type=None)
    assert "which this version of transformers does not know" in refusal(lambda: open_checkpoint(tmp_path))
    (tmp_path / "config.json").unlink()
    assert "config.json is missing" in refusal(lambda: open_checkpoint(tmp_path))


# --- what it costs --------------------------------------------------------------------------------------------------

D, WIDTH, KV, VOCABULARY, LAYERS, LAYERS_PER_FILE = 4096, 14336, 1024, 32000, 32, 4
BLOCK = {
    "input_layernorm": [D],
    "self_attn.q_proj": [D, D],
    "self_attn.k_proj": [KV, D],
    "self_attn.v_proj": [KV, D],
    "self_attn.o_proj": [D, D],
    "post_attention_layernorm": [D],
    "mlp.gate_proj": [WIDTH, D],
    "mlp.up_proj": [WIDTH, D],
    "mlp.down_proj": [D, WIDTH],
}
BYTES = {"BF16": 2, "F32": 4}


def sparse(file, shapes, dtype):
    """Writes a safetensors file of zeros, which occupy no disk space."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    told = json.dumps(header).encode()
    with file.open("wb") as out:
        out.write(len(told).to_bytes(8, "little") + told)
        out.truncate(8 + len(told) + end)


def save_8b(folder, dtype):
    """A checkpoint of the size of Llama 3 8B, except for a smaller vocabulary."""
    homes = {}
    for first in range(0, LAYERS, LAYERS_PER_FILE):
        here = range(first, first + LAYERS_PER_FILE)
        shapes = {f"model.layers.{layer}.{part}.weight": shape for layer in here for part, shape in BLOCK.items()}
        shapes |= {} if first else {"model.embed_tokens.weight": [VOCABULARY, D]}
        sparse(folder / f"model-{first}.safetensors", shapes, dtype)
        homes |= dict.fromkeys(shapes, f"model-{first}.safetensors")
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": homes}))
    sizes = {"hidden_size": D, "intermediate_size": WIDTH, "vocab_size": VOCABULARY, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | sizes | heads))


MEASURE = """
import sys
import torch
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
alone = peak()
from armlet import Layer1
torch.set_num_threads(2)
layer = Layer1.from_checkpoint(sys.argv[1])
with torch.no_grad():
    y = layer(layer.embed(torch.arange(16)[None] * 7))
assert y.shape == (1, 16, 4096) and not y.any()
print(alone, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's peak memory as Linux tells it")
@pytest.mark.parametrize("dtype", BYTES)
def test_a_layer_costs_what_it_weighs_and_not_what_the_model_weighs(dtype, tmp_path, record_property):
    """Also reading the embedding's table or a whole file would exceed the limit."""
    save_8b(tmp_path, dtype)
    run = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True)
    alone, peak = map(int, run.stdout.split())
    size = BYTES[dtype]
    needed = sum(map(prod, BLOCK.values())) * size + 16 * D * size + alone
    record_property("peak ÷ needed", peak / needed)
    assert peak <= 1.3 * needed
    assert VOCABULARY * D * size > 0.3 * needed
    assert (tmp_path / "model-4.safetensors").stat().st_size > 1.3 * needed
