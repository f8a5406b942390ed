"""The answers to one prompt without ARM and with it, and the first difference."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Answer:
    """Token ids with the end token, the text without special tokens, and whether Ctrl-C interrupted the answer."""

    tokens: list[int]
    text: str
    interrupted: bool


@dataclass(frozen=True)
class Answers:
    """The answers without ARM and with it."""

    baseline: Answer
    treated: Answer | None  # None if Ctrl-C interrupted the baseline
    report: Mapping[int, Mapping[str, float]]  # counters of each layer (`Attachment.report`)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C interrupted one of the answers."""
        return self.baseline.interrupted or (self.treated is not None and self.treated.interrupted)

    @property
    def first_difference(self) -> int | None:
        """The index of the first token that differs; None if none does, or if there is only one answer."""
        if self.treated is None or self.baseline.tokens == self.treated.tokens:
            return None
        pairs = list(zip(self.baseline.tokens, self.treated.tokens, strict=False))
        # If one answer is a prefix of the other, they differ at its end, unless Ctrl-C ended it.
        end = None if self.interrupted else len(pairs)
        return next((index for index, (baseline, treated) in enumerate(pairs) if baseline != treated), end)

    def to_dict(self) -> dict[str, object]:
        """Converts to plain values for JSON."""
        return {"report": self.report, **asdict(self), "first_difference": self.first_difference}
