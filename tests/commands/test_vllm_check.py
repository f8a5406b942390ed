"""`armlet vllm-check` without vLLM; with vLLM it is tested in tests_vllm/."""

import pytest

from armlet.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "vLLM is not installed in this environment"),
        (("--prompt", "one"), "expected at least two prompts, with and without ARM, found 1"),
        (("--policy", "sideways"), "expected one of outward"),
        (("--config", "nowhere.json"), "nowhere.json: cannot be read"),
        (("--config", "nowhere.json", "--layers", "2"), "--layers: --config sets it"),
    ],
)
def test_what_cannot_be_checked_is_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit:
        main(["vllm-check", "abacus", *arguments])
    out, err = capsys.readouterr()
    assert exit.value.code == 2
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1
