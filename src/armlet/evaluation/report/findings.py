"""What a run found, one record type for each table of a report; `Findings.to_dict` is the content of report.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from armlet.evaluation.conditions.conditions import BASELINE
from armlet.evaluation.search.results import ChosenSetting
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
    """What ARM did in one layer.

    Args:
        tokens: it saw.
        moved: values that it changed.
        share_moved: of all values of these tokens.
        passed: scopes that passed through unchanged (NaN or infinity).
        calls: of the module; None where they are not recorded.
    """

    tokens: int
    moved: int
    share_moved: float
    passed: int
    calls: int | None = None

    def to_dict(self) -> Mapping[str, float]:
        """Without what is not recorded."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class WrittenAnswers:
    """The form of generated answers; None where it is not recorded, or where no answer has it.

    Args:
        extracted: share of the answers that could be read.
        format_ok: share in the requested form.
        truncated: share cut off at the token limit.
        accuracy_of_extracted: accuracy among those that could be read.
        tokens: mean length.
        distinct_2: share of distinct word pairs.
        pass_at: the chance that one of k answers is right, by k.
    """

    extracted: float | None
    format_ok: float | None
    truncated: float | None
    accuracy_of_extracted: float | None
    tokens: float | None
    distinct_2: float
    pass_at: Mapping[str, float]


@dataclass(frozen=True)
class ChosenAnswers:
    """Multiple choice: the accuracy when each log-likelihood is divided by its choice's length; None: not recorded."""

    accuracy_normalised: float | None


@dataclass(frozen=True)
class ConditionFindings:
    """One condition's answers to one task.

    Args:
        name, role, samples: as of `Condition`.
        accuracy: share of right answers.
        answers: what else is measured of answers of this kind.
        arm: what ARM did, by layer; empty where it was not attached or is not recorded.
    """

    name: str
    role: str
    samples: int
    accuracy: float
    answers: WrittenAnswers | ChosenAnswers
    arm: Mapping[str, LayerActivity]

    @property
    def idle(self) -> bool:
        """ARM was attached and changed no value in any layer."""
        return bool(self.arm) and not any(layer.moved for layer in self.arm.values())

    def to_dict(self) -> Facts:
        """For report.json."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("answers", "arm")}
        arm = {layer: activity.to_dict() for layer, activity in self.arm.items()}
        return fields | asdict(self.answers) | {"arm": arm}


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a condition, and which of its samples count."""

    condition: str
    selection: Selection = ""

    def __str__(self) -> str:
        return f"{self.condition}, {self.selection}" if self.selection else self.condition


@dataclass(frozen=True)
class PairedComparison:
    """Two conditions on the same items.

    Args:
        treated, against: the two sides.
        judged: it gets a verdict, which a control does not.
        comparison: the statistics, uncorrected.
        p_holm: the p-value after Holm's correction over all judged comparisons of all tasks; None for controls.
    """

    treated: Side
    against: Side
    judged: bool
    comparison: Comparison
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """The comparison's, unless Holm's correction takes it back."""
        taken_back = self.p_holm is not None and not is_significant(self.p_holm, self.comparison.confidence)
        return UNDECIDED if taken_back else self.comparison.verdict

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """Low and high; None is infinite."""
        low, high = self.to_dict()["interval"]  # type: ignore[misc]
        return low, high

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
    """What so many items can show at 80 % power, before they are run.

    Args:
        items: of the task.
        discordant: the assumed share of items that only one side answers rightly.
        comparisons: judged together under Holm's correction.
        smallest_detectable: the smallest detectable difference; None where there is none.
    """

    items: int
    discordant: float
    comparisons: int
    smallest_detectable: float | None


@dataclass(frozen=True)
class DiscordantItem:
    """An item that only one of a condition and the baseline answers rightly, by the first answer of each.

    Args:
        condition: which is compared with the baseline.
        item: its id.
        question, gold: as texts.
        gained: right only under the condition; otherwise only under the baseline.
        baseline, answer: what was answered without and with.
    """

    condition: str
    item: str
    question: str
    gold: str
    gained: bool
    baseline: str
    answer: str


@dataclass(frozen=True)
class TaskFindings:
    """One task.

    Args:
        name, kind: as of `Task`.
        items: answered under every condition.
        planned_items: to be answered.
        planned: what they can show.
        conditions: the baseline first.
        comparisons: the judged ones and the controls.
        same_as_baseline: items answered exactly as by the baseline, for each placebo that must do so.
        discordant: items, condition by condition.
    """

    name: str
    kind: str
    items: int
    planned_items: int
    planned: PlannedPower
    conditions: Sequence[ConditionFindings]
    comparisons: Sequence[PairedComparison]
    same_as_baseline: Mapping[str, int]
    discordant: Sequence[DiscordantItem]

    @property
    def baseline(self) -> ConditionFindings:
        """The model without ARM and without filler."""
        return self.condition(BASELINE)

    def condition(self, name: str) -> ConditionFindings:
        """One of the conditions."""
        return next(condition for condition in self.conditions if condition.name == name)

    def to_dict(self) -> Facts:
        """For report.json."""
        return {
            "name": self.name,
            "kind": self.kind,
            "items": self.items,
            "planned_items": self.planned_items,
            "planned": asdict(self.planned),
            "conditions": [condition.to_dict() for condition in self.conditions],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "same_as_baseline": dict(self.same_as_baseline),
            "discordant": [asdict(item) for item in self.discordant],
        }


@dataclass(frozen=True)
class Verdict:
    """The outcome of a judged comparison, and the sentence that says so."""

    outcome: str
    sentence: str


@dataclass(frozen=True)
class Findings:
    """Everything that a report says.

    Args:
        armlet: the version that measured.
        complete: every item of every task is answered under every condition.
        verdicts: one for each judged comparison.
        tasks: those with an answered item.
        settings: how the run was made.
        study: of a confirmation: the search that chose the setting.
    """

    armlet: str
    complete: bool
    verdicts: Sequence[Verdict]
    tasks: Sequence[TaskFindings]
    settings: RunSettings
    study: ChosenSetting | None = None

    def to_dict(self) -> Facts:
        """The content of report.json, as plain values."""
        return {
            "armlet": self.armlet,
            "complete": self.complete,
            "verdicts": [verdict.sentence for verdict in self.verdicts],
            "tasks": [task.to_dict() for task in self.tasks],
            "manifest": self.settings.to_dict(),
            **({"study": self.study.to_dict()} if self.study else {}),
        }
