"""Measures a model with the inputs of `down` rounded to few bits: the loss of each window, statistics of each layer.

Rounding is simulated in the model's dtype, as if an integer kernel with exact sums used the values.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from math import exp, log10
from typing import cast

import torch
from torch import Tensor, nn

from armlet.attachment.attach import attach
from armlet.attachment.sites import PRODUCT, find_sites
from armlet.precision.schemes import REFERENCES, QuantScheme
from armlet.precision.transforms import Rounding, Transform
from armlet.prompts.losses import window_losses
from armlet.prompts.texts import CALIBRATION, HELD_OUT
from armlet.redistribution.inward import Inward
from armlet.runs.folder import Record

InputChange = Callable[[Tensor], Tensor]
"""Maps the input of a `down`, `[batch, seq, width]`, to its replacement."""

LayerStats = dict[str, float | None]
"""Rounding error in one layer and, if measured, the distribution of the quantised values.

- sqnr: signal-to-quantisation-noise ratio, dB; None without signal or noise.
- saturated: share of values beyond the range of the scheme.
- max_over_median: largest magnitude over the median; None if the median is 0.
- kurtosis: excess kurtosis; None if all values are equal.
"""


@dataclass(frozen=True)
class Contraction:
    """Arguments of `attach`: `Inward` in some layers."""

    policy: Inward
    site: str
    scope: str
    layers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.policy.curve}, knee {self.policy.knee}, {self.site}, {self.scope}"


@dataclass(frozen=True)
class RoundingTrial:
    """One way to run the model over one of the texts: how inputs are rounded, and which contraction is attached."""

    text: str  # `CALIBRATION` or `HELD_OUT`
    scheme: QuantScheme | None = None  # how the inputs of `down` are rounded; None leaves them as they are
    transform: Transform = Transform()  # noqa: RUF009 - frozen; fitted when the trial runs
    layers: tuple[int, ...] | None = None  # rounded layers; None for all
    contraction: Contraction | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies the trial in a run folder."""
        layers = "all" if self.layers is None else ",".join(map(str, self.layers))
        return (self.text, str(self.scheme), repr(self.transform), layers, repr(self.contraction))


@dataclass(frozen=True)
class TrialOutcome:
    """The mean loss per token of each window, in nats, and the statistics of each rounded layer."""

    losses: list[float]
    layers: dict[int, LayerStats]

    @property
    def loss(self) -> float:
        """Mean over windows of equal length, in nats per token."""
        return sum(self.losses) / len(self.losses)

    @property
    def perplexity(self) -> float:
        """Perplexity over all windows."""
        return exp(self.loss)

    def to_dict(self) -> dict[str, object]:
        """For JSON, in which layer indices become strings."""
        return {"nll": self.losses, "layers": self.layers}

    @classmethod
    def from_dict(cls, record: Record) -> "TrialOutcome":
        """The outcome from the result of `to_dict`, before or after JSON."""
        return cls(record["nll"], {int(layer): stats for layer, stats in record["layers"].items()})


RunTrial = Callable[[RoundingTrial], TrialOutcome]
"""Runs a trial, or looks up its outcome."""


@dataclass
class Meter:
    """Sums over the calls of one layer; the median of the quantised values is taken as the mean of calls' medians."""

    with_distribution: bool = False  # also measure the values' distribution, which takes as long as the rounding
    signal: float = 0.0
    noise: float = 0.0
    saturated: int = 0
    count: int = 0
    powers: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    largest: float = 0.0
    medians: list[float] = field(default_factory=list)

    def add(self, x: Tensor, rounded: Tensor, rows: Tensor, limit: Tensor) -> None:
        """Adds one call: the values before and after rounding, the rows to quantise, and their range."""
        self.signal += x.float().square().sum().item()
        self.noise += (rounded.float() - x.float()).square().sum().item()
        self.saturated += int((rows.abs() > limit * (1 + 1e-6)).sum())  # the limit itself may have been rounded once
        self.count += rows.numel()
        if self.with_distribution:
            magnitude, values = rows.abs().flatten(), rows.flatten().double()
            self.powers += torch.stack([(values**power).sum() for power in range(1, 5)]).cpu()
            self.largest = max(self.largest, magnitude.max().item())
            self.medians.append(magnitude.median().item())

    def stats(self) -> LayerStats:
        """Statistics of all calls so far."""
        sqnr = 10 * log10(self.signal / self.noise) if self.signal and self.noise else None
        stats: LayerStats = {"sqnr": sqnr, "saturated": self.saturated / max(self.count, 1)}
        if not self.with_distribution:
            return stats
        m1, m2, m3, m4 = (self.powers / self.count).tolist()
        variance = m2 - m1**2
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        median = sum(self.medians) / len(self.medians)
        kurtosis = fourth / variance**2 - 3 if variance > 0 else None
        return {**stats, "max_over_median": self.largest / median if median else None, "kurtosis": kurtosis}


class Bench:
    """Runs trials of a model on its two texts; `after` as in `window_losses`.

    The model is a causal LM with gated MLPs in eval mode; texts are int64 `[windows, tokens]`, keyed by `CALIBRATION`
    and `HELD_OUT`.
    """

    def __init__(self, model: nn.Module, texts: Mapping[str, Tensor], after: int | None = None) -> None:
        self.model, self.texts, self.after = model, texts, after
        self.downs = {site.layer: site.module for site in find_sites(model, "all", site=PRODUCT)}
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._calibrated: tuple[Contraction | None, dict[int, Tensor]] | None = None

    def run(self, trial: RoundingTrial) -> TrialOutcome:
        """Runs the model over the trial's text, and restores the model."""
        changes, meters = dict[int, InputChange](), dict[int, Meter]()
        if scheme := trial.scheme:
            values = self._calibration_values(trial.contraction)
            for layer in self.downs if trial.layers is None else trial.layers:
                weight = cast(Tensor, self.downs[layer].weight).detach()
                rounding = Rounding.fit(scheme, trial.transform, values[layer], weight)
                meters[layer] = Meter(with_distribution=trial.text == HELD_OUT and scheme in REFERENCES)
                changes[layer] = partial(rounding, measure=meters[layer].add)
        losses = self._losses(trial.text, trial.contraction, changes)
        return TrialOutcome(losses, {layer: meter.stats() for layer, meter in meters.items()})

    def _calibration_values(self, contraction: Contraction | None) -> dict[int, Tensor]:
        """Inputs `[windows, seq, width]` of every `down` on the calibration text; the latest result is cached."""
        if self._calibrated is None or self._calibrated[0] != contraction:
            inputs: dict[int, list[Tensor]] = {layer: [] for layer in self.downs}
            self._losses(CALIBRATION, contraction, {n: partial(_record_input, parts) for n, parts in inputs.items()})
            self._calibrated = contraction, {layer: torch.cat(parts) for layer, parts in inputs.items()}
        return self._calibrated[1]

    def _losses(self, text: str, contraction: Contraction | None, changes: Mapping[int, InputChange]) -> list[float]:
        with ExitStack() as stack:
            if contraction:
                stack.enter_context(attach(self.model, **vars(contraction)))
            for layer, change in changes.items():
                hook = self.downs[layer].register_forward_pre_hook(partial(_change_input, change))
                stack.callback(hook.remove)
            return window_losses(self.model, self.texts[text], self.after)


def _change_input(change: InputChange, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (change(args[0]), *args[1:])


def _record_input(inputs: list[Tensor], x: Tensor) -> Tensor:
    inputs.append(x.detach().clone())
    return x
