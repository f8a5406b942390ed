"""What rounding the inputs of down to a few bits does to a model: loss by window, and what is lost in each layer.

Rounding is simulated: values go to the code and back in the model's own arithmetic, as an integer kernel with exact
sums would see them. Weights and everything else keep their precision.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import log10
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.attach import attach
from armlet.attachment.sites import PRODUCT, find_sites
from armlet.precision.codes import Code
from armlet.precision.transforms import Plain
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.inward import Inward

BATCH = 512
"""Tokens of windows that run together."""

EXCESS = 3
"""The kurtosis of a normal distribution."""


@dataclass(frozen=True)
class Contraction:
    """`Inward` in some layers: the arguments of `attach`."""

    policy: Inward
    site: str
    scope: str
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """One way to run the model over one of the texts.

    Args:
        text: "calibration" or "held-out".
        code: in which the inputs of down are rounded; None leaves them as they are.
        transform: around the code, not yet fitted.
        layers: those that are rounded; None for all.
        contraction: attached meanwhile.
    """

    text: str
    code: Code | None = None
    transform: Plain = Plain()  # noqa: RUF009 - frozen
    layers: tuple[int, ...] | None = None
    contraction: Contraction | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from others, as text."""
        layers = "all" if self.layers is None else ",".join(map(str, self.layers))
        return (self.text, str(self.code), repr(self.transform), layers, repr(self.contraction))


@dataclass(frozen=True)
class Rounding:
    """A code and a fitted transform at one down.

    Args:
        ends: `[1, 1]`, where the range ends by calibration; None where each call says so itself.
    """

    code: Code
    transform: Plain
    ends: Tensor | None

    @classmethod
    def fit(cls, code: Code, transform: Plain, x: Tensor, weight: Tensor) -> "Rounding":
        """To calibration values `[windows, seq, width]` and the weight of down."""
        fitted = transform.fit(x.float(), weight.float(), code)
        rows = code.rows(fitted.there(x.float())[0])
        return cls(code, fitted, fitted.limit(rows) if code.span == "static" else None)

    def __call__(self, x: Tensor, meter: "Meter | None" = None) -> Tensor:
        """`[batch, seq, width]`, rounded in float32 whatever the dtype, which is kept."""
        z, back = self.transform.there(x.float())
        rows = self.code.rows(z)
        limit = self.transform.limit(rows) if self.ends is None else self.ends
        rounded = back(self.code.round(rows, limit).view_as(z)).to(x.dtype)
        if meter:
            meter.add(x, rounded, rows, limit)
        return rounded


