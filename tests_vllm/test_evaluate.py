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
from armlet.evaluation.engines.engine import Ask, Sampling
from armlet.evaluation.engines.local import Local
from armlet.evaluation.tasks.problems import Problem
from armlet.evaluation.tasks.sources import arithmetic
from armlet.integrations.vllm.engine import VllmEngine
from armlet.redistribution.errors import ArmletError
from armlet.redistribution.outward import Outward

TREATMENT = Treatment(Outward(band=0.5), layers=[0, 2])
BASE, TREATED, BEST = conditions([TREATMENT], [], best_of=2, placebos=False)
ASKS = [Ask(problem, at, "") for at, problem in enumerate(arithmetic(24, seed=0).problems)]
SAMPLING = Sampling(max_new_tokens=64, seed=3)
CHOICES = [
    Ask(Problem(str(at), f"{at}+4*2", "0", choices=(str(at), f"{at + 8}#{at}", "1#1#1")), at, "") for at in range(3)
]
SMALL = {"enforce_eager": True, "max_model_len": 256, "kv_cache_memory_bytes": 2**28}


@pytest.fixture(scope="module")
def engine():
    offline = VllmEngine(ABACUS, TREATMENT, dtype="float32", options=SMALL)
    yield offline
    offline.close()


@pytest.fixture(scope="module")
def local():
    return Local(ABACUS, dtype="float32")


def answers(engine, condition, sample=0):
    return engine.answer(ASKS, condition, SAMPLING, batch=0, sample=sample)


def test_every_answer_is_that_of_the_local_engine(engine, local):
    treated, baseline = answers(engine, TREATED), answers(engine, BASE)
    assert treated == answers(local, TREATED)
    assert baseline == answers(local, BASE)
    assert treated != baseline
    assert any(output.ended for output in baseline)


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
    left_out = (
        "left out, because they need a model in this process: identity, draw-only, matched (outward), zeroed (outward)"
    )
    assert left_out in " ".join(err.split())
    (task,) = json.loads(out)["tasks"]
    assert [condition["name"] for condition in task["conditions"]] == ["baseline", "outward", "A/A", "temperature"]
    assert task["conditions"][1]["arm"]["0"]["moved"] > 0


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
        (("--policy", "outward", "--policy", "inward"), "an engine has one treatment"),
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
