"""A text reaches the model whatever form of content its chat template reads."""

import pytest

from armlet.prompts.fillers import make_prompt
from armlet.prompts.questions import encode_prompt
from tiny_checkpoints import TEMPLATE, words

LISTS_ONLY = (
    "{% for turn in messages %}w1 {% for part in turn['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }} {% endif %}{% endfor %}w2 {% endfor %}w3"
)
LISTS_OR_ERROR = "{{ messages[0]['content'][0]['text'] + ' w4' }}"


def templated(template):
    tokenizer = words()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "ids"),
    [(LISTS_ONLY, [1, 5, 7, 2, 3]), (LISTS_OR_ERROR, [5, 7, 4]), (TEMPLATE, [1, 5, 7, 2, 3])],
)
def test_a_prompt_is_written_by_templates_that_read_lists_and_by_those_that_read_texts(template, ids):
    assert encode_prompt(templated(template), "w5 w7").tolist() == [ids]


def test_a_filler_has_its_place_in_a_template_that_reads_lists():
    prompt = make_prompt(templated(LISTS_ONLY), "w5 w7", system="w9")
    assert prompt.ids.tolist() == [1, 9, 2, 1, 5, 7, 2, 3]
    assert (prompt.insert_at, prompt.question) == (4, (4, 6))
