"""The table of two answers: the first token that differs is marked."""

from io import StringIO

import pytest
from rich.console import Console

from armlet import Inward, Outward, Transport, attach
from armlet.answers.measure import describe_treatment, split_at
from armlet.answers.records import Answer, first_difference
from armlet.answers.result import Answers
from armlet.answers.tables import answers_table
from families import tiny
from tiny_checkpoints import words


def shown(answers, width=80):
    console = Console(file=StringIO(), width=width)
    console.print(answers.table())
    return console.file.getvalue()


def answered(baseline, treated, *, interrupted=False, width=80):
    """The table of two answers, from tokens or None."""

    def answer(tokens, cut):
        return None if tokens is None else Answer(tokens, words().decode(tokens), cut)

    cut = interrupted and treated is not None
    both = answer(baseline, interrupted and not cut), answer(treated, cut)
    index = first_difference(*both)
    parts = [split_at(words(), one_answer, index) if one_answer else ("", "", "") for one_answer in both]
    return shown(Answers("model", "prompt", {}, "Outward, layer 0", {}, *both, *parts, interrupted), width)


def cells(text):
    """The two columns' texts."""
    lines = [line.split("│")[1:3] for line in text.splitlines() if line.startswith("│")]
    return [" ".join(" ".join(part).split()) for part in zip(*lines, strict=True)]


def test_the_first_token_at_which_they_part_is_marked_in_both():
    text = answered([1, 2, 3], [1, 9, 3])
    assert cells(text) == ["w1» w2« w3", "w1» w9« w3"]
    assert "first difference at token 2, »marked«" in text


def test_the_same_answer_has_no_mark():
    text = answered([1, 2, 3], [1, 2, 3])
    assert cells(text) == ["w1 w2 w3", "w1 w2 w3"]
    assert "the same 3 tokens" in text
    assert "»" not in text


def test_of_an_answer_that_goes_on_the_next_token_is_marked():
    text = answered([1, 2], [1, 2, 3, 4])
    assert cells(text) == ["w1 w2", "w1 w2» w3« w4"]
    assert "first difference at token 3" in text
    assert cells(answered([1, 2, 3], [1])) == ["w1» w2« w3", "w1"]


def test_ctrl_c_in_the_baseline_shows_it_alone():
    text = answered([1, 2], None, interrupted=True)
    assert cells(text) == ["w1 w2", ""]
    assert text.splitlines()[-1].strip() == "incomplete"


def test_ctrl_c_in_the_treated_answer_marks_only_what_differs():
    text = answered([1, 2, 3], [1, 2], interrupted=True)
    assert cells(text) == ["w1 w2 w3", "w1 w2"]
    assert "incomplete; the same 2 tokens" in text
    assert cells(answered([1, 2, 3], [1, 9], interrupted=True)) == ["w1» w2« w3", "w1» w9«"]


@pytest.mark.parametrize(
    ("policy", "layers", "heading"),
    [
        (Outward(band=0.2), 0, "Outward, band 0.2, ceiling 0.995, layer 0"),
        (Inward(), [0, 2], "Inward, knee 0.99, curve log, layers 0, 2"),
        (Transport(strength=0.5), "all", "Transport, spread 1.0, strength 0.5, layers 0-2"),
    ],
)
def test_the_heading_says_what_the_treatment_was(policy, layers, heading):
    with attach(tiny(), policy, layers=layers) as attachment:
        assert describe_treatment(attachment) == heading


def test_the_heading_says_which_experts_were_treated():
    with attach(tiny("deepseek_v3"), Inward(), layers=1, experts="routed") as attachment:
        assert describe_treatment(attachment).endswith("layer 1, routed experts")


def test_an_answer_is_no_markup():
    parts = ("[red]x[/red]", "", ""), ("[/]", "", "")
    answers = [Answer([1], text, False) for text, *_ in parts]
    text = shown(Answers("model", "prompt", {}, "Outward, layer 0", {}, *answers, *parts, False))
    assert cells(text) == ["[red]x[/red]", "[/]"]
    assert "treated: Outward, layer 0" in text


@pytest.mark.parametrize("width", range(24, 81))
def test_no_word_is_broken_that_fits_into_the_terminal(width):
    table = answers_table(
        {"baseline": ("So 504-90-80-70=", "41", "4 is it"), "treated: Outward": ("So", " 4", "")}, "end"
    )
    console = Console(file=StringIO(), width=width)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert {"504-90-80-70=»41«4", "baseline", "treated:", "Outward", "So»"} <= {
        word for line in lines for word in line.split()
    }
    assert max(map(len, lines)) <= width
    assert any("baseline" in line and "treated" in line for line in lines) == (width >= 2 * (18 + 3) + 1)


def test_a_word_wider_than_the_terminal_is_folded_and_nothing_of_it_is_left_out():
    console = Console(file=StringIO(), width=40)
    console.print(answers_table({"baseline": ("9" * 100, "", ""), "treated": ("", "", "")}, ""))
    assert console.file.getvalue().count("9") == 100
