"""`armlet evaluate --engine vllm`: the local engine's prompts, answers and likelihoods."""

import json
import os
import signal
import time
from threading import Thread

import pytest

from armlet.checkpoints.folder import ABACUS
from armlet.cli import main
from armlet.evaluation.conditions.conditions import Treatment, conditions
from armlet.evaluation.conditions.placebos import GATE_PLACEBOS, REPEAT
from armlet.evaluation.engines.engine import Ask, Sampling
from armlet.evaluation.engines.local import Local
from armlet.evaluation.tasks.problems import Problem
from armlet.evaluation.tasks.sources import arithmetic
from armlet.integrations.vllm.engine import VllmEngine
from armlet.redistribution.cut import Cut
from armlet.redistribution.errors import ArmletError
from armlet.redistribution.inward import Inward
from armlet.redistribution.outward import Outward

TREATMENTS = [Treatment(Outward(band=0.5), layers=[0, 2]), Treatment(Inward(knee=0.9), layers="all")]
COMPARED = conditions(TREATMENTS, [])
BASE, TREATED, OTHER = COMPARED[:3]
BEST = conditions(TREATMENTS, [], best_of=2, placebos=False)[3]
ASKS = [Ask(problem, at, "") for at, problem in enumerate(arithmetic(24, seed=0).problems)]
SAMPLING = Sampling(max_new_tokens=64, seed=3)
CHOICES = [
    Ask(Problem(str(at), f"{at}+4*2", "0", choices=(str(at), f"{at + 8}#{at}", "1#1#1")), at, "") for at in range(3)
]
SMALL = {"enforce_eager": True, "max_model_len": 256, "kv_cache_memory_bytes": 2**28}


@pytest.fixture(scope="module")
def engine():
    offline = VllmEngine(ABACUS, COMPARED, dtype="float32", options=SMALL)
    yield offline
    offline.close()


@pytest.fixture(scope="module")
def local():
    return Local(ABACUS, dtype="float32")


def answers(engine, condition, sample=0):
    return engine.answer(ASKS, condition, SAMPLING, batch=0, sample=sample)


def test_two_policies_and_all_placebos_have_the_answers_of_the_local_engine_in_one_engine(engine, local):
    greedy = [condition for condition in COMPARED if not condition.temperature]
    assert {condition.placebo for condition in greedy} == {None, *GATE_PLACEBOS, REPEAT}
    served = {condition.name: answers(engine, condition) for condition in greedy}
    assert served == {condition.name: answers(local, condition) for condition in greedy}
    baseline = served["baseline"]
    assert served["identity"] == served["draw-only"] == served["A/A"] == baseline
    assert len({str(served[name]) for name in ("baseline", TREATED.name, OTHER.name)}) == 3
    assert len({*map(str, served.values())}) > 3  # of the placebos at the gate, too, some change an answer
    assert any(output.ended for output in baseline)


def test_an_eager_engine_installs_the_treatment_of_another_condition_and_shares_no_prefix_with_it(engine, local):
    (_, new) = conditions([Treatment(Cut(proportion=0.5), layers=[1])], [], placebos=False)
    for condition in (new, TREATED, new, OTHER, BASE):
        assert answers(engine, condition) == answers(local, condition)
    assert answers(engine, new) != answers(engine, BASE)
    assert sorted(engine.fired()) == []
    answers(engine, new)
    assert sorted(engine.fired()) == ["1"]


def test_it_says_what_arm_did_in_each_call_alone(engine):
    answers(engine, TREATED)
    first = engine.fired()
    answers(engine, TREATED)
    assert engine.fired() == {layer: pytest.approx(counts) for layer, counts in first.items()}
    assert sorted(first) == ["0", "2"]
    assert all(0 < counts["share_moved"] < 1 for counts in first.values())
    answers(engine, BASE)
    assert engine.fired() == {}


def test_choices_have_the_scores_of_the_local_engine(engine, local):
    for condition in (BASE, TREATED):
        scores, expected = engine.score_choices(CHOICES, condition), local.score_choices(CHOICES, condition)
        # Both sum float32 log-probabilities of logits that other kernels rounded; 1e-4 of a nat is far from a choice.
        assert [pytest.approx(likelihoods, abs=1e-4) for likelihoods in expected] == scores


