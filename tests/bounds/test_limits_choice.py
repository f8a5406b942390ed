"""What calibration chooses: limits that hold by construction, the cheapest, and as many as the cost allows."""

from math import log

import pytest
import torch

from armlet.bounds.extremes import Peak
from armlet.bounds.limits_choice import (
    ChosenLimits,
    Target,
    candidates,
    choose_limits,
    layers_to_limit,
    max_limit_trials,
)
from armlet.bounds.limits_measure import Limit, LimitBench, LimitOutcome, LimitTrial, limit_placements
from armlet.redistribution.errors import ArgumentError
from families import prompt, tiny

TEXTS = {"held-out": prompt(16, batch=6, seed=1), "calibration": prompt(16, batch=3, seed=2)}
KINDS = [(site, curve) for site in ("product", "gate") for curve in ("clip", "log")]


def target_of(model, share=0.5, margin=1.5, site=None, curve=None):
    """A bound at a share of the largest product of the layer whose largest is the smallest."""
    outcome = LimitBench(model, TEXTS, 1.0).run(LimitTrial("calibration"))
    bound = share * min(outcome.largest(layer) for layer in outcome.peaks)
    return Target(bound, margin, model.dtype, site, curve)


def runner(model, target):
    """Runs trials once each; and the list of those that ran."""
    bench, outcomes = LimitBench(model, TEXTS, target.gate_bound), {}

    def run(trial):
        if trial not in outcomes:
            outcomes[trial] = bench.run(trial)
        return outcomes[trial]

    return run, outcomes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("share", [0.9, 0.37, 0.05])
def test_every_candidate_holds_on_the_calibration_text_by_construction(dtype, share):
    model = tiny().to(dtype)
    target = target_of(model, share)
    run, _ = runner(model, target)
    before = run(LimitTrial("calibration"))
    for layer in before.peaks:
        options = candidates(layer, before, target)
        assert [(limit.site, limit.curve) for limit in options] == KINDS
        for limit in options:
            assert run(LimitTrial("calibration", (limit,))).largest(layer) <= target.bound


@pytest.mark.parametrize(("site", "curve"), [*KINDS, (None, None), (None, "log"), ("product", None)])
def test_limits_that_are_chosen_are_of_the_kinds_that_are_allowed_and_hold_together(site, curve):
    model = tiny()
    target = target_of(model, site=site, curve=curve)
    run, _ = runner(model, target)
    chosen = choose_limits(run, target, 1.0)
    assert list(chosen.limits) == [0, 1, 2]
    assert all(target.allows(limit.site, limit.curve) for limit in chosen.limits.values())
    joint = run(LimitTrial("calibration", tuple(chosen.limits.values())))
    over = {layer for layer in joint.peaks if joint.largest(layer) > target.bound}
    assert over == {*chosen.over}
    if target.allows("product", "clip"):
        assert not over


def test_a_clip_of_the_product_holds_on_every_text():
    model = tiny()
    target = target_of(model, 0.1, site="product", curve="clip")
    run, _ = runner(model, target)
    chosen = choose_limits(run, target, 1.0)
    held_out = run(LimitTrial("held-out", tuple(chosen.limits.values())))
    assert all(held_out.largest(layer) <= target.bound for layer in held_out.peaks)
    free = run(LimitTrial("held-out"))
    assert all(free.largest(layer) > target.bound for layer in free.peaks)


def test_the_cheapest_candidate_is_chosen_and_its_cost_is_what_it_adds_alone():
    model = tiny()
    target = target_of(model, 0.3)
    run, _ = runner(model, target)
    before, chosen = run(LimitTrial("calibration")), choose_limits(run, target, 1.0)
    for layer, limit in chosen.limits.items():
        costs = {
            option: run(LimitTrial("calibration", (option,))).loss - before.loss
            for option in candidates(layer, before, target)
        }
        if limit in costs:  # otherwise it was clipped to hold together with the others
            assert costs[limit] == min(costs.values())
        assert chosen.costs[layer] == run(LimitTrial("calibration", (limit,))).loss - before.loss


