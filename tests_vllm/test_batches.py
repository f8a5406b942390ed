"""An answer does not depend on what else runs, on chunks, on cached prefixes or on being computed twice."""

import pytest

from armlet import Outward, attach
from engines import elsewhere, engine, greedy, hugging_face, tokens_of
from families import prompt

SHARED_PREFIX = prompt(40, seed=1)[0].tolist()
PROMPTS = [SHARED_PREFIX + prompt(length, seed=length)[0].tolist() for length in range(3, 11)]
ASKED = [None, {"armlet": "off"}, {"armlet": 0.5}, {"armlet": 1}]
STRENGTHS = [1.0, 0.0, 0.5, 1.0]
ARMLET = {"policy": "outward"}


@pytest.fixture(scope="module")
def llama(tiny_model):
    return tiny_model("llama")


@pytest.fixture(scope="module")
def wanted(llama):
    """Hugging Face's tokens for each strength in `STRENGTHS`."""
    answers = {}
    for strength in STRENGTHS:
        with attach(llama[1], Outward(strength=strength)):
            answers[strength] = hugging_face(llama[1], PROMPTS, 24)
    assert answers[0.0] != answers[0.5] != answers[1.0]
    return answers


def mixed(wanted):
    """What each prompt asks for, prompt by prompt another thing, and what it must get."""
    asked = [ASKED[at % 4] for at in range(len(PROMPTS))]
    return asked, [wanted[STRENGTHS[at % 4]][at] for at in range(len(PROMPTS))]


def test_requests_of_other_strengths_in_one_batch_get_their_own(llama, wanted):
    asked, right = mixed(wanted)
    with engine(llama[0], ARMLET) as llm:
        assert tokens_of(greedy(llm, PROMPTS, 24, asked)) == right


def test_chunks_of_16_tokens_and_cached_prefixes_change_nothing(llama, wanted):
    asked, right = mixed(wanted)
    small = {"max_num_batched_tokens": 16, "max_num_seqs": 8, "enable_prefix_caching": True, "block_size": 32}
    with engine(llama[0], ARMLET, **small) as llm:
        assert tokens_of(greedy(llm, PROMPTS, 24, asked)) == right
        again = greedy(llm, PROMPTS, 24, asked)
        assert tokens_of(again) == right
        assert all(output.num_cached_tokens >= 32 for output in again)


def test_a_cached_prefix_is_never_that_of_another_strength(llama, wanted):
    with engine(llama[0], ARMLET, enable_prefix_caching=True, block_size=32) as llm:
        for asked, strength in zip(ASKED, STRENGTHS, strict=True):
            first = greedy(llm, PROMPTS[:1], 24, asked)
            assert tokens_of(first) == wanted[strength][:1]
            assert first[0].num_cached_tokens == 0  # "1" is not what the engine is configured with, but asked for
            assert greedy(llm, PROMPTS[:1], 24, asked)[0].num_cached_tokens >= 32


def test_preempted_requests_get_the_same_tokens(llama, wanted):
    asked, right = mixed(wanted)
    with engine(llama[0], ARMLET, block_size=32, num_gpu_blocks_override=9, max_model_len=128) as llm:
        assert tokens_of(greedy(llm, PROMPTS, 24, asked)) == right
        preempted = [metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions"]
    assert sum(preempted) > 0


def test_a_batch_of_32_gives_the_tokens_of_one_by_one(llama):
    prompts = [prompt(length, seed=length)[0].tolist() for length in range(2, 34)]
    with engine(llama[0], ARMLET, enable_prefix_caching=False) as llm:
        together = tokens_of(greedy(llm, prompts, 24))
        alone = [tokens_of(greedy(llm, [ids], 24))[0] for ids in prompts]
    assert together == alone


def test_two_tensor_parallel_ranks_give_the_same_tokens(llama, wanted):
    options = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    request = {"folder": str(llama[0]), "armlet": ARMLET, "prompts": PROMPTS, "tokens": 24, "options": options}
    output = elsewhere(request | {"report": True}, VLLM_CPU_OMP_THREADS_BIND="0|1")
    assert output["tokens"] == wanted[1.0]
    first, second = output["report"]
    assert first["layers"] == second["layers"]
    assert first["layers"]["0"]["moved"] > 0
