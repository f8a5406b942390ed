"""The page's parts in HTML, from templates: summary, tokens, next token, answers, layers, fillers, messages."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from armlet.playground.effect import GateEffect, share_by_token
from armlet.playground.reading import Reading
from armlet.playground.setting import Setting
from armlet.presentation.numbers import percent, points, short_number, three_digits
from armlet.presentation.page import figure_style, page_environment, policy_inks
from armlet.presentation.style import COLOURS, OTHER_COLOUR
from armlet.statistics.shape import MEASURES

if TYPE_CHECKING:
    from armlet.mechanism.result import Explanation
    from armlet.playground.exports import Exports
    from armlet.playground.predictions import Prediction
    from armlet.playground.two_answers import AnswerPair

SHADES = 0.55  # largest opacity of a colour under text, so that the contrast stays at 4.5 or more
LONGEST_QUOTE = 60  # characters of a text
PLACEBO_NAMES = {
    "identity": "identity, the policy at strength 0",
    "draw-only": "draw-only, which draws and changes nothing",
    "matched": "matched, as many values at random places",
    "zeroed": "zeroed, the near-zero values set to 0",
}
FILLER_NAMES = {
    "mass": "attention left for your own words",
    "gate_variance": "variance of the gate",
    "near_zero": "near zero",
}
SUMMARY_MEASURES = {"near_zero": "near zero", "std": "spread", "modes": "peaks"}


def render(template: str, **values: object) -> str:
    """The HTML of one of the templates, with every value escaped."""
    return page_environment("armlet.playground").get_template(f"{template}.html.jinja").render(**values)


def page_style() -> str:
    """The CSS of the page."""
    template = page_environment("armlet.playground").get_template("style.css.jinja")
    return template.render(light=policy_inks(dark=False), dark=policy_inks(dark=True), figures=figure_style())


def message(sentence: str) -> str:
    """A sentence about an error."""
    return render("message", sentence=sentence)


def help_text(sentence: str) -> str:
    """A sentence of help."""
    return render("note", sentence=sentence)


def acting_words(setting: Setting) -> str:
    """What acts, in words."""
    acting = f"the placebo {PLACEBO_NAMES[setting.placebo]}," if setting.placebo else setting.policy
    return f"with {acting} {_place(setting)}"


def _place(setting: Setting) -> str:
    return "in every layer" if setting.everywhere else f"in layer {setting.layer}"


def summary(setting: Setting, reading: Reading, effect: GateEffect) -> str:
    """The share moved, the range, and a few measures before and after."""
    before, after = effect.panel.before, effect.panel.after
    facts = [(f"of {before.size:,} values moved", percent(effect.share_moved))]
    facts += [("smallest", _pair(before.min(), after.min())), ("largest", _pair(before.max(), after.max()))]
    for name, label in SUMMARY_MEASURES.items():
        pair = effect.measures_before[name], effect.measures_after[name]
        show = percent if name == "near_zero" else short_number
        facts.append((label, " → ".join(show(value) for value in pair)))
    notes = [*effect.notes]
    if setting.placebo:
        notes.append(f"This is a control: {PLACEBO_NAMES[setting.placebo]}.")
    if reading.experts:
        notes.append("Shown: the routed experts. Where a layer has shared ones, ARM acts in these, too.")
    if setting.everywhere:
        notes.append(f"Shown: layer {setting.layer} alone, without ARM in the layers before it.")
    if effect.passed:
        notes.append(f"{effect.passed} rows contain NaN or Inf; no policy changes them, and they are left out.")
    return render("summary", facts=facts, notes=notes, colour=COLOURS.get(effect.name, OTHER_COLOUR))


def _pair(before: np.floating, after: np.floating) -> str:
    return f"{short_number(float(before))} → {short_number(float(after))}"


def token_strip(reading: Reading, effect: GateEffect, chosen: int) -> str:
    """The text's tokens as buttons, coloured by the share of their values that moved."""
    if not reading.words:
        return help_text(f"A sample has no tokens: its {len(reading.values)} rows are drawn, and belong to no text.")
    shares = share_by_token(reading, effect)
    largest = max((share for share in shares if share is not None), default=0.0) or 1.0
    words = [
        {
            "text": _visible(text),
            "strength": f"{SHADES * (share or 0) / largest:.3f}",
            "says": "not in this expert" if share is None else f"{percent(share)} of its values moved",
        }
        for text, share in zip(reading.words, shares, strict=True)
    ]
    return render("tokens", words=words, chosen=chosen)


