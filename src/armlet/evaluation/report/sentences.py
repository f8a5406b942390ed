"""What a report says in words: verdicts, checks of placebos and of ARM, what could be shown, and how it was run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from armlet.evaluation.report.findings import ConditionFindings, Findings, PairedComparison, PlannedPower, TaskFindings
from armlet.evaluation.search.results import best
from armlet.evaluation.settings import ConditionSettings
from armlet.presentation.numbers import bounds, detectable_points, difference_text, percent, points, with_count

FORMAT = (
    "Format is reported apart from accuracy because an answer that cannot be read counts as wrong: a treatment that "
    "only changes how often answers are finished and readable changes accuracy without any change in reasoning."
)

NORMALISED = (
    "Accuracy is that of the likeliest choice. Length-normalised accuracy divides each log-likelihood by the choice's "
    "length in characters, so that short choices have no advantage (lm-eval's acc and acc_norm)."
)

SEVERAL_SAMPLES = (
    "pass@k is the chance that at least one of k answers is right. Majority selects the most frequent answer, "
    "likeliest the one with the highest mean log-probability, which not every server reports."
)

MEANINGS = {
    "baseline": "the unchanged model.",
    "treated": "the same items with ARM attached: a policy moves activations inside the gated MLP.",
    "filler": "meaningless tokens in the prompt, without ARM.",
    "combined": "ARM and filler together.",
    "best-of": "several sampled answers to an item, one of which is selected.",
    "placebo": "a control that should not matter. identity is ARM at strength 0; draw-only draws the noise and leaves "
    "the values; matched moves as many values, at random positions, with the same change of variance (or the nearest "
    "that so many values allow); temperature shows the effect of any small disturbance. A treatment that does no "
    "better than its matched placebo has not shown that its choice of values matters.",
}
"""What each role of a condition means."""

JUDGING = (
    "A verdict other than 'no difference shown' needs p < 0.05 after Holm's correction over all judged comparisons of "
    "all tasks. Differences are in percentage points of accuracy, on the same items."
)


@dataclass(frozen=True)
class RunCheck:
    """Whether something that a run depends on is so, and the sentence about it."""

    ok: bool
    sentence: str


def verdict_sentence(task: TaskFindings, pair: PairedComparison) -> str:
    """The verdict, the difference with its interval, and where none is shown, the smallest detectable difference."""
    comparison = pair.comparison
    low, high = bounds(*pair.interval)
    facts = [
        f"{points(comparison.difference)} points, 95 % interval {low} to {high}, {with_count(comparison.items, 'item')}"
    ]
    if task.condition(pair.treated.condition).idle:
        facts.append("ARM moved nothing")
    if pair.verdict == "no difference shown":
        facts.append(f"smallest detectable difference: {detectable_points(comparison.smallest_detectable)}")
    return f"{pair.treated} on {task.name}: {pair.verdict} ({'; '.join(facts)})"


def title(findings: Findings) -> str:
    """The title of the report."""
    return f"Does it help? {findings.settings.engine.get('model', 'model')}"


def missing(findings: Findings) -> str | None:
    """What is missing of the run; None where nothing is."""
    if findings.complete:
        return None
    answered = {task.name: task.items for task in findings.tasks}
    counts = [
        f"{answered.get(task.name, 0):,} of {with_count(task.items, 'item')} of {task.name}"
        for task in findings.settings.tasks
    ]
    return f"partial: {'; '.join(counts)}"


def search_summary(findings: Findings) -> str | None:
    """What the search before a confirmation cost and promised; None where there was none."""
    if not findings.study:
        return None
    budget, chosen = findings.study.budget, best(findings.study.trials)
    tried = f"{with_count(budget.trials, 'setting')} tried on {with_count(budget.items, 'other item')}"
    promised = difference_text(chosen.difference, chosen.low, chosen.high)
    return f"The setting is the best of {tried} ({with_count(budget.answers, 'answer')}); difference there: {promised}."


def placebo_checks(task: TaskFindings) -> list[RunCheck]:
    """Whether the placebos that must answer exactly as the baseline do so."""
    of_items, checks = f"of {with_count(task.items, 'item')}", []
    for name, same in task.same_as_baseline.items():
        fact = f"{name} gives the baseline's answers, letter for letter, in {same:,} {of_items}"
        warning = f"{fact}: attaching alone changes answers here, so differences may be due to it"
        checks.append(RunCheck(True, fact) if same == task.items else RunCheck(False, warning))
    return checks


def arm_checks(task: TaskFindings) -> list[RunCheck]:
    """Whether ARM moved values under each condition that has it."""
    return [
        _check_arm(condition)
        for condition in task.conditions
        if condition.role in ("treated", "combined") or (condition.role == "best-of" and condition.arm)
    ]


def _check_arm(condition: ConditionFindings) -> RunCheck:
    layers = condition.arm
    if not layers:  # a server, or a run of lm-eval without ARM's report
        return RunCheck(False, f"{condition.name}: no record of what ARM did; that it was attached is taken on trust")
    idle = [layer for layer, activity in layers.items() if not activity.moved]
    tokens = sum(activity.tokens for activity in layers.values())
    share = sum(activity.tokens * activity.share_moved for activity in layers.values()) / max(tokens, 1)
    where = f"{with_count(tokens, 'token')} in {with_count(len(layers), 'layer')}"
    fact = f"{condition.name}: {where}, {percent(share)} of values moved"
    return RunCheck(not idle, f"{fact}; nothing moved in layer {', '.join(idle)}" if idle else fact)


def failed_checks(findings: Findings) -> list[str]:
    """What is not as it should be, for the terminal."""
    return [
        f"{task.name}: {check.sentence}"
        for task in findings.tasks
        for check in (*placebo_checks(task), *arm_checks(task))
        if not check.ok
    ]


def discordance(tasks: Sequence[TaskFindings]) -> str:
    """What the discordant items are that a report shows."""
    several = any(condition.samples > 1 for task in tasks for condition in task.conditions)
    return f"Discordant items: only one side answers them rightly{', by the first answer to each' if several else ''}."


def power_sentence(task: TaskFindings) -> str:
    """What the run could show, before it was run."""
    planned = task.planned
    smallest = planned.smallest_detectable
    shown = "no difference" if smallest is None else f"differences of {detectable_points(smallest)} or more"
    return (
        f"{task.name}: before the run, {with_count(planned.items, 'item')} could show {shown} at 80 % power, "
        f"assuming that {percent(planned.discordant)} of the pairs are discordant{_correction(planned)}. "
        "With the variability that was seen:"
    )


def power_announcement(name: str, planned: PlannedPower) -> str:
    """The same before the run, for the terminal."""
    smallest, items = planned.smallest_detectable, with_count(planned.items, "item")
    can = "no difference" if smallest is None else f"differences from {detectable_points(smallest)} on"
    share = f"{100 * planned.discordant:.0f} %"
    return f"{name}: {items} can show {can} (80 % power, {share} discordant pairs{_correction(planned)})"


def _correction(planned: PlannedPower) -> str:
    judged = planned.comparisons
    return f", after Holm's correction for {judged} comparisons" if judged > 1 else ""


def meanings(findings: Findings) -> dict[str, str]:
    """The roles of the conditions in this report, each with its meaning."""
    roles = {condition.role for condition in findings.settings.conditions}
    return {role: meaning for role, meaning in MEANINGS.items() if role in roles}


def run_settings(findings: Findings) -> dict[str, str]:
    """How it was run, name by name."""
    run = findings.settings
    lines = {name if name == "model" else f"engine, {name}": plain(value) for name, value in run.engine.items()}
    for task in run.tasks:
        items = with_count(task.items, "item")
        lines[f"task {task.name}"] = f"{task.kind}, {items}, sha256 {task.sha256}; {plain(task.source)}"
    lines |= {f"sampling, {kind}": plain(sampling) for kind, sampling in run.sampling.items()}
    lines |= {f"system prompt, {kind}": prompt for kind, prompt in run.systems.items() if prompt}
    lines |= {f"grader, {kind}": grader for kind, grader in run.graders.items()}
    lines |= {"batch": str(run.batch), "versions": plain(run.versions)}
    return lines | {f"machine {number}": plain(machine) for number, machine in enumerate(run.machines, 1)}


def condition_settings(condition: ConditionSettings) -> str:
    """How ARM and filler were set under a condition."""
    return "; ".join(plain(value) for value in (condition.treatment, condition.filling) if value)


def condition_temperature(condition: ConditionSettings) -> str:
    """The temperatures of sampling and of multiple choice."""
    if condition.temperature is None or condition.weighing is None:
        return "not recorded"
    return f"{condition.temperature:g}; choices {condition.weighing:g}"


def plain(value: object) -> str:
    """A value of the manifest in one line: "name value, name value"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return "/".join(plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
