"""Findings of made-up runs: a fake engine, and the real run, journal and results."""

import hashlib
import tempfile
from contextlib import suppress
from pathlib import Path

from armlet.evaluation.batches import run
from armlet.evaluation.conditions.conditions import Filling, Treatment, conditions
from armlet.evaluation.engines.engine import Engine, Output, Sampling
from armlet.evaluation.grading.grade import equal_integers, grade_integer
from armlet.evaluation.grading.graders import graders
from armlet.evaluation.plan import Plan
from armlet.evaluation.report.analysis import analyse_run
from armlet.evaluation.tasks.problems import SYSTEMS, Kind, Problem, Task
from armlet.prompts.fillers import Filler
from armlet.redistribution import Inward, Outward
from armlet.runs.folder import open_run_folder

RATES = {"treated": 0.78, "filler": 0.6, "combined": 0.7, "best-of": 0.68}
"""Of right answers; 0.68 for the others."""

MACHINE = {"system": "Linux", "processor": "made up", "cores": 2, "threads": 2, "gpu": None, "python": "3.12.1"}

TREATMENTS = (Treatment(Outward(band=0.2)), Treatment(Inward(), layers=[0, 1]))
FILLINGS = (Filling(Filler("/", 32)),)


class Stopped(Exception):
    """The run ends here."""


class Fake:
    """Answers by a hash of item, condition and sample; the exact placebos answer as the baseline does.

    Args:
        rates: of right answers, by role.
        wrong: what a wrong answer says; the right one is put behind it where it is right.
        exact: whether the exact placebos hold.
        after: ends the run at this call.
        name: of the model.
    """

    def __init__(self, rates=None, *, wrong="I do not know", exact=True, after=None, name="made-up/model"):
        self.rates, self.wrong, self.exact, self.after, self.name = rates or RATES, wrong, exact, after, name
        self.calls, self.condition = 0, None

    def shown_prompt(self, ask):
        return ""

    def length(self, ask):
        return len(ask.problem.question)

    def answer(self, asks, condition, sampling, *, batch, sample):
        self._begin(condition)
        return [self._output(ask, condition, sample) for ask in asks]

    def score_choices(self, asks, condition):
        self._begin(condition)
        return [self._weights(ask.problem, condition) for ask in asks]

    def close(self):
        pass

    def fired(self):
        if self.condition is None or self.condition.treatment is None:
            return {}
        moved = 0 if self.condition.placebo in ("identity", "draw-only") else 500
        layers = self.condition.treatment.layers
        each = {"calls": 1, "tokens": 50, "moved": moved, "share_moved": moved / 5000, "passed": 0}
        return {str(layer): each for layer in ([layers] if isinstance(layers, int) else layers)}

    def set_date(self, date):
        raise AssertionError("there is no chat template")

    def describe(self) -> dict[str, object]:
        return {"model": self.name, "sha256": "ab" * 32, "dtype": "float32", "device": "cpu"}

    def _begin(self, condition):
        self.calls, self.condition = self.calls + 1, condition
        if self.calls == self.after:
            raise Stopped

    def _output(self, ask, condition, sample):
        right = self._right(ask.problem, condition, sample)
        text = f"{self.wrong}\n#{ask.problem.gold}" if right else self.wrong
        logprob = -1 + 0.5 * right if condition.role == "best-of" else None
        return Output(text, len(text), right, logprob)

    def _weights(self, problem, condition):
        gold = int(problem.gold)
        other = (gold + 1) % len(problem.choices)
        chosen = gold if self._right(problem, condition, 0) else other
        return [-1.0 if at == chosen else -2.0 for at in range(len(problem.choices))]

    def _right(self, problem, condition, sample):
        """As the baseline, but for the fifth of items that a condition answers in its own way."""
        exact = self.exact and condition.placebo in ("identity", "draw-only")
        name = "baseline" if exact else condition.name
        if (name, sample) != ("baseline", 0) and _uniform(problem.id, name, sample, "way") < 0.2:
            return _uniform(problem.id, name, sample) < self.rates.get(condition.role, 0.68)
        return _uniform(problem.id) < 0.68


def _uniform(*parts):
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 2**32


def sums(items, name="arithmetic"):
    """A task of integers."""
    problems = tuple(Problem(f"0/{at}", f"{at} + {at} = ?", str(2 * at)) for at in range(items))
    return Task(name, "integer", problems, {"generator": name, "seed": 0})


def choices(items, name="arc_easy"):
    """A task of multiple choice."""
    words = ("iron", "wood", "glass", "wool")
    problems = tuple(Problem(f"q{at}", f"What is {at} made of?", str(at % 4), choices=words) for at in range(items))
    return Task(name, "choice", problems, {"file": f"{name}.jsonl", "sha256": "cd" * 32})


def found(*tasks, engine: Engine | None = None, treatments=TREATMENTS, fillings=FILLINGS, batch=50, **asked):
    """The findings of a run of these tasks under `conditions(treatments, fillings, **asked)`."""
    plan = Plan(
        tasks,
        conditions(treatments, fillings, **asked),
        {"integer": Sampling(64)},
        batch,
        SYSTEMS,
        {"integer": lambda text, problem: grade_integer(text, problem.gold)},
    )
    engine = engine or Fake()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run_folder(Path(folder), plan.manifest(engine), MACHINE) as journal,
    ):
        with suppress(Stopped):
            run(plan, engine, journal)
        return analyse_run(journal, tasks, {"integer": equal_integers})


def task(items=11, name="sums", kind: Kind = "integer"):
    choices = ("one", "two", "three", "four") if kind == "choice" else ()
    problems = [Problem(f"id{at}", "1+" * (at % 5) + "1", str(at % 4), choices=choices) for at in range(items)]
    return Task(name, kind, tuple(problems), {"generator": "test"})


def plan(tasks=None, compared=None, batch=3):
    tasks = tasks or [task()]
    compared = compared or conditions([Treatment(Outward())], [Filling(Filler("/", 3))])
    return Plan(
        tasks, compared, dict.fromkeys(SYSTEMS, Sampling(20)), batch, SYSTEMS, graders("math-verify", ["integer"])
    )
