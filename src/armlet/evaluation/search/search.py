"""Searches for the best settings on one part of the items; the other part is reserved for the chosen setting.

A search first runs a grid, which is the sensitivity map, and then continues with Optuna. Its trials depend only on the
seed and the answers, so a search that is interrupted and resumed has the same result.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from armlet.attachment.config import layer_indices
from armlet.evaluation.batches import run
from armlet.evaluation.conditions.conditions import Treatment
from armlet.evaluation.engines.engine import Engine
from armlet.evaluation.plan import Plan
from armlet.evaluation.search.trials import TrialResult
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.arguments import text_list
from armlet.presentation.numbers import with_count
from armlet.redistribution.built_in import is_user_policy
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import changed_policy, settings, without_effect
from armlet.redistribution.policy_class import SEARCH_EXAMPLE, default_settings, search_values
from armlet.redistribution.python_file import settings_text
from armlet.redistribution.rows import Policy
from armlet.redistribution.uninterrupted import ctrl_c_deferred
from armlet.runs.folder import Record, RunFolder
from armlet.statistics.comparison import compare

if TYPE_CHECKING:
    import optuna

ItemsPart = Literal["tuning", "test"]

STRENGTH = "strength"
LAYERS = "layers"  # optuna's parameter for the index of the candidate layers


@dataclass(frozen=True)
class Range:
    """The range of a setting, and its values on the map."""

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
    "threshold": Range(0.003, 0.3, (0.01, 0.03, 0.1, 0.2), log=True),
    "strength": Range(0.1, 1.0, (0.25, 0.5, 1.0)),
}
"""Settings that can be searched. The ranges of band, proportion and ceiling include the published values."""

SEARCHED = {
    "outward": ("band", "ceiling"),
    "inward": ("knee", "strength"),
    "transport": ("spread", "strength"),
    "cut": ("band", "strength"),
}
"""The settings that are searched by default, by policy."""


LOGARITHMIC = 10.0  # a user's values are searched on a logarithmic scale if the last is this many times the first


def ranges_of(policy: Policy) -> dict[str, Range]:
    """The settings of a policy that can be searched; those of a user's policy are in its `search`, beside strength."""
    if not is_user_policy(policy):
        return {name: range_ for name, range_ in RANGES.items() if name in settings(policy)}
    ranges = {
        name: Range(values[0], values[-1], values, log=0 < values[0] <= values[-1] / LOGARITHMIC)
        for name, values in search_values(policy).items()
    }
    return {STRENGTH: RANGES[STRENGTH]} | ranges


@dataclass(frozen=True)
class Space:
    """The search space; raises ArgumentError for settings that cannot be searched."""

    treatment: Treatment  # the settings that are not searched
    names: tuple[str, ...]  # one or two of `RANGES`
    layers: tuple[int | Sequence[int] | str, ...]  # candidates; the map uses the first one
    trials: int  # number of trials after those of the map
    seed: int  # seed of the search
    stated: tuple[str, ...] = ()  # the settings in the policy's text, which stay fixed even at their defaults

    def __post_init__(self) -> None:
        fixed = fixed_settings(self.treatment.policy, self.stated)
        options = [name for name in self._ranges() if name not in fixed]
        unique = set(self.names)
        if not unique <= set(options) or not 1 <= len(unique) <= 2 or len(unique) != len(self.names):
            reason = f"; the policy fixes {', '.join(fixed)}" if fixed else ""
            problem = f"expected one or two of {', '.join(options)}, found {','.join(self.names)!r}"
            raise ArgumentError(f"search: {problem}{reason}")
        policies = [*map(self._policy_at, self.grid())]  # a user's class may refuse two values together
        if idle := without_effect(policies[0]):
            raise ArgumentError(f"search: {idle[0]}; change the policy, or search another setting")
        if self.trials < len(self.layers) - 1:
            problem = f"expected at least {len(self.layers) - 1} for {len(self.layers)} candidate layers"
            raise ArgumentError(f"trials: {problem}, of which the map uses only the first; found {self.trials}")

    def grid(self) -> list[dict[str, float]]:
        """The points of the map."""
        points = product(*(self.range(name).grid for name in self.names))
        return [dict(zip(self.names, point, strict=True)) | {LAYERS: 0} for point in points]

    def range(self, name: str) -> Range:
        """The range of a setting that can be searched."""
        return self._ranges()[name]

    def is_whole(self, name: str) -> bool:
        """Whether a setting is a whole number."""
        return isinstance(default_settings(type(self.treatment.policy))[name], int)

    def _ranges(self) -> dict[str, Range]:
        return ranges_of(self.treatment.policy)

    def treatment_at(self, values: Mapping[str, float], layers: str) -> Treatment:
        """The treatment with these values of the searched settings; `layers` is the text of one of the candidates."""
        candidates = {str(candidate): candidate for candidate in self.layers}
        return replace(self.treatment, policy=self._policy_at(values), layers=candidates[layers])

    def _policy_at(self, values: Mapping[str, float]) -> Policy:
        return changed_policy(self.treatment.policy, {name: values[name] for name in self.names})

    def to_dict(self) -> Record:
        """The space for the manifest, with the version of Optuna, which can change the trials."""
        from optuna import __version__ as version

        return {
            "optuna": version,
            "treatment": self.treatment.plain(),
            "search": {name: vars(self.range(name)) for name in self.names},
            "layers": list(self.layers),
            "trials": self.trials,
            "seed": self.seed,
        }


