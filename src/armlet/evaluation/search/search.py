"""A search for settings that help, on a part of the items; the other part is for the one setting that is chosen.

A study first goes through a grid, which is the sensitivity map, and then continues with Optuna. Its trials follow from
the seed and the answers alone, so that an interrupted study that is resumed is the same study.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from armlet.evaluation.conditions.conditions import Treatment
from armlet.evaluation.engines.engine import Engine
from armlet.evaluation.plan import Plan
from armlet.evaluation.run import run
from armlet.evaluation.search.results import TrialResult
from armlet.evaluation.settings import Facts
from armlet.evaluation.tasks.problems import Task
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.spelling import settings
from armlet.runs.folder import RunFolder
from armlet.statistics.comparison import Comparison, compare

if TYPE_CHECKING:
    import optuna

ItemsPart = Literal["tuning", "test"]

LAYERS = "layers"
"""The parameter of Optuna that says which of the candidate layers are used, by index."""


@dataclass(frozen=True)
class Range:
    """The values that a setting may have, and those on the map."""

    low: float
    high: float
    grid: tuple[float, ...]
    log: bool = False


RANGES: dict[str, Range] = {
    "band": Range(0.02, 0.6, (0.05, 0.13, 0.2, 0.3, 0.45), log=True),
    "proportion": Range(0.02, 0.6, (0.05, 0.1, 0.25, 0.5)),
    "ceiling": Range(0.7, 0.999, (0.8, 0.9, 0.95, 0.995)),
    "knee": Range(0.9, 0.9999, (0.9, 0.95, 0.99, 0.999)),
    "spread": Range(0.5, 2.0, (0.5, 1.0, 2.0), log=True),
    "strength": Range(0.1, 1.0, (0.25, 0.5, 1.0)),
}
"""Settings that can be searched. Band, proportion and ceiling span the published ones."""

SEARCHED = {"outward": ("band", "ceiling"), "inward": ("knee", "strength"), "transport": ("spread", "strength")}
"""What is searched by default, by policy."""


@dataclass(frozen=True)
class Space:
    """What is searched.

    Args:
        treatment: the settings that stay.
        names: one or two of `RANGES`.
        layers: candidates; the map is drawn for the first.
        trials: beyond those of the map.
        seed: of the search.

    Raises:
        ArgumentError: names that cannot be searched.
    """

    treatment: Treatment
    names: tuple[str, ...]
    layers: tuple[int | Sequence[int] | str, ...]
    trials: int
    seed: int

    def __post_init__(self) -> None:
        known = [name for name in RANGES if name in settings(self.treatment.policy)]
        wrong = [name for name in self.names if name not in known]
        if wrong or not 1 <= len(self.names) <= 2 or len(set(self.names)) != len(self.names):
            raise ArgumentError(f"--search: expected one or two of {', '.join(known)}, found {','.join(self.names)!r}")

    def grid(self) -> list[dict[str, float]]:
        """The points of the map."""
        points = product(*(RANGES[name].grid for name in self.names))
        return [dict(zip(self.names, point, strict=True)) | {LAYERS: 0} for point in points]

    def treated(self, point: Mapping[str, float]) -> Treatment:
        """The treatment at a point."""
        policy: Any = self.treatment.policy
        policy = replace(policy, **{name: point[name] for name in self.names})
        return replace(self.treatment, policy=policy, layers=self.layers[int(point[LAYERS])])

    def to_dict(self) -> Facts:
        """For the manifest; the search follows from it with the same version of Optuna."""
        from optuna import __version__ as version

        return {
            "optuna": version,
            "treatment": self.treatment.plain(),
            "search": {name: vars(RANGES[name]) for name in self.names},
            "layers": list(self.layers),
            "trials": self.trials,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class SearchTrial:
    """One point of the search and its comparison with the baseline on the tuning items."""

    number: int
    values: Mapping[str, float]
    treatment: Treatment
    comparison: Comparison

    def result(self, space: Space) -> TrialResult:
        """The row of the study's table."""
        low, high = self.comparison.plain()["interval"]  # type: ignore[misc]
        return TrialResult(
            trial=self.number,
            values={name: self.values[name] for name in space.names},
            layers=str(space.layers[int(self.values[LAYERS])]),
            items=self.comparison.items,
            accuracy=self.comparison.treated_mean,
            difference=self.comparison.difference,
            low=low,
            high=high,
        )


def part_of(id: str) -> ItemsPart:
    """The part that an item belongs to, by its id alone: neither seed nor order nor number of items changes it."""
    return "tuning" if hashlib.sha256(f"tuning or test: {id}".encode()).digest()[0] < 128 else "test"


def take(task: Task, part: ItemsPart) -> Task:
    """The task's items of one part.

    Raises:
        ArgumentError: there is none.
    """
    problems = tuple(problem for problem in task.problems if part_of(problem.id) == part)
    if not problems:
        raise ArgumentError(f"{task.name}: of its {len(task.problems)} items none is for {part}; take more --items")
    return replace(task, problems=problems, source={**task.source, "part": part, "whole": task.fingerprint()})


def search(
    space: Space, plan: Plan, engine: Engine, journal: RunFolder, tick: Callable[[int], None] = lambda _: None
) -> Iterator[SearchTrial]:
    """Runs the study as far as it is not in the journal, trial by trial.

    Args:
        space: what is searched.
        plan: of the tuning items, with the baseline alone.
        engine: which answers.
        journal: of this study.
        tick: as in `run`.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=space.seed))
    for point in space.grid():
        study.enqueue_trial(point)
    run(plan, engine, journal, tick)
    base = plan.conditions[0]
    for number in range(len(space.grid()) + space.trials):
        asked = study.ask()
        values = _suggest(asked, space)
        treatment = space.treated(values)
        condition = replace(base, name=f"trial {number}", role="treated", treatment=treatment)
        run(replace(plan, conditions=[condition]), engine, journal, tick)
        comparison = compare(*(_scores(journal, name) for name in (base.name, condition.name)), seed=space.seed)
        study.tell(asked, comparison.difference)
        yield SearchTrial(number, values, treatment, comparison)


def best(trials: Sequence[SearchTrial]) -> SearchTrial:
    """The largest difference; of equal ones the first."""
    return max(trials, key=lambda trial: trial.comparison.difference)


def on_map(trials: Sequence[SearchTrial], space: Space) -> list[SearchTrial]:
    """The trials of the grid."""
    return list(trials[: len(space.grid())])


def _suggest(trial: "optuna.Trial", space: Space) -> dict[str, float]:
    values: dict[str, float] = {}
    for name in space.names:
        allowed = RANGES[name]
        values[name] = trial.suggest_float(name, allowed.low, allowed.high, log=allowed.log)
    values[LAYERS] = trial.suggest_categorical(LAYERS, range(len(space.layers)))
    return values


def _scores(journal: RunFolder, condition: str) -> list[list[float]]:
    """`[items][samples]`, tasks and items in the same order for all conditions."""
    rows = sorted(
        (row for row in journal.rows if row["condition"] == condition),
        key=lambda row: (row["task"], row["item"], row["sample"]),
    )
    samples = 1 + max(row["sample"] for row in rows)
    return [[float(row["correct"]) for row in rows[at : at + samples]] for at in range(0, len(rows), samples)]
