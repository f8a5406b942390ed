"""Each family gives Hugging Face's tokens, in the layers asked for."""

import pytest

from armlet import Inward, Outward, Transport, attach
from engines import engine, greedy, hugging_face, tokens_of
from families import prompt

PROMPTS = [prompt(length, seed=length)[0].tolist() for length in (3, 9, 17, 30)]
HEADS = {"qwen3": {"head_dim": 32}, "gemma3": {"head_dim": 32}, "phi3": {"original_max_position_embeddings": 256}}
FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "phi3", "gemma3"]
POLICIES = {"outward": Outward(), "inward": Inward(knee=0.8), "transport": Transport()}


def entry(policy, layers):
    from armlet.integrations.vllm.settings import resolve

    described = {"policy": policy.name, "layers": layers} | ({"knee": 0.8} if policy.name == "inward" else {})
    return resolve({"armlet": described}, "")["armlet"]


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
def test_every_policy_gives_the_tokens_of_hugging_face(made, family):
    folder, model = made(family, **HEADS.get(family, {}))
    for policy in POLICIES.values():
        treated, on, (baseline, off), report = both(folder, model, policy, [0, 2])
        assert on == treated, policy
        assert off == baseline
        assert treated != baseline
        assert sorted(report["layers"]) == ["0", "2"]
        assert all(layer["moved"] > 0 for layer in report["layers"].values())


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_all_layers_give_the_tokens_of_hugging_face(made, policy):
    folder, model = made("llama")
    treated, on, _, report = both(folder, model, policy, "all")
    assert on == treated
    assert len(report["layers"]) == 3


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_transformers_backend_gives_the_same_tokens(made, family):
    folder, model = made(family, **HEADS.get(family, {}))
    treated, on, (baseline, off), _ = both(folder, model, Outward(), [0], model_impl="transformers")
    assert on == treated != baseline == off
