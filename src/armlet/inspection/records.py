"""The sample that `inspect` measures, and the effect of each policy on it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from armlet.attachment.sites import GATE, PRODUCT, UP
from armlet.presentation.numbers import finite_or_none
from armlet.redistribution.policies import settings
from armlet.redistribution.rows import Policy

SITE_NAMES = {GATE: "activated gate", UP: "output of up", PRODUCT: "product (input of down)"}
"""The sites of `attach` → what a policy acts on there, in titles."""


@dataclass(frozen=True)
class Panel:
    """The values at the site before and after one policy, as a figure needs them."""

    name: str  # name of the policy, "Outward", "Inward", "Transport" or "Cut"; it determines the colour
    detail: str  # settings of the policy in a few words, such as "band 0.13, ceiling 0.995"
    before: NDArray[np.floating]  # [n] finite values of all tokens, n > 0, the same in every panel of a figure
    after: NDArray[np.floating]  # [n] values after the policy
    moved: NDArray[np.bool_]  # [n], the positions that the policy changed


@dataclass(frozen=True)
class Effect:
    """The effect of one policy."""

    policy: Policy
    panel: Panel  # the values before and after, [tokens · width], and which moved
    share_moved: float  # fraction of all values
    after: dict[str, float]  # `shape.measure` of the values after
    difference: dict[str, float]  # after − before, for each measure

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        numbers = {"after": finite_or_none(self.after), "difference": finite_or_none(self.difference)}
        return {"policy": self.policy.name, **settings(self.policy), "share_moved": self.share_moved, **numbers}


@dataclass(frozen=True, eq=False)
class RoutedGates:
    """The values at the site in routed experts for one prompt: a row for each token in each of its experts."""

    values: Tensor  # `[rows, width]`, by token and then by expert
    positions: Tensor  # `[rows]` int64, the position of each row's token
    experts: Tensor  # `[rows]` int64, the expert of each row


@dataclass(frozen=True)
class GateSample:
    """Values to inspect, activated gates or those of another site, and their origin."""

    gates: Sequence[Tensor | RoutedGates]  # for each prompt; a tensor is `[seq, width]`
    source: str = "a tensor"  # name of the model, or of the sample
    layer: int | None = 0  # index of the layer; None if the gates are from no layer
    activation: str = "SiLU"  # or "GELU"
    interrupted: bool = False  # whether Ctrl-C left out prompts
    axis: tuple[float, float] | None = None  # the figure's smallest range
    experts: int = 0  # number of routed experts; 0 in a dense layer
    read_because: str = ""  # why the gates were read from the whole model; "" if from the layers alone
    site: str = GATE  # one of `SITES`
    arguments: Sequence[str] = ()  # of `armlet inspect`, which read these values (`sample_arguments`)


def numbered(names: Sequence[str]) -> list[str]:
    """The names of policies, with a number where one appears with several settings."""
    return [f"{name} {names[: at + 1].count(name)}" if names.count(name) > 1 else name for at, name in enumerate(names)]
