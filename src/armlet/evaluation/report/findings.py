"""What a run found, one record type for each table of a report; `Findings.to_dict` is the content of report.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from armlet.evaluation.conditions.conditions import BASELINE
from armlet.evaluation.search.results import StudyResult, finite_interval
from armlet.evaluation.settings import Facts, RunSettings
from armlet.statistics.comparison import UNDECIDED, Comparison
from armlet.statistics.significance import is_significant

Selection = Literal["", "majority", "likeliest", "any"]
"""Which of an item's samples counts: all of them on average, the majority's answer, the likeliest, or any right one."""

Group = Literal["judged", "bound", "placebo", "matched"]
"""Why a comparison was made: for a verdict, as a bound that no selection can exceed, or as a control."""

COMPARED_ROLES = ("treated", "filler", "combined")
"""Roles of the conditions whose discordant items are shown."""


@dataclass(frozen=True)
class LayerActivity:
    """What ARM did in one layer."""

    tokens: int  # that it saw
    moved: int  # values that it changed
    share_moved: float  # of all values of these tokens
    passed: int  # scopes that passed through unchanged (NaN or infinity)
    calls: int | None = None  # of the module; None where they are not recorded


@dataclass(frozen=True)
class WrittenAnswers:
    """The form of generated answers; None where it is not recorded, or where no answer has it."""

    extracted: float | None  # share of the answers that could be read
    format_ok: float | None  # share in the requested form
    truncated: float | None  # share cut off at the token limit
    accuracy_of_extracted: float | None  # accuracy among those that could be read
    tokens: float | None  # mean length
    distinct_2: float  # share of distinct word pairs
    pass_at: Mapping[str, float]  # the chance that one of k answers is right, by k


@dataclass(frozen=True)
class ChosenAnswers:
    """Multiple choice: the accuracy when each log-likelihood is divided by its choice's length; None: not recorded."""

    accuracy_normalised: float | None


@dataclass(frozen=True)
class ConditionFindings:
    """One condition's answers to one task."""

    name: str  # name, role and samples as of `Condition`
    role: str
    samples: int
    accuracy: float  # share of right answers
    answers: WrittenAnswers | ChosenAnswers
    arm: Mapping[str, LayerActivity]  # by layer; empty where ARM was not attached or its activity is not recorded

    @property
    def idle(self) -> bool:
        """ARM was attached and changed no value in any layer."""
        return bool(self.arm) and not any(layer.moved for layer in self.arm.values())

    def to_dict(self) -> Facts:
        """For report.json: the form of the answers beside the other numbers; no calls where they are not recorded."""
        content = asdict(self)
        answers, arm = content.pop("answers"), content.pop("arm")
        for activity in arm.values():
            if activity["calls"] is None:
                del activity["calls"]
        return {**content, **answers, "arm": arm}


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a condition, and which of its samples count."""

    condition: str
    selection: Selection = ""

    def __str__(self) -> str:
        return f"{self.condition}, {self.selection}" if self.selection else self.condition


@dataclass(frozen=True)
class PairedComparison:
    """Two conditions on the same items."""

    treated: Side
    against: Side
    judged: bool  # it gets a verdict, which a control does not
    comparison: Comparison  # the statistics, uncorrected
    p_holm: float | None = None  # corrected over all judged comparisons of all tasks; None for controls

    @property
    def verdict(self) -> str:
        """The comparison's, unless Holm's correction takes it back."""
        taken_back = self.p_holm is not None and not is_significant(self.p_holm, self.comparison.confidence)
        return UNDECIDED if taken_back else self.comparison.verdict

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """Low and high; None is infinite."""
        return finite_interval(self.comparison)

    @property
    def group(self) -> Group:
        """Why it was made."""
        if self.judged:
            return "judged"
        if self.against.condition != BASELINE:
            return "matched"
        return "bound" if self.treated.selection == "any" else "placebo"

    def to_dict(self) -> Facts:
        """For report.json."""
        sides = {"condition": str(self.treated), "against": str(self.against), "judged": self.judged}
        corrected = {} if self.p_holm is None else {"p_holm": self.p_holm}
        return sides | self.comparison.plain() | {"verdict": self.verdict} | corrected


@dataclass(frozen=True)
class PlannedPower:
    """What so many items can show at 80 % power, before they are run."""

    items: int  # of the task
    discordant: float  # the assumed share of items that only one side answers rightly
    comparisons: int  # judged together under Holm's correction
    smallest_detectable: float | None  # difference; None where none can be detected


@dataclass(frozen=True)
class DiscordantItem:
    """An item that only one of a condition and the baseline answers rightly, by the first answer of each."""

    condition: str  # which is compared with the baseline
    item: str  # its id
    question: str
    gold: str
    gained: bool  # right only under the condition; otherwise only under the baseline
    baseline: str  # what was answered without
    answer: str  # what was answered with


@dataclass(frozen=True)
class TaskFindings:
    """One task."""

    name: str  # name and kind as of `Task`
    kind: str
    items: int  # answered under every condition
    planned_items: int  # to be answered
    planned: PlannedPower
    conditions: Sequence[ConditionFindings]  # the baseline first
    comparisons: Sequence[PairedComparison]
    same_as_baseline: Mapping[str, int]  # items answered exactly as by the baseline, by placebo that must do so
    discordant: Sequence[DiscordantItem]  # condition by condition

    @property
    def baseline(self) -> ConditionFindings:
        """The model without ARM and without filler."""
        return self.condition(BASELINE)

    def condition(self, name: str) -> ConditionFindings:
        """One of the conditions."""
        return next(condition for condition in self.conditions if condition.name == name)

    def to_dict(self) -> Facts:
        """For report.json."""
        conditions = [condition.to_dict() for condition in self.conditions]
        return asdict(self) | {"conditions": conditions, "comparisons": [pair.to_dict() for pair in self.comparisons]}


@dataclass(frozen=True)
class Verdict:
    """The outcome of a judged comparison, and the sentence that says so."""

    outcome: str
    sentence: str


@dataclass(frozen=True)
class Findings:
    """Everything that a report says."""

    armlet: str  # the version that measured
    complete: bool  # every item of every task is answered under every condition
    verdicts: Sequence[Verdict]  # one for each judged comparison
    tasks: Sequence[TaskFindings]  # those with an answered item
    settings: RunSettings  # how the run was made
    study: StudyResult | None = None  # of a confirmation: the search that chose the setting

    def to_dict(self) -> Facts:
        """The content of report.json, as plain values."""
        return {
            "armlet": self.armlet,
            "complete": self.complete,
            "verdicts": [verdict.sentence for verdict in self.verdicts],
            "tasks": [task.to_dict() for task in self.tasks],
            "manifest": self.settings.to_dict(),
            **({"study": self.study.summary()} if self.study else {}),
        }
