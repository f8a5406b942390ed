"""Runs a model with limits over windows of a text: the loss of each window, the largest values of each layer."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from math import exp, isfinite

import numpy as np
from torch import Tensor, nn

from armlet.attachment.attach import attach
from armlet.attachment.config import AttachArguments
from armlet.attachment.sites import GATE, PRODUCT, find_sites
from armlet.bounds.curves import limit_for
from armlet.bounds.extremes import Peak, Peaks, watching_layers, watching_products
from armlet.bounds.formats import MAXIMA, NVFP4, nvfp4_zeros
from armlet.prompts.losses import window_losses
from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import Noise
from armlet.runs.folder import Record

CURVES = ("clip", "log")


@dataclass(frozen=True)
class Limit:
    """`Inward` with a limit, in one layer."""

    layer: int
    site: str  # "product" or "gate"
    curve: str  # "clip" or "log"
    limit: float

    def __str__(self) -> str:
        return f"{self.curve} at {self.limit:.6g}, {self.site}"

    @property
    def policy(self) -> Inward:
        """How values move, on both sides."""
        return Inward(limit=self.limit, curve=self.curve)


def limit_placements(limits: Iterable[Limit]) -> list[AttachArguments]:
    """The limits as placements of `attach`, equal ones together, in the order of their first layers."""
    layers = dict[tuple[Inward, str], list[int]]()
    for limit in sorted(limits, key=lambda limit: limit.layer):
        layers.setdefault((limit.policy, limit.site), []).append(limit.layer)
    return [
        AttachArguments(policy=policy, layers=indices, scope="token", noise=Noise(0), site=site)
        for (policy, site), indices in layers.items()
    ]


@dataclass(frozen=True)
class LimitTrial:
    """One way to run the model over one of the texts. Without limits, every quantity is measured."""

    text: str  # `CALIBRATION` or `HELD_OUT`
    limits: tuple[Limit, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the trial in a run folder."""
        return self.text, json.dumps([list(asdict(limit).values()) for limit in self.limits])


@dataclass(frozen=True)
class LimitOutcome:
    """What a trial measured; the last two only without limits."""

    losses: list[float]  # mean loss per token of each window, nats
    peaks: dict[int, dict[str, Peak]]  # by layer and quantity
    gate_limits: dict[int, dict[str, float]]  # by layer and curve: the limit of the gate that keeps the product inside
    zeros: dict[int, tuple[float, float]]  # by layer: shares of values that NVFP4 stores as 0, and in lost blocks

    @property
    def loss(self) -> float:
        """Mean over windows of equal length, in nats per token."""
        return sum(self.losses) / len(self.losses)

    @property
    def perplexity(self) -> float:
        """Perplexity over all windows."""
        return exp(self.loss)

    def largest(self, layer: int) -> float:
        """The largest magnitude of a layer's product."""
        return self.peaks[layer][PRODUCT].value

    def to_dict(self) -> dict[str, object]:
        """For JSON, in which layer indices become strings."""
        peaks = {
            layer: {name: [*asdict(peak).values()] for name, peak in by_name.items()}
            for layer, by_name in self.peaks.items()
        }
        return {"nll": self.losses, "peaks": peaks, "gate limits": self.gate_limits, "zeros": self.zeros}

    @classmethod
    def from_dict(cls, record: Record) -> "LimitOutcome":
        """The outcome from the result of `to_dict`, before or after JSON."""
        peaks = {
            int(layer): {name: Peak(*peak) for name, peak in by_name.items()}
            for layer, by_name in record["peaks"].items()
        }
        gate_limits = {int(layer): fits for layer, fits in record["gate limits"].items()}
        zeros = {int(layer): tuple(shares) for layer, shares in record["zeros"].items()}
        return cls(record["nll"], peaks, gate_limits, zeros)


RunLimitTrial = Callable[[LimitTrial], LimitOutcome]
"""Runs a trial, or looks up its outcome."""


