"""Only the necessary layers of a model are read, one at a time."""

from pathlib import Path

import pytest
import torch

from armlet.attachment.attach import attach
from armlet.attachment.sites import UnsupportedModelError
from armlet.checkpoints.checkpoint import open_checkpoint
from armlet.layer.decoder import Layer1
from armlet.layer.reading import open_model
from armlet.redistribution.errors import ArgumentError
from families import FAMILIES, tiny
from tiny_checkpoints import save, words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny")


def test_layers_come_from_the_first_to_the_last_one_wanted(folder):
    for last, count in ((0, 1), (1, 2), (None, 3)):
        opened = open_model(str(folder), last=last)
        assert [layer.options.layer for layer in opened.layers()] == list(range(count))
        assert opened.options.layer == count - 1


def test_no_layer_is_read_before_it_is_asked_for(folder, monkeypatch):
    read = []
    whole = Layer1.from_checkpoint
    monkeypatch.setattr(Layer1, "from_checkpoint", lambda *args: read.append(args[1]) or whole(*args))
    layers = open_model(str(folder)).layers()
    assert read == []
    next(layers)
    next(layers)
    assert read == [0, 1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_dtype_is_that_of_every_weight_and_of_what_it_computes(folder, dtype):
    (layer,) = open_model(str(folder), dtype=dtype, last=0).layers()
    assert {weight.dtype for weight in layer.parameters()} == {getattr(torch, dtype)}
    assert layer(layer.embed(torch.tensor([[5, 6]]))).dtype == getattr(torch, dtype)


@pytest.mark.parametrize(("last", "brought"), [(None, ["some/model"]), (0, [])])
def test_a_hubs_whole_model_is_brought_into_its_cache_and_a_few_layers_are_read_alone(
    folder, monkeypatch, last, brought
):
    asked = []

    def download(model):
        asked.append(model)
        return Path(folder)

    monkeypatch.setattr("armlet.layer.reading.download", download)
    monkeypatch.setattr("armlet.layer.reading.load_tokenizer", lambda _model: words())
    monkeypatch.setattr("armlet.layer.reading.open_checkpoint", lambda _model: open_checkpoint(folder))
    opened = open_model("some/model", last=last)
    assert (asked, opened.name) == (brought, "some/model")
    assert next(opened.layers()).options.d_model == 32


@pytest.mark.parametrize(
    ("compute", "error", "message"),
    [
        ({"device": "nowhere"}, ArgumentError, "device 'nowhere' cannot be used here"),
        ({"device": [1]}, ArgumentError, r"device \[1\] cannot be used here"),
        ({"dtype": torch.int8}, ArgumentError, "dtype: expected auto, .*, found 'int8'"),
        ({"dtype": 32}, ArgumentError, "dtype: expected auto, .*, found 32"),
        (
            {"dtype": "int8"},
            ArgumentError,
            "dtype: expected auto, float32, bfloat16, float16, float64, found 'int8'",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(folder, compute, error, message):
    with pytest.raises(error, match=message):
        open_model(str(folder), **compute)


def test_a_dtype_is_named_or_torchs_own(folder):
    named, own = (open_model(str(folder), dtype=dtype, last=0).dtype for dtype in ("bfloat16", torch.bfloat16))
    assert named == own == torch.bfloat16


def test_a_family_that_layer1_does_not_cover_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UnsupportedModelError, match="Layer1 does not cover 'deepseek_v2'"):
        open_model(str(save(tmp_path / "deepseek", "deepseek_v2")))


def read_all(model, **options):
    return [*open_model(model, words(), **options).layers()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"deepseek_v3"}))  # Layer1 does not cover it
def test_a_loaded_model_of_every_family_computes_what_its_configuration_says(family, dtype):
    read_all(tiny(family).to(dtype))


def other_activation(model):
    model.model.layers[1].mlp.act_fn = torch.nn.GELU().eval()


def hook_before_the_mlp(model):
    model.model.layers[1].mlp.register_forward_pre_hook(lambda _module, arguments: (1.1 * arguments[0],))


def hook_before_the_layer(model):
    model.model.layers[1].register_forward_pre_hook(lambda _module, arguments: (1.1 * arguments[0],))


def hook_after_the_layer(model):
    model.model.layers[1].register_forward_hook(lambda _module, _arguments, output: 1.1 * output)


def other_precision_of_the_norm(model):
    model.model.layers[1].input_layernorm.variance_epsilon *= 1000


def not_a_number(model):
    model.model.layers[1].register_forward_hook(lambda _module, _arguments, output: output * torch.nan)


CHANGES = [
    other_activation,
    hook_before_the_mlp,
    hook_before_the_layer,
    hook_after_the_layer,
    other_precision_of_the_norm,
    not_a_number,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_loaded_model_that_computes_something_else_is_refused_from_the_changed_layer_on(change):
    model = tiny()
    change(model)
    open_model(model, words(), last=0)
    assert len(read_all(model, last=0)) == 1  # layer 0 is as it was
    with pytest.raises(ArgumentError, match=r"^model: layer 1 of the loaded model computes something else than its"):
        read_all(model)


def test_a_hook_that_acts_late_in_the_texts_is_found():
    model, text = tiny(), " ".join(f"w{i}" for i in range(60))

    def late(_module, _arguments, output):
        return torch.cat((output[:, :50], 0 * output[:, 50:]), 1)

    model.model.layers[1].mlp.act_fn.register_forward_hook(late)
    with pytest.raises(ArgumentError, match=r"^model: layer 1 of the loaded model computes something else"):
        read_all(model, texts=[text])


def test_another_scale_of_the_embedding_is_found_in_layer_0():
    model = tiny()
    model.get_input_embeddings().register_forward_hook(lambda _module, _arguments, rows: 2 * rows)
    with pytest.raises(ArgumentError, match=r"^model: layer 0 of the loaded model"):
        read_all(model, last=0)


def test_reading_leaves_a_loaded_model_and_its_attachment_as_they_were():
    model = tiny()
    arm = attach(model, "outward", layers=0)
    hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]
    read_all(model)
    assert hooks == [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]
    assert (arm.state, arm.report()[0]["calls"]) == ("attached", 0)


def test_a_model_with_a_part_in_training_mode_is_refused():
    model = tiny()
    model.model.layers[2].train()
    with pytest.raises(
        ArgumentError,
        match=r"^model: model\.layers\.2 is in training mode, so its answers are random; call",
    ):
        open_model(model, words(), last=0)


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(ArgumentError, match=r"^tokenizer: it has 64 tokens, but the model's vocabulary only 40"):
        open_model(tiny(vocab_size=40), words(), last=0)
