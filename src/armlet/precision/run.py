"""Runs the trials of a plan, and turns their outcomes into findings."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from math import exp, isfinite
from pathlib import Path

from armlet.precision.choice import (
    CONTRACT,
    CONTRACTIONS,
    KEPT_COUNTS,
    REFERENCES,
    ROUNDED,
    TRANSFORMS,
    WORST_LAYERS,
    Chosen,
    LayerGain,
    Method,
    RunTrial,
    choose,
    reference,
)
from armlet.precision.codes import CODES, Code
from armlet.precision.findings import LayerRow, MethodRow, PerplexityRatio, Precision
from armlet.precision.measure import Bench
from armlet.precision.plan import PrecisionPlan, Subject
from armlet.precision.sentences import cautions, headline
from armlet.precision.trials import CALIBRATION, HELD_OUT, Contraction, RoundingTrial, TrialOutcome
from armlet.presentation.terminal import progress
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import RunFolder, open_run_folder
from armlet.runs.machine import machine


class JournalledTrials:
    """Runs trials that are not in the journal yet, and looks the others up.

    Args:
        bench: runs them.
        journal: records them.
        tick: is called after each trial that was run.
    """

    def __init__(self, bench: Bench, journal: RunFolder, tick: Callable[[], None]) -> None:
        self.bench, self.journal, self.tick = bench, journal, tick

    def __call__(self, trial: RoundingTrial) -> TrialOutcome:
        """The outcome of a trial; written to the disk when this returns."""
        if not self.journal.has(trial.key):
            self.journal.close(trial.key, [], self.bench.run(trial).to_dict())
            self.tick()
        return TrialOutcome.from_dict(self.journal.closed[trial.key])


def measure_precision(plan: PrecisionPlan, subject: Subject, folder: Path) -> Precision:
    """Runs every trial that the folder does not contain yet, with a progress bar; Ctrl-C ends it early.

    Args:
        plan: what is measured.
        subject: of this plan.
        folder: for the journal; a run continues where it was interrupted.

    Raises:
        ArgumentError: the unrounded model's loss is not finite.
        RunError: the folder contains another run, or cannot be written.
    """
    with open_run_folder(folder, subject.manifest, machine()) as journal:
        total, done = most_trials(len(subject.bench.downs)), len(journal.closed)
        with progress("running trials", total, done=done) as tick:
            return run_trials(plan, subject, JournalledTrials(subject.bench, journal, tick))


def run_trials(plan: PrecisionPlan, subject: Subject, run: RunTrial) -> Precision:
    """Everything from the choice on the calibration text to the last code, as far as Ctrl-C allows."""
    rows, layers = list[MethodRow](), list[LayerRow]()
    contraction, interrupted = None, False
    try:
        _check_finite(run(RoundingTrial(CALIBRATION)).losses)
        chosen = choose(run, list(subject.bench.downs), plan.limit, plan.site)
        contraction = chosen.contraction
        layers = layer_rows(run, chosen, plan.seed)
        unrounded = unrounded_rows(run, chosen, plan.seed)
        for code in CODES:
            rows = [*(rows or unrounded), *rounded_rows(run, chosen, code, plan.seed)]
    except KeyboardInterrupt:
        interrupted = True
    lines = headline(rows, plan.seed) if rows else []
    warnings = cautions(rows, contraction, plan.limit, plan.seed) if rows and contraction else []
    return Precision(plan, subject.dtype, rows, layers, contraction, lines, warnings, interrupted)


def most_trials(layers: int) -> int:
    """An upper bound of the number of trials of a run."""
    options = sum(map(len, TRANSFORMS.values())) + 1 + len(KEPT_COUNTS)  # 1: the knee by error
    held_out = len(CODES) * (len(TRANSFORMS) + 2) + 2 + 3 * min(WORST_LAYERS, layers)
    return len(REFERENCES) * (layers + options) + len(CONTRACTIONS) * (2 * min(WORST_LAYERS, layers) + 2) + held_out


def _check_finite(losses: Sequence[float]) -> None:
    if not all(map(isfinite, losses)):
        raise ArgumentError(
            "the model's loss on the text is not a number before anything is rounded: its weights contain NaN, or its "
            "dtype overflows; try --dtype float32"
        )


def unrounded_rows(run: RunTrial, chosen: Chosen, seed: int) -> list[MethodRow]:
    """The model as it is, and with the contraction alone: what that costs before anything is rounded."""
    plain = Method("full precision")
    methods = [plain, Method(CONTRACT, contraction=chosen.contraction)] if chosen.contraction else [plain]
    return _method_rows(run, methods, None, seed)


def rounded_rows(run: RunTrial, chosen: Chosen, code: Code, seed: int) -> list[MethodRow]:
    """Every method at one code."""
    return _method_rows(run, chosen.methods[reference(code)], code, seed)


def _method_rows(run: RunTrial, methods: Sequence[Method], code: Code | None, seed: int) -> list[MethodRow]:
    """A share of the gap is given only where the interval shows that there is a gap."""
    full, nearest = run(RoundingTrial(HELD_OUT)), run(Method(ROUNDED).trial(HELD_OUT, code))
    gap = nearest.perplexity - full.perplexity
    resolved = (PerplexityRatio.between(full.losses, nearest.losses, seed).low or 0) > 1
    rows = list[MethodRow]()
    for method in methods:
        outcome = run(method.trial(HELD_OUT, code))
        against_full = PerplexityRatio.between(full.losses, outcome.losses, seed)
        recovered = (nearest.perplexity - outcome.perplexity) / gap if resolved else None
        named = (code, method.name, describe_setting(method))
        rows.append(MethodRow(*named, outcome.perplexity, against_full, recovered, outcome))
    return rows


def describe_setting(method: Method) -> str:
    """What calibration chose, in words; empty where there is nothing to choose."""
    if method.contraction:
        return f"{describe_contraction(method.contraction)}, {_layer_spans(method.contraction.layers)}"
    if method.layers is not None:
        return f"rounded: {_layer_spans(method.layers)}"
    names = [field.name for field in fields(method.transform) if field.repr and field.name not in ("fixed", "ratio")]
    return ", ".join(f"{name} {getattr(method.transform, name)}" for name in names)


def describe_contraction(contraction: Contraction) -> str:
    """Curve, knee, site and scope."""
    policy = contraction.policy
    return f"{policy.curve}, knee {policy.knee}, {contraction.site}, {contraction.scope}"


def _layer_spans(layers: Sequence[int]) -> str:
    """Such as "layers 0-3,7"."""
    starts = [at for at in layers if at - 1 not in layers]
    ends = [at for at in layers if at + 1 not in layers]
    spans = ",".join(f"{a}-{b}" if b > a else str(a) for a, b in zip(starts, ends, strict=True))
    return f"layer{'s' * (len(layers) > 1)} {spans}"


def layer_rows(run: RunTrial, chosen: Chosen, seed: int) -> list[LayerRow]:
    """Each layer alone; of the contractions that were tried there, the best."""
    contracted = chosen.contraction.layers if chosen.contraction else ()
    rows = list[LayerRow]()
    for layer in next(iter(chosen.damage.values())):
        damage = {code: exp(nats[layer]) for code, nats in chosen.damage.items()}
        effect = _measure_effect(run, chosen.gains.get(layer), layer, seed)
        rows.append(LayerRow(layer, damage, layer in chosen.gains, *effect, layer in contracted))
    return rows


def _measure_effect(
    run: RunTrial, gain: LayerGain | None, layer: int, seed: int
) -> tuple[str | None, PerplexityRatio | None, PerplexityRatio | None]:
    """On held-out windows: the contraction, its ratio without any rounding, and with this layer rounded."""
    if gain is None:
        return None, None, None
    bare, alone = RoundingTrial(HELD_OUT), RoundingTrial(HELD_OUT, REFERENCES[0], layers=(layer,))
    cost, effect = (
        PerplexityRatio.between(run(trial).losses, run(replace(trial, contraction=gain.contraction)).losses, seed)
        for trial in (bare, alone)
    )
    return describe_contraction(gain.contraction), cost, effect
