"""Runs the trials of a plan, and turns their outcomes into findings."""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, isfinite
from pathlib import Path

from armlet.precision.choice import Chosen, choose, max_trials, reference
from armlet.precision.findings import LayerRow, MethodRow, PerplexityRatio, Precision
from armlet.precision.measure import CALIBRATION, HELD_OUT, Bench, RoundingTrial, RunTrial, TrialOutcome
from armlet.precision.plan import PrecisionPlan
from armlet.precision.schemes import REFERENCES, SCHEMES, QuantScheme
from armlet.precision.tables import cautions, headline
from armlet.presentation.interruption import until_interrupted
from armlet.presentation.terminal import progress
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import open_run_folder
from armlet.runs.machine import machine


def measure_precision(plan: PrecisionPlan, bench: Bench, manifest: dict[str, object], folder: Path) -> Precision:
    """Runs every trial that the folder does not contain yet, with a progress bar; can be interrupted with Ctrl-C.

    Raises:
        ArgumentError: the unrounded model's loss is not finite.
        RunError: the folder contains another run, or cannot be written.
    """
    with open_run_folder(folder, manifest, machine()) as journal:
        total, done = max_trials(len(bench.downs)), len(journal.closed)
        with progress("running trials", total, done=done) as tick:

            def run(trial: RoundingTrial) -> TrialOutcome:
                if not journal.has(trial.key):
                    journal.close(trial.key, [], bench.run(trial).to_dict())
                    tick()
                return TrialOutcome.from_dict(journal.closed[trial.key])

            return _run_trials(plan, bench, run)


def _run_trials(plan: PrecisionPlan, bench: Bench, run: RunTrial) -> Precision:
    """Chooses on the calibration text, then measures each scheme on the held-out text, until Ctrl-C."""
    rows, layers, contraction = list[MethodRow](), list[LayerRow](), None
    with until_interrupted() as interruption:
        if not all(map(isfinite, run(RoundingTrial(CALIBRATION)).losses)):
            raise ArgumentError(
                "the model's loss on the text is not finite even without rounding: its weights contain NaN, or its "
                "dtype overflows; try --dtype float32"
            )
        chosen = choose(run, list(bench.downs), plan.limit, plan.site)
        contraction = chosen.contraction
        layers = layer_rows(run, chosen, plan.seed)
        unrounded = method_rows(run, chosen, None, plan.seed)
        for scheme in SCHEMES:
            rows = [*(rows or unrounded), *method_rows(run, chosen, scheme, plan.seed)]
    lines = headline(rows, plan.seed) if rows else []
    warnings = cautions(rows, contraction, plan.limit, plan.seed) if rows and contraction else []
    return Precision(plan, bench.dtype, rows, layers, contraction, lines, warnings, interruption.happened)


def method_rows(run: RunTrial, chosen: Chosen, scheme: QuantScheme | None, seed: int) -> list[MethodRow]:
    """A row for every method at one scheme; with None, for the unrounded model, without and with the contraction.

    `recovered` is None unless the interval shows that there is a gap.
    """
    full, nearest = run(RoundingTrial(HELD_OUT)), run(RoundingTrial(HELD_OUT, scheme))
    gap = nearest.perplexity - full.perplexity
    resolved = (PerplexityRatio.between(full.losses, nearest.losses, seed).low or 0) > 1
    rows = list[MethodRow]()
    for name, trial in chosen.methods[scheme and reference(scheme)].items():
        outcome = run(replace(trial, text=HELD_OUT, scheme=scheme))
        against_full = PerplexityRatio.between(full.losses, outcome.losses, seed)
        recovered = (nearest.perplexity - outcome.perplexity) / gap if resolved else None
        rows.append(MethodRow(scheme, name, _setting(trial), outcome.perplexity, against_full, recovered, outcome))
    return rows


def _setting(trial: RoundingTrial) -> str:
    """The setting that calibration chose, in words; empty if there is nothing to choose."""
    if trial.contraction:
        return f"{trial.contraction}, {_layer_spans(trial.contraction.layers)}"
    if trial.layers is not None:
        return f"rounded: {_layer_spans(trial.layers)}"
    return ", ".join(f"{name} {value}" for name, value in vars(trial.transform).items() if name != "fixed")


def _layer_spans(layers: Sequence[int]) -> str:
    """The layers as text, such as "layers 0-3,7"."""
    starts = [layer for layer in layers if layer - 1 not in layers]
    stops = [layer for layer in layers if layer + 1 not in layers]
    spans = ",".join(f"{a}-{b}" if b > a else str(a) for a, b in zip(starts, stops, strict=True))
    return f"layer{'s' * (len(layers) > 1)} {spans}"


def layer_rows(run: RunTrial, chosen: Chosen, seed: int) -> list[LayerRow]:
    """A row for each layer, with the effect of its best contraction on held-out windows."""
    rows = list[LayerRow]()
    for layer in chosen.damage[REFERENCES[0]]:
        damage = {scheme: exp(nats[layer]) for scheme, nats in chosen.damage.items()}
        setting = cost = benefit = None
        if gain := chosen.gains.get(layer):
            setting = str(gain.contraction)
            trials = RoundingTrial(HELD_OUT), RoundingTrial(HELD_OUT, REFERENCES[0], layers=(layer,))
            pairs = [(run(trial).losses, run(replace(trial, contraction=gain.contraction)).losses) for trial in trials]
            cost, benefit = (PerplexityRatio.between(*pair, seed) for pair in pairs)
        contracted = chosen.contraction is not None and layer in chosen.contraction.layers
        rows.append(LayerRow(layer, damage, layer in chosen.gains, setting, cost, benefit, contracted))
    return rows
