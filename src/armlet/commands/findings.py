"""Announces a run and shows its findings, for the evaluating commands."""

from pathlib import Path

from armlet.commands.options import finish
from armlet.evaluation.plan import Plan
from armlet.evaluation.report.analysis import count_judged, planned_power
from armlet.evaluation.report.findings import Report
from armlet.evaluation.report.sentences import failed_checks, power_announcement
from armlet.evaluation.report.tables import summary_table
from armlet.evaluation.search.results import SearchMap
from armlet.evaluation.settings import ConditionSettings
from armlet.presentation.interruption import report_interruption
from armlet.presentation.terminal import notes


def announce_power(plan: Plan) -> None:
    """Announces on stderr, before the run, which differences the items can detect."""
    judged = count_judged([ConditionSettings(**condition.plain()) for condition in plan.conditions], plan.tasks)
    for task in plan.tasks:
        announcement = power_announcement(task.name, planned_power(len(task.problems), judged))
        notes.print(announcement, markup=False, highlight=False, soft_wrap=True)


def show_findings(
    findings: Report, folder: Path, *, as_json: bool, map: SearchMap | None = None, interrupted: bool = False
) -> None:
    """Writes the report into a folder and prints the findings; exits with 130 after Ctrl-C."""
    from armlet.evaluation.report.page import write

    report_interruption(interrupted, findings.tasks)
    reports = [f"report: {path}" for path in write(findings, folder, map=map)]
    for warning in failed_checks(findings):
        notes.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    verdicts = [verdict.sentence for verdict in findings.verdicts]
    lines = [*(summary_table(task) for task in findings.tasks), *verdicts, *reports]
    finish(findings.to_dict(), as_json, lines, interrupted=interrupted)
