"""Examples stand between system prompt and question, in a chat and in plain text, and fillers keep their places."""

import pytest

from armlet.checkpoints.folder import abacus
from armlet.checkpoints.pretrained import load_tokenizer
from armlet.prompts.fillers import make_prompt
from armlet.prompts.shots import PLAIN_TEMPLATE, Shot, check_template, in_template, shots_text
from armlet.redistribution.errors import ArgumentError
from tiny_checkpoints import TEMPLATE, words

SHOTS = [Shot("w20 w21", "w22"), Shot("w23", "w24 w25")]
TURNS = (
    "{% for turn in messages %}{{ {'system': 'w1', 'user': 'w2', 'assistant': 'w3'}[turn['role']] }} "
    "{{ turn['content'] }} {% endfor %}w3"
)
NO_SYSTEM = TURNS.replace("%}{{", "%}{% if turn['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}{{", 1)
CHANGING = TURNS.replace("turn['content']", "turn['content'] | replace('w22', '')")
EXAMPLES = [2, 20, 21, 3, 22, 2, 23, 3, 24, 25]


def templated(template):
    tokenizer = words()
    tokenizer.chat_template = template
    return tokenizer


def prompt(template, position="between"):
    return make_prompt(templated(template), "w5 w6", system="w9", position=position, shots=SHOTS)


def test_examples_are_turns_of_the_chat_before_the_question():
    assert prompt(TURNS).ids.tolist() == [1, 9, *EXAMPLES, 2, 5, 6, 3]


def test_a_template_without_a_system_turn_has_the_system_prompt_before_the_first_example():
    assert prompt(NO_SYSTEM).ids.tolist() == [2, 9, *EXAMPLES[1:], 2, 5, 6, 3]


def test_without_a_template_examples_are_text_before_the_question():
    assert prompt(None).ids.tolist() == [9, 20, 21, 22, 23, 24, 25, 5, 6]
    assert shots_text(SHOTS) == "w20 w21 w22\n\nw23 w24 w25\n\n"


@pytest.mark.parametrize("template", [TURNS, NO_SYSTEM, None], ids=["turns", "merged", "plain"])
def test_a_fillers_places_are_those_of_the_last_question(template):
    places = {position: prompt(template, position) for position in ("before", "between", "end", "random")}
    start, end = places["between"].question
    ids = places["between"].ids.tolist()
    assert ids[start:end] == [5, 6]
    assert ids[places["before"].insert_at] == 9
    assert (places["between"].insert_at, places["end"].insert_at) == (start, end)
    assert start <= places["random"].insert_at <= end


@pytest.mark.parametrize("template", [TEMPLATE, CHANGING], ids=["left out", "changed"])
def test_a_template_that_leaves_out_or_changes_an_example_is_refused(template):
    with pytest.raises(ArgumentError, match=r"chat template cannot be used \(it leaves out or changes an example\)"):
        prompt(template)


def test_the_embedded_model_reads_examples_as_it_was_trained():
    tokenizer = load_tokenizer(str(abacus()))
    ids = make_prompt(tokenizer, "4+1", system="", shots=[Shot("1+2", "1+2=3#3")]).ids
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=True) == "1+2=?1+2=3#34+1=?"


def test_a_template_has_the_question_once_and_a_question_with_braces_is_not_filled():
    for template in ("no place", "{question} and {question}"):
        with pytest.raises(ArgumentError, match=r"^template: expected one \{question\}, found [02] in"):
            check_template(template)
    check_template(None)
    assert in_template("Q: {question}!", "is {question} text?") == "Q: is {question} text?!"
    assert in_template(PLAIN_TEMPLATE, "why") == "Question: why\nAnswer:"
