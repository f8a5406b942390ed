"""Two pipeline-parallel ranks give the tokens of one, wherever ARM is."""

import pytest

from armlet import Outward, attach
from engines import elsewhere, engine, greedy, hugging_face, tokens_of
from families import prompt

PROMPTS = [prompt(length, seed=length)[0].tolist() for length in (5, 20, 33, 40)]
ARMLET = {"policy": "outward"}
STRENGTHS = [1.0, 0.0, 0.5, 1.0]
ASKED = [None, {"armlet": "off"}, {"armlet": 0.5}, {"armlet": 1}]
TWO = {"pipeline_parallel_size": 2, "distributed_executor_backend": "mp"}
CHUNKS = {"max_num_batched_tokens": 16, "max_num_seqs": 4, "enable_prefix_caching": True, "block_size": 32}
CASES = [([0], [["0"], []], {}), ([3], [[], ["3"]], {}), ([0, 1, 2, 3], [["0", "1"], ["2", "3"]], CHUNKS)]


@pytest.fixture(scope="module")
def llama(tiny_model):
    return tiny_model("llama", num_hidden_layers=4)


def wanted(model, layers):
    """Hugging Face's tokens: all prompts with ARM on, and each with the strength that it asks for."""
    answers = {}
    for strength in STRENGTHS:
        with attach(model, Outward(strength=strength), layers=layers):
            answers[strength] = hugging_face(model, PROMPTS, 24)
    assert answers[0.0] != answers[0.5] != answers[1.0]
    return answers[1.0], [answers[strength][at] for at, strength in enumerate(STRENGTHS)]


@pytest.mark.parametrize(("layers", "places", "options"), CASES, ids=["first", "second", "both-in-chunks"])
def test_two_pipeline_ranks_give_the_tokens_of_hugging_face(llama, monkeypatch, layers, places, options):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    treated, mixed = wanted(llama[1], layers)
    with engine(llama[0], ARMLET | {"layers": layers}, **TWO | options) as llm:
        # Only a dummy pass makes the buffer that the second rank receives into; an eager engine on the CPU runs none
        # before its first request: vLLM 0.32 fails there, without armlet too.
        llm.collective_rpc("execute_dummy_batch")
        assert tokens_of(greedy(llm, PROMPTS, 24)) == treated
        assert tokens_of(greedy(llm, PROMPTS, 24, ASKED)) == mixed
        assert tokens_of(greedy(llm, PROMPTS, 24, ASKED)) == mixed  # with chunks, over cached prefixes
        reports = llm.collective_rpc("armlet_report")
    assert [list(report["layers"]) for report in reports] == places
    assert all(report["asked"] == layers for report in reports)
    assert all(counts["moved"] > 0 for report in reports for counts in report["layers"].values())


def test_two_compiled_pipeline_ranks_give_the_tokens_of_hugging_face(llama, tmp_path):
    _, mixed = wanted(llama[1], [0, 3])
    request = {"folder": str(llama[0]), "armlet": ARMLET | {"layers": [0, 3]}, "prompts": PROMPTS, "tokens": 24}
    request |= {"options": TWO | {"enforce_eager": False}, "report": True, "extra_args": ASKED}
    output = elsewhere(request, VLLM_CPU_OMP_THREADS_BIND="0|1", VLLM_CACHE_ROOT=str(tmp_path))
    assert output["tokens"] == mixed
    assert [list(report["layers"]) for report in output["report"]] == [["0"], ["3"]]
