"""A run of `armlet explain`: every prompt with every filler through the layers, and what came out as rows of a table.

The layers are taken one after the other, each for all prompts, so that a model needs the memory of one of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from armlet.analysis.classes import CLASSES, classify
from armlet.analysis.fillers import RANDOM_SENTENCE, Filler, Prompt
from armlet.analysis.inspection import detail
from armlet.analysis.mechanism import GATE, QUANTITIES, View, measure_filler, measure_gate, near_zero_after, view
from armlet.analysis.resampling import draw_weights, interval, replicate_means
from armlet.analysis.shape import near_zero_halfwidth
from armlet.layer.decoder import Layer1
from armlet.layer.module import ARM
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.rows import Policy

Values = NDArray[np.float64]
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
        tokens: for each prompt, the tokens `[count]` of each filler; `make_setup` takes them from a tokenizer.
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
        found = [
            classify(word) if prompt.question[0] <= at < prompt.question[1] else ""
            for prompt in self.prompts
            for at, word in list(enumerate(prompt.words))[prompt.at :]
        ]
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
    """A row for each filler and each of `QUANTITIES`: without, with, change, and the interval of the change.

    `low` and `high` bound the change; where a quantity has no value without a filler, the value.

    Args:
        findings: of one layer.
        fillers: of the run.
        weights: `[replicates, tokens]`, of `resampling.draw_weights`.
    """
    rows: list[Row] = []
    for filler, filled in zip(fillers, findings.filled, strict=True):
        before = {name: findings.without.get(name, UNFILLED.get(name, np.nan)) for name in QUANTITIES}
        changes = np.stack([filled[name] - np.nan_to_num(before[name]) for name in QUANTITIES], axis=1)
        low, high = interval(replicate_means(changes, weights))
        for at, name in enumerate(QUANTITIES):
            named = {"layer": findings.layer, "filler": filler.kind, "count": filler.count, "quantity": name}
            rows.append(named | _sides(float(np.mean(before[name])), filled[name].mean(), low[at], high[at]))
    return rows


def class_rows(findings: Findings, setup: Setup, weights: Values) -> list[Row]:
    """The near-zero share of the question's tokens by class: after each filler and each policy, and against "other".

    In a row of treatment "as it is", `without` is the share of "other", and `with` that of the class. A class without
    a token has no row.

    Args:
        findings: of one layer.
        setup: of the run.
        weights: `[replicates, tokens]`, of `resampling.draw_weights`.
    """
    classes, before = setup.classes(), findings.without["near_zero"]
    filled = [
        (treatment_of(filler), own["near_zero"]) for filler, own in zip(setup.fillers, findings.filled, strict=True)
    ]
    treated = [(treatment_of(policy), own) for policy, own in zip(setup.policies, findings.treated, strict=True)]
    other = classes == "other"
    rows: list[Row] = []
    for name in CLASSES:
        own = classes == name
        if not own.any():
            continue
        named = {"layer": findings.layer, "class": name, "tokens": int(own.sum())}
        sides = [(before[mask], weights[:, mask]) for mask in (other, own)]
        as_it_is = _compared(*sides) if other.any() else _sides(nan, before[own].mean(), nan, nan)
        rows.append(named | {"treatment": AS_IT_IS} | as_it_is)
        for treatment, after in [*filled, *treated]:
            rows.append(named | {"treatment": treatment} | _compared(sides[1], (after[own], weights[:, own])))
    return rows


def treatment_of(cause: Filler | Policy) -> str:
    """What a row of `class_rows` calls a filler or a policy."""
    if isinstance(cause, Filler):
        return f"{cause.count} × {cause.kind if cause.kind == RANDOM_SENTENCE else repr(cause.kind)}"
    return f"{type(cause).__name__}, {detail(cause)}"


def _compared(without: tuple[Values, Values], filled: tuple[Values, Values]) -> Row:
    """Two sides, each its values `[tokens]` and their weights; the interval is that of the difference of the means."""
    before, after = (replicate_means(values[:, None], weights) for values, weights in (without, filled))
    low, high = interval(after - before)
    return _sides(without[0].mean(), filled[0].mean(), low[0], high[0])


def _sides(without: float, filled: float, low: float, high: float) -> Row:
    """For JSON and CSV: what is not defined becomes None."""
    numbers = {"without": without, "with": filled, "change": filled - without, "low": low, "high": high}
    return {name: float(number) if isfinite(number) else None for name, number in numbers.items()}
