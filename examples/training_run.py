"""One training run: a small Llama on bytes, with or without ARM, at one learning rate and one precision."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, silu
from torch.nn.utils.parametrize import register_parametrization
from transformers import LlamaConfig, LlamaForCausalLM

from armlet import Inward, attach

PRECISIONS = ("float32", "bfloat16", "float8")
"""All keep weights in float32. bfloat16 rounds input, weight and output of each linear layer, and their gradients;
products are summed in float32, as in bfloat16 hardware (torch.autocast took about seven times as long on a CPU without
it). float8 rounds the inputs of down to e4m3."""

BYTES = 256
HELD_OUT, TESTED = 0.1, 16
"""The last share of the text is held out from training; the loss is measured on this number of its batches."""

WARMUP = 20
SPIKE, BEFORE = 0.5, 8
"""A spike is a step after the warm-up whose loss is SPIKE nats above the mean of the BEFORE steps before it."""

QUANTILES = (0.5, 0.9, 0.99)
LARGEST_E4M3 = 448


@dataclass(frozen=True)
class Recipe:
    """The settings of all runs.

    Args:
        steps: number of AdamW steps, at a constant rate after the warm-up, without gradient clipping.
        batch: number of sequences of a step.
        tokens: number of bytes of a sequence.
        hidden, width, layers: sizes of the model.
    """

    steps: int = 150
    batch: int = 16
    tokens: int = 64
    hidden: int = 64
    width: int = 192
    layers: int = 3


@dataclass(frozen=True)
class Run:
    """Identifies a run; runs that differ only in `arm` start from the same weights and see the same batches."""

    precision: str
    rate: float
    seed: int
    arm: bool

    @property
    def key(self) -> tuple[str, float, int, bool]:
        """The run's key in the journal."""
        return self.precision, self.rate, self.seed, self.arm


@dataclass(frozen=True)
class Text:
    """The bytes for training and for measuring, as int64."""

    train: Tensor
    held_out: Tensor

    @classmethod
    def read(cls, path: Path) -> "Text":
        """Reads any file as bytes."""
        whole = torch.tensor(list(path.read_bytes()), dtype=torch.long)
        cut = int(len(whole) * (1 - HELD_OUT))
        return cls(whole[:cut], whole[cut:])

    def bound(self) -> float:
        """The loss, in nats per byte, of knowing only byte frequencies; a model above it has not trained."""
        counts = torch.bincount(self.train, minlength=BYTES).double() + 1
        return float(-(counts / counts.sum()).log()[self.held_out].mean())


def train(run: Run, recipe: Recipe, text: Text) -> dict[str, Any]:
    """Trains and measures a model.

    Returns:
        loss: loss on held-out bytes, in nats per byte; None if it is not finite.
        spikes: number of spikes, see `SPIKE`.
        gradient: quantiles of the gradients' norm over all steps; None if they are not finite.
        outliers: largest magnitude over the median, and kurtosis, of the activated gate before ARM and of the input of
            down, on held-out bytes, in the layer with the largest value; None if the run broke.
    """
    torch.manual_seed(run.seed)
    model = LlamaForCausalLM(_config(recipe))
    _round(model, run.precision)
    with attach(model, Inward(), layers="all") if run.arm else nullcontext():
        losses, norms = _steps(model, run, recipe, text.train)
        broken = not math.isfinite(losses[-1])
        final = math.nan if broken else _held_out(model, recipe, text.held_out)
        outliers = _outliers(model, recipe, text.held_out) if math.isfinite(final) else None
    return {
        "loss": final if math.isfinite(final) else None,
        "steps": len(losses),
        "spikes": _spikes(losses),
        "gradient": _quantiles(norms),
        "outliers": outliers,
    }


def _config(recipe: Recipe) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=BYTES,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        max_position_embeddings=recipe.tokens,
        tie_word_embeddings=True,
    )


