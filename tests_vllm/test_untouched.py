"""The plugin is installed and nothing is configured: vLLM as it is without it."""

from engines import elsewhere
from families import prompt

PROMPTS = [prompt(length, seed=length)[0].tolist() for length in (5, 20, 33)]


def test_without_configuration_tokens_and_log_probabilities_are_those_without_the_plugin(tiny_model):
    request = {"folder": str(tiny_model("llama")[0]), "prompts": PROMPTS, "tokens": 32, "logprobs": 1}
    with_plugin = elsewhere(request)
    without = elsewhere(request, VLLM_PLUGINS="none")
    assert with_plugin == without
    assert len(without["logprobs"][0]) == 32