@pytest.mark.parametrize("max_cost", [0.0, 0.001, 0.02, 0.1, 10.0])
def test_what_is_recommended_costs_no_more_than_allowed_on_the_calibration_text(max_cost):
    model = tiny()
    target = target_of(model, 0.2)
    run, _ = runner(model, target)
    chosen = choose_limits(run, target, max_cost)
    kept = tuple(chosen.limits[layer] for layer in chosen.recommended)
    cost = run(LimitTrial("calibration", kept)).loss - run(LimitTrial("calibration")).loss if kept else 0
    assert cost <= log(1 + max_cost)
    if max_cost == 10.0:
        assert chosen.recommended == tuple(chosen.limits)


def fake(costs, largest, together=0.0):
    """Trials of a model whose costs add up, and a bit more for each pair; limited products are within any bound."""

    def run(trial):
        limited = {limit.layer for limit in trial.limits}
        loss = 2 + sum(costs[layer] for layer in limited) + together * max(0, len(limited) - 1)
        peaks = {layer: {"product": Peak(0.0 if layer in limited else value, 0, 0)} for layer, value in largest.items()}
        return LimitOutcome([loss], peaks, {}, {})

    return run


TARGET = Target(100.0, 1.0, torch.float32, "product", "clip")


def test_layers_whose_limit_costs_too_much_are_left_out_the_cheapest_first():
    costs, largest = {0: 0.004, 1: 3.0, 2: 0.0, 3: 0.009}, dict.fromkeys(range(4), 200.0)
    chosen = choose_limits(fake(costs, largest), TARGET, 0.01)
    assert (list(chosen.limits), chosen.recommended) == ([0, 1, 2, 3], (0, 2))
    assert chosen.costs == pytest.approx(costs)


def test_layers_that_cost_more_together_are_left_out_until_they_do_not():
    costs, largest = {0: 0.002, 1: 0.003, 2: 0.001}, dict.fromkeys(range(3), 200.0)
    assert choose_limits(fake(costs, largest, 0.004), TARGET, 0.01).recommended == (0, 2)


def test_a_limit_that_never_acts_on_the_calibration_text_costs_nothing_and_runs_no_trial_of_its_own():
    target = Target(100.0, 2.0, torch.float32)
    trials = []
    run = fake({0: 1.0, 1: 1.0}, {0: 60.0, 1: 20.0})

    def counted(trial):
        trials.append(trial)
        return run(trial)

    chosen = choose_limits(counted, target, 0.0)
    assert chosen == ChosenLimits({0: Limit(0, "product", "clip", 100.0)}, {0: 0.0}, (0,), ())
    assert {trial.limits for trial in trials} == {(), (chosen.limits[0],)}  # the second: all together


def test_a_layer_needs_a_limit_if_its_product_times_the_margin_exceeds_the_bound():
    outcome = fake({}, {0: 49.0, 1: 51.0, 2: 101.0})(LimitTrial("calibration"))
    for margin, layers in ((1.0, [2]), (2.0, [1, 2]), (3.0, [0, 1, 2])):
        assert layers_to_limit(outcome, Target(100.0, margin, torch.float32)) == layers


def test_a_layer_that_no_allowed_limit_can_bound_is_an_error_and_not_left_out_in_silence():
    unreadable = fake({0: 0.0}, {0: 200.0})  # without limits of the gate, as where the gate cannot be read
    with pytest.raises(ArgumentError, match=r"^layer 0: its product exceeds 100, and no limit at the site gate can be"):
        choose_limits(unreadable, Target(100.0, 1.0, torch.float32, "gate"), 1.0)


def test_no_more_trials_are_run_than_the_progress_bar_says():
    model = tiny()
    target = target_of(model, 0.2)
    run, outcomes = runner(model, target)
    choose_limits(run, target, 0.001)
    assert len(outcomes) <= max_limit_trials(3)


def test_the_bound_is_the_formats_largest_number_over_the_headroom():
    assert Target.of("e4m3", 2.0, 1.0, torch.float32, None, None).bound == 224
    assert Target.of("nvfp4", 1.0, 1.0, torch.float32, None, None).bound == 2688


def test_equal_limits_are_one_placement():
    limits = [Limit(2, "product", "clip", 4.0), Limit(0, "product", "clip", 4.0), Limit(1, "gate", "clip", 4.0)]
    expected = [([0, 2], "product"), ([1], "gate")]
    assert [(place["layers"], place["site"]) for place in limit_placements(limits)] == expected
