"""`evaluate`, `tune` and `confirm` as functions: the numbers of their commands, from a path and a loaded model."""

import json
import os
from datetime import datetime
from pathlib import Path

import pytest
import torch

import armlet
from armlet import Inward, Noise, Outward
from armlet.checkpoints import given
from armlet.checkpoints.folder import ABACUS, abacus
from armlet.checkpoints.given import load_or_use
from armlet.checkpoints.identity import loaded_fingerprint
from armlet.checkpoints.pretrained import load
from armlet.errors import AlreadyAttachedError
from armlet.evaluation import Findings, Search, Treatment, confirm, evaluate, tune
from armlet.evaluation.conditions.conditions import make_treatments
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.runs.folder import RunError
from command_line import result
from evaluations import Fake
from fresh_interpreter import loaded_beyond_torch
from tiny_checkpoints import TEMPLATE, save

ROWS = [{"question": f"{a}+{b}=?", "answer": str(a + b)} for a in (2, 3) for b in range(5)]
FEW = {"items": 6, "difficulty": 1, "batch": 3}
FEW_OPTIONS = ("--items", "6", "--difficulty", "1", "--batch", "3")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def loaded():
    return load(str(abacus()))


def faked(**arguments):
    """Findings of made-up answers."""
    return evaluate(engine=lambda _conditions, _tasks: Fake(), **arguments)


def without_hashes(value):
    """A result without the hash of the weights, which is of files for a path, and of tensors for a loaded model."""
    if isinstance(value, dict):
        return {key: without_hashes(part) for key, part in value.items() if key != "sha256"}
    return [without_hashes(part) for part in value] if isinstance(value, list | tuple) else value


def as_json(result):
    return json.loads(json.dumps(result.to_dict()))


@pytest.mark.slow
def test_a_function_gives_the_numbers_of_its_command_from_a_path_and_from_a_loaded_model(loaded):
    command = result("evaluate", ABACUS, *FEW_OPTIONS, "--policy", "outward:band=0.2", "--policy", "inward")
    treatments = [Outward(band=0.2), "inward"]
    assert as_json(evaluate(ABACUS, treatments=treatments, **FEW)) == command
    assert as_json(evaluate(str(abacus()), treatments=treatments, **FEW)) == command
    from_model = as_json(evaluate(*loaded, treatments=treatments, **FEW))
    assert without_hashes(from_model) == without_hashes(command)
    assert armlet.attached(loaded[0]) == []


@pytest.mark.slow
def test_a_search_and_its_confirmation_are_those_of_the_commands(loaded):
    options = ("--items", "8", "--difficulty", "1", "--search", "strength", "--trials", "1")
    command = result("tune", ABACUS, *options, "--run", "command")
    asked = {"items": 8, "difficulty": 1, "search": "strength", "trials": 1}
    search = tune(abacus(), **asked, run="function", device=torch.device("cpu"))  # by its path
    in_folder = {name: command | {"origin": command["origin"] | {"name": name}} for name in ("function", "loaded")}
    assert as_json(search) == in_folder["function"] | {"arguments": command["arguments"] | {"device": "cpu"}}
    assert without_hashes(as_json(tune(*loaded, **asked, run="loaded"))) == without_hashes(in_folder["loaded"])
    confirmed = result("confirm", "command", "--margin", "99")
    assert confirmed["margin"] == 0.99
    assert as_json(confirm(search, margin=99)) == confirmed
    assert without_hashes(as_json(confirm(Path("loaded"), *loaded, margin=99))) == without_hashes(confirmed)
    with pytest.raises(ArgumentError, match="its test items have been used"):
        confirm(search)
    assert {path.name for path in search.save("files")} == {
        "armlet.json",
        "search.json",
        "trials.csv",
        "sensitivity.png",
        "sensitivity.svg",
    }
    assert "<img" in search._repr_html_()


@pytest.mark.slow
def test_items_of_ones_own_are_evaluated_and_shown():
    findings = faked(treatments=[Outward(band=0.2)], task=ROWS)
    (task,) = findings.tasks
    assert (task.items, [c.name for c in task.conditions][:2]) == (10, ["baseline", "outward band=0.2"])
    html = findings._repr_html_()
    assert html.count("<img") == 1
    assert "outward band=0.2" in html
    assert findings.sentences()[0] in repr(findings)
    assert [path.name for path in findings.save("report")] == [
        *("report.json", "report.md", "report.html", "table.csv", "table.tex"),
        *("forest.png", "forest.svg", "forest.pdf"),
    ]


