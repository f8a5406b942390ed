"""From the items of a run to its findings: accuracy and format of each condition, paired differences, verdicts.

The findings are plain values, the content of report.json; the same items and manifest give the same ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from armlet.evaluation.conditions.conditions import BASELINE, applies
from armlet.evaluation.report.sentences import verdict
from armlet.evaluation.tasks.problems import Kind, Problem, Task
from armlet.runs.folder import Record, RunFolder
from armlet.statistics.comparison import UNDECIDED, Comparison, compare
from armlet.statistics.power import detectable
from armlet.statistics.significance import corrected, holm, is_significant
from armlet.statistics.votes import KS, distinct_2, majority, pass_at_k

CONFIDENCE = 0.95

DISCORDANT = 0.2
"""The share of discordant pairs that the smallest detectable difference is announced for before a run."""

EXACT = ("identity", "draw-only")
"""Placebos whose answers must be the baseline's, letter for letter."""

Values = NDArray[np.float64]
Equal = Callable[[str, str], bool]
Equals = Mapping[Kind, Equal]


def findings(journal: RunFolder, tasks: Sequence[Task], equal: Equals, *, seed: int = 0) -> dict[str, Any]:
    """Everything that a report says.

    Args:
        journal: of a whole run, or of a part of one.
        tasks: what was asked.
        equal: for each kind of task, whether two extracted answers are the same answer.
        seed: of the bootstrap.
    """
    manifest = journal.manifest
    judged = count_judged(manifest["conditions"], tasks)
    found = [_task(task, journal, equal, seed, judged) for task in tasks]
    begun = [task for task in found if task["items"]]
    adjust([row for task in begun for row in task["comparisons"]])
    return {
        "armlet": manifest["versions"]["armlet"],
        "complete": all(task["items"] == task["planned_items"] for task in found),
        "verdicts": [verdict(task, row) for task in begun for row in task["comparisons"] if row["judged"]],
        "tasks": begun,
        "manifest": manifest,
    }


def planned(items: int, judged: int = 1) -> dict[str, Any]:
    """What so many items can show, before they are run, where so many comparisons are judged together."""
    smallest = detectable(items, DISCORDANT, corrected(CONFIDENCE, max(judged, 1)))
    return {"items": items, "discordant": DISCORDANT, "comparisons": judged, "smallest_detectable": smallest}


def count_judged(conditions: Sequence[Record], tasks: Sequence[Task]) -> int:
    """Comparisons of a whole run that get a verdict, all tasks together."""
    return sum(judged for task in tasks for *_, judged in _listed(_applying(conditions, task), task.kind))


def _applying(conditions: Sequence[Record], task: Task) -> list[Record]:
    return [each for each in conditions if applies(each["role"], task.kind)]


def _task(task: Task, journal: RunFolder, equal: Equals, seed: int, judged: int) -> Record:
    conditions = _applying(journal.manifest["conditions"], task)
    grouped = _paired([row for row in journal.rows if row["task"] == task.name], task, conditions)
    items = len(grouped[BASELINE])
    found = {"name": task.name, "kind": task.kind, "items": items, "planned_items": len(task.problems)}
    if not items:
        return found
    runs = {name: _Answers(rows, task.kind == "choice") for name, rows in grouped.items()}
    shares = _shares(journal, task.name)
    described = [{**_describe(each, runs[each["name"]]), "arm": shares.get(each["name"], {})} for each in conditions]
    compared = _compare_all(conditions, runs, task.kind, equal.get(task.kind), seed, judged)
    return found | {
        "planned": planned(len(task.problems), judged),
        "conditions": described,
        "comparisons": compared,
        "same_as_baseline": {each["name"]: runs[each["name"]].same(runs[BASELINE]) for each in _exact(conditions)},
        "discordant": _discordant(conditions, runs, {problem.id: problem for problem in task.problems}),
    }


