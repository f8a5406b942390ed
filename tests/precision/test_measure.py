"""The bench: what is rounded where, what it measures, and that nothing stays in the model."""

import json
import math

import pytest
import torch

from armlet import Inward, attach
from armlet.precision.measure import Bench, Contraction, Meter, RoundingTrial, TrialOutcome
from armlet.precision.schemes import QuantScheme
from armlet.precision.transforms import Compand, Transform
from armlet.prompts.losses import window_losses
from attached import anatomy
from families import FAMILIES, prompt, tiny

INT8, INT4 = QuantScheme("int8", "tensor"), QuantScheme("int4", "token")
TEXTS = {"held-out": prompt(16, batch=4, seed=1), "calibration": prompt(16, batch=2, seed=2)}
CLIP = Contraction(Inward(knee=0.5, curve="clip"), "product", "token", (1,))


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def bench(model):
    return Bench(model, TEXTS)


def test_a_windows_loss_is_transformers_own(model):
    with torch.no_grad():
        expected = [model(row[None], labels=row[None]).loss.item() for row in TEXTS["held-out"]]
    assert window_losses(model, TEXTS["held-out"]) == pytest.approx(expected, rel=1e-5)


def test_only_tokens_after_a_named_one_count(model):
    windows = torch.cat((prompt(5), torch.tensor([[63]]), prompt(6, seed=4)), 1)
    with torch.no_grad():
        labels = windows.where(torch.arange(12) > 5, -100)
        expected = model(windows, labels=labels).loss.item()
    assert window_losses(model, windows, after=63) == pytest.approx([expected], rel=1e-5)


def test_a_trial_without_a_code_is_the_model_as_it_is(model, bench):
    assert bench.run(RoundingTrial("held-out")) == TrialOutcome(window_losses(model, TEXTS["held-out"]), {})


@pytest.mark.parametrize("family", FAMILIES)
def test_rounding_reaches_every_layer_of_every_family_and_leaves_the_model_as_it_was(family):
    model = tiny(family, **({"first_k_dense_replace": 3} if family == "deepseek_v3" else {}))
    before, bench = anatomy(model), Bench(model, TEXTS)
    found = bench.run(RoundingTrial("held-out", INT4, contraction=CLIP))
    assert list(found.layers) == [0, 1, 2]
    assert found.losses != bench.run(RoundingTrial("held-out")).losses
    assert anatomy(model) == before


def test_one_layer_alone_is_rounded_where_one_is_named(model, bench):
    down = model.model.layers[1].mlp.down_proj
    scheme = INT8
    handle = down.register_forward_pre_hook(
        lambda _, args: (
            scheme.round(scheme.rows(args[0]), scheme.rows(args[0]).abs().amax(-1, keepdim=True)).view_as(args[0]),
        )
    )
    expected = window_losses(model, TEXTS["held-out"])
    handle.remove()
    found = bench.run(RoundingTrial("held-out", INT8, layers=(1,)))
    assert (found.losses, list(found.layers)) == (expected, [1])


def test_a_contraction_is_what_attach_does(model, bench):
    found = bench.run(RoundingTrial("held-out", contraction=CLIP))
    with attach(model, CLIP.policy, layers=CLIP.layers, site=CLIP.site, scope=CLIP.scope):
        assert found.losses == window_losses(model, TEXTS["held-out"])


def test_a_static_range_is_calibrated_after_the_contraction(bench):
    static = RoundingTrial(
        "calibration",
        QuantScheme("int8", "static"),
        contraction=Contraction(Inward(knee=0.5, curve="clip"), "product", "token", (0, 1, 2)),
    )
    assert all(layer["saturated"] == 0 for layer in bench.run(static).layers.values())


def test_companding_costs_nothing_but_float_rounding(model):
    downs = Bench(model, TEXTS).downs.values()
    hooks = [down.register_forward_pre_hook(_companded) for down in downs]
    found = window_losses(model, TEXTS["held-out"])
    for hook in hooks:
        hook.remove()
    assert found == pytest.approx(window_losses(model, TEXTS["held-out"]), abs=1e-4)


def _companded(_, args):
    z, inverse = Compand(0.9).fit(args[0], args[0], INT8).forward(args[0])
    return (inverse(z),)


def test_an_error_in_the_model_leaves_no_hook(bench, model, monkeypatch):
    before = anatomy(model)
    monkeypatch.setattr("armlet.precision.measure.window_losses", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench.run(RoundingTrial("held-out", INT8, layers=()))
    assert anatomy(model) == before


def test_a_meter_over_several_calls_is_one_over_all_values():
    x = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    noise = 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    meter = Meter(with_distribution=True)
    for part, off in zip(x.split(1), noise.split(1), strict=True):
        meter.add(part, part + off, INT8.rows(part), torch.tensor([[1.0]]))
    found = meter.stats()
    values = x.double().flatten()
    centred = values - values.mean()
    assert found["sqnr"] == pytest.approx(10 * math.log10(x.square().sum() / noise.square().sum()), rel=1e-3)
    assert found["saturated"] == (x.abs() > 1).double().mean().item()
    assert found["kurtosis"] == pytest.approx(((centred**4).mean() / (centred**2).mean() ** 2).item() - 3, rel=1e-5)
    medians = [part.abs().flatten().median() for part in x]
    assert found["max_over_median"] == pytest.approx((x.abs().max() / torch.stack(medians).mean()).item(), rel=1e-6)


def test_a_layer_of_zeros_has_no_sqnr_and_no_shape():
    meter, zeros = Meter(with_distribution=True), torch.zeros(1, 2, 3)
    meter.add(zeros, zeros, zeros[0], torch.zeros(2, 1))
    assert meter.stats() == {"sqnr": None, "saturated": 0, "max_over_median": None, "kurtosis": None}


def test_the_order_of_trials_does_not_matter(model):
    trials = [
        RoundingTrial("held-out", INT8, Transform()),
        RoundingTrial("held-out", INT8, contraction=CLIP),
        RoundingTrial("held-out", INT4, Compand()),
    ]
    one, other = Bench(model, TEXTS), Bench(model, TEXTS)
    assert [one.run(trial) for trial in trials] == [other.run(trial) for trial in reversed(trials)][::-1]


def test_an_outcome_survives_the_journal(bench):
    for trial in (RoundingTrial("held-out"), RoundingTrial("held-out", INT8), RoundingTrial("calibration", INT4)):
        outcome = bench.run(trial)
        assert TrialOutcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome


@pytest.mark.slow
def test_smollm2_companded_is_smollm2_within_float_rounding(smollm2):
    model, tokenizer = smollm2
    text = "The river runs from the hills to the sea, and takes the sand along."
    ids = torch.cat((torch.tensor([[tokenizer.bos_token_id]]), tokenizer(text, return_tensors="pt").input_ids), 1)
    plain = window_losses(model, ids)
    hooks = [down.register_forward_pre_hook(_companded) for down in Bench(model, {}).downs.values()]
    companded = window_losses(model, ids)
    for hook in hooks:
        hook.remove()
    assert companded == pytest.approx(plain, abs=1e-4)
