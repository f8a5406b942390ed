"""What limits a verdict is said with it."""

import ast
from dataclasses import replace
from html import unescape

import pytest

from armlet.evaluation import Findings
from armlet.evaluation.engines.engine import Output
from armlet.evaluation.report.limitations import general_limitations, limited_verdicts
from armlet.evaluation.report.page import in_markdown, markdown, page
from armlet.statistics.significance import holm
from evaluations import Fake, choices, found, sums

EXAMPLE = "'I do not know' (no answer is stated)"


def report(*, truncated=0.0, unreadable=0.0, accuracy=0.5):
    """The findings of a made-up run, in which each condition's answers have this form."""
    findings = found(sums(40), fillings=(), placebos=False)
    (task,) = findings.tasks
    form = {"truncated": truncated, "unreadable": unreadable, "unreadable_example": EXAMPLE}
    conditions = [replace(c, accuracy=accuracy, answers=replace(c.answers, **form)) for c in task.conditions]
    return replace(findings, tasks=[replace(task, conditions=conditions)])


def limitations(findings):
    """What limits the verdicts of the tasks."""
    return [limit for _, limits in limited_verdicts(findings) for limit in limits]


@pytest.mark.slow
def test_a_tenth_of_truncated_or_unreadable_answers_is_said_with_its_shares():
    assert limitations(report(truncated=0.1, unreadable=0.1)) == []
    (sentence,) = limitations(report(truncated=0.43, unreadable=0.2))
    shares = "43.0\N{NO-BREAK SPACE}% truncated and 20.0\N{NO-BREAK SPACE}% unreadable"
    assert sentence.startswith(f"arithmetic: many answers could not be graded as meant (baseline {shares}; ")
    assert sentence.count(shares) == 3  # of the baseline and both treatments
    more, other = "allow more tokens (max_new_tokens, --max-new-tokens)", "another system prompt (system, --system)"
    assert sentence.endswith(f"): {more}; {other} may help with the unreadable ones, as for {EXAMPLE}")
    (sentence,) = limitations(report(unreadable=0.2))
    assert ("truncated" in sentence, more in sentence, other in sentence) == (False, False, True)
    (sentence,) = limitations(report(truncated=0.2))
    assert ("unreadable" in sentence, sentence.endswith(f": {more}")) == (False, True)


class Ending(Fake):
    """Answers with these endings in turn: True if the model ended the answer, which nothing can be read from."""

    def __init__(self, wrong, *endings):
        super().__init__(wrong=wrong)
        self.endings = endings

    def answer(self, asks, condition, sampling, *, batch, sample):
        return [Output(self.wrong, 9, self.endings[at % len(self.endings)]) for at in range(len(asks))]


@pytest.mark.slow
def test_an_answer_that_was_cut_off_is_truncated_and_not_unreadable_too():
    shares = {}
    for endings in ((False,), (True, False), (None,)):
        findings = found(sums(40), fillings=(), placebos=False, engine=Ending("I do not know", *endings))
        answers = findings.tasks[0].baseline.answers
        shares[endings] = (answers.truncated, answers.unreadable, answers.extracted)
    assert shares == {(False,): (1, 0, 0), (True, False): (0.5, 0.5, 0), (None,): (None, 1, 0)}


@pytest.mark.slow
def test_the_example_of_an_unreadable_answer_is_its_end_and_cannot_be_markup_or_control():
    wrong = f"{'x' * 80}\n\x1b[31m [red]it's <b>|*me*\u202e"
    findings = found(sums(4), fillings=(), placebos=False, engine=Ending(wrong, True))
    example = findings.tasks[0].baseline.answers.unreadable_example
    quoted, _, reason = example.rpartition(" (")
    assert reason == "no whole number follows the last #)"
    assert ast.literal_eval(quoted) == f"…{' '.join(wrong.split())[-59:]}"
    assert example.isprintable()
    assert Findings(**vars(findings)).sentences()[2].endswith(example)
    assert "<b>" not in page(findings, ()) + markdown(findings)
    assert in_markdown(example) in markdown(findings)


@pytest.mark.slow
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
    assert general_limitations(limited) == []


@pytest.mark.slow
def test_what_limits_a_task_is_said_below_its_own_verdicts_everywhere():
    both = found(sums(40), choices(40), fillings=(), placebos=False)
    limited = replace(both, tasks=[*report(truncated=0.83).tasks, both.tasks[1]])
    (first, (limit,)), (second, none) = limited_verdicts(limited)
    assert [*first, *second] == limited.verdicts
    assert (len(first), len(second), none) == (2, 2, [])
    expected = [*(verdict.sentence for verdict in first), limit, *(verdict.sentence for verdict in second)]
    assert Findings(**vars(limited)).sentences() == expected
    for text, said in ((markdown(limited), map(in_markdown, expected)), (unescape(page(limited, ())), expected)):
        places = [text.index(line) for line in said]
        assert places == sorted(places)


@pytest.mark.slow
def test_a_run_without_a_complete_item_says_so_wherever_it_is_reported():
    nothing = found(sums(12), fillings=(), placebos=False, engine=Fake(after=1))
    assert Findings(**vars(nothing)).sentences() == ["partial: arithmetic: 0 of 12 items", "there are no verdicts"]
    partial = found(sums(12), sums(30, "more"), fillings=(), placebos=False, engine=Fake(after=4))
    sentences = Findings(**vars(partial)).sentences()
    assert sentences[0] == "partial: arithmetic: 12 of 12 items; more: 0 of 30 items"
    assert sentences[1:3] == [verdict.sentence for verdict in partial.verdicts]


@pytest.mark.slow
def test_a_task_without_answers_counts_in_holms_correction():
    engine = Fake({"treated": 1.0}, after=4)
    partial = found(sums(400), sums(40, "more"), fillings=(), placebos=False, engine=engine, batch=400)
    pairs = partial.tasks[0].comparisons
    p_values = [pair.comparison.p_value for pair in pairs]
    assert [pair.p_holm for pair in pairs] == holm([*p_values, 1.0, 1.0])[:2] != holm(p_values)


def with_margin(interval, p_equivalence):
    """The findings of a made-up run with a margin of 50 points, in which the first pair has these numbers."""
    findings = found(sums(40), fillings=(), placebos=False)
    (task,) = findings.tasks
    first, *others = task.comparisons
    comparison = replace(first.comparison, interval=interval, margin=0.5, p_equivalence=p_equivalence)
    pair = replace(first, comparison=comparison, p_holm=1.0, p_equivalence_holm=p_equivalence)
    return replace(findings, tasks=[replace(task, comparisons=[pair, *others])])


def test_a_verdict_by_margin_beside_an_interval_beyond_it_is_explained_once_and_everywhere():
    beyond = with_margin((-0.506, 0.306), 0.04)
    assert beyond.tasks[0].comparisons[0].verdict == "no difference larger than 50 points"
    (sentence,) = general_limitations(beyond)
    assert "correspond to a 90 % interval" in sentence
    for text in (markdown(beyond), unescape(page(beyond, ())), "\n".join(Findings(**vars(beyond)).sentences())):
        assert text.count(sentence) == 1


@pytest.mark.slow
def test_an_interval_inside_the_margin_or_without_such_a_verdict_needs_no_explanation():
    assert general_limitations(with_margin((-0.4, 0.4), 0.04)) == []
    assert general_limitations(with_margin((-0.506, 0.306), 0.06)) == []
