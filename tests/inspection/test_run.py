"""Arguments of `inspect`: what is refused before a model is read, and an index of another library."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from armlet.attachment.attach import attach
from armlet.inspection import inspect
from armlet.redistribution.errors import ArgumentError
from command_line import result
from tiny_checkpoints import save, words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": True}, "layer: expected an integer of at least 0, found True"),
        ({"layer": -1}, "layer: expected an integer of at least 0, found -1"),
        ({"seed": 2**70}, "seed: expected an integer from 0 to"),
        ({"prompt": [1]}, "prompt: expected text, found 1"),
        ({"model": ""}, "model: expected a folder, a hub id or a loaded model, found an empty text"),
        ({"tokenizer": "gpt2"}, "tokenizer: expected the model's tokenizer after the model, it is a str"),
        ({"site": "down"}, "site: expected gate, up or product, found 'down'"),
        ({"synthetic": ""}, "synthetic: expected modes or heavy-tail, found ''"),
        *(
            ({"synthetic": "modes", name: value}, f"{name}: has no effect on a synthetic sample; leave it out")
            for name, value in {
                "model": "a",
                "tokenizer": 7,
                "dtype": "float16",
                "device": "cuda:3",
                "layer": 1,
                "site": "product",
                "prompt": "a",
            }.items()
        ),
    ],
    ids=str,
)
def test_what_is_out_of_range_or_has_no_effect_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        inspect(**arguments)


@pytest.mark.slow
def test_an_index_of_numpy_is_an_index(tmp_path):
    inspect("abacus", layer=np.int64(1), prompt="1+1", policy="inward").save(tmp_path)
    assert json.loads((tmp_path / "inspect.json").read_text())["layer"] == 1


@pytest.mark.slow
def test_a_loaded_model_gives_the_commands_numbers_and_is_left_as_it_was(tmp_path):
    folder = save(tmp_path / "tiny")
    arguments = ["--layer", "1", "--prompt", "w1 w2", "--prompt", "w5 w6 w7", "--scope", "sequence", "--seed", "3"]
    printed = result("inspect", folder, *arguments, "--out", tmp_path / "out")
    model, ids = AutoModelForCausalLM.from_pretrained(folder), torch.tensor([[5, 6, 7]])
    arm = attach(model, "outward", layers=1)
    state, logits = str(model), model(ids).logits
    inspection = inspect(model, words(), layer=1, prompt=["w1 w2", "w5 w6 w7"], scope="sequence", seed=3)
    assert json.loads(json.dumps(inspection.to_dict())).items() <= printed.items()
    assert (str(model), arm.state, arm.report()[1]["calls"]) == (state, "attached", 1)
    assert torch.equal(model(ids).logits, logits)