@dataclass
class Meter:
    """Sums over the calls of one layer.

    Args:
        shaped: whether the distribution of what is coded is measured too, which takes as long as the rounding. Its
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
        """One call: values before and behind the rounding, what was coded, and where its range ended."""
        self.signal += x.float().square().sum().item()
        self.noise += (rounded.float() - x.float()).square().sum().item()
        self.beyond += int((rows.abs() > limit * (1 + 1e-6)).sum())  # a limit may have been rounded once
        self.count += rows.numel()
        if self.shaped:
            magnitude = rows.abs().flatten()
            values = rows.flatten().double()
            self.powers += torch.stack([(values**power).sum() for power in range(1, 5)]).cpu()
            self.largest = max(self.largest, magnitude.max().item())
            self.medians.append(magnitude.median().item())

    def plain(self) -> dict[str, float | None]:
        """SQNR in dB, saturated share, and of what is coded max / median and excess kurtosis; None: not defined."""
        sqnr = 10 * log10(self.signal / self.noise) if self.signal and self.noise else None
        found: dict[str, float | None] = {"sqnr": sqnr, "saturated": self.beyond / max(self.count, 1)}
        return found | (self._shape() if self.shaped else {})

    def _shape(self) -> dict[str, float | None]:
        m1, m2, m3, m4 = (self.powers / self.count).tolist()
        variance = m2 - m1**2
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        median = sum(self.medians) / len(self.medians)
        return {
            "max_over_median": self.largest / median if median else None,
            "kurtosis": fourth / variance**2 - EXCESS if variance > 0 else None,
        }


class Bench:
    """A model with its two texts, on which trials run.

    Args:
        model: a causal LM with gated MLPs, in eval mode.
        texts: int64 `[windows, tokens]` by name: "calibration" and "held-out".
        shaped: the codes at which distributions are measured too.
        after: as of `window_losses`.
    """

    def __init__(
        self, model: nn.Module, texts: Mapping[str, Tensor], shaped: Sequence[Code] = (), after: int | None = None
    ) -> None:
        self.model, self.texts, self.shaped, self.after = model, texts, shaped, after
        self.downs = {site.layer: site.module for site in find_sites(model, "all", site=PRODUCT)}
        self._collected: tuple[Contraction | None, dict[int, Tensor]] | None = None

    def run(self, trial: Trial) -> dict[str, Any]:
        """Mean negative log-likelihood of each window's tokens in nats, and for each rounded layer `Meter.plain`."""
        roundings = self._fit(trial)
        shaped = trial.text == "held-out" and trial.code in self.shaped
        meters = {layer: Meter(shaped) for layer in roundings}
        hooks = {layer: partial(_round, rounding, meters[layer]) for layer, rounding in roundings.items()}
        with self._contracted(trial.contraction), self._hooked(hooks):
            losses = window_losses(self.model, self.texts[trial.text], self.after)
        return {"nll": losses, "layers": {str(layer): meter.plain() for layer, meter in meters.items()}}

    def _fit(self, trial: Trial) -> dict[int, Rounding]:
        if trial.code is None:
            return {}
        values = self._values(trial.contraction)
        layers = self.downs if trial.layers is None else trial.layers
        weights: dict[int, Any] = {layer: self.downs[layer].weight for layer in layers}
        return {
            layer: Rounding.fit(trial.code, trial.transform, values[layer], weights[layer].detach()) for layer in layers
        }

    def _values(self, contraction: Contraction | None) -> dict[int, Tensor]:
        """The inputs of every down over the calibration text, `[windows, seq, width]`; the last ones are kept."""
        if self._collected is None or self._collected[0] != contraction:
            found: dict[int, list[Tensor]] = {layer: [] for layer in self.downs}
            hooks = {layer: partial(_note, found[layer]) for layer in self.downs}
            with self._contracted(contraction), self._hooked(hooks):
                window_losses(self.model, self.texts["calibration"], self.after)
            self._collected = contraction, {layer: torch.cat(parts) for layer, parts in found.items()}
        return self._collected[1]

    def _contracted(self, contraction: Contraction | None) -> Any:
        if contraction is None:
            return nullcontext()
        where = {"layers": contraction.layers, "scope": contraction.scope, "site": contraction.site}
        return attach(self.model, contraction.policy, **where)

    @contextmanager
    def _hooked(self, hooks: Mapping[int, Any]) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, hook in hooks.items():
                stack.callback(self.downs[layer].register_forward_pre_hook(hook).remove)
            yield


def _round(rounding: Rounding, meter: Meter, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (rounding(args[0], meter), *args[1:])


def _note(found: list[Tensor], _: nn.Module, args: tuple[Tensor, ...]) -> None:
    found.append(args[0].detach().clone())


@torch.no_grad()
def window_losses(model: nn.Module, windows: Tensor, after: int | None = None) -> list[float]:
    """Mean negative log-likelihood of the tokens of each window but its first, in nats.

    Args:
        model: a causal LM.
        windows: int64 `[windows, tokens]`.
        after: a token of every window; only what stands behind it counts. None for all.
    """
    losses: list[float] = []
    for batch in windows.split(max(1, BATCH // windows.shape[1])):
        logits = model(batch, use_cache=False).logits[:, :-1].float()
        targets = batch[:, 1:]
        # Flat, because over a dimension that is not the last one torch takes three times as long.
        flat = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        each = flat.view_as(targets).double()
        counted = torch.ones_like(each) if after is None else (batch[:, :-1] == after).cumsum(1).clamp(max=1)
        losses += ((each * counted).sum(1) / counted.sum(1)).tolist()
    return losses


def cut(ids: Sequence[int], windows: int, calibration: int, tokens: int, first: int | None) -> dict[str, Tensor]:
    """The held-out windows from a text's beginning, and those of calibration from its end: they do not overlap.

    Args:
        ids: the text's tokens.
        windows: held-out ones.
        calibration: windows to choose by.
        tokens: of a window.
        first: the token that begins each window, in place of its last one; None for none.

    Raises:
        ArgumentError: the text is too short.
    """
    if len(ids) < (windows + calibration) * tokens:
        raise ArgumentError(
            f"the text has {len(ids):,} tokens, and {windows} windows to measure and {calibration} to choose by need "
            f"{(windows + calibration) * tokens:,}: give a longer --data, or fewer --windows or --tokens"
        )
    parts = {"held-out": ids[: windows * tokens], "calibration": ids[len(ids) - calibration * tokens :]}
    return {name: _begun(torch.tensor(part).view(-1, tokens), first) for name, part in parts.items()}


def _begun(windows: Tensor, first: int | None) -> Tensor:
    if first is None:
        return windows
    return torch.cat((torch.full_like(windows[:, :1], first), windows[:, :-1]), 1)
