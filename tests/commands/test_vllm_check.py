"""`armlet vllm-check` without vLLM; with vLLM it is tested in tests_vllm/."""

import pytest

from armlet.cli import main
from armlet.integrations.vllm import check
from armlet.integrations.vllm.offline import EngineError


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


@pytest.mark.parametrize(("given", "passed"), [((), {}), (("--memory", "0.3"), {"gpu_memory_utilization": 0.3})])
def test_the_share_of_memory_is_vllms_own_unless_it_is_given(monkeypatch, capsys, given, passed):
    def refuse(_model, _settings, **options):
        assert {name: options[name] for name in options if "utilization" in name} == passed
        raise EngineError("the options were as expected")

    monkeypatch.setattr(check, "open_llm", refuse)
    with pytest.raises(SystemExit):
        main(["vllm-check", "abacus", *given])
    assert "the options were as expected" in capsys.readouterr().err
