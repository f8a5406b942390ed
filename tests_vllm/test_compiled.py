"""Compiled engines, each in a process of its own over one compile cache."""

from armlet import Outward, attach
from engines import elsewhere, hugging_face
from families import prompt

PROMPTS = [prompt(length, seed=length)[0].tolist() for length in (5, 20, 33)]


def test_a_warm_compile_cache_never_mixes_engines_with_and_without_arm(tiny_model, tmp_path):
    folder, model = tiny_model("llama")
    baseline = hugging_face(model, PROMPTS, 24)
    with attach(model, Outward(), layers=[0, 1]):
        treated = hugging_face(model, PROMPTS, 24)
    request = {"folder": str(folder), "prompts": PROMPTS, "tokens": 24, "options": {"enforce_eager": False}}
    on = {"armlet": {"policy": "outward", "layers": [0, 1]}}
    asked = {"extra_args": [{"armlet": "off"}, None, {"armlet": "off"}]}
    mixed = [baseline[0], treated[1], baseline[2]]
    assert baseline != treated
    for settings, right in [(on, treated), ({}, baseline), (on | asked, mixed)]:
        assert elsewhere(request | settings, VLLM_CACHE_ROOT=str(tmp_path))["tokens"] == right
