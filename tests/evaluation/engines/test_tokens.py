"""Items as tokens, and answers back as text."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from armlet.checkpoints.pretrained import load_tokenizer
from armlet.evaluation.conditions.conditions import Filling, conditions
from armlet.evaluation.engines.engine import Ask
from armlet.evaluation.engines.tokens import Tokens, ended, framed, pad
from armlet.evaluation.tasks.problems import Problem
from armlet.prompts.fillers import Filler
from armlet.redistribution.errors import ArgumentError
from tiny_checkpoints import TEMPLATE, save

BASE, FILLED = conditions([], [Filling(Filler("w7", 5))], placebos=False)
ASKS = [Ask(Problem(str(at), " ".join(f"w{w}" for w in range(10, 11 + at)), "0"), at, "") for at in range(4)]
ROWS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return Tokens(load_tokenizer(str(save(tmp_path_factory.mktemp("models") / "tiny", template=TEMPLATE))), 0)


def test_fillers_are_so_many_tokens_more(tokens):
    assert [len(tokens.prompt(ask, FILLED)) - len(tokens.prompt(ask, BASE)) for ask in ASKS] == [5] * 4
    assert [tokens.length(ask) for ask in ASKS] == [len(tokens.prompt(ask, BASE)) for ask in ASKS]


def test_a_choice_without_a_token_is_refused_by_its_item(tokens):
    asks = [Ask(Problem("c", "w20 w21", "0", choices=choices), 0, "") for choices in (("w1", "w2 w3"), ("w1", ""))]
    assert [len(each) for each in tokens.choices(asks[0])] == [1, 2]
    with pytest.raises(ArgumentError, match="item c: the tokenizer returns no token for the choice ''"):
        tokens.choices(asks[1])


def test_an_answer_is_cut_after_the_first_of_its_ends():
    assert ended([5, 2, 7, 2], 2) == ([5, 2], True)
    assert ended([5, 2, 7, 2], [9, 7]) == ([5, 2, 7], True)
    assert ended([5, 2], None) == ([5, 2], False)


def test_a_context_alone_is_gone_on_from_and_a_question_is_framed():
    assert framed("A man sits.", "") == ("", "A man sits.")
    assert framed("", "Which?") == ("", "Question: Which?\nAnswer:")
    assert framed("A passage.", "Which?") == ("A passage.\n", "Question: Which?\nAnswer:")


@given(ROWS, st.integers(0, 9))
def test_rows_come_back_and_all_else_is_padding(rows, fill):
    longest = max(map(len, rows))
    for side in ("left", "right"):
        ids, mask = pad([torch.tensor(row) for row in rows], side, fill)
        assert (ids.shape, ids.dtype, mask.dtype) == ((len(rows), longest), torch.int64, torch.int64)
        for row, own, real in zip(rows, ids.tolist(), mask.tolist(), strict=True):
            gap = [fill] * (longest - len(row))
            assert own == (row + gap if side == "right" else gap + row)
            assert real == sorted([1] * len(row) + [0] * len(gap), reverse=side == "right")
