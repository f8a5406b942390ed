"""Evaluates treatments: answers the same items without ARM, with it and with placebos, in a resumable run."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from armlet.checkpoints.folder import ABACUS
from armlet.checkpoints.given import Model, model_name
from armlet.checkpoints.pretrained import Device, Dtype
from armlet.evaluation.batches import checked_run_folder, run_and_analyse
from armlet.evaluation.conditions.conditions import Condition, TreatmentSource, make_treatments
from armlet.evaluation.engines.engine import Engine
from armlet.evaluation.engines.local import Local
from armlet.evaluation.options import (
    AnswerOptions,
    ConditionOptions,
    FillerOptions,
    GradedAnswerOptions,
    refuse_sampling,
)
from armlet.evaluation.plan import Plan, make_plan, servable_conditions
from armlet.evaluation.report.analysis import count_judged, planned_power
from armlet.evaluation.report.sentences import power_announcement
from armlet.evaluation.result import Findings
from armlet.evaluation.settings import ConditionSettings
from armlet.evaluation.tasks.problems import Task
from armlet.evaluation.tasks.sources import ARITHMETIC, TaskSource, collect_tasks
from armlet.presentation.arguments import (
    LARGEST_SEED,
    refuse_changed,
    text_list,
    whole_number,
    whole_number_or_none,
)
from armlet.presentation.terminal import note
from armlet.prompts.fillers import Position

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OpenEngine = Callable[[Sequence[Condition], Sequence[Task]], Engine]
"""Opens an engine other than a model in this process for these conditions and tasks, such as an `Endpoint`."""


def evaluate(
    model: Model | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    treatments: TreatmentSource | Sequence[TreatmentSource] = "outward",
    layers: int | Sequence[int] | str = 0,
    scope: str = "token",
    site: str = "gate",
    experts: str = "all",
    task: TaskSource | Sequence[TaskSource] = ARITHMETIC,
    items: int | None = None,
    difficulty: int | None = None,
    filler: str | Sequence[str] | None = FillerOptions.filler,
    count: int = FillerOptions.count,
    position: Position = FillerOptions.position,
    samples: int = ConditionOptions.samples,
    temperature: float = ConditionOptions.temperature,
    top_p: float = ConditionOptions.top_p,
    best_of: int = ConditionOptions.best_of,
    combine: bool = ConditionOptions.combine,
    placebos: bool = ConditionOptions.placebos,
    max_new_tokens: int | None = AnswerOptions.max_new_tokens,
    system: str | None = AnswerOptions.system,
    allow_code: bool = AnswerOptions.allow_code,
    batch: int | None = AnswerOptions.batch,
    grader: str = GradedAnswerOptions.grader,
    engine: OpenEngine | None = None,
    run: str | Path | None = None,
    seed: int = 0,
    dtype: Dtype = "auto",
    device: Device | None = None,
) -> Findings:
    """Measures whether treatments help: the same items without ARM, with it, and with placebos.

    The answers are kept in a run folder: the same call resumes or repeats its run without answering twice.

    Args:
        model: a folder, a hub id or a loaded causal language model; by default "abacus", a tiny one for arithmetic.
        tokenizer: the tokenizer of a loaded model.
        treatments: one or several policies, as objects or texts such as "outward:band=0.2", paths of an armlet.json,
            or treatments with their own layers.
        layers: where policies are attached, as in `armlet.attach`.
        scope: values over which their statistics are taken, as in `armlet.attach`.
        site: where they act in a layer, as in `armlet.attach`.
        experts: on which experts of a mixture, as in `armlet.attach`.
        task: one or several names ("gsm8k", "owner/dataset:config:split"), paths of JSON Lines files, or a list of
            dicts with "question" and "answer", or with "question", "choices" and "gold".
        items: items of each task, by default all, or 2,000 for arithmetic.
        difficulty: difficulty of arithmetic.
        filler: one or several texts; each adds a condition with this filler in the prompts and without ARM.
        count: number of tokens of each filler.
        position: "before" the system prompt, "between" it and the question, at the question's "end", or "random" in it.
        samples: answers to each item under every condition.
        temperature: of sampling; 0 for greedy answers.
        top_p: probability mass that sampling keeps.
        best_of: adds a vote over this number of sampled answers, at least 2; 0 for none.
        combine: adds each policy with each filler, and all of them with `best_of`.
        placebos: adds identity, draw-only, matched, and a change of temperature.
        max_new_tokens: maximum length of an answer; by default it depends on the task.
        system: the system prompt; by default it depends on the task.
        allow_code: whether model-written programs may run, in a sandbox.
        batch: batch size in items; it may slightly change results.
        grader: "math-verify", or "released", the paper's, for comparison.
        engine: opens another engine than a model in this process, such as a server, which runs no gate placebos;
            `model` is then only a name.
        run: the run folder; by default one in armlet-runs/ named after the run.
        seed: seed of keyed noise, random items and sampling.
        dtype: dtype of the weights: "auto" (the model's), "float32", "bfloat16", "float16" or "float64".
        device: device of the model, such as "cuda"; the CPU by default.

    Returns:
        Accuracies, paired differences with intervals, and verdicts. After Ctrl-C, those of the answered items.

    Raises:
        ArgumentError: an argument is unknown, out of range or would have no effect.
        CheckpointError, UnsupportedModelError: the model cannot be loaded, or has no gated MLP.
        AlreadyAttachedError: ARM is attached to the model, so the baseline would be treated.
        RunError: the folder contains another run.
        KeyboardInterrupt: Ctrl-C, before an item was answered under every condition.
    """
    folder, seed = checked_run_folder(run), whole_number("seed", seed, 0, LARGEST_SEED)
    items, difficulty = whole_number_or_none("items", items, 1), whole_number_or_none("difficulty", difficulty, 0)
    comparison = ConditionOptions(samples, temperature, top_p, best_of, combine, placebos)
    answers = GradedAnswerOptions(max_new_tokens, system, allow_code, batch, grader)
    fillings = FillerOptions(text_list("filler", filler), count, position).fillings()
    chosen = make_treatments(treatments, layers=layers, scope=scope, site=site, experts=experts, seed=seed)
    tasks = collect_tasks(task, items, difficulty, seed)
    refuse_sampling(tasks, answers, comparison)
    compared, left_out = comparison.conditions(chosen, fillings), []
    if engine:
        loading = {"tokenizer": (tokenizer, None), "dtype": (dtype, "auto"), "device": (device, None)}
        refuse_changed("has no effect, because another engine runs the model", **loading)
        compared, left_out = servable_conditions(compared, tasks)
    settings = vars(answers) | {"top_p": top_p, "seed": seed}
    is_built_in = not engine if model is None else model_name(model) == ABACUS
    plan = make_plan(tasks, compared, built_in=is_built_in, **settings)
    if engine:
        opened = engine(compared, tasks)
    else:
        opened = Local(ABACUS if model is None else model, tokenizer, dtype=dtype, device=device, seed=seed)
        opened.check(chosen, fillings)
    if left_out:
        names = ", ".join(condition.name for condition in left_out)
        note(f"left out, because they need a model in this process: {names}")
    announce_power(plan)
    with closing(opened):
        return run_and_analyse(plan, opened, folder)


def announce_power(plan: Plan) -> None:
    """Says on stderr, before the run, which differences the items can detect."""
    judged = count_judged([ConditionSettings(**condition.plain()) for condition in plan.conditions], plan.tasks)
    for task in plan.tasks:
        note(power_announcement(task.name, planned_power(len(task.problems), judged)))
