"""Over several ranks: the same tokens as Hugging Face on one."""

import pytest
from tests_vllm.engines import equal_up_to_ties, hugging_face, leads

from armlet import Outward, attach
from engines import counts, engine, greedy, tokens_of
from families import prompt

ARMLET = {"policy": "outward", "layers": [0, 1]}
PROMPTS = [prompt(20 + at, seed=at)[0].tolist() for at in range(8)]
TOKENS = 24


def wanted(model):
    with attach(model, Outward(), layers=[0, 1]):
        answers = hugging_face(model, PROMPTS, TOKENS)
        return answers, leads(model, PROMPTS, answers)


@pytest.mark.parametrize(("family", "options"), [("gemma3", {"tp_size": 2}), ("qwen2", {"pp_size": 2})])
def test_ranks_change_no_token(tiny_model, family, options):
    folder, model = tiny_model(family)
    right, margins = wanted(model)
    with engine(folder, ARMLET, **options) as sgl:
        outputs = greedy(sgl, PROMPTS, TOKENS)
        reported = counts(sgl)["on"]
    assert equal_up_to_ties(tokens_of(outputs), right, margins) >= 7
    assert all(layer["moved"] > 0 for layer in reported.values())
