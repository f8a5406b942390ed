"""How ARM is timed: in turns, as ratios of the same turn, and nothing is left behind."""

import itertools
import time
from contextlib import contextmanager

import pytest
import torch

from armlet import Outward, attach
from armlet.cost import measure, timing
from armlet.cost.measure import Shapes, gate, time_function, time_model
from armlet.cost.timing import Spread, TimedJob, in_turns, summarize
from families import prompt, tiny


def test_jobs_run_in_turns_and_a_turn_is_told(monkeypatch):
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    ran = []
    jobs = {name: TimedJob(lambda name=name: ran.append(name)) for name in "ab"}
    times = in_turns(jobs, 3, lambda: ran.append("|"))
    assert "".join(ran) == "aabbab|ab|ab|"
    assert {name: len(own) for name, own in times.items()} == {"a": 3, "b": 3}


def test_short_jobs_are_repeated_until_they_can_be_measured(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) * timing.MIN_SECONDS / 50)
    ran = []
    in_turns({"a": TimedJob(lambda: ran.append(1))}, 1)
    assert len(ran) == 2 + 50


@pytest.mark.parametrize("gpu", [False, True])
def test_only_the_job_and_the_wait_for_the_gpu_are_timed(monkeypatch, gpu):
    events = []
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: events.append("clock") or 0.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: events.append("ask") or gpu)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("wait"))
    in_turns({"a": TimedJob(lambda: events.append("call"))}, 1)
    timed = ["clock", "call", *(["wait"] if gpu else []), "clock"]
    clocks = [at for at, event in enumerate(events) if event == "clock"]
    assert [events[start : end + 1] for start, end in (clocks[:2], clocks[2:])] == [timed, timed]


def test_what_a_job_runs_within_is_entered_before_the_clock_starts(monkeypatch):
    events = []
    monkeypatch.setattr(time, "perf_counter", lambda: events.append("clock") or 0.0)
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)

    @contextmanager
    def within():
        events.append("in")
        yield
        events.append("out")

    in_turns({"a": TimedJob(lambda: events.append("call"), within)}, 1)
    assert events == ["in", "call", "out", *["in", "clock", "call", "clock", "out"] * 2]


def test_a_ratio_is_the_median_of_the_turns_ratios_not_the_ratio_of_medians():
    times = {"slow": [2.0, 8.0, 30.0], "fast": [1.0, 2.0, 30.0]}
    seconds, ratios = summarize(times, [("slow", "fast")])
    assert (seconds, ratios) == ({"slow": 8.0, "fast": 2.0}, {"slow / fast": Spread(2.0, (1.5, 3.0))})


def test_every_shape_is_a_row_with_all_yardsticks(monkeypatch):
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    dtypes = (torch.float32, torch.bfloat16)
    rows = list(time_function(Shapes([8, 32], [1, 3], dtypes), Outward(), turns=2))
    assert [(row.width, row.tokens, row.dtype) for row in rows] == [
        (width, tokens, dtype) for width in (8, 32) for tokens in (1, 3) for dtype in ("float32", "bfloat16")
    ]
    for row in rows:
        assert set(row.seconds) == {"arm", "literal", "silu", "copy"}
        assert set(row.ratios) == {"literal / arm", "arm / silu", "arm / copy"}


def test_a_gate_is_an_activated_one_and_the_same_again():
    assert torch.equal(gate(3, 40, torch.float32), gate(3, 40, torch.float32))
    assert gate(64, 256, torch.float32).min() >= -0.2785


@pytest.mark.slow
def test_a_model_is_timed_with_and_without_and_left_as_it_was(monkeypatch):
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    model = tiny("llama", max_position_embeddings=1024)
    ids = torch.arange(5)[None]
    before = model(ids).logits
    generated, prefilled = time_model(model, Outward(), turns=2)
    assert (generated.work, generated.tokens) == ("generate", measure.NEW_TOKENS)
    assert (prefilled.work, prefilled.tokens) == ("prefill", measure.PREFILL)
    assert set(prefilled.ratios) == {"layer 0 / without", "all layers / without"}
    assert torch.equal(model(ids).logits, before)
    assert prefilled.calls is None
    for call in generated.calls.values():
        low, high = call.quartiles
        assert 0 < low <= call.median <= high < generated.seconds["all layers"]


@pytest.mark.parametrize("site", ["gate", "product"])
def test_each_decoded_token_of_each_layer_is_a_call_in_place(site):
    model = tiny()
    with attach(model, Outward(), layers="all", site=site) as attachment:
        seconds = measure._record_calls(model)
        model.generate(prompt(4), max_new_tokens=5, do_sample=False)
        assert len(seconds) == 4 * 3
        assert attachment.report()[0]["calls"] == 5


@pytest.mark.parametrize("turns", [2, 3])
def test_every_turn_is_told(monkeypatch, turns):
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    told = []
    list(time_function(Shapes([8], [1, 2], [torch.float32]), Outward(), turns=turns, tick=lambda: told.append(1)))
    assert len(told) == 2 * turns
