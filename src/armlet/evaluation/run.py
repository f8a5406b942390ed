"""Evaluates treatments: answers the same items without ARM, with it and with placebos, in a resumable run."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from armlet.checkpoints.folder import ABACUS
from armlet.checkpoints.given import Model, model_name
from armlet.checkpoints.pretrained import Device, Dtype
from armlet.evaluation.batches import ClosedBatch, checked_run_folder, run_and_analyse
from armlet.evaluation.budget import BUDGET_ITEMS, budget_seconds, plan_within
from armlet.evaluation.conditions.conditions import AnyTreatment, Condition, Filling, TreatmentSource, make_treatments
from armlet.evaluation.conditions.interventions import Intervention
from armlet.evaluation.engines.engine import Engine, OpenEngine
from armlet.evaluation.engines.local import Local
from armlet.evaluation.options import (
    AnswerOptions,
    ConditionOptions,
    FillerOptions,
    GradedAnswerOptions,
    make_fillings,
    refuse_sampling,
)
from armlet.evaluation.origins import leave_out_tuning_items, origin_sentence
from armlet.evaluation.plan import Plan, make_plan, servable_conditions
from armlet.evaluation.report.analysis import planned_power
from armlet.evaluation.report.pairs import count_judged
from armlet.evaluation.report.sentences import power_announcement
from armlet.evaluation.result import Findings
from armlet.evaluation.settings import ConditionSettings, SettingOrigin
from armlet.evaluation.tasks.problems import Task, unused_system, with_letters
from armlet.evaluation.tasks.sources import ARITHMETIC, TaskSource, collect_tasks
from armlet.presentation.arguments import (
    LARGEST_SEED,
    given_path,
    plain_value,
    refuse_changed,
    whole_number,
    whole_number_or_none,
)
from armlet.presentation.terminal import note
from armlet.prompts.fillers import Position
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    budget: str | None = None,
    difficulty: int | None = None,
    filler: str | Filling | Sequence[str | Filling] | None = FillerOptions.filler,
    count: int = FillerOptions.count,
    position: Position = FillerOptions.position,
    samples: int = ConditionOptions.samples,
    temperature: float = ConditionOptions.temperature,
    top_p: float = ConditionOptions.top_p,
    best_of: int = ConditionOptions.best_of,
    combine: bool = ConditionOptions.combine,
    placebos: bool = ConditionOptions.placebos,
    margin: float | None = ConditionOptions.margin,
    keep_tuning_items: bool = False,
    max_new_tokens: int | None = AnswerOptions.max_new_tokens,
    system: str | None = AnswerOptions.system,
    allow_code: bool = AnswerOptions.allow_code,
    batch: int | None = AnswerOptions.batch,
    shots: int = AnswerOptions.shots,
    examples: str | Path | None = AnswerOptions.examples,
    template: str | None = AnswerOptions.template,
    grader: str = GradedAnswerOptions.grader,
    letters: bool = GradedAnswerOptions.letters,
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
            treatments with their own layers, or functions that return a context manager in which the model is changed
            and after which it is as before, as objects or as "file.py:function", which runs the file.
        layers: where policies are attached, as in `armlet.attach`.
        scope: values over which their statistics are taken, as in `armlet.attach`.
        site: where they act in a layer, as in `armlet.attach`.
        experts: on which experts of a mixture, as in `armlet.attach`.
        task: one or several names ("gsm8k", "owner/dataset:config:split"), paths of JSON Lines files, or a list of
            dicts with "question" and "answer", or with "question", "choices" and "gold".
        items: items of each task, by default all, or 2,000 for arithmetic.
        budget: the time for answering, such as "90s", "30m" or "2h", instead of `items`: the first batch of each task
            is timed, and as many items are answered as fit in.
        difficulty: difficulty of arithmetic.
        filler: one or several texts, or fillings with their own count and position; each adds a condition with this
            filler in the prompts and without ARM.
        count: number of tokens of each filler.
        position: "before" the system prompt, "between" it and the question, at the question's "end", "random" in it,
            or directly before its "Answer:".
        samples: answers to each item under every condition.
        temperature: of sampling; 0 for greedy answers.
        top_p: probability mass that sampling keeps.
        best_of: adds a vote over this number of sampled answers, at least 2; 0 for none.
        combine: adds each policy with each filler, and all of them with `best_of`.
        placebos: adds identity, draw-only, matched, zeroed (for `Outward`), the baseline again (A/A), and a change of
            temperature.
        margin: the largest difference that would not matter, in percentage points: also tests whether differences are
            smaller. A run keeps its margin: one that is chosen after the answers needs another run.
        keep_tuning_items: whether the items on which a search tuned a treatment, as its armlet.json says, stay in the
            run, which is then no test of it; by default they are left out. Test sets on which the authors chose a
            "published:MODEL/TASK" always stay. Both are said in the report.
        max_new_tokens: maximum length of an answer; by default it depends on the task.
        system: the system prompt; by default it depends on the task.
        allow_code: whether model-written programs may run, in a sandbox.
        batch: batch size in items; it may slightly change results.
        shots: number of few-shot examples before each item, as turns of a chat or as text.
        examples: a JSON Lines file with the examples, with rows as of a task, which must not be among the items; of a
            worked solution the whole text is shown.
        template: the text of a question, with "{question}" once; by default the question alone, or in plain text
            "Question: {question}" and, on a line of its own, "Answer:".
        grader: "math-verify", or "released", the paper's, for comparison.
        letters: for multiple choice, lists the choices in the question and scores their letters, as MMLU is asked.
        engine: opens another engine than a model in this process, such as a server; `model` is then only a name. Gate
            placebos are left out unless this is a `WithGatePlacebos`.
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
    comparison = ConditionOptions(samples, temperature, top_p, best_of, combine, placebos, margin)
    prompts = {"shots": shots, "examples": given_path("examples", examples), "template": template}
    answers = GradedAnswerOptions(max_new_tokens, system, allow_code, batch, **prompts, grader=grader, letters=letters)
    fillings = make_fillings(filler, count, position)
    chosen = make_treatments(treatments, layers=layers, scope=scope, site=site, experts=experts, seed=seed)
    seconds = None if budget is None else budget_seconds(budget)
    tasks = _collect(task, items, difficulty, seed, timed=bool(seconds), letters=letters)
    refuse_sampling(tasks, answers, comparison)
    compared, unservable = comparison.conditions(chosen, fillings), []
    if engine:
        loading = {"tokenizer": (tokenizer, None), "dtype": (dtype, "auto"), "device": (device, None)}
        refuse_changed("has no effect, because another engine runs the model", **loading)
        compared, unservable = servable_conditions(compared, tasks, engine)
    keep = plain_value("keep_tuning_items", keep_tuning_items, bool)
    tasks, origins = leave_out_tuning_items(tasks, compared, keep=keep)
    _announce_treatments(chosen, origins, placebos=placebos)
    settings = vars(answers) | {"top_p": top_p, "seed": seed, "origins": origins, "margin": comparison.margin}
    built_in = not engine if model is None else model_name(model) == ABACUS
    plan = make_plan(tasks, compared, built_in=built_in, **settings)
    if engine:
        opened = engine(compared, tasks)
    else:
        opened = Local(ABACUS if model is None else model, tokenizer, dtype=dtype, device=device, seed=seed)
        opened.check(chosen, fillings)
    with closing(opened):
        return _run_announced(plan, opened, folder, seconds, unservable)


def _collect(
    task: TaskSource | Sequence[TaskSource],
    items: int | None,
    difficulty: int | None,
    seed: int,
    *,
    timed: bool,
    letters: bool,
) -> list[Task]:
    """The tasks, with as many items as a time budget may choose if `timed`, and with lettered choices if `letters`."""
    items, difficulty = whole_number_or_none("items", items, 1), whole_number_or_none("difficulty", difficulty, 0)
    if timed and items:
        raise ArgumentError("budget: use either --budget or --items, not both")
    tasks = collect_tasks(task, BUDGET_ITEMS if timed else items, difficulty, seed)
    return [with_letters(task) for task in tasks] if letters else tasks


def _announce_treatments(
    treatments: Sequence[AnyTreatment], origins: Sequence[SettingOrigin], *, placebos: bool
) -> None:
    """Says on stderr where settings were chosen, and for which treatments there are no placebos at the gate."""
    for origin in origins:
        note(origin_sentence(origin))
    functions = [treatment.name for treatment in treatments if isinstance(treatment, Intervention)]
    if placebos and functions:
        note(f"left out for {', '.join(functions)}: placebos at the gate, because they need one policy to replace")


def _run_announced(
    plan: Plan,
    engine: Engine,
    folder: Path | None,
    seconds: float | None,
    unservable: Sequence[Condition],
) -> Findings:
    """Runs and analyses a plan, within a time budget if there is one, after notes on what the run can show."""
    if unservable:
        names = ", ".join(condition.name for condition in unservable)
        note(f"left out, because this engine cannot run them: {names}")
    answered: list[ClosedBatch] = []
    if seconds:
        plan, folder, answered = plan_within(plan, engine, seconds, folder)
    announce_plan(plan)
    return run_and_analyse(plan, engine, folder, answered=answered)


def announce_plan(plan: Plan) -> None:
    """Says on stderr, before the run, which differences the items can detect, and which tasks have no system prompt."""
    for sentence in unused_system({task.name: task.kind for task in plan.tasks}, plan.systems):
        note(sentence)
    judged = count_judged([ConditionSettings(**condition.plain()) for condition in plan.conditions], plan.tasks)
    margin = None if plan.margin is None else plan.margin / 100
    for task in plan.tasks:
        note(power_announcement(task.name, planned_power(len(task.problems), judged, margin)))
