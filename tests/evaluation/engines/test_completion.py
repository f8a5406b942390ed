"""What servers send as a chat completion, or in its place: read as they mean it, or refused with what they say."""

import pytest
from openai.types.chat import ChatCompletion

from armlet.evaluation.engines.completion import describe_body, describe_error, read_completion

THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "3+4"}]}


def ended(reason):
    return read_completion(from_json({"choices": [{"message": {"content": "7"}, "finish_reason": reason}]})).ended


def from_json(body):
    """The client's object for a response, with objects inside."""
    from openai._models import construct_type

    return construct_type(value=body, type_=ChatCompletion)


def text(**message):
    return read_completion(from_json({"choices": [{"message": message, "finish_reason": "stop"}]})).text


@pytest.mark.parametrize(
    "reason", ["stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE", "END_ID"]
)
def test_each_servers_word_for_an_end_is_one(reason):
    assert ended(reason) is True


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens"])
def test_each_servers_word_for_a_cut_is_one(reason):
    assert ended(reason) is False


@pytest.mark.parametrize(
    "reason", [None, "", "tool_calls", "content_filter", "SAFETY", "refusal", "function_call", "pause_turn", "new", 1]
)
def test_a_reason_that_does_not_say_whether_an_answer_ended_is_unknown(reason):
    assert ended(reason) is None


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource", "ERROR"])
def test_an_answer_that_the_server_gave_up_is_none(reason):
    with pytest.raises(ValueError, match=f"^it did not finish its answer: finish_reason is '{reason}'; run the same"):
        ended(reason)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": "seven"}, "seven"),
        ({"content": [{"type": "text", "text": "se"}, {"type": "output_text", "text": "ven"}]}, "seven"),
        ({"content": ["sev", "en"]}, "seven"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "3+4"}]},
                    {"type": "text", "text": "7"},
                ]
            },
            "7",
        ),
        ({"content": "7", "reasoning_content": "3+4"}, "7"),
        ({"content": None, "refusal": "I cannot say."}, "I cannot say."),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "No."),
        ({"content": None, "tool_calls": [{"id": "1", "type": "function"}]}, ""),
        ({"content": ""}, ""),
        ({}, ""),
        ({"content": []}, ""),
        ({"content": "half \ud83d"}, "half ?"),
    ],
)
def test_the_text_is_read_out_of_each_form_of_content(message, expected):
    assert text(**message) == expected


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "reasoning_content": "so 7"},
        {"content": "", "reasoning": "so 7"},
        {"content": [{"type": "thinking", "thinking": "so 7"}]},
        {"content": [{"type": "reasoning", "text": "so 7"}]},
    ],
)
def test_thoughts_alone_are_a_thought_that_did_not_end(message):
    assert text(**message) == "<think>\nso 7"


@pytest.mark.parametrize(
    "content", [{"a": 1}, 7, [{"type": "image_url", "image_url": {"url": "x"}}], [{"text": 7}], [3]]
)
def test_content_that_is_no_text_is_refused(content):
    with pytest.raises(ValueError, match=r"^a part of its answer is no text: "):
        text(content=content)


@pytest.mark.parametrize(
    ("values", "mean"), [([-1.0, -2.0], -1.5), ([], None), ([-1.0, None], None), ([-1.0, -1e999], None)]
)
def test_a_mean_log_probability_is_finite_and_of_all_tokens(values, mean):
    content = [{"token": "a", "logprob": value, "top_logprobs": []} for value in values]
    choice = {"message": {"content": "7"}, "finish_reason": "stop", "logprobs": {"content": content}}
    assert read_completion(from_json({"choices": [choice]})).logprob == mean


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": None}, {"prompt_tokens": 2}])
def test_a_number_of_tokens_that_is_not_sent_is_unknown(usage):
    body = {"choices": [{"message": {"content": "7"}, "finish_reason": "stop"}], "usage": usage}
    assert read_completion(from_json(body)).tokens is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"choices": []}, "^it sent no answer$"),
        ({"choices": None}, "^it sent no answer$"),
        ({}, "^it sent no answer$"),
        ({"error": {"message": "too busy", "code": 503}}, "^it sent an error: too busy$"),
        ({"object": "error", "message": "too long"}, "^it sent an error: too long$"),
        ({"choices": [{"text": "7", "finish_reason": "stop"}]}, "^its answer has no message"),
        ({"choices": [{"delta": {"content": "7"}, "finish_reason": "stop"}]}, "^its answer has no message"),
    ],
)
def test_what_is_no_chat_completion_is_refused_with_what_it_says(body, message):
    with pytest.raises(ValueError, match=message):
        read_completion(from_json(body))


@pytest.mark.parametrize("other", [[], None, 7])
def test_what_is_no_object_is_refused(other):
    with pytest.raises(ValueError, match=r"^it sent no answer$"):
        read_completion(other)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "it sent nothing"),
        ("  \n", "it sent nothing"),
        ('data: {"id": 1}\n\ndata: [DONE]\n', "it streams its answer, which was not requested; turn its streaming off"),
        ("<html><style>p {}</style>\n<p>Please log&nbsp;in</p>", "it sent a page: Please log in"),
        ('{"id": "1", "cho', 'it sent no JSON object: {"id": "1", "cho'),
    ],
)
def test_a_body_without_json_is_described(body, said):
    assert " ".join(describe_body(body).split()) == said
    with pytest.raises(ValueError, match=r"^it s"):
        read_completion(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"message": "no such model", "code": 404}, "no such model"),
        ({"error": "Model is overloaded", "error_type": "overloaded"}, "Model is overloaded"),
        ([{"error": {"message": "API key not valid", "code": 400}}], "API key not valid"),
        (
            {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
            "body.seed: Extra inputs are not permitted",
        ),
        (
            {"message": "Invalid", "detail": [{"loc": ["body", "top_p"], "msg": "too large"}, {"msg": "too hot"}]},
            "Invalid; body.top_p: too large; too hot",
        ),
        ({"detail": "Not Found"}, "Not Found"),
        ({"error": {"message": None, "code": 7}}, '{"message": null, "code": 7}'),
        ({"reason": "quota"}, '{"reason": "quota"}'),
        ("<h1>502</h1> Bad Gateway", " 502  Bad Gateway"),
    ],
)
def test_the_message_of_an_error_is_found_in_each_form(body, said):
    assert describe_error(body) == said
