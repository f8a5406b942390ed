"""The policy `Cut` sets near-zero values to 0: magnitude sparsity, and the control for `Outward`."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from armlet.redistribution.near_zero import NearZero
from armlet.redistribution.order import ordered
from armlet.redistribution.rows import (
    BOUNDS,
    FRACTION,
    OPTIONAL_FRACTION,
    OPTIONAL_MAGNITUDE,
    POSITIVE,
    Allowed,
    Draw,
    Rows,
    check_settings,
)


@dataclass(frozen=True)
class Cut(NearZero):
    """Sets the near-zero values of `Outward` to 0, or those up to a threshold; the others stay bit for bit.

    Magnitude sparsity: CATS (arXiv 2404.08763) cuts the activated gate, TEAL (arXiv 2408.14690) all hidden states.

    Args:
        band: width of the near-zero band in robust standard deviations, as in `Outward`.
        share: lowest and highest share of values that move, in [0, 1], as in `Outward`.
        proportion: share of values that move, in [0, 1]; replaces `band` and `share`.
        threshold: values with |a| <= threshold move, compared in float32, without statistics; 0 or more. Replaces
            `band`, `share` and `proportion`.
        strength: in [0, 1]; the result is a + strength · (0 − a), at strength 1 always +0.

    Raises:
        ArgumentError: a value is out of its range.
    """

    band: float = 0.13
    share: tuple[float, float] = (0.02, 0.25)
    proportion: float | None = None
    threshold: float | None = None
    strength: float = 1.0

    name: ClassVar[str] = "cut"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    allowed: ClassVar[dict[str, Allowed]] = {
        "band": POSITIVE,
        "share": BOUNDS,
        "proportion": OPTIONAL_FRACTION,
        "threshold": OPTIONAL_MAGNITUDE,
        "strength": FRACTION,
    }

    def __post_init__(self) -> None:
        check_settings(self, self.allowed)
        object.__setattr__(self, "share", tuple(self.share))

    @property
    def uses_band(self) -> bool:
        """Whether `band` and `share` decide which values move."""
        return self.threshold is None and super().uses_band

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns zeros, and which values are near zero and move, `[rows, n]` each. Draws nothing."""
        magnitude, zeros = rows.magnitude, torch.zeros_like(rows.values)
        if self.threshold is not None:
            return zeros, magnitude <= self.threshold
        return zeros, self.near_zero(magnitude, ordered(magnitude, rows.valid), rows.valid)
