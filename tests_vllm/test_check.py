"""`armlet vllm-check` on the embedded model."""

import json
import re

import pytest

from armlet.checkpoints.folder import abacus
from armlet.cli import main


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as exit:
        main(["vllm-check", str(abacus()), "--eager", "--dtype", "float32", *arguments])
    return exit.value.code, capsys.readouterr().out


def test_it_shows_where_arm_sits_what_it_moved_and_whom_it_left_alone(capsys, tmp_path):
    options = ("--layers", "0,2", "--prompt", "3+4*5", "--prompt", "17-8", "--max-new-tokens", "8")
    code, out = run(capsys, *options, "--json", "--out", str(tmp_path))
    check = json.loads(out)
    assert not code
    assert all(check[name] is True for name in ("passed", "off_equal", "mates_equal"))
    assert check["missing"] == []
    (rank,) = check["ranks"]
    assert rank["asked"] == [0, 2]
    assert all(counts["tokens"] > 0 and 0 < counts["share_moved"] < 1 for counts in rank["layers"].values())
    assert {mode: len(runs) for mode, runs in check["seconds"].items()} == {"baseline": 5, "on": 5, "off": 5}
    assert json.loads((tmp_path / "vllm-check.json").read_text()) == check


def test_an_arm_that_no_token_reached_fails_the_check(capsys):
    code, out = run(capsys, "--policy", "outward:strength=0", "--prompt", "1+1", "--prompt", "2+2")
    assert code == 1
    assert re.search(r"ms per token: (\S+ \(\S+ to \S+\) with(out)?, ){2}\S+ \(\S+ to \S+\) with ARM off", out)
    assert "layer 0: configured, but no token passed through it" in out
