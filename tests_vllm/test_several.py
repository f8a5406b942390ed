"""Four settings in one engine: each request gets its own, whatever runs beside it and whatever is cached."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
from vllm.exceptions import VLLMValidationError

from armlet import Cut, Inward, Outward, Transport, attach
from armlet.integrations.vllm.offline import install
from armlet.redistribution.errors import ArgumentError
from engines import elsewhere, engine, equal_up_to_ties, greedy, hugging_face, leads, tokens_of
from families import prompt

POLICIES = {
    "loud": [{"policy": Outward(), "layers": [0, 2]}],
    "calm": [{"policy": Inward(limit=0.3), "layers": "all"}, {"policy": Inward(knee=0.8), "layers": [1], "site": "up"}],
    "moved": [{"policy": Transport(), "layers": [1]}],
    "sparse": [{"policy": Cut(proportion=0.5), "layers": [3], "site": "product"}],
}
SETTINGS = {
    "loud": {"policy": "outward", "layers": [0, 2]},
    "calm": {
        "version": 2,
        "placements": [
            {"policy": "inward", "limit": 0.3, "layers": "all"},
            {"policy": "inward", "knee": 0.8, "layers": [1], "site": "up"},
        ],
    },
    "moved": {"policy": "transport", "layers": [1]},
    "sparse": {"policy": "cut", "proportion": 0.5, "layers": [3], "site": "product"},
}
ARMLET = {"settings": SETTINGS, "default": "off"}
ASKED = [None, "off", *SETTINGS, "loud:0.5", "calm:0.25", "sparse:0.75"]
SHARED_PREFIX = prompt(40, seed=1)[0].tolist()
PROMPTS = [SHARED_PREFIX + prompt((3, 5, 8, 11)[at % 4], seed=at)[0].tolist() for at in range(96)]
REQUESTS = [ASKED[at % len(ASKED)] for at in range(96)]
CHUNKS = {"max_num_batched_tokens": 96, "max_num_seqs": 96, "enable_prefix_caching": True, "block_size": 32}
TOKENS = 16


def extra_args(asked):
    return None if asked is None else {"armlet": asked}


@pytest.fixture(scope="module")
def llama(tiny_model):
    return tiny_model("llama", num_hidden_layers=4)


@pytest.fixture(scope="module")
def wanted(llama):
    """Hugging Face's answers to all prompts, by what is asked for."""
    answers = {}
    for asked in ASKED[1:]:
        with treated(llama[1], asked):
            answers[asked] = hugging_face(llama[1], PROMPTS, TOKENS)
    assert len({str(tokens) for tokens in answers.values()}) == len(answers)
    return answers | {None: answers["off"]}


def treated(model, asked):
    """Hugging Face's model as a request asks for it."""
    name, _, strength = (asked or "off").partition(":")
    changes = {"strength": float(strength)} if strength else {}
    placements = [
        placement | {"policy": replace(placement["policy"], **changes)} for placement in POLICIES.get(name, [])
    ]
    return attach(model, placements) if placements else nullcontext()


def agree(model, wanted, tokens, requests=REQUESTS):
    """How many answers equal those of Hugging Face; the others part where it is all but undecided."""
    different = 0
    for at, (asked, answer) in enumerate(zip(requests, tokens, strict=True)):
        if answer != (right := wanted[asked][at]):
            with treated(model, asked):
                margins = leads(model, PROMPTS[at : at + 1], [right])
            equal_up_to_ties([answer], [right], margins)
            different += 1
    return len(tokens) - different


def test_96_requests_over_four_settings_off_and_strengths_in_one_engine_get_their_own(llama, wanted):
    with engine(llama[0], ARMLET, **CHUNKS) as llm:
        assert (
            agree(llama[1], wanted, tokens_of(greedy(llm, PROMPTS, TOKENS, [extra_args(asked) for asked in REQUESTS])))
            >= 92
        )
        (report,) = llm.collective_rpc("armlet_report")
        placed = {name: [int(layer) for layer in layers] for name, layers in report["settings"].items()}
        assert placed == {"loud": [0, 2], "calm": [0, 1, 2, 3], "moved": [1], "sparse": [3]}
        assert all(c["moved"] > 0 for layers in report["settings"].values() for c in layers.values())
        together = {layer: counts["tokens"] for layer, counts in report["layers"].items()}
        assert together["2"] == sum(report["settings"][name]["2"]["tokens"] for name in ("loud", "calm"))
        # Once more, over the prefixes that the first run cached, and each prompt with what its neighbour asked for.
        turned = REQUESTS[1:] + REQUESTS[:1]
        for requests in (REQUESTS, turned):
            outputs = greedy(llm, PROMPTS, TOKENS, [extra_args(asked) for asked in requests])
            assert agree(llama[1], wanted, tokens_of(outputs), requests) >= 92
            assert sum(output.num_cached_tokens >= 32 for output in outputs) == len(PROMPTS)


