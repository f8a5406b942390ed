"""Theorems of Inspect with ARM attached, on the embedded model and tasks of a few sums, and of its logs compared."""

import json
import sys
import warnings

import pytest

from armlet.commands.inspect_compare import inspect_compare
from armlet.evaluation.report.page import markdown
from armlet.integrations.inspect_ai import compare_logs
from armlet.redistribution.errors import ArgumentError
from armlet.statistics.comparison import compare

pytest.importorskip("inspect_ai", reason="needs the extra inspect-ai", exc_type=ImportError)

ITEMS = [(a, b, c) for a in (3, 14, 25) for b in (7, 12) for c in (5, 40)]  # 12
ATTACHED = {"version": 1, "policy": "outward", "layers": [0], "scope": "token"}


# The provider


def evaluated(folder, model="armlet/abacus", *, batch=12, cache=False, **model_args):
    """The log of a task of sums, run with these model arguments."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.scorer import match
    from inspect_ai.solver import generate

    samples = [Sample(input=f"{a}+{b}-{c}", target=str(a + b - c)) for a, b, c in ITEMS]
    task = Task(MemoryDataset(samples, name="sums"), solver=generate(cache=cache), scorer=match(), name="sums")
    model_args = {"do_sample": False, "device": "cpu"} | model_args
    settings = {"max_connections": batch, "max_tokens": 24, "display": "none", "log_dir": str(folder)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Inspect and what it uses
        (log,) = eval(task, model=model, model_args=model_args, **settings)
    assert log.status == "success", log.error
    return log


def said(log):
    return [sample.output.completion for sample in log.samples]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Logs without ARM, and with ARM in a way that this model does not stand."""
    folder = tmp_path_factory.mktemp("inspect")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("INSPECT_CACHE_DIR", str(folder / "cache"))
        baseline = evaluated(folder, policy="none", cache=True)
        treated = evaluated(folder, policy="outward:proportion=0.9;ceiling=0.99", layers="0;1", cache=True)
    return baseline, treated


@pytest.mark.slow
def test_without_arm_answers_are_those_of_inspects_own_provider(runs, tmp_path):
    from armlet.checkpoints.folder import abacus

    assert said(runs[0]) == said(evaluated(tmp_path, "hf/abacus", model_path=str(abacus())))


@pytest.mark.slow
def test_with_arm_answers_are_others_and_the_log_proves_that_it_fired(runs):
    """Although both runs used Inspect's cache of outputs, whose keys have no model arguments."""
    baseline, treated = runs
    assert said(baseline) != said(treated)
    assert treated.eval.model_args["policy"] == "outward:proportion=0.9;ceiling=0.99"
    assert all(sample.output.metadata == {"armlet": None} for sample in baseline.samples)
    for sample in treated.samples:
        arm = sample.output.metadata["armlet"]
        assert arm["attached"] | {"proportion": 0.9, "ceiling": 0.99, "layers": [0, 1]} == arm["attached"]
        assert all(counts["moved"] > 0 for counts in arm["report"].values())


@pytest.mark.slow
def test_two_logs_are_compared_item_by_item(runs, tmp_path):
    findings = compare_logs(*(log.location for log in runs))
    scores = [[sample.scores["match"].value == "C" for sample in log.samples] for log in runs]
    assert sum(scores[0]) > sum(scores[1])
    assert findings.complete
    assert findings.tasks[0].comparisons[0].comparison == compare(*scores)
    assert [condition.temperature for condition in findings.settings.conditions] == [0, 0]
    assert findings.settings.batch == len(ITEMS)
    assert findings.settings.conditions[1].treatment["proportion"] == 0.9
    assert findings.tasks[0].conditions[1].arm["1"].moved > 0
    inspect_compare(*(log.location for log in runs), out=tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["complete"]


@pytest.mark.slow
def test_an_answer_does_not_depend_on_its_batch(runs, tmp_path):
    """The padding before shorter questions is another in each batch, and counts for nothing."""
    halves = evaluated(tmp_path, policy="outward:proportion=0.9;ceiling=0.99", layers="0;1", batch=6)
    assert said(halves) == said(runs[1])


def provider(model="abacus", **model_args):
    """An instance of the provider's class."""
    from armlet.integrations.inspect_ai.model import ArmletAPI

    return ArmletAPI(model, device="cpu", **model_args)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "needs policy=outward .*arm_config=FILE, or policy=none"),
        ({"policy": "sideways"}, "expected one of outward, inward, transport"),
        ({"policy": "outward", "layers": "first"}, "layers: expected indices"),
        ({"policy": "outward", "site": "down"}, "site: expected gate, up or product"),
        (
            {"policy": "outward", "layer": 0},
            "unexpected keyword argument 'layer'; ARM's own are policy, layers",
        ),
        ({"policy": "outward", "trust_remote_code": True}, "does not run code from checkpoints"),
        ({"policy": "outward", "scope": "call"}, "needs --max-connections 1"),
        ({"arm_config": "none.json"}, "none.json: cannot be read"),
        ({"policy": "inward", "layers": 99}, "layers"),
        ({"policy": "inward", "model": "./nowhere"}, "found nothing there"),
    ],
)
def test_what_cannot_be_is_refused_in_inspects_own_way(how, message):
    from inspect_ai._util.error import PrerequisiteError

    with pytest.raises(PrerequisiteError, match=f"^armlet: .*{message}"):
        provider(**how)


