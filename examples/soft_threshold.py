"""A policy of one's own: soft thresholding, which moves every value towards 0 and stops there.

Run: armlet inspect --synthetic modes --policy examples/soft_threshold.py:SoftThreshold:share=0.3
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from armlet.redistribution import Draw, Rows, ordered


@dataclass(frozen=True)
class SoftThreshold:
    """Moves every value towards 0 by T, below which a share of |a| lies: sign(a) · max(|a| − T, 0)."""

    share: float = 0.1
    strength: float = 1.0

    name: ClassVar[str] = "soft_threshold"
    search: ClassVar[dict[str, tuple[float, ...]]] = {"share": (0.02, 0.05, 0.1, 0.25, 0.5)}  # for `armlet tune`

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be in [0, 1], found {self.share}")

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the new values and which of them move, `[rows, n]` each; a row is a token, a sequence or a call."""
        threshold = ordered(rows.magnitude, rows.valid).quantile(self.share).to(rows.values.dtype)
        return rows.sign * (rows.values.abs() - threshold).clamp(min=0), rows.values != 0
