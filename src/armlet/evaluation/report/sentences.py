"""The text of a report: verdicts, placebo and ARM checks, power, and run settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from armlet.attachment.config import limited_layers
from armlet.evaluation.origins import origin_sentence
from armlet.evaluation.report.controls import control_meanings, control_of
from armlet.evaluation.report.findings import (
    ConditionFindings,
    NoiseFloor,
    PairedComparison,
    PlannedPower,
    Report,
    TaskFindings,
)
from armlet.evaluation.search.trials import best
from armlet.evaluation.settings import ConditionSettings
from armlet.presentation.numbers import (
    bounds,
    detectable_points,
    difference_text,
    percent,
    points,
    probability,
    with_count,
    with_points,
)
from armlet.statistics.comparison import UNDECIDED
from armlet.statistics.power import likely_shown
from armlet.statistics.significance import is_significant

FORMAT = (
    "Format is reported separately from accuracy because an answer that cannot be parsed is graded as wrong. A "
    "treatment that only changes how often answers are complete and parseable changes accuracy, not reasoning."
)

NORMALISED = (
    "Accuracy is computed from the most likely choice. Length-normalised accuracy divides each log-likelihood by the "
    "choice's length in characters, so that short choices have no advantage (lm-eval's acc and acc_norm)."
)

SEVERAL_SAMPLES = (
    "pass@k is the probability that at least one of k answers is right. 'majority' selects the most frequent answer; "
    "'likeliest' selects the one with the highest mean log-probability, which not every server reports."
)

MEANINGS = {
    "baseline": "the unchanged model.",
    "treated": "the model with ARM attached: a policy moves activations inside the gated MLP. With a name such as "
    "file.py:function, the model as this function of a user changes it.",
    "filler": "meaningless tokens in the prompt, without ARM.",
    "combined": "treatment and filler together.",
    "best-of": "several answers are sampled for each item, and one is selected.",
    "placebo": "a control, attached in place of a treatment, that must change nothing, or must not help.",
}
"""The meaning of each role of a condition."""

TOKENS_RUN = (
    "Tokens are those that passed through the layer: of prompts, of answers, and in a batch in this process also those "
    "after the end of shorter answers, which run on until the longest one ends."
)


@dataclass(frozen=True)
class RunCheck:
    """The result of a sanity check on a run, with a sentence for the report."""

    ok: bool
    sentence: str


def verdict_sentence(task: TaskFindings, pair: PairedComparison) -> str:
    """The verdict and the difference with its interval; if none is shown, also what the run could have shown."""
    comparison, floor = pair.comparison, task.noise_floor
    low, high = bounds(*pair.interval)
    facts = [
        f"{points(comparison.difference)} points, 95 % interval {low} to {high}, {with_count(comparison.items, 'item')}"
    ]
    if task.condition(pair.treated.condition).moved_nothing:
        facts.append("ARM moved no values")
    if task.changed_no_output(pair.treated.condition):
        facts.append("the treatment changed no output")
    if pair.verdict == UNDECIDED:
        facts += _undecided(task, pair)
    elif floor and pair.verdict.startswith(("helped", "hurt")) and abs(comparison.difference) <= abs(floor.difference):
        facts.append(f"not above the noise floor: the baseline differs from itself by {points(floor.difference)}")
    return f"{pair.treated} on {task.name}: {pair.verdict} ({'; '.join(facts)})"


def _undecided(task: TaskFindings, pair: PairedComparison) -> list[str]:
    """Which true differences the answers leave possible, and which one such a run is likely to show."""
    comparison, (low, high) = pair.comparison, pair.comparison.interval
    holm = " after Holm's correction" if pair.judged and task.planned.comparisons > 1 else ""
    fact = "any difference in the interval may be true"
    if not low <= 0 <= high:
        fact = f"the interval excludes 0, but p = {probability(pair.judged_p_value)}{holm}"
    if comparison.margin is not None:
        p_value = comparison.p_equivalence  # which Holm's correction raises
        rejected = p_value is not None and is_significant(p_value, comparison.confidence)
        ruled_out = "is ruled out only without Holm's correction" if rejected else "is not ruled out"
        fact += f"; one larger than {with_points(comparison.margin)} {ruled_out}"
    if comparison.smallest_detectable is None:
        return [fact, "so few items cannot show any"]
    return [fact, likely_shown(detectable_points(comparison.smallest_detectable), "runs")]


def title(findings: Report) -> str:
    """The title of the report, with the model's name without its path or owner, which are among the settings."""
    treatments = [condition for condition in findings.settings.conditions if condition.treatment]
    what = "the treatment" if treatments and all(c.is_function for c in treatments) else "ARM"
    return f"Does {what} help {PurePath(str(findings.settings.engine.get('model', 'the model'))).name}?"


