"""The tour: five settings that teach, and what each shows. docs/howto/explore.md has the same five."""

from dataclasses import dataclass

from armlet.playground.setting import MODES, Setting


@dataclass(frozen=True)
class Stop:
    """A setting to look at."""

    name: str
    setting: Setting
    text: str
    filler: bool = False  # whether the filler is measured, too


TOUR = (
    Stop(
        "1 Outward's hole at zero",
        Setting(policy="outward:band=0.3"),
        "Outward takes values near zero and draws new ones farther out. Look at the lower histogram: the peak at zero "
        "becomes a hole, and the dashed line shows where its values went.",
    ),
    Stop(
        "2 Inward's tail",
        Setting(policy="inward:knee=0.95"),
        "Inward leaves the middle as it is and pulls the largest values in. Look at the upper histogram: its tail ends "
        "earlier, and far out the dashed line, where values go, is lower than it was.",
    ),
    Stop(
        "3 Transport's one peak",
        Setting(policy="transport"),
        "Transport gives the values of each token a bell shape, and keeps their order: of one token's values, none "
        "passes another. Every value moves.",
    ),
    Stop(
        "4 Five peaks become one",
        Setting(sample=MODES, policy="transport"),
        "Here the values are no text's: they are drawn around five centres. Transport turns the five peaks into one.",
    ),
    Stop(
        "5 A run of filler",
        Setting(policy="outward"),
        "Forty slashes between the instructions and your question mean nothing, and yet take attention from "
        "your words. So does a random sentence of the same length: compare the first row of the table in the "
        "section Filler.",
        filler=True,
    ),
)
