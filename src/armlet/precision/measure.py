"""What rounding the inputs of down to a few bits does to a model: loss of each window, and statistics of each layer.

Rounding is simulated: values are coded and decoded in the model's own arithmetic, as an integer kernel with exact sums
would see them. Weights and everything else keep their precision.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from math import log10
from typing import cast

import torch
from torch import Tensor, nn

from armlet.attachment.attach import attach
from armlet.attachment.sites import PRODUCT, find_sites
from armlet.precision.codes import Code
from armlet.precision.transforms import Plain
from armlet.precision.trials import CALIBRATION, HELD_OUT, Contraction, LayerStats, RoundingTrial, TrialOutcome

BATCH_TOKENS = 512
"""Tokens of windows that run together."""

InputHook = Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...] | None]


@dataclass(frozen=True)
class Rounding:
    """A code and a fitted transform at one down.

    Args:
        limit: `[1, 1]`, the calibrated range; None where each call determines its own.
    """

    code: Code
    transform: Plain
    limit: Tensor | None

    @classmethod
    def fit(cls, code: Code, transform: Plain, x: Tensor, weight: Tensor) -> "Rounding":
        """To calibration values `[windows, seq, width]` and the weight of down."""
        fitted = transform.fit(x.float(), weight.float(), code)
        rows = code.rows(fitted.forward(x.float())[0])
        return cls(code, fitted, fitted.limit(rows) if code.span == "static" else None)

    def __call__(self, x: Tensor, meter: "Meter | None" = None) -> Tensor:
        """`[batch, seq, width]`, rounded in float32 and returned in the dtype of `x`."""
        z, inverse = self.transform.forward(x.float())
        rows = self.code.rows(z)
        limit = self.transform.limit(rows) if self.limit is None else self.limit
        rounded = inverse(self.code.round(rows, limit).view_as(z)).to(x.dtype)
        if meter:
            meter.add(x, rounded, rows, limit)
        return rounded


@dataclass
class Meter:
    """Sums over the calls of one layer.

    Args:
        shaped: whether the distribution of the coded values is measured too, which takes as long as the rounding. Its
            median is the mean of the calls' medians.
    """

    shaped: bool = False
    signal: float = 0.0
    noise: float = 0.0
    beyond: int = 0
    count: int = 0
    powers: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    largest: float = 0.0
    medians: list[float] = field(default_factory=list)

    def add(self, x: Tensor, rounded: Tensor, rows: Tensor, limit: Tensor) -> None:
        """One call: the values before and after rounding, the coded rows, and their range."""
        self.signal += x.float().square().sum().item()
        self.noise += (rounded.float() - x.float()).square().sum().item()
        self.beyond += int((rows.abs() > limit * (1 + 1e-6)).sum())  # the limit itself may have been rounded once
        self.count += rows.numel()
        if self.shaped:
            magnitude = rows.abs().flatten()
            values = rows.flatten().double()
            self.powers += torch.stack([(values**power).sum() for power in range(1, 5)]).cpu()
            self.largest = max(self.largest, magnitude.max().item())
            self.medians.append(magnitude.median().item())

    def stats(self) -> LayerStats:
        """Over all calls so far."""
        sqnr = 10 * log10(self.signal / self.noise) if self.signal and self.noise else None
        stats: LayerStats = {"sqnr": sqnr, "saturated": self.beyond / max(self.count, 1)}
        if not self.shaped:
            return stats
        m1, m2, m3, m4 = (self.powers / self.count).tolist()
        variance = m2 - m1**2
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        median = sum(self.medians) / len(self.medians)
        kurtosis = fourth / variance**2 - 3 if variance > 0 else None
        return {**stats, "max_over_median": self.largest / median if median else None, "kurtosis": kurtosis}


class Bench:
    """A model with its two texts, on which trials run.

    Args:
        model: a causal LM with gated MLPs, in eval mode.
        texts: int64 `[windows, tokens]`, by `CALIBRATION` and `HELD_OUT`.
        shaped: the codes for which distributions are measured too, on the held-out text.
        after: as in `window_losses`.
    """

    def __init__(
        self, model: nn.Module, texts: Mapping[str, Tensor], shaped: Sequence[Code] = (), after: int | None = None
    ) -> None:
        self.model, self.texts, self.shaped, self.after = model, texts, shaped, after
        self.downs = {site.layer: site.module for site in find_sites(model, "all", site=PRODUCT)}
        self._calibrated: tuple[Contraction | None, dict[int, Tensor]] | None = None

    @property
    def dtype(self) -> str:
        """Of the model's weights."""
        return str(self.model.dtype).removeprefix("torch.")

    def run(self, trial: RoundingTrial) -> TrialOutcome:
        """Runs the model over the text of the trial; afterwards it is as before."""
        roundings = self._fit(trial)
        shaped = trial.text == HELD_OUT and trial.code in self.shaped
        meters = {layer: Meter(shaped) for layer in roundings}
        hooks = {layer: partial(_round_input, rounding, meters[layer]) for layer, rounding in roundings.items()}
        losses = self._hooked_losses(trial.text, trial.contraction, hooks)
        return TrialOutcome(losses, {layer: meter.stats() for layer, meter in meters.items()})

    def _fit(self, trial: RoundingTrial) -> dict[int, Rounding]:
        if trial.code is None:
            return {}
        values = self._calibration_values(trial.contraction)
        layers = self.downs if trial.layers is None else trial.layers
        weights = {layer: cast(Tensor, self.downs[layer].weight).detach() for layer in layers}
        return {layer: Rounding.fit(trial.code, trial.transform, values[layer], weights[layer]) for layer in layers}

    def _calibration_values(self, contraction: Contraction | None) -> dict[int, Tensor]:
        """`[windows, seq, width]`: the inputs of every down on the calibration text; the last ones are cached."""
        if self._calibrated is None or self._calibrated[0] != contraction:
            inputs: dict[int, list[Tensor]] = {layer: [] for layer in self.downs}
            hooks = {layer: partial(_record_input, inputs[layer]) for layer in self.downs}
            self._hooked_losses(CALIBRATION, contraction, hooks)
            self._calibrated = contraction, {layer: torch.cat(parts) for layer, parts in inputs.items()}
        return self._calibrated[1]

    def _hooked_losses(self, text: str, contraction: Contraction | None, hooks: Mapping[int, InputHook]) -> list[float]:
        with ExitStack() as stack:
            if contraction:
                where = {"layers": contraction.layers, "scope": contraction.scope, "site": contraction.site}
                stack.enter_context(attach(self.model, contraction.policy, **where))
            for layer, hook in hooks.items():
                stack.callback(self.downs[layer].register_forward_pre_hook(hook).remove)
            return window_losses(self.model, self.texts[text], self.after)


def _round_input(rounding: Rounding, meter: Meter, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (rounding(args[0], meter), *args[1:])


def _record_input(inputs: list[Tensor], _: nn.Module, args: tuple[Tensor, ...]) -> None:
    inputs.append(args[0].detach().clone())


@torch.no_grad()
def window_losses(model: nn.Module, windows: Tensor, after: int | None = None) -> list[float]:
    """Mean negative log-likelihood of each window's tokens except the first, in nats.

    Args:
        model: a causal LM.
        windows: int64 `[windows, tokens]`.
        after: a token of every window; only tokens after its first occurrence count. None for all.
    """
    losses: list[float] = []
    for batch in windows.split(max(1, BATCH_TOKENS // windows.shape[1])):
        logits = model(batch, use_cache=False).logits[:, :-1].float()
        targets = batch[:, 1:]
        # Flattened: torch takes three times as long where the classes are not the last dimension.
        flat = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        token_losses = flat.view_as(targets).double()
        counted = torch.ones_like(token_losses)
        if after is not None:
            counted = (batch[:, :-1] == after).cumsum(1).clamp(max=1)
        losses += ((token_losses * counted).sum(1) / counted.sum(1)).tolist()
    return losses
