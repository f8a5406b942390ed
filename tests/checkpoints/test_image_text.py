"""Image-text models are loaded from a folder, and answer texts without and with ARM."""

import json

import pytest
import torch
import transformers as hf

from armlet.answers import generate
from armlet.attachment.attach import attach
from armlet.checkpoints.pretrained import TEMPLATE_FILE, load
from armlet.evaluation import evaluate
from families import COMMON, WITH_TOWERS, prompt, tiny
from multimodal import BUILDERS, tiny_multimodal
from tiny_checkpoints import TEMPLATE, words

VISION = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 16}
PIXTRAL = VISION | {"model_type": "pixtral", "patch_size": 8, "head_dim": 8}
MODELS = dict.fromkeys(WITH_TOWERS, tiny) | dict.fromkeys(BUILDERS, tiny_multimodal)
MODELS["mistral3"] = lambda _: wrapper(hf.Mistral3Config, {"model_type": "mistral", "head_dim": 8}, PIXTRAL)
MODELS["smolvlm"] = lambda _: wrapper(hf.SmolVLMConfig, {"model_type": "llama"}, VISION | {"patch_size": 4})


def wrapper(config_class, text, vision):
    config = config_class(text_config=COMMON | text, vision_config=vision)
    model = hf.AutoModelForImageTextToText.from_config(config)
    model.generation_config.eos_token_id = None
    return model.eval()


def saved(folder, family):
    model = MODELS[family](family)
    model.save_pretrained(folder)
    words().save_pretrained(folder)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_an_image_text_model_is_loaded_as_it_was_saved(tmp_path, family):
    model, (loaded, _) = saved(tmp_path, family), load(str(tmp_path))
    with torch.no_grad():
        assert torch.equal(loaded(prompt(6)).logits, model(prompt(6)).logits)


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_an_image_text_model_answers_a_text_as_it_does_when_called_by_hand(tmp_path, family):
    saved(tmp_path, family)
    answers = generate(tmp_path, "w5 w6 w7", max_new_tokens=4)
    model, tokenizer = load(str(tmp_path))
    ids = tokenizer("w5 w6 w7", return_tensors="pt")
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(**ids, **settings)[0, 3:].tolist()
    with attach(model, "outward"):
        treated = model.generate(**ids, **settings)[0, 3:].tolist()
    assert answers.baseline.tokens == expected
    assert answers.treated.tokens == treated
    assert answers.report[0]["calls"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma3", "qwen2_5_vl"])
def test_an_image_text_model_is_evaluated(tmp_path, family):
    saved(tmp_path / "model", family)
    task = [{"question": f"w{n} w{n + 1}", "answer": "w5"} for n in range(3)]
    findings = evaluate(tmp_path / "model", task=task, max_new_tokens=2, placebos=False, run=tmp_path / "run")
    assert findings.to_dict()


def test_the_chat_template_of_an_image_text_model_may_have_a_file_of_its_own(tmp_path):
    tiny().save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    (tmp_path / TEMPLATE_FILE).write_text(json.dumps({"chat_template": TEMPLATE}))
    assert load(str(tmp_path))[1].chat_template == TEMPLATE
