"""Prompts are the lines of a file, and reach the model through its chat template, if any."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from armlet.prompts.questions import BUILT_IN, encode_prompt, read_prompts
from armlet.redistribution.errors import ArgumentError
from tiny_checkpoints import TEMPLATE, words

LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1)


def beginning(tokenizer):
    """Makes the tokenizer put w9 before every text, as many do with their BOS."""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="w9 $A", special_tokens=[("w9", 9)])
    return tokenizer


def test_built_in_prompts_are_distinct_lines():
    assert len(set(BUILT_IN)) == len(BUILT_IN) >= 5
    assert all(prompt.splitlines() == [prompt.strip()] for prompt in BUILT_IN)


def test_built_in_prompts_survive_a_file(tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(BUILT_IN))
    assert read_prompts(tmp_path / "prompts.txt") == list(BUILT_IN)


@pytest.mark.slow
@given(st.lists(LINES.filter(str.strip), min_size=1))
def test_every_line_is_a_prompt_as_it_stands(tmp_path_factory, lines):
    file = tmp_path_factory.getbasetemp() / "lines.txt"
    # A mark at the very start says how the file is encoded; anywhere else it is text.
    lines[0] = lines[0].lstrip("\ufeff") or "x"
    file.write_bytes("\n".join(lines).encode())
    assert read_prompts(file) == [line for line in lines if line.strip()]


@pytest.mark.parametrize(
    "content", [b"one\ntwo", b"one\r\ntwo\r\n", b"\n\none\n \t\ntwo\n\n", b"\xef\xbb\xbfone\ntwo\n"]
)
def test_blank_lines_line_ends_and_byte_order_marks_are_no_prompts(tmp_path, content):
    (tmp_path / "prompts.txt").write_bytes(content)
    assert read_prompts(tmp_path / "prompts.txt") == ["one", "two"]


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\n", b"\xef\xbb\xbf\n"])
def test_a_file_without_a_prompt_is_refused_by_name(tmp_path, content):
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(ArgumentError, match=r"prompts\.txt contains no prompt; write one on each line"):
        read_prompts(file)


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    reasons = {"absent": "No such file", ".": "Is a directory", "binary": "it is not UTF-8 text"}
    for name, reason in reasons.items():
        with pytest.raises(ArgumentError, match=f"cannot be read \\({reason}"):
            read_prompts(tmp_path / name)


def test_a_prompt_without_a_template_is_plain_text_with_what_the_tokenizer_adds():
    assert encode_prompt(words(), "w5 w7").tolist() == [[5, 7]]
    assert encode_prompt(beginning(words()), "w5 w7").tolist() == [[9, 5, 7]]


def test_an_end_token_that_the_tokenizer_adds_is_left_out():
    tokenizer = words(eos_token="w62")
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="$A w62", special_tokens=[("w62", 62)])
    assert encode_prompt(tokenizer, "w5 w62 w7").tolist() == [[5, 62, 7]]


def test_a_prompt_with_a_template_is_a_users_turn_that_asks_for_an_answer():
    tokenizer = words()
    tokenizer.chat_template = TEMPLATE
    assert encode_prompt(tokenizer, "w5 w7").tolist() == [[1, 5, 7, 2, 3]]


def test_nothing_is_added_to_what_the_template_writes():
    tokenizer = beginning(words())
    tokenizer.chat_template = TEMPLATE
    assert encode_prompt(tokenizer, "w5 w7").tolist() == [[1, 5, 7, 2, 3]]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_tokens_are_one_row_of_int64(template):
    tokenizer = words()
    tokenizer.chat_template = template
    ids = encode_prompt(tokenizer, "w5")
    assert ids.dtype == torch.int64
    assert ids.dim() == 2
    assert len(ids) == 1


@pytest.mark.parametrize("prompt", ["", "   "])
@pytest.mark.parametrize("template", [None, "{{ messages[0]['content'] }}"])
def test_a_prompt_without_a_token_is_refused(prompt, template):
    tokenizer = words()
    tokenizer.chat_template = template
    with pytest.raises(ArgumentError, match="has no tokens" if prompt else "prompt: it is empty"):
        encode_prompt(tokenizer, prompt)


@pytest.mark.parametrize("template", ["{{", "{{ raise_exception('no user here') }}", "{{ messages.nothing.at_all }}"])
def test_a_template_that_fails_is_refused_as_an_argument(template):
    tokenizer = words()
    tokenizer.chat_template = template
    with pytest.raises(ArgumentError, match="the chat template cannot be used"):
        encode_prompt(tokenizer, "w5")
