"""What a report says in words: what is there, whether placebos hold, what could be shown, and how it was run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from armlet.evaluation.report.tables import Grid, count, interval, percent, percent_points, points

Row = Mapping[str, Any]

FORMAT = (
    "Format stands apart from accuracy because an answer that cannot be read counts as wrong: a treatment that only "
    "changes how often answers are finished and readable changes accuracy without any change in reasoning."
)

NORMALISED = (
    "Accuracy takes the likeliest choice. Length-normalised, each log-likelihood is divided by the choice's length in "
    "characters, so that short choices have no advantage (lm-eval's acc and acc_norm)."
)

SAMPLES = (
    "pass@k is the chance that one of k answers is right. Majority takes the most frequent answer, likeliest the one "
    "with the highest mean log-probability, which a server does not always tell."
)

WORDS = {
    "baseline": "the model as it is.",
    "treated": "the same items with ARM attached: a policy moves activations inside the gated MLP.",
    "filler": "meaningless tokens in the prompt, without ARM.",
    "combined": "ARM and filler together.",
    "best-of": "several sampled answers to an item, of which one is chosen.",
    "placebo": "should change nothing that matters: identity is ARM at strength 0, draw-only draws the noise and "
    "leaves the values, matched moves as many values at random places by as much (the same change of variance; where "
    "it falls, as near to it as so many values allow), and another temperature shows what any small disturbance does. "
    "A treatment that does no better than its matched placebo has not shown that its choice of values matters.",
}
"""What each role of a condition means."""

JUDGING = (
    "A verdict is given at p < 0.05 after Holm's correction over all judged comparisons of all tasks. Differences are "
    "in percentage points of accuracy, on the same items."
)


def verdict(task: Row, row: Row) -> str:
    """One plain sentence: helped, hurt or no difference shown, and how large a difference could have gone unseen."""
    low, high = (sign + "∞" if b is None else points(b) for sign, b in zip("−+", row["interval"], strict=True))
    difference = f"{points(row['difference'])} points, 95 % interval {low} to {high}, {count(row['items'], 'item')}"
    if _idle(task, row["condition"]):
        difference += "; ARM moved nothing"
    if row["verdict"] == "no difference shown":
        unseen = row["smallest_detectable"]
        largest = "any" if unseen is None else percent_points(unseen)
        difference += f"; {largest} could have gone unseen"
    return f"{row['condition']} on {task['name']}: {row['verdict']} ({difference})"


def _idle(task: Row, condition: str) -> bool:
    """ARM was attached under this condition, and moved no value in any layer."""
    layers = next((each["arm"] for each in task["conditions"] if each["name"] == condition), {})
    return bool(layers) and not any(own["moved"] for own in layers.values())


def heading(findings: Row) -> str:
    """The title of the report."""
    return f"Does it help? {_model(findings)}"


def partial(findings: Row) -> str | None:
    """What is missing of the run; None where nothing is."""
    if findings["complete"]:
        return None
    begun = {task["name"]: task["items"] for task in findings["tasks"]}
    parts = (
        f"{begun.get(task['name'], 0):,} of {count(task['items'], 'item')} of {task['name']}"
        for task in findings["manifest"]["tasks"]
    )
    return f"partial: {'; '.join(parts)}"


def searched(findings: Row) -> str | None:
    """What the search before a confirmation cost and promised; None where there was none."""
    if "study" not in findings:
        return None
    budget, best = findings["study"]["budget"], findings["study"]["best"]
    tried = f"{count(budget['trials'], 'setting')} tried on {count(budget['items'], 'other item')}"
    found = f"{points(best['difference'])} points {interval(best['low'], best['high'])}"
    return f"The setting is the best of {tried} ({count(budget['answers'], 'answer')}), where it had {found}."


def placebo_checks(task: Row) -> Iterator[tuple[bool, str]]:
    """Whether each placebo that must answer as the baseline does so, and the sentence about it."""
    for name, same in task["same_as_baseline"].items():
        holds = same == task["items"]
        found = f"{name} gives the baseline's answers, letter for letter, in {same:,} of {count(task['items'], 'item')}"
        yield (
            holds,
            found if holds else f"{found}: attaching alone changes answers here, so differences may be due to it",
        )


def arm_checks(task: Row) -> Iterator[tuple[bool, str]]:
    """Whether ARM moved anything under each condition that has it, and the sentence about it."""
    for row in task["conditions"]:
        layers = row["arm"]
        if row["role"] in ("treated", "combined") or (row["role"] == "best-of" and layers):
            if not layers:  # a server, or a run of lm-eval without ARM's report
                yield False, f"{row['name']}: no record of what ARM did; that it was attached is taken on trust"
                continue
            idle = [layer for layer, own in layers.items() if not own["moved"]]
            tokens = sum(own["tokens"] for own in layers.values())
            share = sum(own["tokens"] * own["share_moved"] for own in layers.values()) / max(tokens, 1)
            where = f"{count(tokens, 'token')} in {count(len(layers), 'layer')}"
            found = f"{row['name']}: {where}, {percent(share)} of values moved"
            yield not idle, f"{found}; nothing moved in layer {', '.join(idle)}" if idle else found


def changed(tasks: Sequence[Row]) -> str:
    """What the discordant items that are shown are."""
    several = any(row["samples"] > 1 for task in tasks for row in task["conditions"])
    return "Items that one side alone answers rightly" + (", by the first answer to each." if several else ".")


def planned(task: Row) -> str:
    """What the run could show, before it was run."""
    own = task["planned"]
    items, smallest = count(own["items"], "item"), own["smallest_detectable"]
    found = "no difference with certainty" if smallest is None else f"differences from {percent_points(smallest)} on"
    return (
        f"{task['name']}: before the run, {items} can show {found} at 80 % power, if {percent(own['discordant'])} of "
        f"them are answered rightly by one side alone{strictness(own['comparisons'])}. After it, with the variability "
        "seen:"
    )


def strictness(judged: int) -> str:
    """What a power is announced under, where more than one comparison is judged."""
    return f", after Holm's correction for {judged} comparisons" if judged > 1 else ""


def words(findings: Row) -> dict[str, str]:
    """The words for conditions that are in this report, each with its meaning."""
    roles = {each["role"] for each in findings["manifest"]["conditions"]}
    return {role: meaning for role, meaning in WORDS.items() if role in roles}


def settings(findings: Row) -> dict[str, str]:
    """How it was run, name by name."""
    manifest = findings["manifest"]
    found = {f"engine, {name}" if name != "model" else name: plain(own) for name, own in manifest["engine"].items()}
    for task in manifest["tasks"]:
        found[f"task {task['name']}"] = (
            f"{task['kind']}, {count(task['items'], 'item')}, sha256 {task['sha256']}; {plain(task['source'])}"
        )
    found |= {f"sampling, {kind}": plain(own) for kind, own in manifest["sampling"].items()}
    found |= {f"system prompt, {kind}": own for kind, own in manifest["systems"].items() if own}
    found |= {f"grader, {kind}": own for kind, own in manifest["graders"].items()}
    found |= {"batch": str(manifest["batch"]), "versions": plain(manifest["versions"])}
    found |= {f"machine {at}": plain(own) for at, own in enumerate(manifest["machines"], 1)}
    return found


def conditions_settings(findings: Row) -> Grid:
    """How each condition was run."""
    rows = [
        (
            each["name"],
            each["role"],
            "; ".join(plain(each[key]) for key in ("treatment", "filling") if each.get(key)),
            f"{each['temperature']:g}; choices {each['weighing']:g}",
            str(each["samples"]),
        )
        for each in findings["manifest"]["conditions"]
    ]
    return Grid("conditions", ("condition", "role", "settings", "temperature", "samples"), {"": rows})


def plain(value: object) -> str:
    """A value of the manifest in one line: "name value, name value"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(own)}" for name, own in value.items() if own is not None)
    if isinstance(value, list | tuple):
        return "/".join(plain(own) for own in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _model(findings: Row) -> str:
    return str(findings["manifest"]["engine"].get("model", "model"))