@pytest.mark.slow
def test_the_same_call_answers_nothing_twice_and_says_so(capsys):
    def engine(_conditions, _tasks):
        engines.append(Fake())
        return engines[-1]

    engines = []
    first = evaluate(engine=engine, task=ROWS, placebos=False)
    assert "earlier run" not in capsys.readouterr().err
    second = evaluate(engine=engine, task=ROWS, placebos=False)
    assert f"all 20 answers are from an earlier run in {first.folder};" in capsys.readouterr().err
    assert first.to_dict() == second.to_dict()
    assert first.folder == second.folder
    assert [fake.calls for fake in engines] == [2, 0]


@pytest.mark.slow
def test_a_margin_is_announced_and_part_of_the_run(capsys):
    first = faked(task=ROWS, margin=99)
    assert {pair.verdict for pair in first.tasks[0].comparisons} == {"no difference larger than 99 points"}
    assert "showing 'no difference larger than 99 points' takes about" in " ".join(capsys.readouterr().err.split())
    assert (first.to_dict()["margin"], first.to_dict()["manifest"]["margin"]) == (0.99, 99)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(99, 0.5), (None, 99), (99, None)])
@pytest.mark.parametrize("folder", ["run", None], ids=str)
def test_a_margin_that_is_chosen_after_the_answers_is_refused(before, after, folder):
    faked(task=ROWS, margin=before, run=folder)
    with pytest.raises(RunError, match=r"contains another run \(--margin was .*; use .* or another folder$"):
        faked(task=ROWS, margin=after, run=folder)
    assert faked(task=ROWS, margin=after, run="other").complete


@pytest.mark.parametrize("margin", [0, 100, -1, "2", float("nan")])
def test_a_margin_that_is_no_number_of_points_is_refused(margin):
    with pytest.raises(ArgumentError, match=r"^margin: expected a number from 0.01 to 99.99"):
        evaluate(task=ROWS, margin=margin)
    with pytest.raises(ArgumentError, match=r"^margin: expected"):
        confirm("nowhere", margin=margin)


@pytest.mark.slow
def test_items_of_a_study_that_were_passed_as_objects_are_passed_again():
    rows = [{"question": f"{a}+{a}=?", "answer": str(2 * a)} for a in range(12)]
    search = tune(ABACUS, task=rows, search="strength", trials=0, max_new_tokens=4)
    with pytest.raises(ArgumentError, match=r"task: items .* were passed as objects; pass all tasks again"):
        confirm(search)
    with pytest.raises(ArgumentError, match="changed after the search"):
        confirm(search, task=rows[1:])
    assert confirm(search, task=rows).complete


@pytest.mark.slow
def test_some_items_of_a_study_that_were_passed_as_objects_are_asked_for_and_the_order_has_no_effect():
    rows = [{"question": f"{a}+{a}=?", "answer": str(2 * a)} for a in range(12)]
    Path("file.jsonl").write_text("\n".join(map(json.dumps, rows)))
    search = {"search": "strength", "trials": 0, "max_new_tokens": 2}
    mixed = tune(ABACUS, task=[Path("file.jsonl"), rows], **search)
    with pytest.raises(ArgumentError, match="were passed as objects; pass all tasks again"):
        confirm(mixed)
    assert confirm(mixed, task=[rows, Path("file.jsonl")]).complete
    named = tune(ABACUS, task=[Path("file.jsonl"), "arithmetic"], items=12, difficulty=1, **search)
    assert confirm(named).complete


@pytest.mark.slow
def test_a_study_is_confirmed_by_a_model_as_it_was_tuned_loaded_or_from_files(loaded):
    search = {"items": 6, "difficulty": 1, "search": "strength", "trials": 0, "max_new_tokens": 2}
    from_model, from_files = tune(*loaded, **search), tune(ABACUS, **search)
    with_tokenizer = tune(ABACUS, loaded[1], **search, run="tokenizer")
    for search in (from_model, with_tokenizer):
        with pytest.raises(ArgumentError, match="used a loaded model or tokenizer; pass both again") as caught:
            confirm(search)
        assert "\n" not in str(caught.value)
    with pytest.raises(ArgumentError, match="read abacus from its files; leave the model and the tokenizer out"):
        confirm(from_files, *loaded)
    for search, models in ((from_model, loaded), (with_tokenizer, (ABACUS, loaded[1])), (from_files, ())):
        assert confirm(search, *models).complete


