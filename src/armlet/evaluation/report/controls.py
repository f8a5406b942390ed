"""The controls of a run: what each of them does, and what a reader may conclude from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from armlet.evaluation.report.findings import Report


@dataclass(frozen=True)
class Control:
    """What a report says about a control."""

    heading: str  # above its rows in tables
    settings: str  # shown instead of its treatment's settings; "" for these settings
    meaning: str  # what it does, and what follows from its result
    role: Literal["placebo", "perturbation", "control"] = "placebo"


UNCHANGED = "placebos that change no value: their answers must be the baseline's"

CONTROLS: Mapping[str, Control] = {
    "identity": Control(
        UNCHANGED,
        "the policy at strength 0",
        "ARM at strength 0. If its answers are not the baseline's, attaching ARM alone changes answers.",
    ),
    "draw-only": Control(
        UNCHANGED,
        "the policy's draws, with all values left as they are",
        "draws the policy's noise, and leaves the values as they are. If its answers are not the baseline's, the work "
        "of drawing changes answers.",
    ),
    "matched": Control(
        "placebos that change as much as the treatment, but other values",
        "the same number of values, at random positions, with the same change in variance",
        "moves the same number of values as the treatment, at random positions, with the same change in variance (or "
        "the nearest that this number allows). If a treatment is no better than its matched placebo, its choice of "
        "values is not shown to matter.",
    ),
    "zeroed": Control(
        "placebos that set the treatment's near-zero values to 0",
        "the values that the policy redraws, set to 0 instead",
        "sets the same near-zero values to 0 instead of redrawing them. If it does as well as the treatment, the "
        "redrawing is not what helps.",
    ),
    "A/A": Control(
        "the noise floor: the baseline against itself",
        "the baseline again, at another batch size",
        "the baseline again at another batch size, and with other seeds if answers are sampled. What differs here is "
        "noise.",
        "control",
    ),
    "temperature": Control(
        "a small perturbation, for scale",
        "the baseline at another temperature",
        "the baseline at another temperature. It is no placebo: it changes answers, and shows how large a difference "
        "a small perturbation makes.",
        "perturbation",
    ),
}
"""What a report says about each control, by the word with which the names of its conditions begin."""

OTHER_CONTROL = Control("other controls", "", "a control.", "control")


def control_of(condition: str) -> Control:
    """The control to which a condition with the role "placebo" belongs, by its name, such as "matched (outward)"."""
    return CONTROLS.get(condition.partition(" (")[0], OTHER_CONTROL)


def control_meanings(findings: Report) -> dict[str, str]:
    """The meanings of the controls in a report, by the word with which their names begin."""
    names = [c.name for c in findings.settings.conditions if c.role == "placebo"]
    return {name.partition(" (")[0]: control_of(name).meaning for name in names}


def identical_text(same: int, items: int) -> str:
    """The number of items for which a placebo that changes nothing gave exactly the baseline's answers."""
    return f"identical, {same:,} of {items:,}" if same == items else f"{items - same:,} of {items:,} differ"
