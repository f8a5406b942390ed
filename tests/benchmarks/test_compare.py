"""The comparison of two benchmark runs, without timing anything."""

import json
from dataclasses import asdict

import pytest

from armlet.cost.timing import Spread
from benchmarks import compare

BEFORE = Spread(1.0, (0.9, 1.1))


def run_compare(monkeypatch, tmp_path, *arguments, now=BEFORE):
    monkeypatch.setattr(compare, "measured", lambda *_: iter([("decode", {"all / without": now})]))
    monkeypatch.setattr("sys.argv", ["compare.py", "model", "--stored", str(tmp_path / "run.json"), *arguments])
    compare.main()


def test_a_saved_run_is_what_the_next_is_compared_with(monkeypatch, tmp_path, capsys):
    run_compare(monkeypatch, tmp_path, "--save")
    stored = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert stored["machine"]["processor"]
    assert set(stored["versions"]) == set(compare.PACKAGES)
    capsys.readouterr()
    run_compare(monkeypatch, tmp_path, now=Spread(1.5, (1.4, 1.6)))
    assert "1.000 (0.900 to 1.100)" in (printed := capsys.readouterr().out)
    assert "1.500 (1.400 to 1.600)" in printed
    assert "1.50\n" in printed.replace(" \n", "\n")


def test_only_the_flag_makes_a_slower_ratio_an_error(monkeypatch, tmp_path):
    run_compare(monkeypatch, tmp_path, "--save")
    slower = Spread(1.5, (1.4, 1.6))
    run_compare(monkeypatch, tmp_path, now=slower)
    run_compare(monkeypatch, tmp_path, "--fail-above", "1.6", now=slower)
    with pytest.raises(SystemExit, match=r"of run\.json: decode, all / without rose to 1\.50"):
        run_compare(monkeypatch, tmp_path, "--fail-above", "1.2", now=slower)


def test_without_stored_results_nothing_passes(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_compare(monkeypatch, tmp_path)
    assert "store results with --save first" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"ratios": {}}')
    with pytest.raises(SystemExit, match="decode, all / without is not stored"):
        run_compare(monkeypatch, tmp_path, "--fail-above", "1.2")


def test_a_ratio_whose_quartiles_overlap_the_stored_ones_is_not_slower():
    assert not compare.is_slower(Spread(1.5, (1.05, 2.0)), BEFORE, 1.2)
    assert compare.is_slower(Spread(1.5, (1.15, 2.0)), BEFORE, 1.2)


def test_a_ratio_that_fell_is_not_slower():
    assert not compare.is_slower(Spread(0.5, (0.4, 0.6)), BEFORE, 1.2)


def test_ratios_survive_json():
    assert compare.parsed(json.loads(json.dumps({"all / without": asdict(BEFORE)}))) == {"all / without": BEFORE}


def test_every_benchmark_has_stored_results():
    stored = json.loads(compare.STORED.read_text(encoding="utf-8"))["ratios"]
    assert stored.keys() == {"function", *compare.programs("model", 1)}
    assert all(parsed.median > 0 for ratios in stored.values() for parsed in compare.parsed(ratios).values())
