"""Theorems of lm-eval with ARM attached, on tiny models and tasks that lie in a folder: nothing is downloaded."""

import json
import sys

import pytest
import torch

from armlet.attachment.attach import attach
from armlet.attachment.config import ConfigError, describe
from armlet.commands.lm_eval import PASS_THROUGH, lm_eval, with_model
from armlet.evaluation.report.page import markdown
from armlet.evaluation.report.page import write as write_report
from armlet.integrations import lm_eval as integration
from armlet.integrations.lm_eval import compare_runs
from armlet.integrations.lm_eval.samples import find_samples
from armlet.integrations.lm_eval.samples import read_samples as read_file
from armlet.integrations.treatment import DEFAULTS
from armlet.integrations.treatment import treatment as attach_arguments
from armlet.presentation.files import write_json
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.outward import Outward
from armlet.statistics.comparison import compare
from families import tiny
from tiny_checkpoints import save, words

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
CHOICE = (
    TASK
    + """\
output_type: multiple_choice
doc_to_target: gold
doc_to_choice: choices
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
)
TEXT = (
    TASK
    + """\
output_type: generate_until
generation_kwargs: {{until: ["w62"], max_gen_toks: 3}}
doc_to_target: answer
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, two tasks, and lm-eval's caches."""
    import datasets
    import huggingface_hub

    folder = tmp_path_factory.mktemp("lm_eval")
    save(folder / "model")
    words(eos_token="w62").save_pretrained(folder / "model")  # lm-eval needs an end
    (folder / "tasks").mkdir()
    for name, form in (("chosen", CHOICE), ("said", TEXT)):
        rows = [
            {
                "question": f"w{at + 3} w{at + 9} w{2 * at % 50}",
                "choices": [f"w{at + 7}", f"w{at + 2} w4", "w5 w6 w7"],
                "gold": at % 3,
                "answer": f"w{at} w2 w3",
            }
            for at in range(40)
        ]
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "tasks" / f"{name}.yaml").write_text(form.format(name=name, data=data))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patched.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        yield folder


def evaluated(place, model="armlet", tasks=("chosen", "said"), **how):
    """The results of `simple_evaluate`."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    integration.register()
    return lm_eval.simple_evaluate(
        model=model,
        model_args=",".join(f"{name}={value}" for name, value in how.items()) if isinstance(model, str) else None,
        tasks=list(tasks),
        task_manager=TaskManager(include_path=str(place / "tasks"), include_defaults=False),
        bootstrap_iters=0,
        batch_size=8,
        device="cpu",
    )


def read_samples(folder, filter=None):
    """The items of each task in a folder, by doc_id."""
    return {task: read_file(file, filter) for task, file in find_samples(folder).items()}


def answers(results):
    """What the model said, item by item."""
    return {task: [row["resps"] for row in rows] for task, rows in results["samples"].items()}


@pytest.fixture(scope="module")
def plain(place):
    """lm-eval's own model type."""
    return evaluated(place, "hf", pretrained=place / "model")


# The model type


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["none", "outward:strength=0;band=0.2"])
def test_without_arm_and_at_strength_0_answers_are_those_of_hf(place, plain, policy):
    results = evaluated(place, pretrained=place / "model", policy=policy, layers="0;2")
    assert answers(results) == answers(plain)


@pytest.mark.slow
def test_at_strength_1_answers_are_others_and_the_results_prove_that_it_fired(place, plain):
    results = evaluated(place, pretrained=place / "model", policy="outward:band=0.2;ceiling=0.99", layers="0-1")
    ours, theirs = answers(results), answers(plain)
    assert all(ours[task] != theirs[task] for task in theirs)
    arm = results["config"]["armlet"]
    assert arm["attached"] | {"band": 0.2, "ceiling": 0.99, "layers": [0, 1], "policy": "outward"} == arm["attached"]
    assert list(arm["report"]) == ["0", "1"]
    assert all(counts["moved"] > 0 for counts in arm["report"].values())
    json.dumps(arm)


@pytest.mark.slow
def test_a_model_and_an_attachment_serve_as_a_folder_and_a_policy_do(place):
    from armlet.checkpoints.pretrained import load

    by_name = evaluated(place, pretrained=place / "model", policy="outward", layers=1, tasks=["chosen"])
    model, tokenizer = load(str(place / "model"))
    with attach(model, Outward(), layers=1) as attachment:
        lm = integration.from_model(model, tokenizer, attachment, batch_size=8)
        assert answers(evaluated(place, lm, tasks=["chosen"])) == answers(by_name)
        assert lm.report() == attachment.report()
        assert lm.report()[1]["moved"] > 0