def stated_settings(policy: object) -> tuple[str, ...]:
    """The names of the settings in the text of a policy; none for an object or a published policy."""
    texts = [policy] if isinstance(policy, str) else policy if isinstance(policy, Iterable) else ()
    pairs = [pair for text in texts if isinstance(text, str) for pair in settings_text(text).split(",")]
    return tuple(name for name, equals, _ in (pair.partition("=") for pair in pairs) if equals)


def fixed_settings(policy: Policy, stated: Sequence[str] = ()) -> list[str]:
    """The settings that a policy fixes: those that are stated or not at their defaults."""
    defaults = default_settings(type(policy))
    return [name for name, value in settings(policy).items() if name in stated or value != defaults[name]]


def searched_names(search: str | Sequence[str] | None, policy: Policy, stated: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the settings to search, from text such as "band,ceiling" or several.

    By default, those of `SEARCHED`, or the first two of a user's policy, that the policy does not fix.

    Raises ArgumentError if a user's policy proposes no values.
    """
    if search is None:
        proposed = [*search_values(policy)][:2] if is_user_policy(policy) else SEARCHED[policy.name]
        if not proposed:
            raise ArgumentError(f"search: {policy.name} proposes no values; add to its class: {SEARCH_EXAMPLE}")
        return tuple(name for name in proposed if name not in fixed_settings(policy, stated))
    return tuple(search.split(",") if isinstance(search, str) else text_list("search", search))


def candidate_layers(layers: object) -> tuple[list[int] | str, ...]:
    """The distinct candidates, one or several, each as for `attach`; raises ArgumentError if there is none."""
    candidates = layers if isinstance(layers, Iterable) and not isinstance(layers, str) else [layers]
    distinct = {str(indices): indices for indices in map(layer_indices, candidates)}
    if not distinct:
        raise ArgumentError("layers: expected at least one candidate, found none")
    return tuple(distinct.values())


def part_of(id: str) -> ItemsPart:
    """The part to which an item belongs, which depends only on its id, not on seed, order or number of items."""
    return "tuning" if hashlib.sha256(f"tuning or test: {id}".encode()).digest()[0] < 128 else "test"


def take(task: Task, part: ItemsPart) -> Task:
    """The task with only the items of one part; raises ArgumentError if there are none."""
    problems = tuple(problem for problem in task.problems if part_of(problem.id) == part)
    if not problems:
        use = "searching the setting" if part == "tuning" else "confirming it"
        problem = f"none of the {with_count(len(task.problems), 'item')} of {task.name} is for {use}"
        raise ArgumentError(f"items: {problem}; use more items")
    return replace(task, problems=problems, source={**task.source, "part": part, "whole": task.fingerprint()})


def search(
    space: Space, plan: Plan, engine: Engine, journal: RunFolder, tick: Callable[[int], None] = lambda _: None
) -> Iterator[TrialResult]:
    """Runs the parts of the search that are not yet in its journal, and yields one trial at a time.

    `plan` contains the tuning items and only the baseline; `tick` is the same as in `run`.
    """
    with ctrl_c_deferred():
        import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield from _trials(space, plan, engine, journal, tick)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _trials(
    space: Space, plan: Plan, engine: Engine, journal: RunFolder, tick: Callable[[int], None]
) -> Iterator[TrialResult]:
    import optuna

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=space.seed))
    for point in space.grid():
        study.enqueue_trial(point)
    run(plan, engine, journal, tick)
    baseline = plan.conditions[0]
    for number in range(len(space.grid()) + space.trials):
        trial = study.ask()
        values, layers = _suggest(trial, space)
        treatment = space.treatment_at(values, layers)
        treated = replace(baseline, name=f"trial {number}", role="treated", treatment=treatment)
        run(replace(plan, conditions=[treated]), engine, journal, tick)
        comparison = compare(_scores(journal, baseline.name), _scores(journal, treated.name), seed=space.seed)
        study.tell(trial, comparison.difference)
        accuracy, interval = comparison.treated_mean, comparison.finite_interval
        yield TrialResult(number, values, layers, comparison.items, accuracy, comparison.difference, *interval)


def _suggest(trial: "optuna.Trial", space: Space) -> tuple[dict[str, float], str]:
    """Suggests values of the searched settings, and one of the candidate layers as text."""
    ranges = {name: space.range(name) for name in space.names}
    values = {name: _suggested(trial, name, r, space.is_whole(name)) for name, r in ranges.items()}
    return values, str(space.layers[trial.suggest_categorical(LAYERS, range(len(space.layers)))])


def _suggested(trial: "optuna.Trial", name: str, r: Range, is_whole: bool) -> float:
    if is_whole:
        return trial.suggest_int(name, int(r.low), int(r.high), log=r.log)
    return trial.suggest_float(name, r.low, r.high, log=r.log)


def _scores(journal: RunFolder, condition: str) -> list[list[float]]:
    """Correctness `[items][samples]`, with tasks and items in the same order for all conditions."""
    rows = [row for row in journal.rows if row["condition"] == condition]
    rows.sort(key=itemgetter("task", "item", "sample"))
    samples = 1 + max(row["sample"] for row in rows)
    return [[float(row["correct"]) for row in rows[i : i + samples]] for i in range(0, len(rows), samples)]
