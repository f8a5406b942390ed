"""What `make gpu` makes of its sections: budgets, failures, aims, the file of results. Nothing here needs a GPU."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks.gpu import __main__ as program
from benchmarks.gpu import aims, figure, models, results, suite, timing
from benchmarks.gpu.form import FULL, SECTIONS, SMALL
from benchmarks.gpu.section import Section

MINUTES = 8


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def section(tmp_path, clock):
    return Section(tmp_path / "section.json", 10.0, clock)


def written(tmp_path):
    return json.loads((tmp_path / "section.json").read_text(encoding="utf-8"))


def test_the_sections_and_their_grace_take_less_than_eight_minutes():
    assert sum(FULL.seconds.values()) + len(SECTIONS) * program.GRACE < MINUTES * 60
    assert FULL.seconds.keys() == SMALL.seconds.keys() == set(SECTIONS)


def test_an_error_in_a_case_leaves_the_others_and_fails_the_section(section, tmp_path):
    with section.case("first"):
        raise torch.OutOfMemoryError("too much")
    with section.case("second"):
        section.results["second"] = 1
    record = written(tmp_path)
    assert record["status"] == "failed"
    assert record["errors"] == [{"case": "first", "error": "OutOfMemoryError: too much"}]
    assert record["second"] == 1


def test_what_no_longer_fits_the_budget_is_dropped_and_recorded(section, clock, tmp_path):
    assert section.fits("short", 9.0)
    clock.now = 2.0
    assert not section.fits("long", 9.0)
    clock.now = 11.0
    assert not section.fits("late")
    section.write()
    assert written(tmp_path) | {"status": "passed", "dropped": ["long", "late"], "seconds": 11.0} == written(tmp_path)


def test_a_section_that_was_skipped_has_not_failed_but_one_that_wrote_nothing_has(section, tmp_path):
    section.skip("no such program")
    section.write()
    skipped, absent = written(tmp_path), results.read_section(tmp_path / "absent.json")
    assert not results.has_failed({"sections": {"sanitizer": skipped}})
    assert results.has_failed({"sections": {"sanitizer": skipped, "times": absent}})


def run_with(monkeypatch, tmp_path, code, seconds):
    """A run of one section whose process runs this code with the path of the section's file."""
    path = tmp_path / "times.json"
    monkeypatch.setattr(program.sys, "executable", sys.executable)
    real = subprocess.run

    def run(_command, **how):
        return real([sys.executable, "-c", code, str(path)], **how)

    monkeypatch.setattr(program.subprocess, "run", run)
    monkeypatch.setattr(program, "GRACE", 0.0)
    program.start_section("times", seconds, tmp_path, small=True)
    return results.read_section(path)


ENDS = [("sys.exit(7)", 60.0, "its process ended with 7"), ("time.sleep(60)", 3.0, "after its budget of 3 s")]


@pytest.mark.slow
@pytest.mark.parametrize(("end", "seconds", "reason"), ENDS)
def test_a_process_that_dies_or_hangs_keeps_what_it_wrote_and_has_failed(monkeypatch, tmp_path, end, seconds, reason):
    code = f'import sys, time; open(sys.argv[1], "w").write(\'{{"status": "passed", "cases": [1]}}\'); {end}'
    record = run_with(monkeypatch, tmp_path, code, seconds)
    assert record["status"] == "failed"
    assert record["cases"] == [1]
    assert reason in record["errors"][0]["error"]