@pytest.mark.slow
def test_a_confirmation_refuses_a_loaded_model_that_changed_and_hashes_it_once(monkeypatch):
    model, tokenizer = load(str(abacus()))
    search = tune(model, tokenizer, items=6, difficulty=1, search="strength", trials=0, max_new_tokens=2)
    hashed = []
    monkeypatch.setattr(given, "loaded_fingerprint", lambda *pair: hashed.append(1) or loaded_fingerprint(*pair))
    hook = model.register_forward_hook(lambda *_: None)
    with pytest.raises(ArgumentError, match="hooks, dtype or device changed"):
        confirm(search, model, tokenizer)
    hook.remove()
    assert confirm(search, model, tokenizer).complete
    assert hashed == [1, 1]


@pytest.mark.slow
def test_a_run_is_not_resumed_with_a_loaded_model_that_changed():
    model, tokenizer = load(str(abacus()))
    arguments = {**FEW, "treatments": Outward(), "placebos": False}
    first = evaluate(model, tokenizer, **arguments)
    assert evaluate(model, tokenizer, **arguments).folder == first.folder
    model.model.layers[0].mlp.act_fn = torch.nn.ReLU().eval()
    assert evaluate(model, tokenizer, **arguments).folder != first.folder
    with pytest.raises(RunError, match=r"contains another run \(the model, its weights"):
        evaluate(model, tokenizer, **arguments, run=first.folder)


@pytest.mark.slow
@pytest.mark.parametrize("function", [evaluate, tune])
def test_a_resumed_run_counts_what_it_finds_but_not_as_its_speed(function, monkeypatch, capsys):
    monkeypatch.setattr("armlet.presentation.terminal.FIRST_LINE_SECONDS", 0)
    monkeypatch.setattr("armlet.presentation.progress.LINE_SECONDS", 60)
    options = {"treatments": Outward(), "placebos": False} if function is evaluate else {"search": "band", "trials": 1}
    arguments = {"items": 8, "difficulty": 1, "batch": 2, "max_new_tokens": 2, **options}

    def first_line():
        function(ABACUS, **arguments, run="run")
        return next(
            line for line in capsys.readouterr().err.splitlines() if line.startswith(("generating", "searching"))
        )

    what, _, total = first_line().partition(": 0 of ")
    journal = Path("run/items.jsonl")
    text = journal.read_text().splitlines(keepends=True)
    closings = [number for number, line in enumerate(text) if '"closed"' in line]
    journal.write_text("".join(text[: closings[-2] + 1]))  # without the last batch
    assert first_line() == f"{what}: {int(total) - 2} of {total}"  # and no time left, which is not known yet


@pytest.mark.slow
def test_a_model_with_arm_attached_has_no_baseline(loaded):
    with armlet.attach(loaded[0], Outward()), pytest.raises(AlreadyAttachedError, match="would be treated"):
        evaluate(*loaded, **FEW)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "^samples: expected an integer of at least 1, found 0$"),
        ({"samples": True}, "^samples: expected an integer of at least 1, found True$"),
        ({"temperature": float("nan")}, "^temperature: expected a number of at least 0, found nan$"),
        ({"top_p": 1.5}, "^top_p: expected a number from 1e-06 to 1, found 1.5$"),
        ({"items": -2}, "^items: expected an integer of at least 1, found -2$"),
        ({"items": True}, "^items: expected an integer of at least 1, found True$"),
        ({"difficulty": 1.5}, "^difficulty: expected an integer of at least 0, found 1.5$"),
        ({"seed": -1}, r"^seed: expected an integer from 0 to 2\*\*63 - 1, found -1$"),
        ({"system": 5}, "^system: expected text, found 5$"),
        ({"filler": [1]}, "^filler: expected text, found 1$"),
        ({"combine": "no"}, "^combine: expected True or False, found 'no'$"),
        ({"run": 5}, "^run: expected a path, found 5$"),
        ({"model": ""}, "^model: expected a folder, a hub id or a loaded model, found an empty text$"),
        ({"layers": True}, "^layers: expected an integer of at least 0, found True$"),
        ({"task": "absent.jsonl"}, "^data: absent.jsonl cannot be read"),
        ({"dtype": "float64"}, "^dtype: has no effect, because another engine runs the model"),
        ({"top_p": 0.5, "placebos": False}, "^top_p: all answers are greedy; add a temperature, such as 0.7, or leave"),
        ({"best_of": 1}, "^best_of: a vote needs at least 2 answers, found 1; 0 for none$"),
        ({"combine": True}, "^combine: needs two of a policy, a filler and best_of; leave it out$"),
        ({"allow_code": True}, "^allow_code: none of these tasks runs programs; leave it out$"),
        ({"count": 3}, "^count: applies to a filler, and there is none; leave it out$"),
        (
            {"filler": ["/"], "position": "inside"},
            "^position: expected one of before, between, end, random, answer, found",
        ),
        ({"treatments": [Treatment(Outward())], "layers": 3}, "^layers, scope, site, experts: they apply to a policy"),
        ({"treatments": "sideways"}, "^treatments: expected one of outward, inward, transport, cut, found 'sideways'$"),
        ({"treatments": [17]}, "^treatments: expected Outward"),
        ({"model": 17}, "^model: expected a folder, a hub id or a loaded model, found int$"),
        ({"task": [{"question": "q", "choices": ["a", "b"], "gold": 0}], "system": "s"}, "^system: has no effect on"),
    ],
)
def test_what_is_out_of_range_or_has_no_effect_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        faked(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize("function", [evaluate, tune])
@pytest.mark.parametrize("place", [{"layers": 99}, {"experts": "routed"}], ids=str)
def test_a_treatment_that_the_model_cannot_have_is_refused_before_the_baseline(function, place, tmp_path):
    with pytest.raises(ArmletError, match=r"layers 0 to 3, found 99|no layer has them"):
        function(items=100, difficulty=1, run=tmp_path / "run", **place)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [{"temperature": 0.5}, {"best_of": 2}, {"placebos": True}], ids=str)