def _paired(rows: Sequence[Record], task: Task, conditions: Sequence[Record]) -> dict[str, list[list[Record]]]:
    """For each condition its items' samples: of the items that are there under every condition, by their ids."""
    ordered = sorted(rows, key=lambda row: (row["condition"], row["item"], row["sample"]))
    found: dict[str, dict[str, list[Record]]] = {each["name"]: {} for each in conditions}
    for (condition, item), samples in groupby(ordered, key=lambda row: (row["condition"], row["item"])):
        found[condition][item] = list(samples)
    needed = {each["name"]: 1 if task.kind == "choice" else each["samples"] for each in conditions}
    whole = [{item for item, own in found[name].items() if len(own) == count} for name, count in needed.items()]
    items = sorted(set.intersection(*whole))
    return {name: [own[item] for item in items] for name, own in found.items()}


class _Answers:
    """One condition's answers: `rows[item][sample]`."""

    def __init__(self, rows: Sequence[Sequence[Record]], choice: bool) -> None:
        self.rows, self.choice = rows, choice
        self.correct: Values = np.array([[float(row["correct"]) for row in samples] for samples in rows])

    def flat(self, key: str) -> list[Any]:
        """A field of all answers."""
        return [row[key] for samples in self.rows for row in samples]

    def same(self, other: "_Answers") -> int:
        """Items answered letter for letter as by the other."""
        key = "loglikelihoods" if self.choice else "text"
        pairs = zip(self.rows, other.rows, strict=True)
        return sum([row[key] for row in own] == [row[key] for row in others] for own, others in pairs)


def _describe(condition: Record, answers: _Answers) -> Record:
    found: Record = {"name": condition["name"], "role": condition["role"], "samples": answers.correct.shape[1]}
    found["accuracy"] = float(answers.correct.mean())
    if answers.choice:
        return found | {"accuracy_normalised": float(np.mean(answers.flat("correct_normalised")))}
    lengths = [length for length in answers.flat("tokens") if length is not None]
    extracted = np.array([each is not None for each in answers.flat("extracted")])
    correct = answers.correct.reshape(-1)
    return found | {
        "extracted": float(extracted.mean()),
        "format_ok": float(np.mean(answers.flat("format_ok"))),
        "truncated": float(1 - np.mean(answers.flat("ended"))),
        "accuracy_of_extracted": float(correct[extracted].mean()) if extracted.any() else None,
        "tokens": float(np.mean(lengths)) if lengths else None,
        "distinct_2": distinct_2(answers.flat("text")),
        "pass_at": {str(k): float(pass_at_k(answers.correct, k).mean()) for k in KS if k <= answers.correct.shape[1]},
    }


def _listed(conditions: Sequence[Record], kind: Kind) -> Iterator[tuple[str, str, str, str, bool]]:
    """What is compared: condition and how of its samples one is chosen, the same of the other side, and if judged.

    Each condition against the baseline, also by majority, and each treatment against its matched placebo. Programs have
    no majority: two that do the same are seldom written the same.
    """
    names = {each["name"] for each in conditions}
    voted = ["majority"] if kind != "code" else []
    for condition in conditions:
        name, judged = condition["name"], condition["role"] != "placebo"
        if condition["role"] == "best-of":
            yield from ((name, chosen, BASELINE, "", chosen != "any") for chosen in (*voted, "likeliest", "any"))
        elif name != BASELINE:
            yield name, "", BASELINE, "", judged
            if kind != "choice" and condition["samples"] > 1:
                yield from ((name, chosen, BASELINE, chosen, judged) for chosen in voted)
        if condition["role"] == "treated" and f"matched ({name})" in names:
            yield name, "", f"matched ({name})", "", False


def _compare_all(
    conditions: Sequence[Record], runs: Mapping[str, _Answers], kind: Kind, equal: Equal | None, seed: int, judged: int
) -> list[Record]:
    rows = []
    for one, by, other, by_other, verdict_due in _listed(conditions, kind):
        own = _correct(runs[one], by, equal)
        if own is not None:
            against = _correct(runs[other], by_other, equal)
            assert against is not None, "only the likeliest may be unknown, and it is compared with all of the baseline"
            compared = compare(against, own, seed=seed, comparisons=max(judged, 1))
            rows.append(paired_row(_side(one, by), _side(other, by_other), verdict_due, compared))
    return rows