def test_lists_that_inspects_command_line_makes_of_commas_are_one_setting():
    arm = provider(policy=["outward:band=0.2", "ceiling=0.99"], layers=["0", "1"]).attachment
    assert (arm.policy.band, arm.policy.ceiling, arm.layers) == (0.2, 0.99, [0, 1])


def test_inspects_cache_keeps_outputs_of_other_settings_apart():
    keys = {provider(policy=policy).base_url for policy in ("none", "inward", "inward:knee=0.9")}
    assert len(keys) == 3


# Logs


def sample(id, value, *, epoch=1, arm=None, asked="2+2=?", error=None, scorer="match", events=()):
    """A sample with one answer."""
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    output = ModelOutput.from_content("m", f"it is {value}")
    if arm:
        report = {"0": {"calls": 1, "tokens": 5, "moved": 9, "share_moved": 0.1, "passed": 0}}
        output.metadata = {"armlet": {"attached": ATTACHED, "report": report} | arm}
    answer = ChatMessageAssistant(content="it is")
    return EvalSample(
        id=id,
        epoch=epoch,
        input="2+2=?",
        target="4",
        messages=[ChatMessageSystem(content="Answer."), ChatMessageUser(content=asked), answer],
        output=output,
        scores={scorer: Score(value=value)},
        error=EvalError(message="it broke", traceback="", traceback_ansi="") if error else None,
        events=list(events),
    )


def write(path, samples, *, status="success", plan=None, invalidated=False, **spec):
    """A log with these samples; its path."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalPlan, EvalSpec, write_eval_log

    epochs = max((sample.epoch for sample in samples), default=1)
    settings = {
        "created": "2026-01-02T03:04:05+00:00",
        "task": "sums",
        "dataset": EvalDataset(name="sums"),
        "model": "armlet/m",
        "config": EvalConfig(epochs=epochs),
    }
    settings |= spec
    log = EvalLog(status=status, eval=EvalSpec(**settings), plan=plan or EvalPlan(), samples=samples)
    log.invalidated = invalidated
    write_eval_log(log, str(path))
    return path


def pair(folder, before, after, *, before_spec=None, after_spec=None, **how):
    """Two logs compared: samples without ARM, and samples to which ARM's record is added."""
    first = write(folder / "before.eval", before, **(before_spec or {}))
    second = write(folder / "after.eval", after, **(after_spec or {}))
    return compare_logs(first, second, **how)


def plain(*values):
    return [sample(at, value) for at, value in enumerate(values)]


def treated(*values, **how):
    return [sample(at, value, arm={"at": 0}, **how) for at, value in enumerate(values)]


@pytest.mark.slow
def test_letters_numbers_and_truths_are_scores(tmp_path):
    findings = pair(tmp_path, plain("C", "I", "P", "N", 0.25, True), treated(*"IIIIII"))
    assert findings.tasks[0].baseline.accuracy == pytest.approx((1 + 0.5 + 0.25 + 1) / 6)
    assert findings.tasks[0].comparisons[0].comparison.treated_mean == 0


@pytest.mark.parametrize("value", ["yes", 1.5, -1, float("nan"), {"a": 1}, [1, 0]])
def test_other_scores_are_refused_and_shown(tmp_path, value):
    with pytest.raises(ArgumentError, match=r"^sample 1, epoch 1: the score of match is .*a number from 0 to 1$"):
        pair(tmp_path, plain("C", value), treated("C", "C"))


