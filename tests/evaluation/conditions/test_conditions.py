"""What is run beside what: baseline first, placebos by default, every name once."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from armlet import Inward, Noise, Outward
from armlet.evaluation.conditions.conditions import Filling, Treatment, conditions, make_treatments
from armlet.evaluation.conditions.placebos import GATE_PLACEBOS
from armlet.prompts.fillers import Filler
from armlet.redistribution.errors import ArgumentError

OUT, IN = Treatment(Outward(band=0.2)), Treatment(Inward(), layers="all")
SLASHES = Filling(Filler("/", 55), "end")


def names(*arguments, **options):
    return [condition.name for condition in conditions(*arguments, **options)]


def test_placebos_are_run_unless_they_are_switched_off():
    assert names([OUT], []) == [
        "baseline",
        "outward band=0.2",
        "identity",
        "draw-only",
        "matched (outward band=0.2)",
        "zeroed (outward band=0.2)",
        "A/A",
        "temperature",
    ]
    assert names([OUT], [], placebos=False) == ["baseline", "outward band=0.2"]


def test_each_policy_has_a_matched_placebo_each_outward_a_zeroed_one_and_the_first_the_others():
    wide = Treatment(Outward(proportion=0.5), layers=[1])
    found = conditions([OUT, IN, wide], [])
    assert [(each.placebo, each.treatment) for each in found if each.placebo] == [
        ("identity", OUT),
        ("draw-only", OUT),
        ("matched", OUT),
        ("zeroed", OUT),
        ("matched", IN),
        ("matched", wide),
        ("zeroed", wide),
        ("repeat", None),
    ]


def test_without_a_policy_the_baseline_again_and_the_temperature_are_placebos():
    assert names([], [SLASHES]) == ["baseline", "filler 55 × '/' end", "A/A", "temperature"]


def test_the_baseline_again_has_the_settings_of_the_baseline():
    baseline, again, _ = conditions([], [], temperature=0.7, samples=4)
    assert replace(again, name=baseline.name, role="baseline", placebo=None) == baseline


def test_combinations_are_all_of_them():
    assert names([OUT], [SLASHES], best_of=4, combine=True, placebos=False) == [
        "baseline",
        "outward band=0.2",
        "filler 55 × '/' end",
        "outward band=0.2 + filler 55 × '/' end",
        "best of 4",
        "outward band=0.2 + best of 4",
        "filler 55 × '/' end + best of 4",
        "outward band=0.2 + filler 55 × '/' end + best of 4",
    ]


@pytest.mark.parametrize("treatments", [[], [OUT]], ids=["no policy", "policy"])
@pytest.mark.parametrize("fillings", [[], [SLASHES]], ids=["no filler", "filler"])
@pytest.mark.parametrize("best_of", [0, 4])
def test_combine_is_refused_exactly_where_it_would_add_nothing(treatments, fillings, best_of):
    both = bool(treatments) + bool(fillings) + bool(best_of) >= 2
    with nullcontext() if both else pytest.raises(ArgumentError, match=r"^combine: needs two of a policy, a filler"):
        combined = names(treatments, fillings, best_of=best_of, combine=True)
        assert len(combined) > len(names(treatments, fillings, best_of=best_of))


def test_sampled_runs_have_a_warmer_placebo_and_greedy_ones_a_sampled_one():
    assert conditions([], [], temperature=0.7)[-1].temperature == pytest.approx(0.77)
    assert conditions([], [])[-1].temperature == 0.3


def test_a_vote_over_one_answer_is_refused():
    with pytest.raises(ArgumentError, match=r"^best_of: a vote needs at least 2 answers, found 1; 0 for none$"):
        conditions([OUT], [], best_of=1)


def test_best_of_is_sampled_also_where_the_others_are_greedy():
    best = conditions([], [], best_of=8)[1]
    assert (best.samples, best.temperature) == (8, 0.7)


def test_several_greedy_answers_are_refused():
    with pytest.raises(ArgumentError, match="all greedy answers to an item are the same"):
        conditions([], [], samples=2)


def test_each_sample_has_a_noise_stream_of_its_own():
    treatment = Treatment(Outward(), noise=Noise(5, 2))
    assert [treatment.for_sample(None, at).noise for at in range(2)] == [Noise(5, 2), Noise(5, 3)]
    fresh = Noise.fresh()
    assert Treatment(Outward(), noise=fresh).for_sample(None, 3).noise is fresh


def test_a_condition_is_plain_in_a_manifest():
    for condition in conditions([OUT, IN], [SLASHES], combine=True, best_of=2):
        plain = json.loads(json.dumps(condition.plain(), allow_nan=False))
        assert plain["name"] == condition.name
    treated, filled = (conditions([IN], [SLASHES])[at].plain() for at in (1, 2))
    assert (treated["treatment"]["policy"], treated["treatment"]["layers"]) == ("inward", "all")
    assert filled["filling"] == {"kind": "/", "count": 55, "position": "end"}


def test_a_site_is_in_the_arguments_the_manifest_and_the_name():
    treatment = Treatment(Outward(), site="product")
    for name in (None, *GATE_PLACEBOS):
        assert treatment.for_sample(name, 0).site == "product"
    assert treatment.plain()["site"] == "product"
    assert "site" not in OUT.plain()
    assert names([Treatment(Outward()), treatment], [], placebos=False)[1:] == ["outward", "outward site=product"]


def test_names_tell_layers_and_scope_apart_and_two_of_one_name_are_refused():
    deeper, wider = Treatment(Outward(), layers=[0, 3]), Treatment(Outward(), scope="sequence")
    found = names([Treatment(Outward()), deeper, wider, IN], [], placebos=False)
    assert found == ["baseline", "outward", "outward layers=0/3", "outward scope=sequence", "inward layers=all"]
    with pytest.raises(ArgumentError, match="two are named 'outward'"):
        conditions([Treatment(Outward()), Treatment(Outward(), noise=Noise(7))], [])


@pytest.mark.parametrize("layers", ["0,2", [2, 0], range(0, 3, 2), (np.int64(0), 2)], ids=str)
def test_layers_are_the_same_in_every_form(layers):
    (stated,), (placed,) = make_treatments(Treatment(Inward(), layers=layers)), make_treatments("inward", layers=layers)
    assert stated.plain() == placed.plain() == Treatment(Inward(), layers=[0, 2]).plain()


def test_text_that_names_an_armlet_json_is_its_path_but_a_policy_is_a_policy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("outward", "mine"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "armlet.json").write_text(json.dumps(IN.plain()))
    assert make_treatments("mine") == make_treatments("mine/armlet.json") == make_treatments(Path("mine")) == [IN]
    assert make_treatments("outward")[0].policy == Outward()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"polic": "outward"}, "^treatments: expected a mapping with policy, and perhaps layers, .*, found polic$"),
        ({}, "^treatments: expected a mapping with policy, .*, found an empty one$"),
        ({"policy": Outward(), "noise": 3}, "^noise: expected Noise"),
        (Treatment(Outward(), noise=3), "^noise: expected Noise"),
        ({"policy": 3}, "^treatments: expected Outward"),
        ({"policy": Outward(), "scope": "all"}, "^scope: expected one of token, sequence, call"),
    ],
    ids=str,
)
def test_a_wrong_part_of_a_treatment_is_named_in_one_line(wrong, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        make_treatments(wrong)
    assert "\n" not in str(caught.value)


def test_several_policies_in_place_of_one_are_refused():
    with pytest.raises(ArgumentError, match=r"^treatments: expected one, found 2$"):
        make_treatments([["outward", "inward"]])
