"""Items as tokens, and answers back as text."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from armlet.checkpoints.pretrained import load_tokenizer
from armlet.evaluation.conditions.conditions import Filling, conditions
from armlet.evaluation.engines.engine import Ask
from armlet.evaluation.engines.tokens import Tokens, ended, framed, pad
from armlet.evaluation.tasks.problems import Problem
from armlet.prompts.fillers import Filler
from armlet.redistribution.errors import ArgumentError
from tiny_checkpoints import TEMPLATE, save, words

BASE, FILLED = conditions([], [Filling(Filler("w7", 5))], placebos=False)
ASKS = [Ask(Problem(str(at), " ".join(f"w{w}" for w in range(10, 11 + at)), "0"), at, "") for at in range(4)]
ROWS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return Tokens(load_tokenizer(str(save(tmp_path_factory.mktemp("models") / "tiny", template=TEMPLATE))), 0)


def test_fillers_are_so_many_tokens_more(tokens):
    assert [len(tokens.prompt(ask, FILLED)) - len(tokens.prompt(ask, BASE)) for ask in ASKS] == [5] * 4
    assert [tokens.length(ask) for ask in ASKS] == [len(tokens.prompt(ask, BASE)) for ask in ASKS]


def test_a_prompt_is_shown_with_its_special_tokens_and_all_of_its_words(tokens):
    shown = tokens.shown_prompt(ASKS[1])
    assert tokens.tokenizer(shown, add_special_tokens=False)["input_ids"] == tokens.prompt(ASKS[1], BASE).tolist()
    assert "w10 w11" in shown


def test_a_choice_without_a_token_is_refused_by_its_item(tokens):
    asks = [Ask(Problem("c", "w20 w21", "0", choices=choices), 0, "") for choices in (("w1", "w2 w3"), ("w1", ""))]
    assert [len(each) for each in tokens.choices(asks[0])] == [1, 2]
    with pytest.raises(ArgumentError, match="item c: the tokenizer returns no token for the choice ''"):
        tokens.choices(asks[1])


def merging(*merges):
    """A tokenizer of characters that merges these pairs, also over the blank between a prompt and a choice."""
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = [*characters, *("".join(pair) for pair in merges)]
    model = models.BPE({token: index for index, token in enumerate(vocabulary)}, [*merges])
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Fuse()  # without blanks between tokens
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def choice_ask(*choices, context="", question="Why?"):
    return Ask(Problem("c", question, "0", context=context, choices=choices), 0, "")


@pytest.mark.parametrize(
    ("choices", "prompt_end", "scored"),
    [
        (("Bus", "no"), "Answer", (": Bus", ": no")),
        (("B", "n"), "Answer", (": B", ": n")),
        (("no", "yes"), "Answer:", (" no", " yes")),
    ],
)
def test_all_choices_are_scored_whole_after_the_same_tokens(choices, prompt_end, scored):
    tokenizer = merging((" ", "B"), (":", " B"))
    tokens, ask = Tokens(tokenizer, 0), choice_ask(*choices)
    prompt = tokens.prompt(ask, BASE).tolist()
    assert tokenizer.decode(prompt).endswith(prompt_end)
    assert tuple(tokenizer.decode(ids) for ids in tokens.choices(ask)) == scored
    whole = [tokenizer(f"Question: Why?\nAnswer: {choice}")["input_ids"] for choice in choices]
    assert [prompt + ids for ids in tokens.choices(ask)] == whole
    assert len(prompt) == tokens.length(ask)


def test_a_filler_at_the_end_is_directly_before_what_is_scored():
    tokens, ask = Tokens(merging((" ", "B"), (":", " B")), 0), choice_ask("Bus", "no")
    _, end = conditions([], [Filling(Filler("#", 3), "end")], placebos=False)
    assert tokens.tokenizer.decode(tokens.prompt(ask, end)).endswith("Answer###")


def test_a_prompt_of_which_no_token_is_left_is_refused():
    with pytest.raises(ArgumentError, match="item c: no token is left of its prompt 'A'"):
        Tokens(merging(("A", " "), ("A ", "B")), 0).choices(choice_ask("B", "no", context="A", question=""))


def test_end_tokens_of_the_tokenizer_are_neither_in_prompts_nor_in_choices():
    plain, ended_texts = words(), words(bos_token="w0", eos_token="w62")
    both = TemplateProcessing(single="w0 $A w62", special_tokens=[("w0", 0), ("w62", 62)])
    ended_texts._tokenizer.post_processor = both
    asks = [Ask(Problem("c", "w20", "0", choices=("w1", "w2 w3")), 0, ""), ASKS[1]]
    for ask in asks:
        without, within = Tokens(plain, 0), Tokens(ended_texts, 0)
        assert within.prompt(ask, BASE).tolist() == [0, *without.prompt(ask, BASE).tolist()]
        assert within.choices(asks[0]) == without.choices(asks[0])


def test_a_token_without_an_embedding_is_refused_by_its_item():
    for ask in (Ask(Problem("x", "w20 w40", "0"), 0, ""), choice_ask("w40", "w1", context="w20", question="")):
        with pytest.raises(ArgumentError, match=r"^item [xc]: .* for 40 tokens, .*'w40' \(id 40\)"):
            Tokens(words(), 0, 40).length(ask)
    with pytest.raises(ArgumentError, match=r"^filler 'w50': .*id 50"):
        Tokens(words(), 0, 40).filler(Filler("w50", 2))


def test_a_template_sees_the_date_that_is_set():
    tokenizer = words()
    tokenizer.chat_template = "{{ strftime_now('w%-d') }} " + TEMPLATE
    tokens = Tokens(tokenizer, 0)
    assert tokens.prompt(ASKS[0], BASE)[0] == int(tokens.date[-2:])
    tokens.set_date("2024-02-09")
    assert (tokens.date, tokens.prompt(ASKS[0], BASE)[0]) == ("2024-02-09", 9)


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