def test_top_p_is_accepted_with_any_sampled_condition(sampling):
    assert faked(task=ROWS, top_p=0.5, **{"placebos": False} | sampling).complete


@pytest.mark.slow
def test_a_system_prompt_that_some_tasks_cannot_use_is_said_before_the_run_and_with_its_findings(capsys):
    choice = [{"question": "Which?", "choices": ["a", "b"], "gold": 0}]
    unused = "the system prompt is not used for items 2: multiple choice is scored as plain text"
    findings = faked(task=[ROWS, choice], system="Be short.", placebos=False)
    assert (unused in capsys.readouterr().err, findings.sentences().count(unused)) == (True, 1)
    by_default = faked(task=[ROWS, choice], placebos=False)
    assert "the system prompt" not in capsys.readouterr().err + str(by_default.sentences())
    with pytest.raises(ArgumentError, match=r"^system: has no effect on multiple choice; leave it out$"):
        faked(task=choice, system="Be short.")


def test_findings_are_equal_to_themselves_only_and_have_no_figure_of_nothing():
    findings, again = (faked(task=ROWS, treatments=[], placebos=False) for _ in range(2))
    assert "forest.png" not in {path.name for path in findings.save("report")}
    assert len({findings, again}) == 2
    assert findings == findings
    with pytest.raises(ArgumentError, match=r"^figure: nothing was compared$"):
        findings.figure()
    assert "<img" not in findings._repr_html_()
    assert "nothing was compared with the baseline: there is no treatment, filler or best_of" in findings.sentences()


