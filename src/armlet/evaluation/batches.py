"""Runs all items of all tasks under all conditions, batch by batch, and writes them to a crash-safe journal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from armlet.evaluation.conditions.conditions import Condition, applies
from armlet.evaluation.conditions.placebos import REPEAT
from armlet.evaluation.engines.engine import Ask, Engine
from armlet.evaluation.grading.graders import EQUAL
from armlet.evaluation.plan import Plan
from armlet.evaluation.report.analysis import analyse_run
from armlet.evaluation.report.answers import any_item
from armlet.evaluation.result import Findings, make_findings
from armlet.evaluation.tasks.problems import Task
from armlet.evaluation.tasks.stored import store_tasks
from armlet.presentation.arguments import given_path, output_folder
from armlet.presentation.files import write_text
from armlet.presentation.interruption import Interruption, until_interrupted
from armlet.presentation.progress import progress
from armlet.presentation.terminal import note, working
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import RUNS, Record, RunFolder, default_run_folder, open_run_folder, recorded_manifest
from armlet.runs.machine import machine

PROMPTS_FILE = "prompts.txt"

ClosedBatch = tuple[tuple[Any, ...], Sequence[Record], Mapping[str, object]]
"""The key of a batch in the journal, its records, and what ARM did."""


@dataclass(frozen=True)
class BatchRun:
    """One batch under one condition, which is run and written as a whole."""

    task: Task
    batch_index: int
    asks: tuple[Ask, ...]
    condition: Condition
    sample: int
    seed: int | None = None  # the sample whose seed is used, if not this one's

    @property
    def key(self) -> tuple[str, int, str, int]:
        """The key of this batch run in the journal."""
        return (self.task.name, self.batch_index, self.condition.name, self.sample)


def batch_runs(plan: Plan, engine: Engine) -> Iterator[BatchRun]:
    """All batch runs in order: each batch under all conditions before the next, so an interrupted run stays paired."""
    for task in plan.tasks:
        asks = [
            Ask(problem, number, plan.systems[task.kind], plan.form) for number, problem in enumerate(task.problems)
        ]
        for batch_index, batch in enumerate(_batches(asks, plan, engine)):
            for condition, samples in _conditions_of(plan, task):
                for sample in range(samples):
                    yield BatchRun(task, batch_index, batch, condition, sample)


def _batches(asks: Sequence[Ask], plan: Plan, engine: Engine) -> Iterator[tuple[Ask, ...]]:
    """Batches of items of similar length; with a budget, the items that are timed are batches of their own."""
    timed = plan.budget.timed_items if plan.budget else 0
    for part in (asks[:timed], asks[timed:]):
        ordered = sorted(part, key=lambda ask: (engine.length(ask), ask.number))
        for start in range(0, len(ordered), plan.batch_size):
            yield tuple(ordered[start : start + plan.batch_size])


def count_answers(plan: Plan) -> int:
    """The number of answers in the whole run."""
    return sum(len(task.problems) * samples for task in plan.tasks for _, samples in _conditions_of(plan, task))


def _first_answers(plan: Plan) -> int:
    """The number of answers to the first batch under all conditions."""
    task = plan.tasks[0]
    return min(plan.batch_size, len(task.problems)) * sum(samples for _, samples in _conditions_of(plan, task))


def _conditions_of(plan: Plan, task: Task) -> list[tuple[Condition, int]]:
    """The conditions under which a task is run, with their numbers of samples; multiple choice is scored once."""
    return [
        (condition, 1 if task.kind == "choice" else condition.samples)
        for condition in plan.conditions
        if applies(condition.role, task.kind)
    ]


def run(plan: Plan, engine: Engine, journal: RunFolder, tick: Callable[[int], None] = lambda _: None) -> None:
    """Runs the batches that are not yet in the journal; calls `tick(answers)` after each of them."""
    for batch in list(batch_runs(plan, engine)):  # makes every prompt, so one that is refused is before anything runs
        if not journal.has(batch.key):
            rows = answer_batch(batch, engine, plan)
            journal.close(batch.key, rows, {"arm": engine.fired()})
            tick(len(rows))


def answer_batch(batch: BatchRun, engine: Engine, plan: Plan) -> list[Record]:
    """The graded answers to a batch, as records of the journal."""
    return [row for part in _answered_parts(batch) for row in _answer(part, engine, plan)][: len(batch.asks)]


def _answered_parts(batch: BatchRun) -> list[BatchRun]:
    """The batch as it is answered: an A/A run has another batch size than the baseline, and other seeds of samples.

    It has two halves; a single item is answered twice at once, of which the first answer counts.
    """
    if batch.condition.placebo != REPEAT:
        return [batch]
    asks, seeds = batch.asks, batch.condition.samples  # the baseline's seeds are those of as many samples
    half = len(asks) // 2
    halves = (asks[:half], asks[half:]) if half else (asks * 2,)
    return [replace(batch, asks=part, seed=seeds * number + batch.sample) for number, part in enumerate(halves, 1)]


def run_and_analyse(
    plan: Plan,
    engine: Engine,
    folder: Path | None = None,
    *,
    answered: Sequence[ClosedBatch] = (),
) -> Findings:
    """Runs what is missing from a run folder (by default one named after the run), and analyses the result.

    answered: batches of the run that are answered already, which are copied into the folder.

    Raises KeyboardInterrupt if Ctrl-C came before any item was answered under every condition.
    """
    folder = folder or default_run_folder(plan.manifest(engine))
    keep_date(engine, recorded_manifest(folder).get("engine"))
    manifest, answers = plan.manifest(engine), count_answers(plan)
    with open_run_folder(folder, manifest, machine(), answers=answers) as journal:
        if not journal.closed:
            note(f"run folder: {folder}")
        store_tasks(folder, plan.tasks)
        _store_prompts(folder, plan, engine)
        for key, rows, arm in answered:
            if not journal.has(key):
                journal.close(key, rows, {"arm": arm})
        bar = progress("generating answers", answers, done=len(journal.rows), typical=_first_answers(plan))
        with bar as tick, until_interrupted() as interruption:
            run(plan, engine, journal, tick)
        # said before the analysis, which takes seconds
        is_partial = len(journal.rows) < answers
        interrupted = is_partial and was_interrupted(interruption, journal, answers, any_item(journal, plan.tasks))
        with working("analysing"):
            report = analyse_run(journal, plan.tasks, EQUAL)
    return make_findings(report, folder, interrupted=interrupted)


def _store_prompts(folder: Path, plan: Plan, engine: Engine) -> None:
    """Writes the prompt of each task's first item into the run folder, for people, as far as the engine knows it."""
    asks = [Ask(task.problems[0], 0, plan.systems[task.kind], plan.form) for task in plan.tasks]
    prompts = {task.name: engine.shown_prompt(ask) for task, ask in zip(plan.tasks, asks, strict=True)}
    if any(prompts.values()):
        texts = [f"The prompt of the first item of {name}:\n\n{prompt}\n" for name, prompt in prompts.items()]
        write_text(folder / PROMPTS_FILE, "\n".join(texts))


