"""What `conform` knows about one part of a layer."""

from dataclasses import asdict, dataclass

from armlet.bounds.conform_parts import DENSE, Clamp
from armlet.bounds.conform_probe import NO, UNKNOWN, YES, SiteVerdict


@dataclass(frozen=True)
class PartCheck:
    """One dense MLP, shared expert, or all routed experts of a layer.

    largest: the largest magnitudes for the texts, by "linear gate", the output of the linear, "gate", the activated
    gate as a policy sees it, "up" and "product"; absent where they cannot be read. shares: of the values at "gate" and
    "up" that the clamp must change.
    """

    layer: int  # from 0
    kind: str  # "dense", "shared" or "routed"
    clamp: Clamp | None  # of the configuration
    verdicts: tuple[SiteVerdict, ...]  # of gate and up; none without a clamp, or if it could not be tried
    reason: str  # why it could not be tried
    largest: dict[str, float]
    shares: dict[str, float]

    @property
    def status(self) -> str | None:
        """Whether it applies its clamp: "yes", "NO" or "not verified"; None if it has none."""
        if self.clamp is None:
            return None
        statuses = {verdict.status for verdict in self.verdicts} or {UNKNOWN}
        return next(status for status in (NO, UNKNOWN, YES) if status in statuses)

    @property
    def name(self) -> str:
        """The layer, and the part of a mixture."""
        return f"layer {self.layer}" if self.kind == DENSE else f"layer {self.layer}, {self.kind} experts"

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        sites = {verdict.site: {**asdict(verdict), "status": verdict.status} for verdict in self.verdicts}
        facts = {"layer": self.layer, "part": self.kind, "limit": self.clamp and self.clamp.limit}
        measured = {"largest": dict(self.largest), "shares beyond": dict(self.shares)}
        return {**facts, "applied": self.status, "reason": self.reason or None, **measured, "sites": sites}