def test_another_setting_never_hits_a_cached_prefix(llama, wanted):
    with engine(llama[0], ARMLET, enable_prefix_caching=True, block_size=32) as llm:
        for asked in ASKED[1:]:
            first, again = (greedy(llm, PROMPTS[:1], TOKENS, extra_args(asked))[0] for _ in range(2))
            assert (first.num_cached_tokens, again.num_cached_tokens >= 32) == (0, True)
            assert tokens_of([first]) == tokens_of([again])
            assert agree(llama[1], wanted, tokens_of([first]), [asked]) == 1


@pytest.mark.parametrize(
    "ranks",
    [{"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2, "enforce_eager": False}],
    ids=["tensor", "pipeline"],
)
def test_two_ranks_give_each_request_its_setting(llama, wanted, ranks, tmp_path):
    prompts, requests = PROMPTS[:16], REQUESTS[:16]
    request = {"folder": str(llama[0]), "armlet": ARMLET, "prompts": prompts, "tokens": TOKENS, "report": True}
    request |= {"extra_args": [extra_args(asked) for asked in requests]}
    request |= {"options": ranks | {"distributed_executor_backend": "mp"}}
    output = elsewhere(request, VLLM_CPU_OMP_THREADS_BIND="0|1", VLLM_CACHE_ROOT=str(tmp_path))
    assert agree(llama[1], wanted, output["tokens"], requests) >= 15
    layers = [sorted(report["layers"]) for report in output["report"]]
    assert layers == ([["0", "1", "2", "3"]] * 2 if "tensor_parallel_size" in ranks else [["0", "1"], ["2", "3"]])


def test_a_default_is_for_requests_that_name_none(llama, wanted):
    requests = [None, "on", 0.5, "off", "calm:0.25", "loud:0.5", "calm"]
    right = ["loud", "loud", "loud:0.5", "off", "calm:0.25", "loud:0.5", "calm"]
    with engine(llama[0], ARMLET | {"default": "loud"}) as llm:
        tokens = tokens_of(greedy(llm, PROMPTS[:7], TOKENS, [extra_args(asked) for asked in requests]))
    assert agree(llama[1], wanted, tokens, right) >= 6


def test_a_setting_with_a_placement_at_strength_0_and_a_tiny_strength_are_served(llama, wanted):
    still = {"version": 2, "placements": [SETTINGS["loud"], {"policy": "inward", "strength": 0, "layers": [1]}]}
    with engine(llama[0], {"settings": {"half": still}}) as llm:
        asked = [extra_args(value) for value in ("half:1e-46", "half", "half", "off")]
        tokens = tokens_of(greedy(llm, PROMPTS[:4], TOKENS, asked))
        assert agree(llama[1], wanted, tokens, ["off", "loud", "loud", "off"]) >= 3
        greedy(llm, PROMPTS[:1], TOKENS, extra_args("half:0.5"))
        (report,) = llm.collective_rpc("armlet_report")
    assert report["settings"]["half"]["1"]["tokens"] == len(PROMPTS[0]) + TOKENS - 1  # of the last request alone


def test_settings_that_cannot_be_installed_leave_the_earlier_ones(llama, wanted):
    with engine(llama[0], {"settings": {"loud": SETTINGS["loud"]}}, enable_prefix_caching=True, block_size=32) as llm:
        for layers, refused in (([0, 2], False), ([99], True), ([1], False), ([0, 2], False)):
            with pytest.raises(ArgumentError, match="the model has layers 0 to 3") if refused else nullcontext():
                install(llm, {"settings": {"loud": SETTINGS["loud"] | {"layers": layers}}})
            output = greedy(llm, PROMPTS[:1], TOKENS, extra_args("loud"))
            assert output[0].num_cached_tokens == 0  # of the same name, but other settings
            if layers != [1]:
                assert agree(llama[1], wanted, tokens_of(output), ["loud"]) == 1
        with pytest.raises(ArgumentError, match="has layers 0 to 3"):
            install(llm, {"settings": {"new": SETTINGS["loud"] | {"layers": [99]}}})
        with pytest.raises(VLLMValidationError, match="one of this engine's settings, 'loud'"):
            greedy(llm, PROMPTS[:1], 1, extra_args("new"))
