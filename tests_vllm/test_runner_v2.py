"""Model runner V2, in processes of their own whose Triton kernels are interpreted: this vLLM brings none for CPUs."""

import pytest

from armlet import Outward, attach
from engines import elsewhere, hugging_face
from families import prompt

V2 = {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1", "VLLM_CPU_OMP_THREADS_BIND": "0|1"}
TWO_RANKS = {"pipeline_parallel_size": 2, "distributed_executor_backend": "mp"}
SMALL = {"max_num_batched_tokens": 16, "max_num_seqs": 8, "enable_prefix_caching": True, "block_size": 32}
FEW_BLOCKS = {"num_gpu_blocks_override": 8, "max_model_len": 128}
SHARED_PREFIX = prompt(40, seed=1)[0].tolist()
PROMPTS = [SHARED_PREFIX + prompt(length, seed=length)[0].tolist() for length in range(19, 23)]
STRENGTHS = [1.0, 0.0, 0.5, 1.0]
ASKED = [None, {"armlet": "off"}, {"armlet": 0.5}, {"armlet": 1}]
TOKENS = 8  # into a third block of keys and values
LAYERS = [0, 3]


@pytest.fixture(scope="module")
def llama(tiny_model):
    return tiny_model("llama", num_hidden_layers=4)


@pytest.fixture(scope="module")
def wanted(llama):
    """Hugging Face's tokens, each prompt with the strength that it asks for."""
    answers = {}
    for strength in set(STRENGTHS):
        with attach(llama[1], Outward(strength=strength), layers=LAYERS):
            answers[strength] = hugging_face(llama[1], PROMPTS, TOKENS)
    assert answers[0.0] != answers[0.5] != answers[1.0]
    return [answers[strength][at] for at, strength in enumerate(STRENGTHS)]


def answered(llama, rounds=1, **options):
    request = {"folder": str(llama[0]), "armlet": {"policy": "outward", "layers": LAYERS}, "prompts": PROMPTS}
    request |= {"tokens": TOKENS, "extra_args": ASKED, "report": True, "dummy_batch": True, "options": options}
    answer = elsewhere(request | {"rounds": rounds}, **V2)
    assert answer["v2"]
    return answer


def test_chunks_cached_prefixes_preemption_and_dummy_batches_change_nothing_in_v2(llama, wanted):
    answer = answered(llama, 2, **SMALL | FEW_BLOCKS)
    assert answer["tokens"] == wanted
    assert answer["preemptions"] > 0
    assert max(answer["cached"]) >= 32


def test_two_pipeline_ranks_give_the_tokens_of_hugging_face_in_v2(llama, wanted):
    answer = answered(llama, **TWO_RANKS, **SMALL)
    assert answer["tokens"] == wanted
    assert [list(report["layers"]) for report in answer["report"]] == [["0"], ["3"]]
