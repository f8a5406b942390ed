"""`armlet conform` on a folder: what it prints, how it exits, and that a missing clamp is loud."""

import json

import pytest
import torch

from clamped import SUPPORTED, clamped
from command_line import run
from tiny_checkpoints import save, words

PROMPTS = ("--prompt", "w5 w6 w7", "--prompt", "w8 w9")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny gpt_oss with a tokenizer."""
    if not SUPPORTED:
        pytest.skip("an older transformers has no such models")
    path = tmp_path_factory.mktemp("gpt_oss")
    clamped("gpt_oss", limit=7.0).save_pretrained(path)
    words().save_pretrained(path)
    return path


def without_clamp(self, gate_up):
    gate, up = gate_up[..., ::2], gate_up[..., 1::2]
    return (up + 1) * gate * torch.sigmoid(gate * self.alpha)


def test_a_folder_that_conforms_exits_with_0(folder):
    code, out, err = run("conform", folder, *PROMPTS)
    assert (code, err) == (0, "")
    assert out.rstrip().endswith("all clamps of the configuration are applied: gate and up in 4 of 4 MLPs")


def test_a_missing_clamp_exits_with_1_and_says_so_on_stderr(folder, monkeypatch, tmp_path):
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    monkeypatch.setattr(GptOssExperts, "_apply_gate", without_clamp)
    code, out, err = run("conform", folder, *PROMPTS, "--out", tmp_path)
    assert code == 1
    assert err.startswith("DOES NOT CONFORM: 4 of 4 MLPs do not apply their clamp: layer 0, routed experts (gate: no")
    assert len(err.splitlines()) == 1
    assert "NO: gate and up" in out
    assert json.loads((tmp_path / "conform.json").read_text())["conforms"] is False


def test_json_is_the_whole_stdout(folder, monkeypatch):
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    monkeypatch.setattr(GptOssExperts, "_apply_gate", without_clamp)
    code, out, _ = run("conform", folder, *PROMPTS, "--json", "--dtype", "bfloat16")
    content = json.loads(out)
    assert (code, content["conforms"], content["dtype"], content["prompts"]) == (1, False, "bfloat16", 2)
    assert {layer["applied"] for layer in content["layers"]} == {"NO"}


def test_a_model_without_clamps_exits_with_0(tmp_path):
    code, out, err = run("conform", save(tmp_path), *PROMPTS)
    assert (code, err) == (0, "")
    assert "the configuration names no clamp, and none is checked" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dtype", "int3"), "dtype"),
        (("--prompts", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("--prompt", ""), "it is empty"),
        (("--engine", "vllm"), "vLLM is not installed in this environment"),
        (("--engine", "vllm", "--prompt", "w1"), "--prompt: it has no effect with --engine vllm; leave it out"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    code, out, err = run("conform", save(tmp_path), *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