@pytest.mark.slow
def test_epochs_are_the_samples_of_an_item(tmp_path):
    grades = {"before": ["CI", "II", "CC"], "after": ["CC", "CI", "CC"]}
    sides = [
        [
            sample(at, value, epoch=epoch, arm=arm)
            for at, item in enumerate(items)
            for epoch, value in enumerate(item, 1)
        ]
        for items, arm in zip(grades.values(), (None, {"at": 0}), strict=True)
    ]
    scores = [[[value == "C" for value in item] for item in items] for items in grades.values()]
    findings = pair(tmp_path, *sides)
    task = findings.tasks[0]
    assert [row.comparison for row in task.comparisons] == [compare(*scores)]
    assert [condition.samples for condition in task.conditions] == [2, 2]


@pytest.mark.slow
def test_items_of_one_log_alone_and_without_all_epochs_are_left_out_and_the_report_says_so(tmp_path):
    before = [sample(at, "I", epoch=epoch) for at in range(5) for epoch in (1, 2)]
    after = [sample(at, "C", epoch=epoch, arm={"at": 0}) for at in range(3, 9) for epoch in (1, 2)][1:]
    findings = pair(tmp_path, before, after)
    assert (findings.tasks[0].items, findings.tasks[0].planned_items, findings.complete) == (1, 9, False)
    assert "1 of 9 items" in markdown(findings)
    assert pair(tmp_path, before[1:], after).tasks[0].planned_items == 9
    with pytest.raises(ArgumentError, match="no item in common"):
        pair(tmp_path, before[:4], after[-4:])


def generation(**settings):
    from inspect_ai.log import EvalPlan
    from inspect_ai.model import GenerateConfig

    return {"plan": EvalPlan(config=GenerateConfig(**settings))}