def test_samples_differ_and_each_is_the_same_again(engine):
    drawn = [answers(engine, BEST, sample) for sample in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert all(output.logprob < 0 for output in drawn[0])


def test_an_answer_that_vllm_would_cut_short_is_refused(engine):
    with pytest.raises(ArmletError, match=r"do not fit into max_model_len, 256: pass a smaller --max-new-tokens"):
        engine.answer(ASKS, BASE, Sampling(max_new_tokens=256), batch=0, sample=0)


def test_the_command_reports_the_difference_and_what_it_left_out(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--items", "12", "--difficulty", "1", "--max-new-tokens", "32", "--dtype", "float32")
    with pytest.raises(SystemExit) as exit:
        main(["evaluate", "--engine", "vllm", "--engine-args", json.dumps(SMALL), *options, "--json"])
    out, err = capsys.readouterr()
    assert not exit.value.code
    assert "left out" not in err
    (task,) = json.loads(out)["tasks"]
    names = [condition["name"] for condition in task["conditions"]]
    placebos = ["identity", "draw-only", "matched (outward)", "zeroed (outward)", "A/A", "temperature"]
    assert names == ["baseline", "outward", *placebos]
    moved = {name: task["conditions"][names.index(name)]["arm"]["0"]["moved"] for name in names[1:-2]}
    assert moved["identity"] == moved["draw-only"] == 0
    assert min(moved[name] for name in ("outward", "matched (outward)", "zeroed (outward)")) > 0


def test_a_search_and_its_confirmation_in_vllm_are_those_of_the_local_engine(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--items", "24", "--difficulty", "1", "--max-new-tokens", "32", "--dtype", "float32", "--trials", "1")
    search = ("tune", "--policy", "inward", "--search", "knee", *options, "--json")

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            main(list(arguments))
        assert not exit.value.code
        return json.loads(capsys.readouterr().out)

    local = run(*search, "--run", "local")
    served = run(*search, "--run", "served", "--engine", "vllm", "--engine-args", json.dumps(SMALL))
    assert served["trials"] == local["trials"]
    confirmed = [run("confirm", folder, "--json") for folder in ("local", "served")]
    accuracies = [[c["accuracy"] for c in result["tasks"][0]["conditions"][:-1]] for result in confirmed]
    assert accuracies[0] == accuracies[1]


def press_ctrl_c(journal):
    """Once a whole batch is there, and again while it grows: Python drops a Ctrl-C that hits a finaliser."""
    while not (journal.is_file() and '"closed": ["arithmetic", 1, ' in journal.read_text()):
        time.sleep(0.01)
    seen = -1
    while journal.stat().st_size != seen:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        seen = journal.stat().st_size
        time.sleep(1)


def test_ctrl_c_keeps_what_there_is_and_the_same_command_goes_on(capsys, tmp_path):
    command = ["evaluate", "--engine", "vllm", "--engine-args", json.dumps(SMALL), "--items", "96", "--batch", "4"]
    command += ["--max-new-tokens", "16", "--dtype", "float32", "--run", str(tmp_path / "run"), "--json"]
    journal = tmp_path / "run" / "items.jsonl"
    Thread(target=press_ctrl_c, args=[journal], daemon=True).start()
    with pytest.raises(SystemExit) as exit:
        main(command)
    assert exit.value.code == 130
    assert 0 < json.loads(capsys.readouterr().out)["tasks"][0]["items"] < 96
    kept = journal.read_bytes()
    with pytest.raises(SystemExit) as exit:
        main(command)
    assert not exit.value.code
    assert json.loads(capsys.readouterr().out)["tasks"][0]["items"] == 96
    assert journal.read_bytes().startswith(kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scope", "call"), "use scope 'token'"),
        (("--engine-args", "nonsense"), "expected a JSON object"),
        (("--layers", "99"), "the model has layers 0 to"),
        (("--engine-args", '{"dtype": "half"}'), "the evaluation sets dtype"),
        (("--engine-args", '{"nonsense": 1}'), "vLLM cannot load it"),
        (("--device", "cpu"), "vLLM chooses its own"),
    ],
)
def test_what_cannot_be_run_is_one_line(capsys, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(["evaluate", "--engine", "vllm", "--items", "4", *options])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
