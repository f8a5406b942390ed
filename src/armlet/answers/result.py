"""Two answers to one prompt, without ARM and with it, and where they part."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Answer:
    """Token ids with the end token, the text without special tokens, and whether Ctrl-C cut the answer short."""

    tokens: list[int]
    text: str
    interrupted: bool


@dataclass(frozen=True)
class Answers:
    """The answers without ARM and with it."""

    baseline: Answer
    treated: Answer | None  # None where Ctrl-C cut the baseline short
    report: Mapping[int, Mapping[str, float]]  # what ARM did, for each layer (`Attachment.report`)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C cut one of them short."""
        return self.baseline.interrupted or (self.treated is not None and self.treated.interrupted)

    @property
    def first_difference(self) -> int | None:
        """The index of the first token that differs; None where none does, or where there is one answer only."""
        if self.treated is None or self.baseline.tokens == self.treated.tokens:
            return None
        pairs = list(zip(self.baseline.tokens, self.treated.tokens, strict=False))
        # An answer that is a prefix of the other differs from it where it ends, unless Ctrl-C ended it.
        end = None if self.interrupted else len(pairs)
        return next((index for index, (baseline, treated) in enumerate(pairs) if baseline != treated), end)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"report": self.report, **asdict(self), "first_difference": self.first_difference}
