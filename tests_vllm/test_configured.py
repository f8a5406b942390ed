"""How an engine is configured: in words, by file, by the model's folder; and what is refused."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from vllm.exceptions import VLLMValidationError

from armlet import Inward, Outward, attach, load_config
from armlet.integrations.vllm import seams
from armlet.integrations.vllm.settings import check_config, served
from armlet.precision.measure import Contraction
from armlet.precision.result import save_setting
from armlet.redistribution.errors import ArmletError
from engines import engine, greedy, hugging_face, tokens_of
from families import prompt

PROMPTS = [prompt(length, seed=length)[0].tolist() for length in (5, 20)]
OUTWARD = served({"armlet": {"policy": "outward"}})


@pytest.fixture
def saved(tiny_model, tmp_path):
    """(a copy of the model's folder, the tokens with the ARM whose armlet.json lies in it)."""
    folder, model = tiny_model("llama")
    shutil.copytree(folder, tmp_path / "model")
    with attach(model, Outward(band=0.3), layers=[0, 1]) as attachment:
        attachment.save(tmp_path / "model")
        return tmp_path / "model", hugging_face(model, PROMPTS, 24)


def test_an_armlet_json_in_the_models_folder_is_served_with_a_warning(saved, monkeypatch):
    warnings = []
    logger = SimpleNamespace(warning=lambda text, *values: warnings.append(text % values), info=lambda *_: None)
    monkeypatch.setattr(seams, "plugin_logger", lambda: logger)
    folder, treated = saved
    with engine(folder) as llm:
        assert tokens_of(greedy(llm, PROMPTS, 24)) == treated
    assert [text for text in warnings if f"the armlet.json in the folder of the model, {folder}" in text] == warnings
    assert len(warnings) == 1


def test_an_armlet_json_is_served_by_its_name(saved, tiny_model):
    with engine(tiny_model("llama")[0], str(saved[0] / "armlet.json")) as llm:
        assert tokens_of(greedy(llm, PROMPTS, 24)) == saved[1]


SEVERAL = [
    {"policy": Inward(limit=0.3, side="above", curve="clip"), "layers": [0, 1]},
    {"policy": Inward(limit=0.4), "layers": "all", "site": "up"},
    {"policy": Outward(band=0.3), "layers": 1, "site": "product"},
    {"policy": Inward(limit=0.02, curve="clip"), "layers": [0, 2], "site": "product"},
]


@pytest.mark.parametrize("placements", [SEVERAL[:1], SEVERAL[1:2], SEVERAL[2:3], SEVERAL], ids=str)
def test_each_site_and_several_placements_are_served_as_attached(tiny_model, tmp_path, placements):
    folder, model = tiny_model("llama")
    with attach(model, placements) as attachment:
        setting = attachment.save(tmp_path)
        treated = hugging_face(model, PROMPTS, 24)
        moved = [[report["moved"] for report in attachment.report(at).values()] for at in range(len(placements))]
    assert all(min(counts) > 0 for counts in moved)
    assert treated != hugging_face(model, PROMPTS, 24)
    with engine(folder, str(setting)) as llm:
        assert tokens_of(greedy(llm, PROMPTS, 24)) == treated
        assert tokens_of(greedy(llm, PROMPTS, 24, {"armlet": "off"})) == hugging_face(model, PROMPTS, 24)


def test_two_placements_at_one_site_are_refused(tiny_model):
    twice = {"version": 2, "placements": [{"policy": "inward", "site": "up"}, {"policy": "cut", "site": "up"}]}
    with pytest.raises(ArmletError, match="both at the site up of layer 0"), engine(tiny_model("llama")[0], twice):
        pass


def test_a_setting_that_quantize_writes_is_served(tiny_model, tmp_path):
    folder, model = tiny_model("llama")
    [setting] = save_setting(Contraction(Inward(knee=0.5, curve="clip"), "gate", "token", (0, 2)), tmp_path)
    with attach(model, **load_config(setting)):
        treated = hugging_face(model, PROMPTS, 24)
    assert treated != hugging_face(model, PROMPTS, 24)
    with engine(folder, str(setting)) as llm:
        assert tokens_of(greedy(llm, PROMPTS, 24)) == treated


def test_false_turns_the_file_in_the_models_folder_off(saved, tiny_model):
    with engine(saved[0], False) as llm:
        assert tokens_of(greedy(llm, PROMPTS, 24)) == hugging_face(tiny_model("llama")[1], PROMPTS, 24)
        assert tokens_of(greedy(llm, PROMPTS, 4, {"armlet": "off"})) == tokens_of(greedy(llm, PROMPTS, 4))
        with pytest.raises(VLLMValidationError, match="runs without ARM"):
            greedy(llm, PROMPTS, 24, {"armlet": "on"})


@pytest.mark.parametrize("asked", ["banana", 1.5, -0.1, None, [1], float("nan")])
def test_a_request_that_means_nothing_is_refused_and_the_engine_goes_on(tiny_model, asked):
    folder, model = tiny_model("llama")
    with engine(folder, {"policy": "outward", "strength": 0}) as llm:
        with pytest.raises(VLLMValidationError, match="must be 'on', 'off' or a strength"):
            greedy(llm, PROMPTS, 4, {"armlet": asked})
        assert tokens_of(greedy(llm, PROMPTS, 4)) == hugging_face(model, PROMPTS, 4)


@pytest.mark.parametrize(
    ("armlet", "message"),
    [
        ({"policy": "outward", "scope": "sequence"}, "use scope 'token'"),
        ({"policy": "outward", "scope": "call"}, "use scope 'token'"),
        ({"policy": "outward", "noise": "fresh"}, "use keyed noise"),
        ({"policy": "outward", "noise": "midpoint"}, "use keyed noise"),
        ({"policy": "sideways"}, "expected one of outward"),
        ({"policy": "outward", "bnad": 0.2}, "unknown bnad"),
        ({"policy": "outward", "layers": [3]}, "the model has layers 0 to 2, found 3"),
        (17, "additional_config: armlet must be an object"),
        ("nowhere.json", "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_refused(tiny_model, armlet, message):
    with pytest.raises(ArmletError, match=message), engine(tiny_model("llama")[0], armlet):
        pass


FINE = {
    "kv_transfer_config": None,
    "speculative_config": {"enable_adaptive_verification": False},
    "cache_config": {"kv_sharing_fast_prefill": False},
    "parallel_config": {
        "enable_dbo": False,
        "ubatch_size": 1,
        "prefill_context_parallel_size": 1,
        "use_sequence_parallel_moe": False,
    },
    "model_config": {"uses_mrope": False},
}


def config(**changes):
    merged = {name: value | changes.get(name, {}) if isinstance(value, dict) else value for name, value in FINE.items()}
    merged |= {name: value for name, value in changes.items() if not isinstance(value, dict)}
    return SimpleNamespace(
        **{name: SimpleNamespace(**value) if isinstance(value, dict) else value for name, value in merged.items()}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_transfer_config": "one"}, "an instance without ARM"),
        ({"speculative_config": {"enable_adaptive_verification": True}}, "how many draft tokens"),
        ({"cache_config": {"kv_sharing_fast_prefill": True}}, "only a prompt's last token"),
        ({"parallel_config": {"enable_dbo": True}}, "microbatches"),
        ({"parallel_config": {"ubatch_size": 2}}, "microbatches"),
        ({"parallel_config": {"prefill_context_parallel_size": 2}}, "a prompt split over ranks"),
        ({"parallel_config": {"use_sequence_parallel_moe": True}}, "tokens split over ranks"),
        ({"model_config": {"uses_mrope": True}}, "M-RoPE"),
    ],
)
def test_an_engine_in_which_arm_would_go_wrong_is_refused(changes, message):
    check_config(config(), OUTWARD)
    with pytest.raises(ArmletError, match=message):
        check_config(config(**changes), OUTWARD)


def test_a_misspelled_key_of_an_engine_or_of_a_request_is_refused(tiny_model):
    folder, _ = tiny_model("llama")
    misspelled = {"armlett": {"policy": "outward"}}
    with pytest.raises(ArmletError, match="did you mean 'armlet'"), engine(folder, additional_config=misspelled):
        pass
    misspelled_request = pytest.raises(VLLMValidationError, match="did you mean 'armlet'")
    with engine(folder, {"policy": "outward"}) as llm, misspelled_request:
        greedy(llm, PROMPTS, 4, {"armlett": "off"})


def test_a_lora_adapter_works_beside_arm(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM
    from vllm.lora.request import LoRARequest

    folder, _ = tiny_model("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, linear in ((n, m) for n, m in model.named_modules() if n.endswith(("gate_proj", "up_proj"))):
        a = torch.randn(8, linear.in_features, generator=generator) / 8
        b = torch.randn(linear.out_features, 8, generator=generator) / 8
        tensors |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
        linear.weight.data += b @ a
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["gate_proj", "up_proj"]})
    )
    with attach(model, Outward()):
        treated = hugging_face(model, PROMPTS, 24)
    with engine(folder, {"policy": "outward"}, enable_lora=True, max_lora_rank=8) as llm:
        adapter = LoRARequest("adapter", 1, str(tmp_path))
        plain = tokens_of(greedy(llm, PROMPTS, 24))
        assert tokens_of(greedy(llm, PROMPTS, 24, lora_request=adapter)) == treated != plain


def test_the_draft_model_of_speculative_decoding_has_no_arm(tiny_model):
    folder, model = tiny_model("llama")
    with attach(model, Outward()):
        treated = hugging_face(model, PROMPTS, 24)
    draft = {"model": str(tiny_model("llama", seed=0, num_hidden_layers=1)[0]), "num_speculative_tokens": 2}
    with engine(folder, {"policy": "outward"}, speculative_config=draft | {"method": "draft_model"}) as llm:
        assert tokens_of(greedy(llm, PROMPTS, 24)) == treated
        (report,) = llm.collective_rpc("armlet_report")
    assert list(report["layers"]) == ["0"]