def missing_items(findings: Report) -> str | None:
    """The number of answered items of each task; None if the run is complete."""
    if findings.complete:
        return None
    answered = {task.name: task.items for task in findings.tasks}
    counts = [
        f"{task.name}: {answered.get(task.name, 0):,} of {with_count(task.items, 'item')}"
        for task in findings.settings.tasks
    ]
    return f"partial: {'; '.join(counts)}"


def search_summary(findings: Report) -> str | None:
    """The cost and best result of the search before a confirmation; None without a search."""
    if not findings.search:
        return None
    budget, chosen = findings.search.budget, best(findings.search.trials)
    trials = f"{with_count(budget.trials, 'setting')} tried on {with_count(budget.items, 'other item')}"
    difference = difference_text(chosen.difference, chosen.low, chosen.high)
    return f"The setting is the best of {trials} ({with_count(budget.answers, 'answer')}); difference: {difference}."


def placebo_checks(task: TaskFindings) -> list[RunCheck]:
    """Checks that the placebos which must match the baseline's answers exactly do so."""
    of_items, checks = f"of {with_count(task.items, 'item')}", []
    for name, same in task.same_as_baseline.items():
        fact = f"{name} matches the baseline's answers exactly for {same:,} {of_items}"
        warning = f"{fact}: attaching ARM alone changes answers, so differences may be due to that"
        checks.append(RunCheck(True, fact) if same == task.items else RunCheck(False, warning))
    return [*checks, RunCheck(True, noise_sentence(task.noise_floor))] if task.noise_floor else checks


def noise_sentence(floor: NoiseFloor) -> str:
    """How the baseline differs from itself."""
    how = "at another batch size" + (" and with other seeds" if floor.sampled else "")
    changed = f"{floor.differing:,} of {with_count(floor.items, 'item')} answered differently"
    difference = difference_text(floor.difference, *floor.interval)
    return f"noise floor: the baseline against itself {how}: {changed}, difference {difference} points"


def arm_checks(task: TaskFindings) -> list[RunCheck]:
    """Checks that ARM moved values under each condition that uses ARM, and that a user's function changed answers."""
    return [
        _check_function(task, condition.name) if condition.name in task.unchanged else _check_arm(condition)
        for condition in task.conditions
        if condition.role in ("treated", "combined") or (condition.role == "best-of" and condition.arm)
    ]


def _check_arm(condition: ConditionFindings) -> RunCheck:
    name, layers = condition.name, condition.arm
    if not layers:  # from a server, or from lm-eval without ARM's report
        return RunCheck(False, f"{name}: no record of what ARM did; whether it was attached cannot be verified")
    unchanged = [layer for layer, activity in layers.items() if not activity.moved]
    tokens = sum(activity.tokens for activity in layers.values())
    share = sum(activity.tokens * activity.share_moved for activity in layers.values()) / max(tokens, 1)
    counts = f"{with_count(tokens, 'token')} run in {with_count(len(layers), 'layer')}"
    fact = f"{name}: {counts}, {percent(share)} of values moved"
    warning = f"{fact}; no values moved in layer{'s' * (len(unchanged) > 1)} {', '.join(unchanged)}"
    return RunCheck(not unchanged, warning if unchanged else fact)


def _check_function(task: TaskFindings, name: str) -> RunCheck:
    changed, of_items = task.items - task.unchanged[name], f"of {with_count(task.items, 'item')}"
    fact = f"{name}: answers or log-likelihoods differ from the baseline's for {changed:,} {of_items}"
    return RunCheck(True, fact) if changed else RunCheck(False, f"{fact}: it changed no output")


def failed_checks(findings: Report) -> list[str]:
    """The failed checks, as lines for the terminal."""
    return [
        f"{task.name}: {check.sentence}"
        for task in findings.tasks
        for check in (*placebo_checks(task), *arm_checks(task))
        if not check.ok
    ]