def test_the_site_reaches_the_model_and_the_results():
    model, ids = tiny(), torch.arange(2, 12)[None]
    with torch.no_grad():
        with attach(model, Outward(), site="product"):
            expected = model(ids).logits
        lm = integration.from_model(model, words(eos_token="w62"), policy="outward", site="product")
        assert torch.equal(model(ids).logits, expected)
    assert lm.get_model_info()["armlet"]["attached"]["site"] == "product"


def test_taking_it_off_leaves_the_model_as_it_was():
    model, ids = tiny(), torch.arange(2, 12)[None]
    with torch.no_grad():
        before = model(ids).logits
        lm = integration.from_model(model, words(eos_token="w62"), policy=Outward())
        treated = model(ids).logits
        lm.attachment.detach()
        assert torch.equal(model(ids).logits, before)
    assert not torch.equal(treated, before)


def test_a_second_registration_gives_the_same_class():
    from lm_eval.api.registry import get_model

    assert integration.register() is integration.register() is get_model("armlet")


def test_arm_that_saw_nothing_is_an_error():
    lm = integration.from_model(tiny(), words(eos_token="w62"), policy="outward")
    with pytest.raises(integration.IdleError, match="leave use_cache out"):
        lm.get_model_info()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.api.registry", None)
    with pytest.raises(ArgumentError, match=r"pip install 'armlet\[lm-eval\]'"):
        integration.register.__wrapped__()


# How it is attached


def treatment(config=None, **given):
    return attach_arguments(DEFAULTS | given, config)


def test_a_semicolon_stands_for_a_comma():
    assert treatment(policy="outward:band=0.2;share=0.1/0.2", layers="0;2-3", noise_seed=7) == {
        "policy": Outward(band=0.2, share=(0.1, 0.2)),
        "layers": [0, 2, 3],
        "scope": "token",
        "site": "gate",
        "experts": "all",
        "noise": Noise(7),
    }


def test_a_configuration_says_it_all(tmp_path):
    path = write_json(tmp_path / "armlet.json", describe(Outward(band=0.3), [1], "token", Noise(3)))
    assert treatment(str(path))["policy"] == Outward(band=0.3)
    with pytest.raises(ArgumentError, match=r"^config: contains policy"):
        treatment(str(path), layers=1)
    with pytest.raises(ArgumentError, match=r"^config: contains policy"):
        treatment(str(path), site="product")
    with pytest.raises(ConfigError, match="cannot be read"):
        treatment(str(tmp_path / "none.json"))


@pytest.mark.parametrize("policy", [None, "none"])
def test_none_leaves_arm_out(policy):
    assert treatment(policy=policy) is None


def test_neither_reading_of_arm_is_a_silent_default():
    with pytest.raises(ArgumentError, match=r"needs policy=outward .*config=FILE, or policy=none"):
        treatment()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"policy": "sideways"}, "expected one of outward, inward, transport"),
        ({"policy": "outward", "trust_remote_code": True}, "armlet does not run code from checkpoints"),
        ({"policy": "outward", "scope": "call", "batch_size": 8}, "batch_size 1"),
        ({"policy": "outward", "layers": "first"}, "layers: expected indices"),
        ({"policy": "outward", "site": "down"}, "site: expected gate, up or product"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(how, said):
    with pytest.raises(ArgumentError, match=said):
        integration.register()(pretrained="no/such/folder", **how)


# The command


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (["--tasks", "x"], ["--tasks", "x", "--model", "armlet"]),
        (["run", "--tasks", "x"], ["run", "--tasks", "x", "--model", "armlet"]),
        (["--model", "hf", "--tasks", "x"], None),
        (["--model=hf"], None),
        (["-Mhf"], None),
        (["--config", "x.yaml"], None),
        (["ls", "tasks"], None),
        (["run", "--help"], None),
        ([], None),
    ],
)
def test_the_model_is_armlet_where_none_is_named(given, passed):
    assert with_model(given) == (passed or given)


def command(*arguments):
    """`armlet lm-eval` in this process."""
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command("lm-eval", **PASS_THROUGH)(lm_eval)
    app(["lm-eval", *map(str, arguments)], standalone_mode=False)