def keep_date(engine: Engine, recorded: object) -> None:
    """Shows chat templates the date of an earlier run's engine, as the manifest describes it, so that prompts agree."""
    if isinstance(recorded, Mapping) and recorded.get("date") and "date" in engine.describe():
        engine.set_date(recorded["date"])


def was_interrupted(interruption: Interruption, journal: RunFolder, answers: int, finished: object) -> bool:
    """Whether Ctrl-C interrupted an incomplete run, after a note that says where the run resumes.

    Raises KeyboardInterrupt with this note as its message if nothing was finished.
    """
    if interruption.happened:
        stored = f"{len(journal.rows):,} of {answers:,} answers are stored in {journal.folder}"
        resumes = f"interrupted: {stored}, where the same command or call resumes"
        if not finished:
            raise KeyboardInterrupt(resumes)
        note(resumes)
    return interruption.happened


def checked_run_folder(run: object) -> Path | None:
    """The run folder, None for the default one; raises ArgumentError if it cannot be created or written to."""
    folder = given_path("run", run)
    try:
        path = (folder or RUNS).absolute()
        missing = [parent for parent in (path, *path.parents) if not parent.exists()]
        if missing:
            missing[-1].mkdir(exist_ok=True)
            with suppress(OSError):  # another process has begun to use it
                missing[-1].rmdir()
        output_folder("run", path)
    except OSError as error:
        problem = f"{folder or RUNS} cannot be created ({error.strerror})"
        raise ArgumentError(f"run: {problem}; run= (or --run) chooses another folder") from error
    return folder


def _answer(batch: BatchRun, engine: Engine, plan: Plan) -> list[Record]:
    return _score_choices(batch, engine) if batch.task.kind == "choice" else _generate_answers(batch, engine, plan)


def _generate_answers(batch: BatchRun, engine: Engine, plan: Plan) -> list[Record]:
    kind, index = batch.task.kind, batch.batch_index
    sample = batch.sample if batch.seed is None else batch.seed
    outputs = engine.answer(batch.asks, batch.condition, plan.sampling[kind], batch=index, sample=sample)
    return [
        {**_row_identity(batch, ask), **vars(output), **vars(plan.graders[kind](output.text, ask.problem))}
        for ask, output in zip(batch.asks, outputs, strict=True)
    ]


def _score_choices(batch: BatchRun, engine: Engine) -> list[Record]:
    """Grades the most likely choice, and also records whether the most likely one per character is correct."""
    rows = []
    for ask, loglikelihoods in zip(batch.asks, engine.score_choices(batch.asks, batch.condition), strict=True):
        gold, choices = int(ask.problem.gold), ask.problem.choices
        by_length = [value / len(choice) for value, choice in zip(loglikelihoods, choices, strict=True)]
        chosen, normalised = (max(range(len(scores)), key=scores.__getitem__) for scores in (loglikelihoods, by_length))
        graded = {"loglikelihoods": loglikelihoods, "extracted": str(chosen), "correct": chosen == gold}
        rows.append({**_row_identity(batch, ask), **graded, "correct_normalised": normalised == gold})
    return rows


def _row_identity(batch: BatchRun, ask: Ask) -> Record:
    task, index, condition, sample = batch.key
    return {"task": task, "condition": condition, "item": ask.problem.id, "sample": sample, "batch": index}
