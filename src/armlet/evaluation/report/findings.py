"""The findings of a run, with a record type for each table of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from armlet.evaluation.conditions.conditions import BASELINE
from armlet.evaluation.search.results import Search
from armlet.evaluation.settings import Facts, RunSettings
from armlet.presentation.numbers import with_points
from armlet.statistics.comparison import UNDECIDED, Comparison

Selection = Literal["", "majority", "likeliest", "any"]
"""Which of an item's samples count: the mean of all, the majority's answer, the most likely one, or any right one."""

Group = Literal["judged", "bound", "placebo", "matched", "zeroed"]
"""The purpose of a comparison: a verdict, a bound that no selection can exceed, or a control."""

COMPARED_ROLES = ("treated", "filler", "combined")
"""Roles of the conditions whose discordant items are shown."""


@dataclass(frozen=True)
class LayerActivity:
    """ARM's activity in one layer."""

    tokens: int  # number of processed tokens
    moved: int  # number of moved values
    share_moved: float  # share of moved values among all values of these tokens
    passed: int  # scopes that passed through unchanged (NaN or infinity)
    calls: int | None = None  # calls of the module; None if not recorded


@dataclass(frozen=True)
class WrittenAnswers:
    """The form of generated answers; None means not recorded, or no such answers."""

    extracted: float | None  # share of answers that could be extracted
    format_ok: float | None  # share in the requested form
    truncated: float | None  # share cut off at the token limit, of those of which the ending is known
    accuracy_of_extracted: float | None  # accuracy among the extracted answers
    tokens: float | None  # mean length
    distinct_2: float  # share of distinct word pairs
    pass_at: Mapping[str, float]  # the probability that one of k answers is right, by k
    unreadable: float | None = None  # share from which none could be extracted, though they were not cut off
    unreadable_example: str | None = None  # the end of the first of these, quoted, and why


@dataclass(frozen=True)
class ChosenAnswers:
    """The accuracy by log-likelihoods divided by the choices' lengths; None if not recorded."""

    accuracy_normalised: float | None


@dataclass(frozen=True)
class ConditionFindings:
    """One condition's answers to one task."""

    name: str  # name, role and samples of the `Condition`
    role: str
    samples: int
    accuracy: float  # share of right answers
    answers: WrittenAnswers | ChosenAnswers
    arm: Mapping[str, LayerActivity]  # by layer; empty where ARM was not attached or its activity is not recorded

    @property
    def moved_nothing(self) -> bool:
        """Whether ARM was attached but moved no value in any layer."""
        return bool(self.arm) and not any(layer.moved for layer in self.arm.values())

    def arm_counts(self) -> Mapping[str, Mapping[str, float]]:
        """`arm` as in `Attachment.report`."""
        return {layer: vars(activity) for layer, activity in self.arm.items()}

    def to_dict(self) -> Facts:
        """The findings for report.json, with the form of the answers at the top level, and without unrecorded calls."""
        content = asdict(self)
        answers, arm = content.pop("answers"), content.pop("arm")
        for activity in arm.values():
            if activity["calls"] is None:
                del activity["calls"]
        return {**content, **answers, "arm": arm}


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a condition and a selection of its samples."""

    condition: str
    selection: Selection = ""

    def __str__(self) -> str:
        return f"{self.condition}, {self.selection}" if self.selection else self.condition


@dataclass(frozen=True)
class PairedComparison:
    """Two conditions on the same items."""

    treated: Side
    against: Side
    judged: bool  # it receives a verdict; controls do not
    comparison: Comparison  # the statistics, uncorrected
    p_holm: float | None = None  # corrected over all judged comparisons of all tasks; None for controls
    p_equivalence_holm: float | None = None  # the same for the tests of the margin; also None without a margin

    @property
    def verdict(self) -> str:
        """What is shown, for judged comparisons after Holm's correction; the margin in points."""
        comparison, margin = self.comparison, self.comparison.margin
        p_equivalence = comparison.p_equivalence if self.p_equivalence_holm is None else self.p_equivalence_holm
        return comparison.judged(self.judged_p_value, p_equivalence, with_points(margin) if margin else "")

    @property
    def reaches_beyond_margin(self) -> bool:
        """Whether the verdict is that the difference is smaller than the margin, and the interval is not."""
        margin = self.comparison.margin
        if margin is None or self.verdict in ("helped", "hurt", UNDECIDED):
            return False
        return any(bound is None or abs(bound) > margin for bound in self.interval)

    @property
    def judged_p_value(self) -> float:
        """The p-value of the difference that decides: Holm's, or the uncorrected one of a control."""
        return self.comparison.p_value if self.p_holm is None else self.p_holm

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The bounds of the difference's interval; None means infinite."""
        return self.comparison.finite_interval

    @property
    def group(self) -> Group:
        """The purpose of the comparison."""
        if self.judged:
            return "judged"
        if self.against.condition != BASELINE:
            return "zeroed" if self.against.condition.startswith("zeroed") else "matched"
        return "bound" if self.treated.selection == "any" else "placebo"

    def to_dict(self) -> Facts:
        """The comparison for report.json."""
        sides = {"condition": str(self.treated), "against": str(self.against), "judged": self.judged}
        p_values = {"p_holm": self.p_holm, "p_equivalence_holm": self.p_equivalence_holm}
        corrected = {name: value for name, value in p_values.items() if value is not None}
        return sides | self.comparison.plain() | {"verdict": self.verdict} | corrected