@pytest.fixture(scope="module")
def runs(place):
    """Two folders that the command wrote: without ARM, and with it."""
    import lm_eval.tasks

    before, manager = sys.argv, lm_eval.tasks.TaskManager
    for name, policy in (("base", "none"), ("treated", "outward:band=0.2;ceiling=0.99")):
        arguments = ["--model_args", f"pretrained={place / 'model'},policy={policy}", "--tasks", "chosen,said"]
        arguments += ["--include_path", place / "tasks", "--output_path", place / name, "--log_samples"]
        with pytest.MonkeyPatch.context() as patched:  # lm-eval takes its time to list the tasks that it brings
            patched.setattr(lm_eval.tasks, "TaskManager", lambda **how: manager(**how, include_defaults=False))
            command(*arguments, "--device", "cpu", "--batch_size", 8)
    assert sys.argv is before
    return place / "base", place / "treated"


@pytest.mark.slow
def test_the_command_leaves_runs_that_are_compared_item_by_item(runs, plain):
    samples = [read_samples(folder) for folder in runs]
    findings = compare_runs(*runs)
    assert findings.complete
    assert [(task.name, task.kind, task.items) for task in findings.tasks] == [
        ("chosen", "choice", 40),
        ("said", "text", 40),
    ]
    for task, metric in zip(findings.tasks, ("acc", "exact_match"), strict=True):
        sides = [[by_task[task.name][at].metrics[metric] for at in range(40)] for by_task in samples]
        assert sides[0] == [row[metric] for row in plain["samples"][task.name]]
        assert task.comparisons[0].comparison == compare(*sides, comparisons=2)
    assert findings.settings.conditions[1].treatment["band"] == 0.2
    assert findings.settings.engine["model"] == str(runs[0].parent / "model")


@pytest.mark.slow
def test_what_lm_eval_does_not_record_is_told_as_unknown(runs):
    findings = compare_runs(*runs)
    assert [condition.temperature for condition in findings.settings.conditions] == [None, None]
    said = findings.tasks[1].baseline.answers
    assert (said.extracted, said.truncated, said.tokens, said.pass_at) == (None, None, None, {})
    assert "not recorded" in markdown(findings)


def test_a_run_without_arm_is_not_compared_with_itself(runs):
    with pytest.raises(ArgumentError, match=r"^neither run had ARM attached"):
        compare_runs(runs[0], runs[0])


@pytest.mark.slow
def test_a_report_is_written_and_the_same_runs_give_the_same_bytes(runs, tmp_path):
    written = [[path.read_bytes() for path in write_report(compare_runs(*runs), tmp_path / name)] for name in "ab"]
    assert written[0] == written[1]
    assert b"Does ARM help" in written[0][2]


# Files of samples


def line(doc_id, score, **changes):
    """A line of lm-eval's."""
    row = {
        "doc_id": doc_id,
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": f"2+2={doc_id}", "arg_1": {"until": []}}},
        "filtered_resps": [f"it is {score}"],
        "filter": "none",
        "metrics": ["exact_match"],
        "doc_hash": f"d{doc_id}",
        "target_hash": "t",
        "exact_match": score,
    }
    return row | changes


