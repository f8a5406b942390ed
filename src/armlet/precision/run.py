"""Measures what few bits cost a model, in a run that can be interrupted and resumed."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from armlet.checkpoints.given import Model
from armlet.checkpoints.pretrained import Dtype, default_model
from armlet.precision.choice import choose, max_trials
from armlet.precision.measure import Bench, RoundingTrial, RunTrial, TrialOutcome
from armlet.precision.plan import ContractionSite, PrecisionOptions, PrecisionPlan, load_bench
from armlet.precision.result import Precision
from armlet.precision.rows import layer_rows, method_rows
from armlet.precision.schemes import SCHEMES
from armlet.precision.tables import cautions, headline
from armlet.presentation.arguments import given_path
from armlet.presentation.interruption import keep_partial, until_interrupted
from armlet.presentation.progress import progress
from armlet.prompts.texts import CALIBRATION
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import Record, default_run_folder, open_run_folder
from armlet.runs.machine import machine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def quantize(
    model: Model | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    data: str | Path | None = PrecisionOptions.data,
    text: str | None = None,
    windows: int = PrecisionOptions.windows,
    tokens: int = PrecisionOptions.tokens,
    calibration: int = PrecisionOptions.calibration,
    limit: float = PrecisionOptions.limit,
    site: ContractionSite | None = PrecisionOptions.site,
    run: str | Path | None = None,
    seed: int = 0,
    dtype: Dtype = "auto",
    device: str | None = None,
) -> Precision:
    """Measures the cost of few bits at the input of `down`, with companding, contraction and common alternatives.

    Every finished trial is stored in the run folder, where the same call resumes. A loaded model is left as it was.

    Args:
        model: a folder, a hub id, "abacus" or a loaded causal language model; SmolLM2-135M-Instruct by default.
        tokenizer: the tokenizer of a loaded model.
        data: a text file in UTF-8; by default a small built-in text, or problems for abacus.
        text: the text itself, in place of `data`.
        windows: number of held-out windows, from the text's beginning, at least 2.
        tokens: number of tokens of a window, at least 2.
        calibration: number of windows to choose settings by, from the text's end, at least 1.
        limit: maximum cost of contracting without rounding, as a share of the perplexity on calibration text.
        site: the only site for contracting, "gate" or "product" (the input of `down`); None for
            either.
        run: the run folder; by default one in armlet-runs, named after the run.
        seed: seed of the bootstrap.
        dtype: dtype of the weights: "auto" (the model's), "float32", "bfloat16", "float16" or "float64".
        device: device of the model, such as "cuda"; where a loaded model is, or the CPU.

    Returns:
        Perplexities with intervals, by scheme and method. After Ctrl-C, those of the schemes that were finished.

    Raises:
        ArgumentError: an argument is out of range, the text is too short, or the unrounded model's loss is not finite.
        AlreadyAttachedError: ARM is attached to the model, so that its baseline would be treated.
        CheckpointError, UnsupportedModelError: the model cannot be loaded, or has no recognisable `down`.
        RunError: the run folder contains another run, or cannot be written.
        KeyboardInterrupt: Ctrl-C, before the first scheme was finished; finished trials are in the run folder.
    """
    folder, model = given_path("run", run), default_model() if model is None else model
    plan = PrecisionPlan(given_path("data", data), windows, tokens, calibration, limit, site, text, seed)
    bench, manifest = load_bench(plan, model, tokenizer, dtype=dtype, device=device)
    return measure_precision(plan, bench, manifest, folder or default_run_folder(manifest))


def measure_precision(plan: PrecisionPlan, bench: Bench, manifest: Record, folder: Path) -> Precision:
    """Runs every trial that the folder does not contain yet, with a progress bar; can be interrupted with Ctrl-C.

    Raises:
        ArgumentError: the unrounded model's loss is not finite.
        RunError: the folder contains another run, or cannot be written.
        KeyboardInterrupt: Ctrl-C, before the first scheme was finished.
    """
    with open_run_folder(folder, manifest, machine()) as journal:
        total, done = max_trials(len(bench.downs)), len(journal.closed)
        with progress("running trials", total, done=done) as tick:

            def run(trial: RoundingTrial) -> TrialOutcome:
                if not journal.has(trial.key):
                    journal.close(trial.key, [], bench.run(trial).to_dict())
                    tick()
                return TrialOutcome.from_dict(journal.closed[trial.key])

            return _run_trials(plan, bench, run, manifest["engine"]["model"], folder)


def _run_trials(plan: PrecisionPlan, bench: Bench, run: RunTrial, source: str, folder: Path) -> Precision:
    """Chooses on the calibration text, then measures each scheme on the held-out text, until Ctrl-C."""
    rows, layers, contraction = [], [], None
    with until_interrupted() as interruption:
        if not all(map(isfinite, run(RoundingTrial(CALIBRATION)).losses)):
            raise ArgumentError(
                "the model's loss on the text is not finite even without rounding: its weights contain NaN, or its "
                "dtype overflows; try the dtype float32"
            )
        chosen = choose(run, list(bench.downs), plan.limit, plan.site)
        contraction = chosen.contraction
        layers = layer_rows(run, chosen, plan.seed)
        unrounded = method_rows(run, chosen, None, plan.seed)
        for scheme in SCHEMES:
            rows = [*(rows or unrounded), *method_rows(run, chosen, scheme, plan.seed)]
    lines = headline(rows, plan.seed) if rows else []
    warnings = cautions(rows, contraction, plan.limit, plan.seed) if rows and contraction else []
    measured = rows, layers, contraction, lines, warnings
    interrupted = keep_partial(interruption, rows, folder)
    return Precision(source, plan, bench.dtype, folder, *measured, interrupted)
