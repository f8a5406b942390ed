"""What a setting does to the gate of a reading: the values after, which moved, and the measures of both."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from armlet.inspection.prepared import PreparedGates
from armlet.inspection.records import GateSample, Panel
from armlet.playground.reading import Reading
from armlet.playground.setting import Setting
from armlet.redistribution.policies import detail, without_effect


@dataclass(frozen=True, eq=False)
class GateEffect:
    """The effect of a policy, or of a placebo in its place, on the activated gate of a reading."""

    name: str  # of the policy, or of the placebo
    after: Tensor  # the values after, as `Reading.values`
    moved: Tensor  # which of them moved
    passed: int  # rows with NaN or Inf, which no policy changes and which are not measured
    panel: Panel  # all finite values before and after
    measures_before: dict[str, float]  # `shape.measure`
    measures_after: dict[str, float]
    notes: list[str]  # settings that have no effect

    @property
    def share_moved(self) -> float:
        """The share of all finite values."""
        return float(self.panel.moved.mean())


def effect_of(reading: Reading, setting: Setting) -> GateEffect:
    """Redistributes the gate of a reading, with the draws of `attach`.

    Raises ArgumentError if every row contains NaN or Inf.
    """
    chosen, prepared = setting.chosen(), _prepared(reading, setting.seed)
    outcomes = prepared.outcomes(setting.acting())
    name = f"placebo {setting.placebo}" if setting.placebo else type(chosen).__name__
    panel = prepared.panel_of(outcomes, name, setting.placebo or detail(chosen))
    measures, passed = (prepared.measured, prepared.measures_after(panel)), int((~prepared.finite).sum())
    return GateEffect(name, outcomes[0].values, outcomes[0].moved, passed, panel, *measures, without_effect(chosen))


@lru_cache(4)
def _prepared(reading: Reading, seed: int) -> PreparedGates:
    """The values before, with what does not depend on the policy."""
    return PreparedGates(GateSample([reading.gate], layer=reading.layer, experts=reading.experts), seed=seed)


def share_by_token(reading: Reading, effect: GateEffect) -> list[float | None]:
    """The share of each token's values that moved; None for a token without a row, which goes to other experts."""
    shares = effect.moved.float().mean(-1).double().numpy()
    rows_of = np.bincount(reading.positions.numpy(), minlength=len(reading.words))
    sums = np.bincount(reading.positions.numpy(), weights=shares, minlength=len(reading.words))
    return [float(total / rows) if rows else None for total, rows in zip(sums, rows_of, strict=True)]


def rows_of_token(reading: Reading, token: int) -> Tensor:
    """The indices of a token's rows: one in a dense layer, in a mixture one for each of its experts."""
    return torch.nonzero(reading.positions == token).flatten()
