"""One way to run the model over one of the texts, and what it measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import Any

from armlet.precision.codes import Code
from armlet.precision.transforms import Plain
from armlet.redistribution.inward import Inward

HELD_OUT, CALIBRATION = "held-out", "calibration"
"""The texts: one to measure on, one to choose by."""

LayerStats = dict[str, float | None]
"""What rounding loses in one layer, and where it was measured the distribution of the values that are coded.

- sqnr: signal to quantisation noise, dB; None without signal or noise.
- saturated: share of values beyond the range of the code.
- max_over_median: largest magnitude over the median; None where the median is 0.
- kurtosis: excess kurtosis; None where all values are equal.
"""


@dataclass(frozen=True)
class Contraction:
    """`Inward` in some layers: the arguments of `attach`."""

    policy: Inward
    site: str
    scope: str
    layers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.policy.curve}, knee {self.policy.knee}, {self.site}, {self.scope}"


@dataclass(frozen=True)
class RoundingTrial:
    """One way to run the model over one of the texts.

    Args:
        text: `CALIBRATION` or `HELD_OUT`.
        code: in which the inputs of down are rounded; None leaves them as they are.
        transform: applied around the code, not yet fitted.
        layers: those that are rounded; None for all.
        contraction: attached during the trial.
    """

    text: str
    code: Code | None = None
    transform: Plain = Plain()  # noqa: RUF009 - frozen
    layers: tuple[int, ...] | None = None
    contraction: Contraction | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies the trial in a run folder."""
        layers = "all" if self.layers is None else ",".join(map(str, self.layers))
        return (self.text, str(self.code), repr(self.transform), layers, repr(self.contraction))


@dataclass(frozen=True)
class TrialOutcome:
    """The mean loss of the tokens of each window, in nats, and the statistics of each rounded layer."""

    losses: list[float]
    layers: dict[int, LayerStats]

    @property
    def loss(self) -> float:
        """Mean over windows, which have the same length; nats per token."""
        return sum(self.losses) / len(self.losses)

    @property
    def perplexity(self) -> float:
        """Over all windows."""
        return exp(self.loss)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"nll": self.losses, "layers": {str(layer): stats for layer, stats in self.layers.items()}}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "TrialOutcome":
        """From what `to_dict` gives."""
        return cls(plain["nll"], {int(layer): stats for layer, stats in plain["layers"].items()})
