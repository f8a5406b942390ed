"""One row of a study's report: a treatment in a cell, next to what the source claims of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from armlet.evaluation.report.findings import PairedComparison
from armlet.evaluation.studies.definition import Claim
from armlet.presentation.numbers import DASH, difference_text, percent, points, probability

ROW_HEADINGS: Sequence[str] = (
    "model",
    "task",
    "seed",
    "items",
    "baseline",
    "treatment",
    "difference [95 %], points",
    "Holm's p",
    "verdict",
    "claimed",
)
CELL_COLUMNS = 5  # the first of them, which describe the cell


@dataclass(frozen=True)
class StudyRow:
    """One treatment in one cell."""

    cell: str  # the cell's name
    model: str
    task: str
    seed: int
    treatment: str  # its name in the study
    pair: PairedComparison  # with the p-value after Holm's correction over the whole study
    claim: Claim | None

    @property
    def claim_is(self) -> str | None:
        """Where the claimed difference lies: inside, above or below the interval; None without a claim."""
        if self.claim is None:
            return None
        low, high = (None if bound is None else 100 * bound for bound in self.pair.interval)
        if high is not None and self.claim.difference > high:
            return "above"
        return "below" if low is not None and self.claim.difference < low else "inside"

    def texts(self) -> list[str]:
        """The row's texts, by `ROW_HEADINGS`."""
        comparison = self.pair.comparison
        claimed = DASH if self.claim is None else f"{points(self.claim.difference / 100)}, {self.claim_is}"
        difference = difference_text(comparison.difference, *self.pair.interval)
        cell = (self.model, self.task, str(self.seed), f"{comparison.items:,}", percent(comparison.baseline_mean))
        return [*cell, self.treatment, difference, probability(self.pair.judged_p_value), self.pair.verdict, claimed]

    def to_dict(self) -> dict[str, object]:
        """The row for report.json."""
        names = {"model": self.model, "task": self.task, "seed": self.seed, "treatment": self.treatment}
        claim = self.claim and {"difference": self.claim.difference, "baseline": self.claim.baseline}
        return names | {"comparison": self.pair.to_dict(), "claim": claim, "claim_is": self.claim_is}