def other(name):
    """Settings of a log, each other than those of `write`."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalPlan, EvalPlanStep
    from inspect_ai.log._log import EvalScorer

    return {
        "task": {"task": "products"},
        "version": {"task_version": 2},
        "arguments": {"task_args": {"level": 2}},
        "dataset": {"dataset": EvalDataset(name="products")},
        "scorer": {"scorers": [EvalScorer(name="includes")]},
        "solver": {"plan": EvalPlan(steps=[EvalPlanStep(solver="chain_of_thought")])},
        "model": {"model": "armlet/n"},
        "dtype": {"model_args": {"dtype": "bfloat16"}},
        "temperature": generation(temperature=0.7),
        "epochs": {"config": EvalConfig(epochs=2)},
        "limit": {"config": EvalConfig(epochs=1, message_limit=3)},
    }[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("task", "task is .*'sums'.* in the first, .*'products'"),
        ("version", "task is"),
        ("arguments", "task is .*'level': 2"),
        ("dataset", "dataset is 'sums' in the first, 'products' in the second"),
        ("scorer", "scorers is .*'includes'"),
        ("solver", "solver is .*'chain_of_thought'"),
        ("model", "model is 'm' in the first, 'n' in the second"),
        ("dtype", "model arguments is .*'bfloat16'"),
        ("temperature", "generation is {} in the first, {'temperature': 0.7} in the second"),
        ("epochs", "epochs is 1 in the first, 2 in the second"),
        ("limit", "message_limit is None in the first, 3 in the second"),
    ],
)
def test_runs_that_differ_by_more_than_arm_are_refused(tmp_path, name, message):
    with pytest.raises(ArgumentError, match=f"^the runs differ by more than ARM: {message}"):
        pair(tmp_path, plain("C"), treated("C"), after_spec=other(name))


@pytest.mark.slow
def test_the_provider_arm_and_the_size_of_a_batch_may_differ(tmp_path):
    pair(
        tmp_path,
        plain("C"),
        treated("C"),
        before_spec={"model": "hf/m", "model_args": {"do_sample": False}},
        after_spec={"model_args": {"do_sample": False, "policy": "inward", "layers": 0}}
        | generation(max_connections=4),
    )


def test_both_logs_without_or_with_arm_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"^neither run had ARM attached"):
        pair(tmp_path, plain("C"), plain("C"))
    with pytest.raises(ArgumentError, match=r"^the first run had ARM attached"):
        pair(tmp_path, treated("C"), treated("C"))


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (None, "sample 1, epoch 1 has no record of ARM"),
        ({"attached": ATTACHED | {"layers": [1]}}, "sample 1, epoch 1 has another setting of ARM"),
        ({"report": {"0": {"tokens": 10**9}, "1": {"tokens": 0}}}, "did not process any tokens"),
    ],
)
def test_an_answer_without_arm_or_with_another_is_no_treated_one(tmp_path, arm, message):
    after = [*treated("C"), sample(1, "C", arm=arm)]
    with pytest.raises(ArgumentError, match=message):
        pair(tmp_path, plain("C", "C"), after)


@pytest.mark.parametrize(
    ("samples", "spec", "message"),
    [
        (treated, {"status": "error"}, r"did not end with success \(error\)"),
        (treated, {"status": "cancelled"}, r"did not end with success \(cancelled\)"),
        (treated, {"invalidated": True}, "marked as invalid"),
        (lambda _: [], {}, "has no samples"),
        (lambda value: treated(value, error=True), {}, r"1 of 1 samples ended with an error, .*\(it broke\)"),
    ],
)
def test_an_unfinished_log_or_one_with_errors_is_refused(tmp_path, samples, spec, message):
    with pytest.raises(ArgumentError, match=rf"after\.eval: .*{message}"):
        pair(tmp_path, plain("C"), samples("C"), after_spec=spec)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b'{"a": 1}'])
def test_any_other_file_is_refused_in_one_line(tmp_path, content):
    for name in ("a.eval", "a.json", "a.txt"):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ArgumentError, match=rf"{name}: is not a log of Inspect \("):
            compare_logs(tmp_path / name, tmp_path / name)


@pytest.mark.slow
def test_a_folder_is_its_only_log_and_is_refused_with_none_or_several(tmp_path):
    pair(tmp_path, plain("C"), treated("I"))
    sides = [tmp_path / name for name in ("without", "with")]
    for side, name in zip(sides, ("before", "after"), strict=True):
        side.mkdir()
        (tmp_path / f"{name}.eval").rename(side / f"{name}.eval")
    assert compare_logs(*sides).tasks[0].items == 1
    (sides[0] / "other.eval").write_bytes((sides[0] / "before.eval").read_bytes())
    with pytest.raises(ArgumentError, match=r"without: expected .* one .eval file, found 2; name the .eval file$"):
        compare_logs(*sides)


def test_other_questions_under_the_same_id_are_refused(tmp_path):
    after = [*treated("C"), sample(1, "C", arm={"at": 0}, asked="3+3=?")]
    with pytest.raises(ArgumentError, match=r"^sample 1, epoch 1: the runs have different inputs \(messages\)"):
        pair(tmp_path, plain("C", "C"), after)


@pytest.mark.slow
def test_a_scorer_may_be_named_and_one_that_is_missing_is_refused(tmp_path):
    sides = plain("C"), treated("I")
    for samples in sides:
        samples[0].scores["other"] = samples[0].scores["match"].model_copy(update={"value": 0.5})
    assert pair(tmp_path, *sides, scorer="other").tasks[0].comparisons[0].comparison.treated_mean == 0.5
    with pytest.raises(ArgumentError, match=r"expected a score of f1 .*; name one of match, other with --scorer"):
        pair(tmp_path, *sides, scorer="f1")
    with pytest.raises(ArgumentError, match="of each sample; score them with inspect score"):
        pair(tmp_path, plain("C"), treated("C", scorer="else"))


@pytest.mark.slow
def test_a_model_with_arm_that_grades_is_refused(tmp_path):
    from inspect_ai.event import ModelEvent, SpanBeginEvent
    from inspect_ai.model import GenerateConfig

    span = SpanBeginEvent(id="s", span_id="s", name="model_graded_qa", type="scorer")
    settings = {"tools": [], "tool_choice": "none", "config": GenerateConfig(), "input": []}
    with_arm, without = (
        ModelEvent(model="m", output=s.output, span_id="s", **settings) for s in (*treated("C"), *plain("C"))
    )
    pair(tmp_path, plain("C"), treated("C", events=[span, without]))
    with pytest.raises(ArgumentError, match=r"^sample 0: a scorer asked the model with ARM"):
        pair(tmp_path, plain("C"), treated("C", events=[span, with_arm]))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(ArgumentError, match=r"pip install 'armlet\[inspect-ai\]'"):
        compare_logs(tmp_path, tmp_path)
