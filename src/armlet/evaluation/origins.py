"""Items on which a treatment's setting was chosen: they are left out of a run or counted, and always reported."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from armlet.attachment.origin import Origin
from armlet.evaluation.conditions.conditions import Condition, Treatment
from armlet.evaluation.settings import RunSettings, SettingOrigin
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.numbers import with_count
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.presets import is_test_set


def leave_out_tuning_items(
    tasks: Sequence[Task], conditions: Sequence[Condition], *, keep: bool
) -> tuple[list[Task], list[SettingOrigin]]:
    """The tasks without the items on which a search tuned a setting, unless `keep`; and the origins, for a manifest.

    The test sets of published settings are not left out, because no item would remain; their items are counted.

    Raises ArgumentError if no item of a task remains, or `keep` would have no effect.
    """
    origins = list(_origins(conditions))
    tuning = {item for _, origin in origins for item in origin.items}
    if keep and not tuning:
        raise ArgumentError("keep_tuning_items: no treatment is the armlet.json of a search; leave it out")
    described = [_describe(name, origin, tasks, keep) for name, origin in origins]
    return [task if keep else _without(task, tuning) for task in tasks], described


def _origins(conditions: Sequence[Condition]) -> Iterator[tuple[str, Origin]]:
    for condition in conditions:
        if isinstance(condition.treatment, Treatment) and not condition.placebo:
            yield from ((condition.name, origin) for origin in condition.treatment.origins)


def _describe(condition: str, origin: Origin, tasks: Sequence[Task], keep: bool) -> SettingOrigin:
    shared = {task.name: _count_shared(task, origin) for task in tasks}
    left_out = origin.source == "tune" and not keep
    facts = origin.source, origin.name, origin.tasks, origin.sha256
    return SettingOrigin(condition, *facts, items=len(origin.items), shared=shared, left_out=left_out)


def _count_shared(task: Task, origin: Origin) -> int:
    if origin.source == "tune":
        return sum(problem.content_hash() in origin.items for problem in task.problems)
    names = [task.name, *(text for text in task.source.values() if isinstance(text, str))]
    return len(task.problems) * any(is_test_set(column, name) for column in origin.tasks for name in names)


def _without(task: Task, tuning: set[str]) -> Task:
    problems = tuple(problem for problem in task.problems if problem.content_hash() not in tuning)
    if not problems:
        all_items = f"all {with_count(len(task.problems), 'item')} of {task.name} chose the setting of a treatment"
        raise ArgumentError(f"items: {all_items}, so no test is left; use others, or keep_tuning_items")
    return replace(task, problems=problems)


def origin_sentence(origin: SettingOrigin) -> str:
    """On which items a setting was chosen, and how many of this run's are among them."""
    shared = {task: count for task, count in origin.shared.items() if count}
    where, among = ", ".join(origin.tasks), " and ".join(f"{count:,} of {task}" for task, count in shared.items())
    if origin.source == "published":
        chosen = f"the authors chose this setting for {origin.name} on the test set of {where} (arXiv 2510.01032)"
        kept = "and this run has items of that test set: not a test of the setting"
    else:
        chosen = f"this setting was tuned on {with_count(origin.items, 'item')} of {where} (run folder {origin.name})"
        kept = f"left out here: {among}" if origin.left_out else f"in this run: {among}: not a test of the setting"
    return f"{origin.condition}: {chosen}, {kept if shared else 'none of which are in this run'}"


def no_test(settings: RunSettings, task: str, condition: str) -> str:
    """The remark after a verdict on items on which the condition's setting was chosen; "" for other verdicts."""
    origins = [origin for origin in settings.origins if origin.condition == condition and not origin.left_out]
    shared = max((origin.shared[task] for origin in origins), default=0)
    return f"; not a test: this setting was chosen on {shared:,} of these items" if shared else ""