def write(folder, *rows, task="said", date="2026-01-02T03-04-05.678901", results=None):
    """A file of samples and the results beside it; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"samples_{task}_{date}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if results:
        (folder / f"results_{date}.json").write_text(json.dumps(results))
    return folder


def test_the_latest_file_of_each_task_is_read(tmp_path):
    write(tmp_path / "model", line(0, 0.0), date="2026-01-02T03-04-05.678901")
    write(tmp_path / "model", line(0, 1.0), date="2026-01-02T13-04-05.678901")
    write(tmp_path / "model", line(0, 0.5), task="other_2026", date="2025-01-02T03-04-05")
    samples = read_samples(tmp_path)
    scores = {task: items[0].metrics["exact_match"] for task, items in samples.items()}
    assert scores == {"said": 1.0, "other_2026": 0.5}


def test_runs_of_several_models_are_not_mixed(tmp_path):
    write(tmp_path / "one", line(0, 0.0))
    write(tmp_path / "two", line(0, 0.0))
    with pytest.raises(ArgumentError, match=r"several models; name one of .*one, .*two$"):
        read_samples(tmp_path)


def test_a_folder_without_samples_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="run lm-eval with --log_samples"):
        read_samples(tmp_path)


def test_filters_are_told_apart(tmp_path):
    rows = [line(0, 0.0, filter="strict"), line(0, 1.0, filter="flexible")]
    write(tmp_path, *rows)
    assert read_samples(tmp_path)["said"][0].metrics["exact_match"] == 0.0
    assert read_samples(tmp_path, "flexible")["said"][0].metrics["exact_match"] == 1.0
    with pytest.raises(ArgumentError, match="no items for filter 'lax', only strict, flexible"):
        read_samples(tmp_path, "lax")


def test_a_torn_line_is_named(tmp_path):
    write(tmp_path, line(0, 0.0))
    file = next(tmp_path.glob("*.jsonl"))
    file.write_text(file.read_text() + '{"doc_id": 1, "ta')
    with pytest.raises(ArgumentError, match=r"jsonl, line 2: is not a sample of lm-eval"):
        read_samples(tmp_path)


def test_the_likeliest_choice_is_the_answer_and_the_target_is_shown_as_text(tmp_path):
    arguments = {
        f"gen_args_{at}": {"arg_0": "The sky is", "arg_1": f" {text}"} for at, text in enumerate(("red", "blue"))
    }
    row = line(0, 1.0, arguments=arguments, target="0", filtered_resps=[["-3.0", "False"], ["-2.5", "True"]])
    sample = read_samples(write(tmp_path, row))["said"][0]
    assert (sample.question, sample.gold, sample.answer, sample.chosen) == ("The sky is", "red", "blue", True)


def pair(tmp_path, before, after, **how):
    """Two folders of one task, compared."""
    folders = write(tmp_path / "before", *before), write(tmp_path / "after", *after)
    return compare_runs(*folders, **how)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"doc_hash": "other"}, "doc_hash"),
        ({"target_hash": "other"}, "target_hash"),
        ({"arguments": {"gen_args_0": {"arg_0": "3+3=", "arg_1": {"until": []}}}}, "arguments"),
    ],
)
def test_other_questions_under_the_same_number_are_refused_and_the_first_is_named(tmp_path, changes, said):
    before = [line(at, 0.0) for at in range(4)]
    after = [line(at, 0.0, **(changes if at > 1 else {})) for at in range(4)]
    with pytest.raises(ArgumentError, match=rf"^said, doc_id 2: .*\({said}\)"):
        pair(tmp_path, before, after)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"armlet": {"attached": {}}}, {}, "^the first run had ARM attached"),
        ({"model": "armlet"}, {"model": "armlet"}, "^neither run had ARM attached"),
        ({"model_args": {"pretrained": "a"}}, {"model_args": {"pretrained": "b"}}, "pretrained is 'a' .* 'b' in the"),
        ({"model_dtype": "float32"}, {"model_dtype": "bfloat16"}, "model_dtype is 'float32' in the first"),
    ],
)
def test_runs_that_differ_by_more_or_less_than_arm_are_refused(tmp_path, before, after, said):
    for name, config in (("before", before), ("after", after)):
        write(tmp_path / name, line(0, 0.0), results={"config": config})
    with pytest.raises(ArgumentError, match=said):
        compare_runs(tmp_path / "before", tmp_path / "after")


def with_arguments(tmp_path, *arguments, **config):
    """Two runs of the same items, with these `model_args`."""
    folders = tmp_path / "before", tmp_path / "after"
    for folder, given in zip(folders, arguments, strict=True):
        write(folder, line(0, 0.0), results={"config": {"model": "hf", "model_args": given, **config}})
    return compare_runs(*folders)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("pretrained=small", "pretrained=large", "pretrained is 'small' in the first, 'large' in the second"),
        ("pretrained=small", {"pretrained": "large"}, "pretrained is 'small' in the first, 'large' in the second"),
        ("pretrained=a,revision=v2", "pretrained=a", "revision is 'v2' in the first, None in the second"),
        ("pretrained=a", "pretrained=a,peft=b", "peft is None in the first, 'b' in the second"),
        ("pretrained=a,dtype=float16", {"pretrained": "a"}, "dtype is 'float16' in the first"),
        ("pretrained=a,load_in_4bit=true", "pretrained=a", "load_in_4bit is 'True' in the first"),
        ("model=a,base_url=http://x", "model=b,base_url=http://x", "model is 'a' in the first, 'b' in the second"),
    ],
)
def test_runs_of_two_models_are_refused_however_they_are_recorded(tmp_path, first, second, said):
    with pytest.raises(ArgumentError, match=f"^the runs differ by more than ARM: {said}"):
        with_arguments(tmp_path, first, second)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("pretrained=a,dtype=float32", {"pretrained": "a", "dtype": "float32"}),
        ("pretrained=a/", {"pretrained": "a", "revision": "main", "peft": None}),
        ("dtype=auto, pretrained=a", "pretrained='a',batch_size=8,device=cpu"),
        ("pretrained=a,trust=true,n=3", {"pretrained": "a", "trust": True, "n": 3}),
        ({"pretrained": "a"}, "pretrained=a,policy=outward:band=0.2;ceiling=0.99,layers=0;3,noise_seed=1"),
        ("", None),
    ],
)
def test_one_model_is_compared_however_it_is_recorded(tmp_path, first, second):
    model = with_arguments(tmp_path, first, second).settings.engine["model"]
    assert model == ("a" if first else "model")


@pytest.mark.slow
@pytest.mark.parametrize("first", ["pretrained=a,token=hf_SECRET", {"pretrained": "a", "token": "hf_SECRET"}])
def test_a_token_among_the_arguments_is_neither_compared_nor_shown(tmp_path, first):
    findings = with_arguments(tmp_path, first, "pretrained=a,token=hf_OTHER")
    assert "hf_" not in json.dumps(findings.to_dict())


@pytest.mark.slow
def test_the_dtype_of_the_weights_says_more_than_the_argument(tmp_path):
    assert with_arguments(tmp_path, "pretrained=a", "pretrained=a,dtype=float32", model_dtype="torch.float32")


@pytest.mark.slow
def test_equal_answers_show_no_difference(tmp_path):
    rows = [line(at, float(at % 2)) for at in range(40)]
    row = pair(tmp_path, rows, rows).tasks[0].comparisons[0]
    assert (row.comparison.difference, row.comparison.p_value, row.verdict) == (0, 1, "no difference shown")
    judged = compare_runs(tmp_path / "before", tmp_path / "after", margin=20).verdicts[0]
    assert judged.outcome == "no difference larger than 20 points"


@pytest.mark.slow
def test_items_of_one_run_alone_are_left_out_and_the_report_says_so(tmp_path):
    findings = pair(tmp_path, [line(at, 0.0) for at in range(5)], [line(at, 1.0) for at in range(3, 9)])
    task = findings.tasks[0]
    assert (task.items, task.planned_items, findings.complete) == (2, 9, False)
    assert [item.item for item in task.discordant] == ["3", "4"]
    assert "partial: said: 2 of 9 items" in markdown(findings)


def test_runs_without_a_common_item_or_task_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"^said: the runs have no item in common$"):
        pair(tmp_path, [line(0, 0.0)], [line(1, 0.0)])
    with pytest.raises(ArgumentError, match="no task in common"):
        compare_runs(tmp_path / "before", write(tmp_path / "third", line(0, 0.0), task="third"))


@pytest.mark.slow
def test_the_p_values_of_all_tasks_are_corrected_together(tmp_path):
    for name, score in (("before", 0.0), ("after", 1.0)):
        write(tmp_path / name, *(line(at, score) for at in range(6)), task="six")
        write(tmp_path / name, *(line(at, score) for at in range(30)), task="thirty")
    rows = [task.comparisons[0] for task in compare_runs(tmp_path / "before", tmp_path / "after").tasks]
    assert [row.comparison.p_value for row in rows] == [2 / 2**6, 2 / 2**30]
    assert [row.p_holm for row in rows] == [2 / 2**6, 2 * (2 / 2**30)]


@pytest.mark.parametrize(
    ("metrics", "how", "said"),
    [
        ({"f1": 0.5}, {}, r"expected the metric acc or exact_match in both runs; name one of f1 with --metric$"),
        (
            {"exact_match": 1.0},
            {"metric": "f1"},
            r"the metric f1 in both runs; name one of exact_match with --metric$",
        ),
        ({"bleu": 31.5}, {"metric": "bleu"}, "bleu is not a share from 0 to 1"),
        ({"brier_score": 0.2}, {"metric": "brier_score"}, "lower brier_score is better"),
        ({"word_perplexity": [1.0, 2]}, {}, "in both runs; there is none$"),
    ],
)
def test_a_metric_that_cannot_be_compared_is_refused(tmp_path, metrics, how, said):
    row = line(0, 0.0, metrics=list(metrics))
    del row["exact_match"]
    results = {"higher_is_better": {"said": {"brier_score": False}}}
    folder = write(tmp_path, row | metrics, results=results)
    with pytest.raises(ArgumentError, match=said):
        compare_runs(folder, folder, **how)


@pytest.mark.slow
def test_another_metric_may_be_named(tmp_path):
    before, after = ([line(0, 0.0, metrics=["f1"], f1=score)] for score in (0.2, 0.7))
    findings = pair(tmp_path, before, after, metric="f1")
    assert findings.tasks[0].comparisons[0].comparison.difference == pytest.approx(0.5)