@dataclass(frozen=True)
class PlannedPower:
    """The power of a task's items, as computed before the run."""

    items: int  # number of items of the task
    discordant: float  # the assumed share of items that only one side answers correctly
    comparisons: int  # number of comparisons in Holm's correction
    smallest_detectable: float | None  # the smallest difference with 80 % power; None if there is none
    margin: float | None = None  # the margin, as a fraction of the items; None without one
    margin_items: int | None = None  # about how many items show with 80 % power that no difference exceeds the margin


@dataclass(frozen=True)
class NoiseFloor:
    """The A/A run: how the baseline differs from itself at another batch size (sampled: and other seeds)."""

    differing: int  # items with another answer
    items: int
    difference: float
    interval: tuple[float | None, float | None]  # 95 %; None is infinite
    sampled: bool  # the answers are sampled, so this is also the noise of sampling


@dataclass(frozen=True)
class DiscordantItem:
    """An item that only one side answers correctly, a condition or the baseline, judged by the first answers."""

    condition: str  # the condition that is compared with the baseline
    item: str  # the item's id
    question: str
    gold: str
    gained: bool  # right only under the condition; otherwise only under the baseline
    baseline: str  # the baseline's answer
    answer: str  # the answer under the condition


@dataclass(frozen=True)
class TaskFindings:
    """The findings on one task."""

    name: str  # name and kind of the `Task`
    kind: str
    items: int  # items that are answered under every condition
    planned_items: int  # items to answer
    planned: PlannedPower
    conditions: Sequence[ConditionFindings]  # the baseline first
    comparisons: Sequence[PairedComparison]
    same_as_baseline: Mapping[str, int]  # for exact placebos, the number of items that match the baseline
    unchanged: Mapping[str, int]  # for users' functions, the number of items that match the baseline
    discordant: Sequence[DiscordantItem]  # condition by condition
    noise_floor: NoiseFloor | None = None  # None without an A/A run

    @property
    def baseline(self) -> ConditionFindings:
        """The model without ARM and without filler."""
        return self.condition(BASELINE)

    def condition(self, name: str) -> ConditionFindings:
        """The findings under the condition with this name."""
        return next(condition for condition in self.conditions if condition.name == name)

    def changed_no_output(self, name: str) -> bool:
        """Whether a user's function changed no answer to any item, and no log-likelihood of a choice."""
        return self.unchanged.get(name) == self.items

    def to_dict(self) -> Facts:
        """The task for report.json."""
        conditions = [condition.to_dict() for condition in self.conditions]
        return asdict(self) | {"conditions": conditions, "comparisons": [pair.to_dict() for pair in self.comparisons]}


@dataclass(frozen=True)
class Verdict:
    """The outcome of a judged comparison, and a sentence about it."""

    outcome: str
    sentence: str


@dataclass(frozen=True, repr=False, eq=False)
class Report:
    """The content of a report."""

    armlet: str  # the version of armlet
    complete: bool  # every item of every task is answered under every condition
    verdicts: Sequence[Verdict]  # one for each judged comparison
    tasks: Sequence[TaskFindings]  # those with an answered item
    settings: RunSettings  # the settings of the run
    search: Search | None = None  # for a confirmation: the search that chose the setting

    def to_dict(self) -> Facts:
        """The content of report.json."""
        return {
            "armlet": self.armlet,
            "complete": self.complete,
            "margin": self.settings.margin_share,
            "verdicts": [verdict.sentence for verdict in self.verdicts],
            "tasks": [task.to_dict() for task in self.tasks],
            "manifest": self.settings.to_dict(),
            **({"search": self.search.summary()} if self.search else {}),
        }