def _steps(model: nn.Module, run: Run, recipe: Recipe, data: Tensor) -> tuple[list[float], list[float]]:
    """The loss and the gradient's norm of each step; ends with the first loss that is not finite."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=run.rate, betas=(0.9, 0.95), weight_decay=0.1)
    rise = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / WARMUP))
    generator, losses, norms = torch.Generator().manual_seed(run.seed), list[float](), list[float]()
    for _ in range(recipe.steps):
        loss = _loss(model, _batch(data, recipe, generator))
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        optimiser.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), math.inf)))
        optimiser.step()
        rise.step()
    return losses, norms


def _batch(data: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    starts = torch.randint(len(data) - recipe.tokens, (recipe.batch, 1), generator=generator)
    return data[starts + torch.arange(recipe.tokens + 1)]


def _loss(model: nn.Module, batch: Tensor) -> Tensor:
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def _held_out(model: nn.Module, recipe: Recipe, data: Tensor) -> float:
    generator = torch.Generator().manual_seed(0)  # the same bytes for all runs
    return sum(_loss(model, _batch(data, recipe, generator)).item() for _ in range(TESTED)) / TESTED


def _round(model: nn.Module, precision: str) -> None:
    """Makes a model round as `PRECISIONS` describes."""
    for name, linear in model.named_modules():
        if precision == "bfloat16" and isinstance(linear, nn.Linear):
            linear.register_forward_pre_hook(lambda _m, args: (bfloat16(args[0]),))
            linear.register_forward_hook(_round_output)
            register_parametrization(linear, "weight", Bfloat16())
        if precision == "float8" and name.endswith("down_proj"):
            linear.register_forward_pre_hook(lambda _m, args: (float8(args[0]),))


def _round_output(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return bfloat16(output)


def bfloat16(x: Tensor) -> Tensor:
    """Rounds a tensor and its gradient to bfloat16."""
    return x.bfloat16().float()


class Bfloat16(nn.Module):
    """Rounds a layer's weight before multiplication."""

    def forward(self, weight: Tensor) -> Tensor:
        """Rounds the weight."""
        return bfloat16(weight)


def float8(x: Tensor) -> Tensor:
    """Rounds a tensor to e4m3 and back, with the identity's gradient."""
    with torch.no_grad():
        scale = x.abs().amax().clamp(min=1e-12) / LARGEST_E4M3
        rounded = (x / scale).to(torch.float8_e4m3fn).to(x.dtype) * scale
    return x + (rounded - x).detach()


@torch.no_grad()
def _outliers(model: LlamaForCausalLM, recipe: Recipe, data: Tensor) -> dict[str, float]:
    samples: dict[str, list[Tensor]] = {"gate": [], "down": []}
    layers: Any = model.model.layers
    note: Callable[..., Any] = lambda name: lambda value: samples[name].append(value.float().flatten())  # noqa: E731
    hooks = [
        hook
        for layer in layers
        for hook in (
            layer.mlp.gate_proj.register_forward_hook(lambda _m, _a, out: note("gate")(silu(out))),
            layer.mlp.down_proj.register_forward_pre_hook(lambda _m, args: note("down")(args[0])),
        )
    ]
    model(input_ids=_batch(data, recipe, torch.Generator().manual_seed(0))[:, :-1], use_cache=False)
    for hook in hooks:
        hook.remove()
    return {
        f"{place} {name}": max(measure(values) for values in layered)
        for place, layered in samples.items()
        for name, measure in (("max / median", _reach), ("kurtosis", _kurtosis))
    }


def _reach(values: Tensor) -> float:
    return float(values.abs().max() / values.abs().median().clamp(min=1e-12))


def _kurtosis(values: Tensor) -> float:
    centred = values.double() - values.double().mean()
    return float(centred.pow(4).mean() / centred.pow(2).mean().clamp(min=1e-24).square()) - 3


def _spikes(losses: list[float]) -> int:
    means = [sum(losses[step - BEFORE : step]) / BEFORE for step in range(WARMUP, len(losses))]
    return sum(loss > mean + SPIKE for loss, mean in zip(losses[WARMUP:], means, strict=True))


def _quantiles(norms: list[float]) -> dict[str, float] | None:
    values = torch.tensor(norms, dtype=torch.float64)
    if not len(norms) or not values.isfinite().all():
        return None
    return {str(q): float(values.quantile(q)) for q in QUANTILES}
