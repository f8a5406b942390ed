"""`armlet bench`: what is printed, written and refused."""

import json

import pytest

from command_line import result, run, shown
from tiny_checkpoints import save

pytestmark = pytest.mark.slow

SMALL = ("--widths", "8,40", "--tokens", "1,3", "--turns", "2")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_function_is_timed_and_the_machine_named(tmp_path):
    found = result("bench", *SMALL, "--only", "function", "--out", "there", "--threads", "2")
    assert json.loads((tmp_path / "there" / "bench.json").read_text()) == found
    assert [row["dtype"] for row in found["function"]] == ["float32", "bfloat16"] * 4
    assert found["machine"]["threads"] == 2
    assert found["machine"]["processor"]
    assert found["backend"] in ("cpu", "torch")
    assert found["model"] is None
    assert {path.suffix for path in (tmp_path / "there").iterdir()} == {".json", ".png", ".svg"}


def test_a_model_is_timed_with_arm_in_one_layer_and_in_all(tmp_path):
    folder = save(tmp_path / "tiny", max_position_embeddings=1024)
    text = shown("bench", folder, *SMALL, "--dtypes", "float32", "--model-turns", "2")
    assert "literal" in text
    assert "generate" in text
    assert "prefill" in text
    assert "figure: armlet-bench/bench.png" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--widths", "0"), "widths: expected whole numbers from 1"),
        (("--tokens", "a,2"), "tokens: expected whole numbers from 1"),
        (("--dtypes", "auto"), "dtypes: expected one or several of float32"),
        (("--widths", "1" * 5000), "widths: expected whole numbers from 1"),
        (("--dtypes", "int8"), "dtypes: expected one or several of float32"),
        (("--policy", "sideways"), "expected one of outward"),
        (("--only", "model", "--widths", "8"), "widths: has no effect with only='model'"),
        (("--only", "function", "--dtype", "bfloat16"), "dtype: has no effect with only='function'"),
        (("--device", "nonsense"), "cannot be used here"),
        (("nowhere/at/all", "--only", "model"), "nowhere/at/all"),
    ],
)
def test_what_cannot_be_timed_is_one_line(arguments, message):
    code, out, err = run("bench", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