@pytest.mark.parametrize("function", [evaluate, tune])
def test_a_run_folder_that_cannot_be_created_is_refused_before_the_model_is_loaded(function, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match=r"^run: file/run cannot be (created|written)"):
        function("absent/model", run="file/run")
    with pytest.raises(ArgumentError, match=r"^run: /proc/run cannot be created .*; run= \(or --run\) chooses another"):
        function("absent/model", run="/proc/run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


class Interrupted(Fake):
    """Ctrl-C during the last answers, after they were stored."""

    def fired(self):
        if self.calls == 2:
            raise KeyboardInterrupt
        return super().fired()


@pytest.mark.slow
def test_ctrl_c_before_any_item_is_answered_under_every_condition_says_where_the_run_resumes():
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted: 10 of 20 answers are stored in run, where the same"):
        evaluate(engine=lambda *_: Interrupted(), task=ROWS, placebos=False, run="run")
    assert faked(task=ROWS, placebos=False, run="run").complete


def test_ctrl_c_says_at_once_how_many_answers_are_stored_and_reports_the_items_that_are_complete(monkeypatch, capfd):
    from armlet.evaluation import batches

    sync, analyse, stored, said = os.fsync, batches.analyse_run, [], []

    def interrupted(descriptor):
        sync(descriptor)
        stored.append(1)
        if len(stored) == 2:  # the second condition's first batch is on the disk, and not counted yet
            raise KeyboardInterrupt

    def after_the_note(*arguments):
        said.append(capfd.readouterr().err)
        return analyse(*arguments)

    monkeypatch.setattr(os, "fsync", interrupted)
    monkeypatch.setattr(batches, "analyse_run", after_the_note)
    findings = faked(task=ROWS, placebos=False, run="run", batch=5)
    assert (findings.interrupted, findings.tasks[0].items) == (True, 5)
    assert "interrupted: 10 of 20 answers are stored in run, where the same" in said[0]


def test_ctrl_c_after_the_last_answer_was_stored_is_no_interruption(monkeypatch):
    from armlet.evaluation import batches

    whole = batches.run

    def then_interrupted(*arguments):
        whole(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "run", then_interrupted)
    findings = faked(task=ROWS, placebos=False)
    assert (findings.complete, findings.interrupted) == (True, False)


def test_treatments_come_in_every_form_and_only_once(tmp_path):
    file = tmp_path / "armlet.json"
    file.write_text(json.dumps({"policy": "inward", "layers": [2], "seed": 5}))
    sources = [Outward(band=0.2), "outward:band=0.2", file, armlet.load_config(file), Treatment(Inward(), 1)]
    assert make_treatments(sources, layers="0-1", seed=3) == [
        Treatment(Outward(band=0.2), [0, 1], "token", Noise(3)),
        Treatment(Inward(), [2], "token", Noise(5)),
        Treatment(Inward(), 1),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [{"tokenizer": None}, {"dtype": "float32"}, {"device": "cpu"}])
def test_a_loaded_model_comes_with_its_tokenizer_and_its_own_dtype(tmp_path, wrong):
    model, tokenizer = load(str(save(tmp_path / "tiny", template=TEMPLATE)))
    with pytest.raises(ArgumentError, match=r"tokenizer: expected the model's|model: it is loaded"):
        evaluate(model, **({"tokenizer": tokenizer} | wrong), task=ROWS, max_new_tokens=2)


@pytest.mark.slow
def test_a_tokenizer_of_another_model_is_refused_in_one_line(tmp_path, loaded):
    tiny = save(tmp_path / "tiny", template=TEMPLATE)
    for model in (tiny, load(str(tiny))[0]):
        with pytest.raises(ArgumentError, match=r"^tokenizer: it has \d+ tokens, .* only 64, so it is") as caught:
            evaluate(model, loaded[1], task=ROWS)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_tokenizer_may_have_added_tokens_that_the_model_lacks(tmp_path):
    model, tokenizer = load(str(save(tmp_path / "tiny", template=TEMPLATE)))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    assert load_or_use(model, tokenizer).tokenizer is tokenizer


def test_the_signature_names_every_option():
    from inspect import signature

    names = list(signature(evaluate).parameters)
    assert names[:3] == ["model", "tokenizer", "treatments"]
    assert {"samples", "filler", "max_new_tokens", "grader", "run", "seed"} <= set(names)
    assert (evaluate.__annotations__["return"], tune.__annotations__["return"]) == (Findings, Search)


@pytest.mark.slow
def test_importing_the_room_loads_neither_plots_nor_transformers():
    assert not {"matplotlib", "transformers"} & set(loaded_beyond_torch("import armlet.evaluation"))


@pytest.mark.slow
def test_a_resumed_run_keeps_the_date_of_its_chat_template(tmp_path, monkeypatch):
    """The manifest has the date; another run has its own, and a run cut short yesterday goes on with yesterday's."""
    dated = "{{ strftime_now('w%-d') }} " + TEMPLATE
    few = {"task": [{"question": f"w{n}", "answer": "1"} for n in range(4)], "placebos": False, "max_new_tokens": 2}
    folder, plain = str(save(tmp_path / "dated", template=dated)), str(save(tmp_path / "plain", template=TEMPLATE))

    def dates(model, day, **how):
        clock = type("Clock", (datetime,), {"now": classmethod(lambda cls: cls(2025, 3, day))})
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", clock)
        return evaluate(model, **few, **how).settings.engine.get("date")

    assert [dates(folder, day, run=f"run{day}") for day in (4, 5)] == ["2025-03-04", "2025-03-05"]
    items = Path("run4/items.jsonl").read_bytes()
    Path("run4/items.jsonl").write_bytes(b"")
    assert dates(folder, 6, run="run4") == "2025-03-04"
    assert Path("run4/items.jsonl").read_bytes() == items
    assert [dates(folder, day) for day in (4, 5)] == ["2025-03-04"] * 2  # the default folder is the same on any day
    assert dates(plain, 4) is None


@pytest.mark.slow
def test_a_confirmation_keeps_the_date_of_its_search(tmp_path, monkeypatch):
    folder = str(save(tmp_path / "dated", template="{{ strftime_now('w%-d') }} " + TEMPLATE))
    rows = [{"question": f"w{n}", "answer": "1"} for n in range(8)]
    search = tune(folder, task=rows, search="band", trials=0, max_new_tokens=2)
    monkeypatch.setattr("armlet.evaluation.engines.tokens.template_date", lambda _: "2031-01-01")
    findings = confirm(search, task=rows)
    assert findings.settings.engine["date"] == search.engine["date"] != "2031-01-01"
