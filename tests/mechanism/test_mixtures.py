"""In a mixture of experts, a token's activated gate is those of its routed experts, in the order of experts."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from armlet import Noise, Outward, attach
from armlet.attachment.experts import ExpertsArm
from armlet.attachment.sites import mixture_block
from armlet.mechanism import explain
from armlet.mechanism.measure import MIXTURE_GATE
from armlet.redistribution.outward import near_zero_halfwidth
from families import MIXTURES, ROUTED_FAMILIES, UNCOVERED, tiny
from tiny_checkpoints import words

LAYER, SEED, POLICY = 1, 5, Outward(band=0.5)
ASKED = {"prompt": ["w20 w21 w22 w23"], "system": "w10 w11", "filler": "w7", "count": 3, "seed": SEED, "policy": POLICY}
EVERY = ROUTED_FAMILIES | MIXTURES | UNCOVERED
each_family = pytest.mark.parametrize("family", ["qwen3_moe", "olmoe", "deepseek_v2", "phimoe"])


def explained(family, **changes):
    model = tiny(family, families=EVERY)
    explanation = explain(model, words(), layers=LAYER, **ASKED | changes)
    model.set_attn_implementation("eager")  # as Layer1 has it
    return model, explanation


def gates_by_hand(model, ids):
    """The activated gates `[tokens, k · f]` of a text, token by token, in the order of its experts."""
    experts, rows = mixture_block(model.model.layers[LAYER]).experts, []

    def compute(_experts, arguments):
        hidden, routing = arguments[:2]
        for x, chosen in zip(hidden, routing.tolist(), strict=True):
            gates = [F.silu((experts.gate_up_proj[expert] @ x).chunk(2)[0]) for expert in sorted(chosen)]
            rows.append(torch.cat(gates))

    handle = experts.register_forward_pre_hook(compute)
    with torch.no_grad():
        model(ids[None])
    handle.remove()
    return torch.stack(rows)


@pytest.mark.slow
@each_family
def test_norms_and_near_zero_shares_are_those_of_the_gates_by_hand_without_and_with_filler(family):
    model, explanation = explained(family)
    (findings,), (prompt,), fillers = explanation.findings, explanation.setup.prompts, explanation.setup.tokens[0]
    halfwidth = near_zero_halfwidth(gates_by_hand(model, prompt.ids)[prompt.insert_at :]).numpy()
    runs = [(findings.without, prompt.ids, prompt.insert_at)]
    runs += [
        (filled, prompt.filled(filler), prompt.insert_at + len(filler))
        for filled, filler in zip(findings.filled, fillers, strict=True)
    ]
    assert len(runs) == 3
    for measured, ids, first in runs:
        gates = np.abs(gates_by_hand(model, ids)[first:].double().numpy())
        assert (findings.experts * findings.width, len(measured["l1"])) == (gates.shape[1], len(gates))
        np.testing.assert_allclose(measured["l1"], gates.sum(1), rtol=1e-5)
        np.testing.assert_allclose(measured["l2"], np.sqrt((gates**2).sum(1)), rtol=1e-5)
        np.testing.assert_allclose(measured["near_zero"], (gates < halfwidth).mean(1), atol=1e-12)
        assert np.isnan(measured["gate_variance"]).all()


@pytest.mark.slow
@each_family
def test_the_near_zero_share_after_arm_is_that_of_the_rows_of_attach(family):
    model, explanation = explained(family)
    (findings,), (prompt,) = explanation.findings, explanation.setup.prompts
    rows = []

    def store(_arm, arguments, named, output):
        at = zip(arguments[1].tolist(), named["experts"].tolist(), output, arguments[0], strict=True)
        rows.extend((position, expert, after, before) for position, expert, after, before in at)

    with attach(model, POLICY, layers=LAYER, experts="routed", noise=Noise(SEED)), torch.no_grad():
        (arm,) = [module for module in model.modules() if isinstance(module, ExpertsArm)]
        arm.register_forward_hook(store, with_kwargs=True)
        model(prompt.ids[None])
    rows = sorted((row for row in rows if row[0] >= prompt.insert_at), key=lambda row: row[:2])
    tokens = len(prompt.ids) - prompt.insert_at
    after, before = (torch.stack([row[at] for row in rows]) for at in (2, 3))
    halfwidth = near_zero_halfwidth(before.view(tokens, -1))
    expected = (after.view(tokens, -1).abs() < halfwidth).double().mean(1)
    np.testing.assert_array_equal(findings.treated[0], expected.numpy())
    assert findings.moved == [(before != after).sum().item()]
    assert 0 < findings.moved[0] < before.numel()


@pytest.mark.slow
def test_the_result_says_what_the_gate_is_and_has_no_variance_of_it():
    _, explanation = explained("mixtral", count=(2, 3), policy=Outward(band=0.001, share=(0.2, 0.3)))
    said = explanation.sentences()
    assert said[0] == explanation.to_dict()["reading"][0] == f"layer 1 (a mixture of experts): {MIXTURE_GATE}"
    assert "layer 1: band 0.001 is limited by share: at least 0.2 of the values move" in said
    changes = {change.quantity: change for change in explanation.quantities}
    numbers = explanation.to_dict()["rows"]
    assert {row["with"] is None for row in numbers if row["quantity"] == "gate_variance"} == {True}
    assert math.isnan(changes.pop("gate_variance").change)
    assert all(math.isfinite(change.filled) for change in changes.values())
    assert explanation.tables()
    for name in explanation.figures:
        assert explanation.figure(name).axes


@pytest.mark.slow
def test_no_claim_is_judged_where_the_quantity_is_not_defined():
    model = tiny("mixtral", families=EVERY)
    (table, *_) = explain(model, words(), layers=0, **ASKED).tables()
    claims = dict(zip(table.columns[0].cells, table.columns[3].cells, strict=True))
    assert (claims["gate_variance"], claims["l1"]) == ("", "rises: ?")
