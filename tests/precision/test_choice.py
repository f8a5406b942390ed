"""What calibration decides, on a made-up run whose losses are known."""

from math import log

import pytest

from armlet.precision.choice import (
    CONTRACT,
    CONTRACTIONS,
    TRANSFORMS,
    WORST_KEPT,
    choose,
    choose_contraction,
    layer_damage,
    reference,
)
from armlet.precision.measure import TrialOutcome
from armlet.precision.schemes import REFERENCES, SCHEMES, QuantScheme
from armlet.precision.transforms import Compand, Percentile

DAMAGE = {0: 0.01, 1: 0.5, 2: 0.2, 3: 0.0, 4: 0.3}
COST = {0: 0.001, 1: 0.004, 2: 0.02, 3: 0.0, 4: 0.007}


class Made:
    """Losses that add up: what rounding does to each layer, less where it is contracted, and what contracting costs.

    Args:
        joint: by how much contractions together cost more than alone.
        best: the contraction that works; the others only cost.
    """

    def __init__(self, joint=1.0, best=CONTRACTIONS[5]):
        self.joint, self.best, self.seen = joint, best, []

    def __call__(self, trial):
        self.seen.append(trial)
        loss = 2.0
        inside = trial.contraction.layers if trial.contraction else ()
        works = trial.contraction is not None and trial.contraction.policy == self.best.policy
        works = works and (trial.contraction.site, trial.contraction.scope) == (self.best.site, self.best.scope)
        loss += sum(COST[layer] for layer in inside) * (self.joint if len(inside) > 1 else 1)
        if trial.scheme:
            rounded = DAMAGE if trial.layers is None else trial.layers
            loss += sum(DAMAGE[layer] * (0.1 if works and layer in inside else 1) for layer in rounded)
            loss -= {Percentile(0.9999): 0.05, Compand(0.8): 0.4}.get(trial.transform, 0)
        return TrialOutcome([loss - 0.5, loss + 0.5], {})


def test_everything_is_chosen_on_the_calibration_text_alone():
    run = Made()
    choose(run, list(DAMAGE), 0.01)
    assert {trial.text for trial in run.seen} == {"calibration"}


def test_the_damage_of_a_layer_is_what_rounding_it_alone_adds():
    assert layer_damage(Made(), list(DAMAGE), REFERENCES[0]) == pytest.approx(DAMAGE)


def test_each_method_gets_the_knob_of_least_loss():
    methods = choose(Made(), list(DAMAGE), 0.01).methods[REFERENCES[1]]
    assert list(methods) == [*TRANSFORMS, WORST_KEPT, CONTRACT]
    assert methods["percentile clip"].transform == Percentile(0.9999)
    assert methods["compand"].transform == Compand(0.8)
    assert methods[WORST_KEPT].layers == (3,)  # the four worst keep their precision


def test_a_contraction_takes_the_layers_that_pay_while_the_limit_holds():
    gains, chosen = choose_contraction(Made(), DAMAGE, limit=0.012)
    assert (chosen.policy, chosen.site, chosen.layers) == (CONTRACTIONS[5].policy, CONTRACTIONS[5].site, (1, 4))
    assert gains[2] is None  # alone it costs 0.02
    assert gains[1].gain == pytest.approx(0.9 * 0.5 - COST[1])
    assert (gains[1].cost, gains[1].contraction.layers) == (pytest.approx(COST[1]), (1,))


@pytest.mark.parametrize(("best", "chosen"), [(0, "gate"), (5, None)])
def test_a_contraction_stays_at_the_site_that_was_asked_for(best, chosen):
    run = Made(best=CONTRACTIONS[best])
    _, found = choose_contraction(run, DAMAGE, 0.012, site="gate")
    assert (found and found.site) == chosen
    assert {trial.contraction.site for trial in run.seen if trial.contraction} == {"gate"}


def test_a_contraction_that_costs_more_jointly_gives_up_its_last_layer():
    run = Made(joint=3)
    _, chosen = choose_contraction(run, DAMAGE, limit=0.012)
    assert chosen.layers == (1,)
    assert sum(COST[layer] for layer in chosen.layers) <= log(1.012)


def test_no_contraction_is_chosen_where_none_pays():
    gains, chosen = choose_contraction(Made(best=CONTRACTIONS[0]), DAMAGE, limit=0)
    assert chosen is None
    assert set(gains.values()) == {None}
    assert CONTRACT not in choose(Made(), list(DAMAGE), 0.0).methods[REFERENCES[0]]


def test_knobs_of_a_code_are_those_of_its_bits_and_of_float8_those_of_int8():
    assert [str(reference(scheme)) for scheme in SCHEMES] == ["int8 tensor"] * 3 + ["int4 token"] * 3 + ["int8 tensor"]
    assert reference(QuantScheme("int8", "token")) is REFERENCES[0]


def test_perplexity_is_of_the_mean_loss():
    assert TrialOutcome([log(8), log(2)], {}).perplexity == pytest.approx(4)