def _visible(text: str) -> str:
    """A token's text with marks for spaces at its ends and for characters that are not visible."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown.replace(" ", "·", 1) if shown.startswith(" ") else shown or "∅"


def next_token(setting: Setting, prediction: "Prediction") -> str:
    """The most probable next tokens as a table, and the divergence."""
    rows = [
        {
            "text": _visible(token.text),
            "without": percent(token.without),
            "treated": percent(token.treated),
            "without_share": f"{token.without:.4f}",
            "treated_share": f"{token.treated:.4f}",
            "change": points(token.treated - token.without),
        }
        for token in prediction.tokens
    ]
    divergence = short_number(prediction.divergence)
    return render("next_token", tokens=rows, divergence=divergence, treatment=acting_words(setting))


def answers(setting: Setting, pair: "AnswerPair") -> str:
    """Both answers, with the first token that differs marked."""
    columns = [
        {"title": "without ARM", "parts": pair.without, "waiting": ""},
        {"title": acting_words(setting), "parts": pair.treated, "waiting": "It is written after the first answer."},
    ]
    sentence = f"Writing the answers to {_beginning(setting.text)} ..."
    if pair.finished:
        same = pair.treated == pair.without
        sentence = f"The answers to {_beginning(setting.text)}. "
        sentence += "Both are the same." if same else "The first token that differs is marked."
        sentence += " One answer shows that ARM acts, not whether it helps: that is what armlet evaluate is for."
    return render("answers", columns=columns, sentence=sentence)


def tensor_title(reading: Reading, name: str) -> str:
    """What the heat map below shows, or why there is none if the name is empty."""
    if not name:
        return help_text(f"The parts of this layer cannot be shown: {reading.not_covered}")
    sentence = "A row for each token; the colours span the whole range. Of many channels, every n-th is drawn."
    if reading.not_covered:
        sentence += f" Other parts cannot be shown: {reading.not_covered}"
    return render("tensor_title", title=name, sentence=sentence)


def _beginning(text: str) -> str:
    """A text, or its beginning, in quotes."""
    line = " ".join(text.split())
    return f"“{line}”" if len(line) <= LONGEST_QUOTE else f"“{line[:LONGEST_QUOTE]} …”"


def layers(measures: Sequence[Mapping[str, float] | None], chosen: int) -> str:
    """A row for each layer with its measures; dashes for a layer without a gate."""
    names = [*MEASURES]
    table = np.array([[m[name] if m else np.nan for name in names] for m in measures], dtype=float)
    finite = np.where(np.isfinite(table), table, np.nan)
    low, high = np.nanmin(finite, axis=0, initial=np.inf), np.nanmax(finite, axis=0, initial=-np.inf)
    span = np.where(high > low, high - low, 1.0)
    shades = np.nan_to_num(SHADES * (finite - low) / span)
    rows = [
        {
            "layer": layer,
            "cells": [
                {"text": three_digits(value) if isfinite(value) else "–", "shade": f"{shade:.3f}"}
                for value, shade in zip(table[layer], shades[layer], strict=True)
            ],
        }
        for layer in range(len(measures))
    ]
    headings = [{"name": name.replace("_", " "), "meaning": MEASURES[name]} for name in names]
    return render("layers", headings=headings, rows=rows, chosen=chosen)


def fillers(explanation: "Explanation", layer: int, count: int) -> str:
    """The quantities of `explain` in one layer, without and with filler, beside a random sentence of as many tokens."""
    from armlet.mechanism.measure import QUANTITIES
    from armlet.prompts.fillers import RANDOM_SENTENCE

    cells = {
        (record.quantity, record.filler == RANDOM_SENTENCE): record
        for record in explanation.quantities
        if (record.layer, record.count) == (layer, count)
    }
    rows = [
        {
            "name": FILLER_NAMES.get(name, name),
            "meaning": meaning,
            "without": short_number(cells[name, False].without),
            "filled": short_number(cells[name, False].filled),
            "control": short_number(cells[name, True].filled),
        }
        for name, meaning in QUANTITIES.items()
    ]
    about = _beginning(explanation.setup.questions[0])
    caption = f"What {count} filler tokens do in layer {layer} to the tokens after them, for the one text {about}"
    left = (cells["mass", control].filled for control in (False, True))
    sentence = "Of the attention, {} are left for your own words, and {} with a random sentence of as many tokens."
    return render("fillers", rows=rows, caption=caption, sentence=sentence.format(*map(percent, left)))


def exports(made: "Exports") -> str:
    """The setting to copy."""
    return render("exports", codes=made.codes, link=made.link, notes=made.notes)


def placebos(sides: Sequence[Setting], effects: Sequence[GateEffect], predictions: "Sequence[Prediction]") -> str:
    """The policy and its placebos: the share of values moved, and what the next token's distribution becomes."""
    rows = [
        {
            "name": PLACEBO_NAMES[side.placebo] if side.placebo else side.policy,
            "moved": percent(effect.share_moved),
            "divergence": short_number(prediction.divergence),
        }
        for side, effect, prediction in zip(sides, effects, predictions, strict=True)
    ]
    return render("placebos", rows=rows)


def dark_lamp() -> str:
    """The lamp before anything was compared."""
    return render("lamp", state="unknown", sentence="Not compared yet.")


def lamp(setting: Setting, exact: bool, compared: int) -> str:
    """Whether switching ARM off leaves no trace."""
    about = f"after {setting.policy} {_place(setting)}, for {_beginning(setting.text)}"
    sentence = f"Off is exact {about}: all {compared:,} logits equal the untouched model's, bit for bit."
    if not exact:
        sentence = f"Off is NOT exact {about}: some of {compared:,} logits differ. Please report this."
    return render("lamp", state="exact" if exact else "different", sentence=sentence)