def test_without_a_gpu_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setattr(program, "find_spec", lambda _name: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert program.problem(small=False) == program.NO_GPU
    assert "\n" not in program.NO_GPU
    assert program.problem(small=True) is None
    monkeypatch.setattr(program, "find_spec", lambda name: None if name == "triton" else name)
    assert "has no triton:" in program.problem(small=True)


def fused_case(tokens, width, microseconds, share):
    quantities = {"more than silu·up": {"median": microseconds * 1e-6}, "share of the copy": {"median": share}}
    quantities["seconds"] = {"median": 1e-5}
    operations = dict.fromkeys(["outward", "copy", "silu·up"], quantities)
    return {"group": "fused", "tokens": tokens, "width": width, "dtype": "bfloat16", "operations": operations}


def model_record(decoding, prefill):
    def variants(percent):
        cost = {"time / without": {"median": 1 + percent / 100}}
        return dict.fromkeys(models.VARIANTS, cost)

    work = [{"work": "decoding, batch 1", "variants": variants(decoding)}]
    return {
        "model": "a model",
        "work": [*work, {"work": "prefill of 4,096 tokens", "variants": variants(prefill)}],
    }


def measured(*cases, decoding=1.0, prefill=1.0):
    return {"times": {"cases": list(cases)}, "models": {"models": [model_record(decoding, prefill)]}}


def test_aims_are_judged_by_the_worst_that_was_measured():
    sections = measured(
        fused_case(1, 14_336, 2.0, 0.1), fused_case(64, 14_336, 7.0, 0.2), fused_case(8_192, 8_960, 99, 0.7)
    )
    decode, prefill, step, whole = aims.judge(sections | {"x": {}})
    assert (decode["met"], decode["worst"]) == (False, pytest.approx(7.0))
    assert "64 tokens" in decode["where"]
    assert (prefill["met"], prefill["worst"]) == (True, pytest.approx(0.7))
    assert step["met"]
    assert whole["met"]
    assert not aims.judge(measured(decoding=2.5))[2]["met"]
    assert not aims.judge(measured(prefill=2.5))[3]["met"]
    assert not aims.judge(measured(fused_case(1_024, 18_944, 1.0, 0.59)))[1]["met"]


def test_what_was_not_measured_is_neither_met_nor_missed():
    assert [aim["met"] for aim in aims.judge({})] == [None] * 4


def contents(tmp_path, form):
    for name, section in (measured(fused_case(1, 14_336, 2.0, 0.5)) | {"suite": {}, "sanitizer": {}}).items():
        record = {"status": "passed", "seconds": 1.0, "errors": [], "dropped": []} | section
        (tmp_path / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    return results.assembled(tmp_path, form, 4.0)


def test_the_small_form_judges_no_aim(tmp_path):
    assert contents(tmp_path, SMALL)["aims"] == results.NOT_MEASURED
    assert "not measured" in results.lines(contents(tmp_path, SMALL))[-1]


def test_results_name_versions_and_say_which_aims_were_missed(tmp_path):
    content = json.loads(json.dumps(contents(tmp_path, FULL)))
    assert content["versions"]["torch"] == torch.__version__
    assert any(line.startswith("aim met: decode") for line in results.lines(content))
    assert any(
        line.startswith("aim missed: prefill") or "not measured: prefill" in line for line in results.lines(content)
    )


@pytest.mark.slow
def test_a_figure_is_drawn_from_the_file_alone(tmp_path):
    content = json.loads(json.dumps(contents(tmp_path, FULL)))
    assert [path.rpartition(".")[2] for path in figure.draw(content, tmp_path)] == ["png", "svg"]


def test_without_matplotlib_the_command_that_draws_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(figure, "find_spec", lambda _name: None)
    assert "make gpu FIGURE=" in figure.draw({}, tmp_path)[0]


def test_jobs_are_timed_in_turns_and_by_repeat(monkeypatch):
    order, times = [], iter([9.0, 9.0, 1.0, 8.0, 2.0, 6.0])
    monkeypatch.setattr(timing, "seconds", lambda run: run() or next(times))
    jobs = {"one": timing.Job(lambda: order.append("one")), "four": timing.Job(lambda: order.append("four"), 4)}
    assert timing.in_turns(jobs, 2) == {"one": [1.0, 2.0], "four": [2.0, 1.5]}
    assert order == ["one", "four"] * 3


class Event:
    """An event of CUDA, which tells milliseconds."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        pass

    def synchronize(self):
        pass

    def elapsed_time(self, _end):
        return 250.0


def test_an_events_milliseconds_become_seconds(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda _cycles: None)
    assert timing.seconds(lambda: None) == 0.25


def test_a_model_gets_as_many_layers_as_fit_the_free_memory(monkeypatch):
    qwen, mixtral = models.SHAPES["Qwen2.5-7B"][1], models.SHAPES["Mixtral 8x7B"][1]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (139 * 2**30, 140 * 2**30))
    assert models._fitting_layers(qwen) >= 28
    assert models._fitting_layers(mixtral) >= 32
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (80 * 10**9, 80 * 10**9))
    assert 16 <= models._fitting_layers(mixtral) < 32


def test_failed_tests_fail_the_suite(section, monkeypatch):
    program_of_a_shard = """
import json, os, sys
open(sys.argv[1], "a").write(json.dumps({"test": "a", "outcome": sys.argv[2], "message": "why"}) + "\\n")
"""

    def start(_form, shard, report):
        outcome = "failed" if shard.startswith("0/") else "passed"
        return subprocess.Popen([sys.executable, "-c", program_of_a_shard, str(report), outcome])

    monkeypatch.setattr(suite, "_start", start)
    monkeypatch.setattr(suite.os, "cpu_count", lambda: 4)
    suite.run(section, replace(SMALL, device="cuda"))
    content = section.content()
    assert content["tests"] == {"failed": 1, "passed": 1}
    assert content["errors"] == [{"case": "a", "error": "why"}]
