"""A run of `explain` on a tiny model."""

from dataclasses import replace

from armlet import Inward, Layer1, Outward
from armlet.mechanism.layers import make_setup, measure_layers
from armlet.mechanism.records import summarise
from armlet.mechanism.result import Explanation
from armlet.prompts.fillers import filler_conditions
from families import tiny
from tiny_checkpoints import words

SYSTEM = "w10 w11 w12"


QUESTIONS = ("w20 w21 w22", "w23 w24 w25 w26", "w27 w28")


POLICIES = (Outward(proportion=0.3), Inward(knee=0.8))


def setup_of(counts=(2, 5), kinds=("w7",), questions=QUESTIONS, **changes):
    fillers = filler_conditions(kinds, counts)
    return replace(make_setup(words(), questions, fillers, POLICIES, SYSTEM, "between", 0), **changes)


def layers_of(model, last=2):
    return [Layer1.from_model(model, layer) for layer in range(last + 1)]


def explained(model=None, wanted=(0, 2), setup=None, tick=lambda: None):
    return list(measure_layers(layers_of(model or tiny(), max(wanted)), wanted, setup or setup_of(), tick))


def explanation_of(findings, setup, *, selected=True, interrupted=False):
    return Explanation("a model", "auto", setup, findings, *summarise(findings, setup), selected, interrupted)
