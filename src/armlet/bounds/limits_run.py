"""Finds where a model needs limits, in a run that can be interrupted and resumed."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from armlet.bounds.limits_choice import choose_limits, layers_to_limit, max_limit_trials
from armlet.bounds.limits_measure import LimitOutcome, LimitTrial, RunLimitTrial, first_infinite, nvfp4_scales
from armlet.bounds.limits_plan import LimitCurve, LimitFormat, LimitSite, LimitsOptions, LimitsPlan, LimitsRun, open_run
from armlet.bounds.limits_result import Limits
from armlet.bounds.limits_rows import LimitRow, LimitSet, headroom_rows, limit_row, limit_set
from armlet.checkpoints.given import Model
from armlet.checkpoints.pretrained import Dtype, default_model
from armlet.presentation.arguments import given_path
from armlet.presentation.interruption import keep_partial, until_interrupted
from armlet.presentation.progress import Tick, progress
from armlet.prompts.texts import CALIBRATION, HELD_OUT
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import RunFolder, default_run_folder, open_run_folder
from armlet.runs.machine import machine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def limits(
    model: Model | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    data: str | Path | None = LimitsOptions.data,
    text: str | None = None,
    windows: int = LimitsOptions.windows,
    tokens: int = LimitsOptions.tokens,
    calibration: int = LimitsOptions.calibration,
    format: LimitFormat = LimitsOptions.format,
    headroom: float = LimitsOptions.headroom,
    margin: float = LimitsOptions.margin,
    site: LimitSite | None = LimitsOptions.site,
    curve: LimitCurve | None = LimitsOptions.curve,
    max_cost: float = LimitsOptions.max_cost,
    run: str | Path | None = None,
    seed: int = 0,
    dtype: Dtype = "auto",
    device: str | None = None,
) -> Limits:
    """Measures the headroom of each layer in number formats, and finds limits that keep its product inside one.

    Every finished trial is stored in the run folder, where the same call resumes. A loaded model is left as it was.

    Args:
        model: a folder, a hub id, "abacus" or a loaded causal language model; SmolLM2-135M-Instruct by default.
        tokenizer: the tokenizer of a loaded model.
        data: a text file in UTF-8; by default a small built-in text, or problems for abacus.
        text: the text itself, in place of `data`.
        windows: number of held-out windows, from the text's beginning, at least 2.
        tokens: number of tokens of a window, at least 2.
        calibration: number of windows to choose limits by, from the text's end, at least 1.
        format: the format whose largest number, without a scale, no product (input of `down`) may exceed.
        headroom: the format's largest number over the largest product, at least.
        margin: how much larger than on calibration text the values of other texts may be, at least 1. A layer needs a
            limit if its largest product times this exceeds the bound.
        site: the only site to limit, "gate" or "product"; None for either.
        curve: the only curve, "clip" or "log"; None for either.
        max_cost: maximum cost of the recommended limits, as a share of the perplexity on calibration text.
        run: the run folder; by default one in armlet-runs, named after the run.
        seed: seed of the bootstrap.
        dtype: dtype of the weights: "auto" (the model's), "float32", "bfloat16", "float16" or "float64".
        device: device of the model, such as "cuda"; where a loaded model is, or the CPU.

    Returns:
        Headroom by layer, and limits with their costs. After Ctrl-C, what was measured.

    Raises:
        ArgumentError: an argument is out of range, the text is too short, or values of the model are not finite.
        AlreadyAttachedError: ARM is attached to the model, so that its values would be treated.
        CheckpointError, UnsupportedModelError: the model cannot be loaded, has no recognisable `down`, or is a mixture
            of experts.
        RunError: the run folder contains another run, or cannot be written.
        KeyboardInterrupt: Ctrl-C, before the headroom was measured; finished trials are in the run folder.
    """
    folder, model = given_path("run", run), default_model() if model is None else model
    chosen = (format, headroom, margin, site, curve, max_cost)
    plan = LimitsPlan(given_path("data", data), windows, tokens, calibration, *chosen, text, seed)
    opened = open_run(plan, model, tokenizer, dtype=dtype, device=device)
    return find_limits(opened, folder or default_run_folder(opened.manifest))


def find_limits(opened: LimitsRun, folder: Path) -> Limits:
    """Runs every trial that the folder does not contain yet, with progress bars; can be interrupted with Ctrl-C.

    Raises the errors of `limits` about values of the model and the folder.
    """
    source, plan, target = opened.manifest["engine"]["model"], opened.plan, opened.target
    layers, rows = [], list[LimitRow]()
    everything: LimitSet | None = None
    recommended: LimitSet | None = None
    with open_run_folder(folder, opened.manifest, machine()) as journal, until_interrupted() as interruption:
        with progress("measuring values", 2, done=min(2, len(journal.closed))) as tick:
            run = _runner(opened, journal, tick)
            before = _checked(run(LimitTrial(CALIBRATION)), opened)
            layers = headroom_rows(opened, _checked(run(LimitTrial(HELD_OUT)), opened), before)
        total = max_limit_trials(len(layers_to_limit(before, target)))
        with progress("trying limits", total, done=max(0, len(journal.closed) - 2)) as tick:
            run = _runner(opened, journal, tick)
            chosen = choose_limits(run, target, plan.max_cost)
            together = [*chosen.limits.values()]
            everything = limit_set(run, together, target.bound, plan.seed)
            kept = [limit for limit in together if limit.layer in chosen.recommended]
            recommended = limit_set(run, kept, target.bound, plan.seed)
            for layer in chosen.limits:
                rows.append(limit_row(run, chosen, layer, target.bound, plan.seed))
    interrupted = keep_partial(interruption, layers, folder)
    measured = target.bound, layers, rows, everything, recommended, interrupted
    return Limits(source, plan, opened.bench.dtype, folder, *measured)


def _runner(opened: LimitsRun, journal: RunFolder, tick: Tick) -> RunLimitTrial:
    def run(trial: LimitTrial) -> LimitOutcome:
        if not journal.has(trial.key):
            held_out_values = trial == LimitTrial(HELD_OUT)
            scales = nvfp4_scales(run(LimitTrial(CALIBRATION))) if held_out_values else None
            journal.close(trial.key, [], opened.bench.run(trial, scales).to_dict())
            tick()
        return LimitOutcome.from_dict(journal.closed[trial.key])

    return run


def _checked(outcome: LimitOutcome, opened: LimitsRun) -> LimitOutcome:
    """The outcome of a model without limits; raises ArgumentError if one of its values is not finite."""
    place = first_infinite(outcome)
    if place or not all(map(isfinite, outcome.losses)):
        name = f"layer {place[0]}: {place[1]}" if place else "the loss"
        raise ArgumentError(
            f"{name} is not finite in {opened.bench.dtype}, even without limits: the weights contain NaN, or the dtype "
            "overflows; try the dtype float32"
        )
    return outcome