def _side(name: str, chosen: str) -> str:
    return f"{name}, {chosen}" if chosen else name


def _correct(answers: _Answers, chosen: str, equal: Equal | None) -> Values | None:
    """Correctness `[items, samples]`, or `[items]` of the chosen ones; None where likelihoods are not known.

    Chosen: the majority's answer, the likeliest, or any (a bound that no one can reach by choosing).
    """
    if chosen == "any":
        return answers.correct.max(axis=1)
    if chosen == "likeliest":
        likely = [[row["logprob"] for row in samples] for samples in answers.rows]
        if any(each is None for samples in likely for each in samples):
            return None
        at = [int(np.argmax(own)) for own in likely]
    elif chosen == "majority":
        assert equal is not None
        at = [majority([row["extracted"] for row in samples], equal) for samples in answers.rows]
    else:
        return answers.correct
    return np.array([0.0 if one is None else own[one] for one, own in zip(at, answers.correct, strict=True)])


def paired_row(name: str, against: str, judged: bool, comparison: Comparison) -> Record:
    """A comparison of two conditions; `judged`: it gets a verdict, which a control does not."""
    return {"condition": name, "against": against, "judged": judged, **comparison.plain()}


def adjust(rows: Sequence[Record]) -> None:
    """Holm's correction over everything that is judged, all tasks together; verdicts follow it."""
    judged = [row for row in rows if row["judged"]]
    for row, adjusted in zip(judged, holm([row["p_value"] for row in judged]), strict=True):
        row["p_holm"] = adjusted
        if not is_significant(adjusted, row["confidence"]):
            row["verdict"] = UNDECIDED


def _exact(conditions: Sequence[Record]) -> list[Record]:
    return [each for each in conditions if each["placebo"] in EXACT]


def _shares(journal: RunFolder, task: str) -> dict[str, Record]:
    """What ARM did under each condition, by layer: tokens seen, values moved and their share, scopes passed through."""
    totals: dict[str, dict[str, Record]] = {}
    for unit, closing in journal.closed.items():
        if unit[0] == task:
            for layer, report in closing["arm"].items():
                empty = {"tokens": 0, "moved": 0, "share_moved": 0.0, "passed": 0}
                own = totals.setdefault(unit[2], {}).setdefault(layer, empty)
                tokens = own["tokens"] + report["tokens"]
                weighted = own["share_moved"] * own["tokens"] + report["share_moved"] * report["tokens"]
                own |= {key: own[key] + report[key] for key in ("tokens", "moved", "passed")}
                own["share_moved"] = weighted / tokens if tokens else 0.0
    return totals


def _discordant(
    conditions: Sequence[Record], runs: Mapping[str, _Answers], problems: Mapping[str, Problem]
) -> list[Record]:
    """Items that a condition gains or loses against the baseline by their first answers, which are shown."""
    rows = []
    for condition in conditions:
        if condition["role"] in ("treated", "filler", "combined"):
            for samples, others in zip(runs[BASELINE].rows, runs[condition["name"]].rows, strict=True):
                before, after = samples[0], others[0]
                if before["correct"] != after["correct"]:
                    problem = problems[before["item"]]
                    asked = {"item": problem.id, "question": _question(problem), "gold": _gold(problem)}
                    answers = {"baseline": _said(before, problem), "answer": _said(after, problem)}
                    rows.append({"condition": condition["name"], **asked, "gained": after["correct"], **answers})
    return rows


def _question(problem: Problem) -> str:
    return "\n".join(part for part in (problem.context, problem.question) if part)


def _gold(problem: Problem) -> str:
    return problem.choices[int(problem.gold)] if problem.choices else problem.gold


def _said(row: Record, problem: Problem) -> str:
    return problem.choices[int(row["extracted"])] if problem.choices else row["text"]
