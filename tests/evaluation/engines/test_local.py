"""The local engine: what is generated depends on item, condition, batch and seed, and on nothing else."""

from itertools import product

import pytest
import torch

from armlet import Outward
from armlet.evaluation.conditions.conditions import Filling, Treatment, conditions
from armlet.evaluation.engines.engine import Ask, Sampling, derived_seed
from armlet.evaluation.engines.local import Local
from armlet.evaluation.tasks.problems import Problem
from armlet.prompts.fillers import Filler
from tiny_checkpoints import TEMPLATE, save

SAMPLING = Sampling(max_new_tokens=8, seed=3)
ASKS = [Ask(Problem(str(at), " ".join(f"w{w}" for w in range(10, 11 + at)), "0"), at, "") for at in range(4)]
BASE, TREATED, FILLED, BEST, IDENTITY, DRAW_ONLY, MATCHED, ZEROED, AGAIN, WARM = conditions(
    [Treatment(Outward(proportion=0.5), layers="all")], [Filling(Filler("w7", 5))], best_of=3
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny", template=TEMPLATE, generation={"repetition_penalty": 5.0})


@pytest.fixture(scope="module")
def engine(folder):
    return Local(str(folder))


def answers(engine, condition, sample=0, batch=0, asks=ASKS):
    return [output.text for output in engine.answer(asks, condition, SAMPLING, batch=batch, sample=sample)]


def test_the_placebos_that_do_nothing_give_exactly_the_baselines_answers(engine):
    plain = answers(engine, BASE)
    assert answers(engine, IDENTITY) == plain == answers(engine, DRAW_ONLY)
    assert engine.fired()["0"]["moved"] == 0


def test_a_treatment_a_filler_and_the_placebos_compared_with_it_change_answers(engine):
    plain = answers(engine, BASE)
    assert all(answers(engine, condition) != plain for condition in (TREATED, FILLED, MATCHED, ZEROED, WARM))


def test_arm_is_off_again_after_a_call(engine):
    plain = answers(engine, BASE)
    answers(engine, TREATED)
    assert engine.fired()["0"]["tokens"] > 0
    assert answers(engine, BASE) == plain
    assert engine.fired() == {}


def test_samples_differ_and_each_is_the_same_again(engine):
    drawn = [answers(engine, BEST, sample) for sample in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]
    assert answers(engine, BEST, 1) == drawn[1]
    assert answers(engine, BEST, 0, batch=1) != drawn[0]


def test_sampling_leaves_the_global_generator_alone(engine):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    answers(engine, BEST)
    assert torch.equal(torch.get_rng_state(), state)


def test_only_the_best_of_several_has_log_probabilities(engine):
    outputs = {c.name: engine.answer(ASKS, c, SAMPLING, batch=0, sample=0) for c in (BASE, BEST)}
    assert all(output.logprob is None for output in outputs["baseline"])
    assert all(output.logprob < 0 for output in outputs["best of 3"])


def generated(engine, ids):
    """A plain call of the model, without the penalty of its checkpoint."""
    how = {"max_new_tokens": 8, "do_sample": False, "repetition_penalty": 1.0}
    return engine.model.generate(ids, attention_mask=torch.ones_like(ids), **how)[0, ids.shape[1] :]


def test_an_answer_is_that_of_plain_generation_without_the_checkpoints_penalties(engine):
    assert engine.model.generation_config.repetition_penalty == 5.0
    ids = engine.tokens.prompt(ASKS[2], BASE)[None]
    (output,) = engine.answer([ASKS[2]], BASE, SAMPLING, batch=0, sample=0)
    assert output.text == engine.tokenizer.decode(generated(engine, ids), skip_special_tokens=True)


def test_an_answer_ends_with_its_end_token(folder):
    engine = Local(str(folder))
    ids = engine.tokens.prompt(ASKS[0], BASE)[None]
    row = generated(engine, ids).tolist()
    engine.model.generation_config.eos_token_id = row[2]
    first = row.index(row[2])
    (output,) = engine.answer([ASKS[0]], BASE, SAMPLING, batch=0, sample=0)
    assert (output.tokens, output.ended) == (first + 1, True)
    (cut,) = engine.answer([ASKS[0]], BASE, Sampling(max_new_tokens=first or 1), batch=0, sample=0)
    assert cut.ended == (first == 0)


@pytest.mark.slow
def test_weighing_is_the_same_with_a_placebo_that_does_nothing(engine):
    asks = [Ask(Problem("c", "w20 w21", "0", choices=("w1", "w2 w3")), 0, "")]
    plain = engine.score_choices(asks, BASE)
    assert engine.score_choices(asks, IDENTITY) == plain != engine.score_choices(asks, TREATED)


def test_streams_differ_by_seed_batch_and_sample():
    assert len({derived_seed(*indices, bits=63) for indices in product(range(3), repeat=3)}) == 27
