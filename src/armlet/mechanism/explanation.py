"""A run of `armlet explain`: every prompt with every filler through the layers, and what came out as rows of a table.

The layers are taken one after the other, each for all prompts, so that a model needs the memory of one of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from armlet.attachment.module import ARM
from armlet.layer.decoder import Layer1
from armlet.mechanism.classes import CLASSES, classify
from armlet.mechanism.measure import GATE, QUANTITIES, View, measure_filler, measure_gate, near_zero_after, view
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler, Prompt
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import detail
from armlet.statistics.resampling import draw_weights, percentile_interval, replicate_means

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
Row = dict[str, Any]

AS_IT_IS = "as it is"

UNFILLED = {"mass": 1.0, "lambda": 1.0, "shift": 0.0}
"""What the quantities of attention are where there is no filler; the others have no value there."""


@dataclass(frozen=True)
class Setup:
    """What is run.

    Args:
        prompts: at least one.
        fillers: the conditions beside the baseline, at least one.
        tokens: for each prompt, the tokens `[count]` of each filler.
        policies: what ARM does to the near-zero share of each token, without filler.
        seed: of ARM's keyed noise.
    """

    prompts: Sequence[Prompt]
    fillers: Sequence[Filler]
    tokens: Sequence[Sequence[Tensor]]
    policies: Sequence[Policy]
    seed: int = 0

    def example(self) -> int:
        """Which filler the figures show: the first kind, at its last count."""
        return max(at for at, filler in enumerate(self.fillers) if filler.kind == self.fillers[0].kind)

    def owners(self) -> NDArray[np.int64]:
        """`[tokens]`: which prompt each measured token belongs to."""
        return np.repeat(np.arange(len(self.prompts)), [len(p.ids) - p.at for p in self.prompts])

    def classes(self) -> NDArray[np.str_]:
        """`[tokens]`: the class of each measured token; "" for what is not of the question."""
        found: list[str] = []
        for prompt in self.prompts:
            first, behind = prompt.question
            named = ["" if not first <= at < behind else name for at, name in enumerate(classify(prompt.words))]
            found += named[prompt.at :]
        return np.array(found)


@dataclass(frozen=True)
class Findings:
    """What one layer does to all measured tokens, `[tokens]` each.

    Args:
        layer: its index.
        without: each of `GATE` without filler.
        filled: for each filler, each of `QUANTITIES`.
        treated: for each policy, the near-zero share after ARM.
        received: `View.received` of the first prompt, without filler and with the example's (`Setup.example`).
        attention: `View.attention` of the same.
    """

    layer: int
    without: dict[str, Values]
    filled: list[dict[str, Values]]
    treated: list[Values]
    received: tuple[Tensor, Tensor]
    attention: tuple[Tensor, Tensor]


def run(layers: Iterable[Layer1], wanted: Iterable[int], setup: Setup, tick: Callable[[], None]) -> Iterator[Findings]:
    """Runs every prompt with every filler through the layers; yields the findings of each layer that is wanted.

    Args:
        layers: from layer 0 on, without a gap.
        wanted: their indices.
        setup: what is run.
        tick: called after each prompt in each layer.
    """
    wanted = set(wanted)
    states: list[list[Tensor]] = []
    for layer in layers:
        states = states or [_embedded(layer, *own) for own in zip(setup.prompts, setup.tokens, strict=True)]
        arms = [_arm(layer, policy, setup.seed) for policy in setup.policies]
        parts: list[Findings] = []
        for at, prompt in enumerate(setup.prompts):
            if layer.options.layer in wanted:
                views = _views(layer, prompt, states[at], setup.fillers)
                parts.append(_measure(layer, prompt, views, arms, setup.example()))
            else:
                states[at][:] = [_forward(layer, x) for x in states[at]]
            tick()
        if parts:
            yield _joined(parts)


def _embedded(layer: Layer1, prompt: Prompt, fillers: Sequence[Tensor]) -> list[Tensor]:
    device = layer.gate.weight.device
    texts = [prompt.ids, *(prompt.filled(filler) for filler in fillers)]
    return [layer.embed(ids[None].to(device)) for ids in texts]


def _arm(layer: Layer1, policy: Policy, seed: int) -> ARM:
    return ARM(policy, width=layer.options.width, layer=layer.options.layer, noise=Noise(seed))


def _forward(layer: Layer1, x: Tensor) -> Any:
    with torch.no_grad():
        return layer(x)


def _views(layer: Layer1, prompt: Prompt, states: list[Tensor], fillers: Sequence[Filler]) -> list[View]:
    """Of the baseline and each filler; `states` go one layer on."""
    views: list[View] = []
    for at, count in enumerate([0, *(filler.count for filler in fillers)]):
        with torch.no_grad():
            states[at], trace = layer(states[at], trace=True)
        views.append(view(trace, prompt, count))
        if not views[-1].activated.isfinite().all():
            raise ArgumentError(
                f"explain: layer {layer.options.layer} gives NaN or Inf; try another dtype, such as --dtype float32"
            )
    return views


def _measure(layer: Layer1, prompt: Prompt, views: list[View], arms: Sequence[ARM], example: int) -> Findings:
    without, *filled = views
    halfwidth = near_zero_halfwidth(without.activated)
    return Findings(
        layer.options.layer,
        measure_gate(without, halfwidth),
        [measure_filler(without, seen, halfwidth, layer.options.heads) for seen in filled],
        [near_zero_after(without, halfwidth, arm, prompt.at) for arm in arms],
        (without.received, filled[example].received),
        (without.attention, filled[example].attention),
    )


def _joined(parts: Sequence[Findings]) -> Findings:
    """One prompt's findings behind the other's."""
    first = parts[0]
    without = {name: np.concatenate([part.without[name] for part in parts]) for name in GATE}
    filled = [
        {name: np.concatenate([part.filled[at][name] for part in parts]) for name in QUANTITIES}
        for at in range(len(first.filled))
    ]
    treated = [np.concatenate([part.treated[at] for part in parts]) for at in range(len(first.treated))]
    return Findings(first.layer, without, filled, treated, first.received, first.attention)


@dataclass(frozen=True)
class Explanation:
    """The findings as tables.

    Args:
        findings: of each layer, at least one.
        rows: of `quantity_rows`, layer by layer.
        classes: of `class_rows`, layer by layer.
    """

    findings: Sequence[Findings]
    rows: list[Row]
    classes: list[Row]


def summarise(findings: Sequence[Findings], setup: Setup) -> Explanation:
    """Takes the means of every layer, with paired bootstrap intervals from one draw."""
    weights = draw_weights(setup.owners(), seed=setup.seed)
    rows = [row for found in findings for row in quantity_rows(found, setup.fillers, weights)]
    classes = [row for found in findings for row in class_rows(found, setup, weights)]
    return Explanation(findings, rows, classes)


def quantity_rows(findings: Findings, fillers: Sequence[Filler], weights: Values) -> list[Row]:
    """A row for each filler and each of `QUANTITIES`: without, with, change, and an interval.

    `low` and `high` bound what `interval_of` names: the change, or the value of what has none without a filler.

    Args:
        findings: of one layer.
        fillers: of the run.
        weights: `[replicates, tokens]`, of `resampling.draw_weights`.
    """
    rows: list[Row] = []
    for filler, filled in zip(fillers, findings.filled, strict=True):
        before = {name: findings.without.get(name, UNFILLED.get(name, np.nan)) for name in QUANTITIES}
        changes = np.stack([filled[name] - np.nan_to_num(before[name]) for name in QUANTITIES], axis=1)
        low, high = percentile_interval(replicate_means(changes, weights))
        for at, name in enumerate(QUANTITIES):
            without, value = float(np.mean(before[name])), float(filled[name].mean())
            named = {"layer": findings.layer, "filler": filler.kind, "count": filler.count, "quantity": name}
            numbers = _plain({"without": without, "with": value, "change": value - without})
            bounds = {
                "interval_of": "value" if isnan(without) else "change",
                **_plain({"low": low[at], "high": high[at]}),
            }
            rows.append(named | numbers | bounds)
    return rows


def class_rows(findings: Findings, setup: Setup, weights: Values) -> list[Row]:
    """The near-zero share of the question's tokens by class: as it is, and after each filler and each policy.

    `share` has the interval `share_low` to `share_high`. `change` is `share` − `reference`, and `reference` the share
    of what `against` names: as it is, a class is held against "other"; after a treatment, against itself as it is.
    A class without a token has no row.

    Args:
        findings: of one layer.
        setup: of the run.
        weights: `[replicates, tokens]`, of `resampling.draw_weights`.
    """
    classes, before = setup.classes(), findings.without["near_zero"]
    causes = [*setup.fillers, *setup.policies]
    after = [*(filled["near_zero"] for filled in findings.filled), *findings.treated]
    other = (before, classes == "other", "other")
    rows: list[Row] = []
    for name in CLASSES:
        own = classes == name
        if own.any():
            named = {"layer": findings.layer, "class": name, "tokens": int(own.sum())}
            rows.append(named | {"treatment": AS_IT_IS} | _compared(before, own, other, weights))
            for cause, values in zip(causes, after, strict=True):
                itself = (before, own, AS_IT_IS)
                rows.append(named | {"treatment": treatment_of(cause)} | _compared(values, own, itself, weights))
    return rows


def treatment_of(cause: Filler | Policy) -> str:
    """What a row of `class_rows` calls a filler or a policy."""
    if isinstance(cause, Filler):
        return f"{cause.count} × {cause.kind if cause.kind == RANDOM_SENTENCE else repr(cause.kind)}"
    return f"{type(cause).__name__}, {detail(cause)}"


def _compared(values: Values, own: Mask, reference: tuple[Values, Mask, str], weights: Values) -> Row:
    """The mean share of some tokens, and its distance from that of a reference: its values, tokens and name."""
    means = [replicate_means(v[mask, None], weights[:, mask]) for v, mask in ((values, own), reference[:2])]
    share, held = float(values[own].mean()), _mean(reference[0][reference[1]])
    (share_low, share_high), (low, high) = (percentile_interval(m)[:, 0] for m in (means[0], means[0] - means[1]))
    return {
        **_plain({"share": share, "share_low": share_low, "share_high": share_high}),
        "against": reference[2],
        **_plain({"reference": held, "change": share - held, "low": low, "high": high}),
    }


def _mean(values: Values) -> float:
    return float(values.mean()) if values.size else nan


def _plain(numbers: dict[str, float]) -> Row:
    """For JSON and CSV: what is not defined becomes None."""
    return {name: float(number) if isfinite(number) else None for name, number in numbers.items()}
