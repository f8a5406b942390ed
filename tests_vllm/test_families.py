"""Each family gives Hugging Face's tokens, in the layers asked for."""

import pytest

from armlet import Cut, Inward, Outward, Transport, attach
from armlet.redistribution.policies import settings
from engines import elsewhere, engine, greedy, hugging_face, tokens_of
from families import prompt

PROMPTS = [prompt(length, seed=length)[0].tolist() for length in (3, 9, 17, 30)]
HEADS = {
    "qwen3": {"head_dim": 32},
    "gemma3": {"head_dim": 32, "tie_word_embeddings": False},
    "phi3": {"original_max_position_embeddings": 256},
}
FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "phi3", "gemma3"]
POLICIES = {"outward": Outward(), "inward": Inward(knee=0.8), "transport": Transport(), "cut": Cut(proportion=0.5)}


def entry(policy, layers):
    from armlet.integrations.vllm.settings import resolve

    return resolve({"armlet": {"policy": policy.name, "layers": layers, **settings(policy)}}, "")["armlet"]


def both(folder, model, policy, layers, **options):
    """(treated by Hugging Face, treated by vLLM, baseline of both, vLLM's report)."""
    baseline = hugging_face(model, PROMPTS, 24)
    with attach(model, policy, layers=layers):
        treated = hugging_face(model, PROMPTS, 24)
    with engine(folder, entry(policy, layers), **options) as llm:
        on = tokens_of(greedy(llm, PROMPTS, 24))
        off = tokens_of(greedy(llm, PROMPTS, 24, {"armlet": "off"}))
        (report,) = llm.collective_rpc("armlet_report")
    return treated, on, (baseline, off), report


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_tokens_of_hugging_face(tiny_model, family):
    folder, model = tiny_model(family, **HEADS.get(family, {}))
    treated, on, (baseline, off), report = both(folder, model, Outward(), [0, 2])
    assert on == treated != baseline == off
    assert sorted(report["layers"]) == ["0", "2"]
    assert all(layer["moved"] > 0 for layer in report["layers"].values())


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_all_layers_give_the_tokens_of_hugging_face(tiny_model, family, policy):
    folder, model = tiny_model(family, **HEADS.get(family, {}))
    treated, on, (baseline, off), report = both(folder, model, policy, "all")
    assert on == treated != baseline == off
    assert len(report["layers"]) == 3


@pytest.mark.parametrize("changes", [{"mlp_only_layers": [0]}], ids=["qwen2_moe"])
def test_a_dense_layer_before_mixtures_gives_the_tokens_of_hugging_face(tiny_model, changes):
    folder, model = tiny_model("qwen2_moe", **changes)
    treated, on, (baseline, off), _ = both(folder, model, Outward(), [0])
    assert on == treated != baseline == off


def test_the_transformers_backend_gives_the_same_tokens(tiny_model):
    # In a process of its own: the backend rewrites classes of transformers, which Hugging Face's side uses here.
    folder, model = tiny_model("llama")
    with attach(model, Outward()):
        treated = hugging_face(model, PROMPTS, 24)
    request = {"folder": str(folder), "armlet": {"policy": "outward"}, "prompts": PROMPTS, "tokens": 24}
    output = elsewhere(request | {"options": {"model_impl": "transformers"}})
    assert output["tokens"] == treated
