"""What limits a verdict is said with it."""

from dataclasses import replace

from armlet.evaluation import Findings
from armlet.evaluation.report.limitations import limitations
from evaluations import found, sums


def report(*, truncated=0.0, extracted=1.0, accuracy=0.5):
    """The findings of a made-up run, in which each condition's answers have this form."""
    findings = found(sums(40), fillings=(), placebos=False)
    (task,) = findings.tasks
    conditions = [
        replace(c, accuracy=accuracy, answers=replace(c.answers, truncated=truncated, extracted=extracted))
        for c in task.conditions
    ]
    return replace(findings, tasks=[replace(task, conditions=conditions)])


def test_a_tenth_of_truncated_or_unreadable_answers_is_said_with_its_shares():
    assert limitations(report(truncated=0.1, extracted=0.9)) == []
    (sentence,) = limitations(report(truncated=0.83, extracted=0.4))
    shares = "83.0\N{NO-BREAK SPACE}% truncated and 60.0\N{NO-BREAK SPACE}% unreadable"
    assert sentence.startswith(f"arithmetic: many answers could not be graded as meant (baseline {shares}; ")
    assert sentence.count(shares) == 3  # of the baseline and both treatments
    assert sentence.endswith("use a larger max_new_tokens")
    (sentence,) = limitations(report(extracted=0.4))
    assert "truncated" not in sentence
    assert "max_new_tokens" not in sentence


def test_a_baseline_without_room_for_a_difference_is_said():
    (worst,), (best,) = (limitations(report(accuracy=accuracy)) for accuracy in (0.0, 1.0))
    assert (
        "the baseline's accuracy is 0.0\N{NO-BREAK SPACE}%, so these items cannot show that a treatment is worse"
        in worst
    )
    assert (
        "the baseline's accuracy is 100.0\N{NO-BREAK SPACE}%, so these items cannot show that a treatment is better"
        in best
    )


def test_findings_say_the_verdicts_and_then_what_limits_them():
    limited = report(accuracy=1.0)
    verdicts = [verdict.sentence for verdict in limited.verdicts]
    assert Findings(**vars(limited)).sentences() == [*verdicts, *limitations(limited)]