@dataclass
class Products:
    """Statistics of the products of a model without limits, over calls.

    bound: the largest product that a limit of the gate must leave. tensor_scales: NVFP4's, by layer.
    """

    bound: float
    tensor_scales: Mapping[int, float]
    gate_limits: dict[int, dict[str, float]] = field(default_factory=dict)
    counts: dict[int, list[int]] = field(default_factory=dict)  # by layer: zeros, those in lost blocks, all values

    def see(self, layer: int, product: Tensor, gate: Tensor | None) -> None:
        """Adds one call of a layer."""
        if gate is not None:
            self._fit(layer, product.detach().abs().double(), gate.detach().abs().double())
        scale = self.tensor_scales.get(layer)
        if scale and (zeros := nvfp4_zeros(product, scale)) is not None:
            before = self.counts.get(layer, [0, 0, 0])
            self.counts[layer] = [a + b for a, b in zip(before, (*zeros, product.numel()), strict=True)]

    def _fit(self, layer: int, product: Tensor, gate: Tensor) -> None:
        """Lowers the gate's limits, so that no product of this call exceeds the bound: |gate| ≤ bound / |up|."""
        over = product > self.bound
        fits = self.gate_limits.setdefault(layer, {})
        if over.any():
            gates, products = (values[over].cpu().numpy() for values in (gate, product))
            for curve in CURVES:
                limit = float(np.min(limit_for(curve, gates, gates * (self.bound / products))))
                fits[curve] = min(limit, fits.get(curve, limit))

    def zeros(self) -> dict[int, tuple[float, float]]:
        """Shares of values that NVFP4 stores as 0, and of those in lost blocks, by layer."""
        return {layer: (zero / count, lost / count) for layer, (zero, lost, count) in self.counts.items()}


class LimitBench:
    """Runs trials of a model on its two texts; `after` as in `window_losses`.

    The model is a causal LM with dense gated MLPs in eval mode; texts are int64 `[windows, tokens]`, by `CALIBRATION`
    and `HELD_OUT`. gate_bound: the largest product that a limit of the gate must leave.
    """

    def __init__(
        self, model: nn.Module, texts: Mapping[str, Tensor], gate_bound: float, after: int | None = None
    ) -> None:
        self.model, self.texts, self.gate_bound, self.after = model, texts, gate_bound, after
        self.downs = {site.layer: site.module for site in find_sites(model, "all", site=PRODUCT)}
        self.dtype = str(model.dtype).removeprefix("torch.")

    def run(self, trial: LimitTrial, tensor_scales: Mapping[int, float] | None = None) -> LimitOutcome:
        """Runs the model over the trial's text, and restores the model. tensor_scales: NVFP4's, by layer."""
        windows = self.texts[trial.text]
        peaks, products = Peaks(windows.shape[1]), Products(self.gate_bound, tensor_scales or {})
        with ExitStack() as stack:
            if trial.limits:
                stack.enter_context(attach(self.model, limit_placements(trial.limits)))
                stack.enter_context(watching_products(self.downs, peaks))
            else:
                stack.enter_context(watching_layers(self.model, peaks, products.see))
            losses = window_losses(self.model, windows, self.after)
        peaks.check(len(windows))
        return LimitOutcome(losses, peaks.by_layer(), products.gate_limits, products.zeros())


def nvfp4_scales(outcome: LimitOutcome) -> dict[int, float]:
    """The float32 scale of each layer's product, with which its largest value is NVFP4's largest number."""
    return {layer: outcome.largest(layer) / MAXIMA[NVFP4] for layer in outcome.peaks}


def first_infinite(outcome: LimitOutcome) -> tuple[int, str] | None:
    """The first layer with a value that is not finite, and the quantity; None if there is none."""
    values = ((layer, name, peak.value) for layer, by_name in outcome.peaks.items() for name, peak in by_name.items())
    return next(((layer, name) for layer, name, value in sorted(values) if not isfinite(value)), None)


def describe_gate(limits: Sequence[Limit], layers: int) -> list[float]:
    """`swiglu_limits`: for each layer, the maximum of a clamp of its activated gate; 0 where there is none."""
    clamps = {limit.layer: limit.limit for limit in limits if (limit.site, limit.curve) == (GATE, "clip")}
    return [clamps.get(layer, 0.0) for layer in range(layers)]
