"""A text reaches the model whatever form of content its chat template reads."""

from datetime import datetime

import pytest

from armlet.prompts.chat import template_date, templated
from armlet.prompts.fillers import make_prompt
from armlet.prompts.questions import encode_prompt
from tiny_checkpoints import TEMPLATE, words

LISTS_ONLY = (
    "{% for turn in messages %}w1 {% for part in turn['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }} {% endif %}{% endfor %}w2 {% endfor %}w3"
)
LISTS_OR_ERROR = "{{ messages[0]['content'][0]['text'] + ' w4' }}"


def with_template(template):
    tokenizer = words()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "ids"),
    [(LISTS_ONLY, [1, 5, 7, 2, 3]), (LISTS_OR_ERROR, [5, 7, 4]), (TEMPLATE, [1, 5, 7, 2, 3])],
)
def test_a_prompt_is_written_by_templates_that_read_lists_and_by_those_that_read_texts(template, ids):
    assert encode_prompt(with_template(template), "w5 w7").tolist() == [ids]


def test_a_filler_has_its_place_in_a_template_that_reads_lists():
    prompt = make_prompt(with_template(LISTS_ONLY), "w5 w7", system="w9")
    assert prompt.ids.tolist() == [1, 9, 2, 1, 5, 7, 2, 3]
    assert (prompt.insert_at, prompt.question) == (4, (4, 6))


@pytest.mark.parametrize(
    "start", ["", "\n", "  ", "\n\n  ", "{{ '' }}\n", "  {% if true %}\n{% endif %}", "{# none #}\n"]
)
def test_a_stopped_clock_changes_nothing_but_the_time(start):
    for body in (TEMPLATE, LISTS_ONLY, "{% for turn in messages %}\n  {{ turn['content'] }}\n{% endfor %}"):
        tokenizer, turns = with_template(start + body), [{"role": "user", "content": "w5 w7"}]
        assert templated(tokenizer, turns, "2024-02-05") == templated(tokenizer, turns, None)


@pytest.mark.parametrize("form", ["%d %b %Y", "%-d %B %y", "%Y-%m-%d", "%A %j %H:%M:%S.%f", "100 %% of %e/%m", "none"])
def test_a_stopped_clock_writes_a_date_as_strftime_does(form):
    date, written = "2024-02-05", "{% macro day() %}{{ strftime_now(form) }}{% endmacro %}{{ day() }}"
    tokenizer = with_template(f"{{% set form = '{form}' %}}{written}")
    turns = [{"role": "user", "content": "w5"}]
    assert templated(tokenizer, turns, date) == datetime.fromisoformat(date).strftime(form)


def test_only_a_template_that_asks_for_the_time_has_a_date():
    assert template_date(with_template(TEMPLATE)) is None
    assert template_date(with_template(None)) is None
    assert template_date(with_template("{{ strftime_now('%H') }}" + TEMPLATE)) == f"{datetime.now():%Y-%m-%d}"


def test_a_template_with_the_time_writes_one_time_in_a_prompt():
    prompt = make_prompt(with_template("{{ strftime_now('%f') }} " + TEMPLATE), "w5", system="", date="2024-02-05")
    assert prompt.ids.tolist()[1:] == [1, 5, 2, 3]
