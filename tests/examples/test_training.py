"""ARM in a model while it trains, and examples/train_with_arm.py."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

from armlet import Cut, Inward, Outward, Transport, attach, redistribute
from families import tiny

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import train_with_arm  # noqa: E402
import training_results  # noqa: E402
import training_run  # noqa: E402
from training_run import Recipe, Run, Text, _round, float8, train  # noqa: E402

SMALL = Recipe(steps=24, batch=4, tokens=16, hidden=16, width=24, layers=2)
PLAIN = Run("float32", 0.01, 0, arm=False)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes(b"the quick brown fox jumps over the lazy dog. " * 400)
    return path


@pytest.mark.parametrize(
    "policy", [Outward(), Inward(), Transport(strength=0.5), Cut()], ids=lambda policy: policy.name
)
def test_a_model_with_arm_in_every_layer_has_gradients_everywhere(policy):
    model = tiny("llama").train()
    with attach(model, policy, layers="all"):
        model(input_ids=torch.arange(12).view(2, 6)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def gradient(policy):
    a = torch.randn(1, 4, 200, generator=torch.Generator().manual_seed(0)).requires_grad_()
    moved = redistribute(a, policy)
    moved.sum().backward()
    return a.detach(), moved.detach(), a.grad


def test_outward_with_replace_stops_the_gradient_of_moved_values_and_add_does_not():
    a, moved, grad = gradient(Outward())
    assert (moved != a).any()
    assert torch.equal(grad, (moved == a).float())
    assert gradient(Outward(write="add"))[2].eq(1).all()


def test_inward_lets_the_gradient_of_the_tails_through_by_the_slope_of_its_curve():
    a, moved, grad = gradient(Inward(knee=0.9))
    beyond = moved != a
    threshold = a.abs().quantile(0.9, -1, keepdim=True)
    assert torch.equal(grad[~beyond], torch.ones_like(grad[~beyond]))
    # T / |a|, the log curve's derivative; torch's own quantile and division each round once.
    torch.testing.assert_close(grad[beyond], (threshold / a.abs())[beyond], rtol=1e-6, atol=0)


def test_inwards_clip_stops_the_gradient_of_the_tails():
    a, moved, grad = gradient(Inward(knee=0.9, curve="clip"))
    assert (moved != a).any()
    assert torch.equal(grad, (moved == a).float())


def test_transport_at_strength_1_stops_the_gradient_of_all_values_and_below_lets_its_share_through():
    assert gradient(Transport())[2].eq(0).all()
    assert gradient(Transport(strength=0.75))[2].eq(0.25).all()


def test_a_run_gives_the_same_numbers_again(text):
    read = Text.read(text)
    assert train(PLAIN, SMALL, read) == train(PLAIN, SMALL, read)


def test_runs_with_and_without_start_alike_and_see_the_same_batches(text, monkeypatch):
    seen = {False: [], True: []}
    training_loss = training_run._loss
    for arm, noted in seen.items():

        def note(model, batch, noted=noted):
            start = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
            noted.append((start, batch))
            return training_loss(model, batch)

        monkeypatch.setattr(training_run, "_loss", note)
        train(replace(PLAIN, arm=arm), SMALL, Text.read(text))
    assert torch.equal(seen[False][0][0], seen[True][0][0])
    assert not torch.equal(seen[False][-1][0], seen[True][-1][0])
    for (_, one), (_, other) in zip(seen[False], seen[True], strict=True):
        assert torch.equal(one, other)


def test_a_rate_far_too_large_breaks_a_run_and_a_small_one_does_not(text):
    read = Text.read(text)
    assert training_results.trained(train(replace(PLAIN, rate=0.02), replace(SMALL, steps=60), read), read.bound())
    assert not training_results.trained(train(replace(PLAIN, rate=1e4), SMALL, read), read.bound())


def test_the_bound_is_the_loss_of_byte_frequencies():
    # Two bytes, equally frequent, with one count of each byte added: 501 of 1,256 each.
    data = torch.tensor([0, 1] * 500)
    assert Text(data, data).bound() == pytest.approx(-torch.tensor(501 / 1256).log().item())


def test_float8_rounds_to_e4m3_with_the_gradient_of_the_identity():
    x = torch.randn(8, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rounded = float8(x)
    rounded.sum().backward()
    assert x.grad.eq(1).all()
    # 3 bits of mantissa: half of 2⁻³ relative, and half of the smallest step, 2⁻⁹ of 448, near 0.
    bound = (x.abs() * 2**-4).clamp(min=x.abs().max() / 448 * 2**-10) * (1 + 1e-6)
    assert ((rounded - x).abs() <= bound).all()
    assert (rounded != x).any()


def test_in_bfloat16_each_linear_layer_reads_multiplies_and_gives_what_bfloat16_holds():
    model, seen = tiny("llama").train(), []
    for name, value in model.named_parameters():  # so that the test would see weights left as they are
        assert "proj" not in name or not torch.equal(value, value.bfloat16().float())
    _round(model, "bfloat16")
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    for linear in linears:
        linear.register_forward_hook(lambda layer, args, out: seen.extend((args[0], layer.weight, out)))
    model(input_ids=torch.arange(12).view(2, 6)).logits.square().sum().backward()
    assert len(linears) == 7 * model.config.num_hidden_layers + 1
    assert len(seen) == 3 * len(linears)
    for tensor in seen:
        assert torch.equal(tensor, tensor.detach().bfloat16().float())
    kept = list(model.parameters())
    for linear in linears:
        weight = linear.parametrizations.weight.original
        assert any(weight is each for each in kept)  # the optimiser steps the float32 weight
        assert weight.grad.any()


def test_the_largest_rate_is_the_last_before_the_first_that_fails():
    fine, broken = {"loss": 1.0}, {"loss": None}
    outcomes = dict.fromkeys([replace(PLAIN, rate=rate) for rate in (1, 2, 8)], fine)
    outcomes[replace(PLAIN, rate=4)] = broken
    largest = training_results._largest
    assert largest(outcomes, "float32", (1, 2, 4, 8), 0, False, 2.0) == 2
    assert largest(outcomes, "float32", (4, 8), 0, False, 2.0) == 2  # below the grid: half of its smallest


def test_intervals_over_seeds_are_students_and_seeds_that_agree_have_none():
    difference = training_results._difference
    found = difference([(1.0, 1.1), (2.0, 2.3), (3.0, 3.2)], ratios=False)
    # Mean 0.2, standard error 0.1 / √3, and t = 4.3027 with 2 degrees of freedom.
    assert found["effect"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == pytest.approx((0.2 - 0.24841, 0.2 + 0.24841), abs=1e-4)
    agreed = difference([(1.0, 2.0)] * 6, ratios=False)
    assert (agreed["effect"], agreed["low"], agreed["high"]) == (1.0, None, None)


def trained_here(runs, recipe, data, _processes):
    """Replaces `train_with_arm._trained`, in this process."""
    return (train_with_arm._train_run(run, recipe, data) for run in runs)


@pytest.mark.slow
def test_a_stopped_grid_goes_on_to_the_same_results(text, tmp_path, monkeypatch):
    monkeypatch.setattr(train_with_arm, "_trained", trained_here)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    asked = {"text": text, "seeds": 2, "rates": "0.01", "steps": 4, "processes": 1}
    train_with_arm.main(out=whole, **asked)
    lines = (whole / "items.jsonl").read_text().splitlines(keepends=True)
    parts.mkdir()
    (parts / "items.jsonl").write_text("".join(lines[:5]) + lines[5][:20])  # as a kill may leave it
    (parts / "manifest.json").write_text((whole / "manifest.json").read_text())
    train_with_arm.main(out=parts, **asked)
    assert len((parts / "items.jsonl").read_text().splitlines()) == len(lines) == 12
    assert (parts / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert len(json.loads((parts / "results.json").read_text())["rows"]) == 3
    assert (parts / "training.png").stat().st_size > 20_000


def command(text, out):
    return [sys.executable, str(EXAMPLES / "train_with_arm.py"), str(text), "--out", str(out), "--processes", "1"]


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_keeps_what_there_is(text, tmp_path):
    run = subprocess.Popen(command(text, tmp_path), stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "items.jsonl").exists():
        assert run.poll() is None
    os.killpg(run.pid, signal.SIGINT)
    err = run.communicate(timeout=60)[1]
    assert run.returncode == 130
    assert "the same command resumes" in " ".join(err.split())


@pytest.mark.parametrize("rates", ["abc", ",", "0.01,-1", "0.1,0.1", "0.1,0.01", "0.1,inf", "nan"])
def test_rates_that_are_no_rising_numbers_are_one_line(rates, text, tmp_path, capsys):
    with pytest.raises(typer.Exit) as found:
        train_with_arm.main(text, out=tmp_path, rates=rates)
    assert found.value.exit_code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_text_that_is_not_there_is_one_line(tmp_path):
    run = subprocess.run(command(tmp_path / "none", tmp_path), capture_output=True, text=True)
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("size", [0, 12])
def test_a_text_that_is_too_short_is_told_its_size(size, tmp_path, capsys):
    (tmp_path / "text").write_bytes(b"x" * size)
    with pytest.raises(typer.Exit) as found:
        train_with_arm.main(tmp_path / "text", out=tmp_path / "out")
    assert found.value.exit_code == 2
    assert f"expected a text of 10 kB or more, found {size} bytes" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_grid_in_which_nothing_trains_says_so(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_with_arm, "_trained", trained_here)
    train_with_arm.main(text, out=tmp_path / "out", seeds=2, rates="0.000001", steps=2)
    assert "nothing is compared: try more --steps" in capsys.readouterr().out


@pytest.mark.slow
def test_a_folder_of_another_grid_is_one_line_and_keeps_what_it_holds(text, tmp_path):
    (tmp_path / "manifest.json").write_text('{"rates": [1.0], "machines": []}')
    (tmp_path / "items.jsonl").write_text("")
    run = subprocess.run(command(text, tmp_path), capture_output=True, text=True)
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert "contains another run" in run.stderr
    assert (tmp_path / "manifest.json").read_text() == '{"rates": [1.0], "machines": []}'