def bands_without_effect(report: Report) -> list[str]:
    """The treatments with a setting that had no effect, such as a band that `share` limited in every row of a layer."""
    arms = [c for c in report.settings.conditions if not c.is_function]
    treatments = {c.name: c.treatment for c in arms if isinstance(c.treatment, Mapping)}
    return [
        f"{task.name}: {condition.name}: {sentence}"
        for task in report.tasks
        for condition in task.conditions
        if condition.role == "treated" and condition.name in treatments
        for sentence in limited_layers(treatments[condition.name], condition.arm_counts())
    ]


def discordance(tasks: Sequence[TaskFindings]) -> str:
    """Explains discordant items."""
    several = any(condition.samples > 1 for task in tasks for condition in task.conditions)
    suffix = " (judged by the first answer)" if several else ""
    return f"Discordant items are answered correctly by only one side{suffix}."


def power_sentence(task: TaskFindings) -> str:
    """The power of the run as computed before it started."""
    return f"{task.name}, before the run: {_power_text(task.planned)}. With the observed variability:"


def power_announcement(name: str, planned: PlannedPower) -> str:
    """The power of a run that has not started, for the terminal."""
    return f"{name}: {_power_text(planned)}"


def _power_text(planned: PlannedPower) -> str:
    smallest, judged = planned.smallest_detectable, planned.comparisons
    few = f"{'is' if planned.items == 1 else 'are'} too few to show any difference"
    shown = few if smallest is None else f"can show differences of {detectable_points(smallest)} or more"
    correction = f", after Holm's correction for {judged} comparisons" if judged > 1 else ""
    power = f"{with_count(planned.items, 'item')} {shown} at 80 % power{correction}"
    sentence = f"{power}, assuming that {percent(planned.discordant)} of the pairs are discordant"
    if planned.margin is None or planned.margin_items is None:
        return sentence
    claim = f"'no difference larger than {with_points(planned.margin)}'"
    few = ", more than this run has" if planned.items < planned.margin_items else ""
    needed = f"about {with_count(planned.margin_items, 'item')}{few}"
    return f"{sentence}; under the same assumption, showing {claim} takes {needed}"


def meanings(findings: Report) -> dict[str, str]:
    """The meanings of the roles and controls in this report."""
    conditions = findings.settings.conditions
    roles = {control_of(c.name).role if c.role == "placebo" else c.role for c in conditions}
    return {role: meaning for role, meaning in MEANINGS.items() if role in roles} | control_meanings(findings)


def run_settings(findings: Report) -> dict[str, str]:
    """The settings of the run, by name."""
    run = findings.settings
    lines = {name if name == "model" else f"engine, {name}": plain(value) for name, value in run.engine.items()}
    for task in run.tasks:
        items = with_count(task.items, "item")
        lines[f"task {task.name}"] = f"{task.kind}, {items}, sha256 {task.sha256}; {plain(task.source)}"
    lines |= {"prompts": plain(run.prompts).replace("\n", "\\n")} if run.prompts else {}  # as --template takes it
    lines |= {f"origin {number}": origin_sentence(origin) for number, origin in enumerate(run.origins, 1)}
    lines |= {f"sampling, {kind}": plain(sampling) for kind, sampling in run.sampling.items()}
    lines |= {f"system prompt, {kind}": prompt for kind, prompt in run.systems.items() if prompt}
    lines |= {f"grader, {kind}": grader for kind, grader in run.graders.items()}
    if budget := run.budget:
        timed = f"the first {plain(budget['timed_items'])} items of each task were timed"
        lines["budget"] = f"{plain(budget['budget'])} s for answering; {timed}"
    lines |= {} if run.margin_share is None else {"margin": with_points(run.margin_share)}
    lines |= {} if run.batch is None else {"batch": str(run.batch)}
    lines["versions"] = plain(run.versions)
    return lines | {f"machine {number}": plain(machine) for number, machine in enumerate(run.machines, 1)}


def condition_settings(condition: ConditionSettings) -> str:
    """The settings of ARM and filler under a condition; of a control, what it does."""
    if condition.role == "placebo" and (control := control_of(condition.name)).settings:
        return control.settings
    return "; ".join(plain(value) for value in (condition.treatment, condition.filling) if value)


def condition_temperature(condition: ConditionSettings) -> str:
    """Sampling temperature, and the temperature of multiple-choice scoring, as far as they are recorded."""
    if condition.temperature is None:
        return "not recorded"
    choices = "" if condition.weighing is None else f"; choices {condition.weighing:g}"
    return f"{condition.temperature:g}{choices}"


def plain(value: object) -> str:
    """Formats a manifest value on one line, as "name value, name value"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return "/".join(plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
