"""Theorems of the remote engine, with a server on 127.0.0.1 in place of a real one."""

import sys
import threading
import traceback
from contextlib import closing
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armlet.evaluation.batches import run
from armlet.evaluation.conditions.conditions import Condition, Filling, Treatment, conditions
from armlet.evaluation.engines.chat import filler_text, inserted, messages
from armlet.evaluation.engines.endpoint import Endpoint, concurrently
from armlet.evaluation.engines.engine import Ask, Sampling, derived_seed
from armlet.evaluation.grading.graders import EQUAL, graders
from armlet.evaluation.plan import Plan, servable_conditions
from armlet.evaluation.report.analysis import analyse_run
from armlet.evaluation.tasks.problems import Problem, Task
from armlet.evaluation.tasks.sources import arithmetic
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.outward import Outward
from armlet.runs.folder import open_run_folder
from chat_server import serving

BASE = Condition("baseline", "baseline")
TREATED = Condition("outward", "treated", treatment=Treatment(Outward()))
SAMPLING = Sampling(32, 0.9, 5)
SOON = {"retry-after-ms": "1"}
"""Tests need not wait for as long as a client does."""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_TREATED_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def asks(count=1, system="Be brief."):
    return [Ask(Problem(str(at), f"What is {at} plus one?", "1"), at, system) for at in range(count)]


def answers(fake, items=None, condition=BASE, sampling=SAMPLING, batch=0, sample=0, **how):
    """What one batch gets."""
    with closing(Endpoint(fake.url, model="tiny", **how)) as engine:
        return engine.answer(items or asks(), condition, sampling, batch=batch, sample=sample)


# What is sent


@pytest.mark.slow
def test_a_request_holds_the_texts_and_all_of_the_sampling():
    with serving() as fake:
        answers(fake, condition=replace(BASE, temperature=0.7), batch=3, sample=1)
        assert fake.requests == [
            {
                "model": "tiny",
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "What is 0 plus one?"},
                ],
                "temperature": 0.7,
                "top_p": 0.9,
                "max_tokens": 32,
                "seed": derived_seed(5, 3, 1, 0, bits=31),
            }
        ]


def test_an_empty_system_prompt_is_left_out():
    assert [turn["role"] for turn in messages(asks(system="")[0], None, 0)] == ["user"]


def test_each_place_of_a_filler_is_in_its_text():
    def filled(position, system="Be brief.", question="two words"):
        ask = Ask(Problem("0", question, "1"), 4, system)
        return [turn["content"] for turn in messages(ask, Filling(Filler("/", 3), position), 0)]

    assert filled("before") == ["/// Be brief.", "two words"]
    assert filled("before", system="") == ["/// two words"]
    assert filled("between") == ["Be brief.", "/// two words"]
    assert filled("end") == ["Be brief.", "two words ///"]
    assert filled("answer", question="Q\nAnswer: A\nAnswer:") == ["Be brief.", "Q\nAnswer: A\n/// Answer:"]
    assert filled("random") in [["Be brief.", f] for f in ("/// two words", "two /// words", "two words ///")]


@given(st.text(alphabet="ab \n", max_size=12), st.integers(0, 50))
def test_a_random_place_parts_no_word_and_keeps_the_text(text, number):
    found = inserted(text, "///", (0, number))
    assert found.split() != text.split()
    assert [word for word in found.split() if word != "///"] == text.split()
    assert found.replace("/// ", "").replace(" ///", "") == text


def test_random_places_depend_on_the_item_and_reach_every_boundary():
    assert {inserted("one two three", "/", (0, number)) for number in range(40)} == {
        "/ one two three",
        "one / two three",
        "one two / three",
        "one two three /",
    }


def test_random_sentences_have_so_many_words_and_are_the_items_own():
    found = {number: filler_text(Filler(RANDOM_SENTENCE, 25), 0, number) for number in (0, 1)}
    assert [len(text.split()) for text in found.values()] == [25, 25]
    assert found[0] != found[1]


def test_seeds_differ_by_item_batch_and_sample_and_fit_31_bits():
    seeds = {derived_seed(0, *indices, bits=31) for indices in product(range(4), repeat=3)}
    assert len(seeds) == 64
    assert all(0 <= seed < 2**31 for seed in seeds)


# What comes back


def test_an_answer_says_its_tokens_and_whether_it_ended():
    with serving() as fake:
        assert [(found.tokens, found.ended, found.logprob) for found in answers(fake)] == [(7, True, None)]
    with serving(finish="length", usage=False) as fake:
        assert [(found.tokens, found.ended) for found in answers(fake)] == [(None, False)]


def test_the_mean_log_probability_is_asked_for_with_best_of_alone():
    several = Condition("best of 2", "best-of", temperature=0.7, samples=2)
    with serving(logprobs=[-1.0, -2.0]) as fake:
        assert answers(fake)[0].logprob is None
        assert answers(fake, condition=several)[0].logprob == -1.5
        assert ["logprobs" in asked for asked in fake.requests] == [False, True]
    with serving() as fake:  # which gives none
        assert answers(fake, condition=several)[0].logprob is None


def test_answers_keep_their_order_and_never_more_requests_than_allowed_are_under_way():
    with serving(meeting=threading.Barrier(4)) as fake:
        found = answers(fake, asks(12), concurrency=4)
        assert [output.text.partition(" ")[2] for output in found] == [ask.problem.question for ask in asks(12)]
        assert fake.most == 4


def test_answers_come_inside_a_running_event_loop():
    import asyncio

    async def notebook():
        return answers(fake, asks(3), concurrency=2)

    with serving() as fake:
        assert len(asyncio.run(notebook())) == 3


def test_the_first_error_ends_what_has_not_begun():
    begun = []

    def call(item):
        begun.append(item)
        raise ArmletError("no")

    with pytest.raises(ArmletError, match=r"^no$"):
        concurrently(call, asks(100), 1)
    assert begun == asks(1)


# Faults


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_a_passing_refusal_is_tried_again(status):
    with serving(faults=[(status, SOON, {}), (status, SOON, {})]) as fake:
        assert [found.text for found in answers(fake)] == [
            fake.completion(fake.requests[0])["choices"][0]["message"]["content"]
        ]
        assert len(fake.requests) == 3


def test_a_connection_that_breaks_off_is_tried_again():
    with serving(faults=["reset"]) as fake:
        assert len(answers(fake)) == 1
        assert len(fake.requests) == 2


def test_waits_double_up_to_eight_seconds_and_follow_retry_after(monkeypatch):
    slept = []
    with serving(faults=[(500, {}, {})] * 6 + [(429, {"retry-after": "7"}, {})]) as fake:
        monkeypatch.setattr("openai._base_client.time.sleep", slept.append)
        answers(fake)
    most = (0.5, 1, 2, 4, 8, 8)
    assert all(0.75 * high <= wait <= high for wait, high in zip(slept, most, strict=False))
    assert len(set(slept)) > 3  # jitter
    assert slept[6:] == [7.0]


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refusal_that_stays_is_not_tried_again_and_is_said_in_one_line(status):
    with serving(faults=[(status, {}, {"error": {"message": "the model\nis unknown"}})]) as fake:
        with pytest.raises(ArmletError, match=rf"^server {fake.url} answered {status}: the model is unknown$"):
            answers(fake)
        assert len(fake.requests) == 1


def test_the_details_of_a_refusal_are_said():
    body = {"detail": [{"type": "extra", "loc": ["body", "top_p"], "msg": "Unknown field"}]}
    with (
        serving(faults=[(422, {}, body)]) as fake,
        pytest.raises(ArmletError, match=r"422: body.top_p: Unknown field$"),
    ):
        answers(fake)


def test_a_limit_of_requests_says_how_long_to_wait():
    limit = (429, {"retry-after": "3600", **SOON}, {"error": {"message": "slow down"}})
    said = r"answered 429: slow down \(it asks to wait 3600, and was tried 2 times; the same command resumes\)$"
    with serving(faults=[limit] * 2) as fake, pytest.raises(ArmletError, match=said):
        answers(fake, retries=1)


def test_the_proxy_of_a_server_that_cannot_be_reached_is_named(monkeypatch):
    with serving() as fake:
        pass
    monkeypatch.setenv("HTTP_PROXY", fake.url.replace("//", "//me:sekret@"))
    with pytest.raises(ArmletError, match=r"; HTTP_PROXY=http://…@127.0.0.1:\d+/v1 is set$"):
        answers(fake, retries=0)


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "socks5://127.0.0.1:9"), ("SSL_CERT_FILE", "/no/ca.pem"), ("all_proxy", "x:y:z")]
)
def test_a_setting_that_keeps_a_server_from_being_reached_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    if value.startswith("socks5"):
        monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ArgumentError, match=f"^server http://host/v1 cannot be reached with {name}={value} in the env"):
        Endpoint("http://host", model="tiny")


def test_after_the_last_retry_one_line_says_so():
    with serving(faults=[(503, SOON, {"error": {"message": "overloaded"}})] * 3) as fake:
        with pytest.raises(ArmletError, match=rf"^server {fake.url} answered 503: overloaded$"):
            answers(fake, retries=2)
        assert len(fake.requests) == 3


def test_a_wrong_key_is_said_at_once_and_not_repeated(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sekret")
    with serving(faults=[(401, {}, {"error": {"message": "bad key sekret"}})]) as fake:
        with pytest.raises(ArmletError, match=r"answered 401: bad key …: check its key in OPENAI_API_KEY$"):
            answers(fake)
        assert len(fake.requests) == 1


def test_a_server_that_is_not_there_is_named():
    with serving() as fake:
        pass
    with pytest.raises(ArmletError, match=rf"^server {fake.url} could not be reached, 1 times: .*refused"):
        answers(fake, retries=0)


def test_a_server_that_does_not_answer_in_time_is_named():
    with serving(meeting=threading.Barrier(2)) as fake:
        with pytest.raises(ArmletError, match=rf"^server {fake.url} did not answer within 0.2 s, 1 times$"):
            answers(fake, retries=0, timeout=0.2)
        fake.meeting.abort()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, {"choices": []}),
        ({}, {}),
        ({}, "{torn"),
        ({"Content-Type": "text/html"}, "<html>a page</html>"),
        ({"Content-Type": "text/event-stream"}, "data: {}\n\ndata: [DONE]\n\n"),
        ({}, ""),
        ({}, [{"error": {"message": "no"}}]),
        ({}, {"choices": [{"finish_reason": "stop"}]}),
    ],
)
def test_what_is_no_chat_completion_is_refused_in_one_line(headers, body):
    said = r"did not answer with a chat completion \(.*\)$"
    with serving(faults=[(200, headers, body)]) as fake, pytest.raises(ArmletError, match=f"^server {fake.url} {said}"):
        answers(fake)


# Keys and addresses


def test_a_key_goes_to_its_host_alone(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sekret")
    with serving() as plain, serving() as treated:
        elsewhere = treated.url.replace("127.0.0.1", "localhost")
        answers(plain, condition=TREATED, treated_endpoint=treated.url)
        answers(plain, condition=TREATED, treated_endpoint=elsewhere)
        monkeypatch.setenv("OPENAI_TREATED_API_KEY", "other")
        answers(plain, condition=TREATED, treated_endpoint=elsewhere)
        assert treated.keys == ["Bearer sekret", "Bearer none", "Bearer other"]
        assert plain.keys == []


def test_keys_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sekret")
    with serving() as fake:
        answers(fake)
        assert fake.keys == ["Bearer sekret"]


def test_a_key_is_sent_without_the_end_of_its_line(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "\ufeffsekret \r\n")
    with serving() as fake:
        answers(fake)
        assert fake.keys == ["Bearer sekret"]


FAULTS = {
    "refused": (401, {}, {"error": {"message": "Incorrect API key: sekret"}}),
    "echoed": (400, {}, {"headers": {"Authorization": "Bearer sekret"}}),
    "of the other server": (400, {}, {"error": {"message": "not other-sekret"}}),
    "a page": (200, {"Content-Type": "text/html"}, "<p>sekret</p>"),
    "no JSON": (200, {}, "{sekret"),
    "no answer": (200, {}, {"choices": [{"message": {"content": {"sekret": 1}}}]}),
    "an error": (200, {}, {"error": {"message": "sekret"}}),
    "broken off": "reset",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_key_is_nowhere_whatever_fails(monkeypatch, caplog, fault):
    monkeypatch.setenv("OPENAI_API_KEY", "sekret\n")
    monkeypatch.setenv("OPENAI_TREATED_API_KEY", "other-sekret\n")
    caplog.set_level("DEBUG")
    for name in ("openai", "httpx", "httpx2", "httpcore"):
        caplog.set_level("DEBUG", logger=name)
    with serving(faults=[FAULTS[fault]]) as fake, pytest.raises(ArmletError) as caught:
        answers(fake, retries=0, treated_endpoint="http://host:1")
    assert fake.keys == ["Bearer sekret"]
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    local_values = [frame.locals for frame in frames if frame.filename != __file__]
    assert local_values
    assert "openai" in caplog.text
    assert "sekret" not in f"{local_values} {caplog.text} {''.join(traceback.format_exception(caught.value))}"
    assert caught.value.__context__ is None


def test_a_description_holds_no_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sekret")
    with closing(Endpoint("https://example.org/", model="tiny")) as engine:
        assert "sekret" not in repr(engine)
        assert engine.describe() == {
            "endpoint": "https://example.org/v1",
            "treated_endpoint": None,
            "model": "tiny",
            "seed": 0,
        }


@pytest.mark.parametrize(
    "url", ["example.org", "ftp://example.org/v1", "file:///etc/passwd", "http://", "http://a:b/v1", ""]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ArgumentError, match=r"^endpoint: expected an address such as"):
        Endpoint(url, model="tiny")


@pytest.mark.parametrize(
    "url",
    [
        *("http://me:sekret@host/v1", "http://host/v1?key=sekret", "http://host/v1#sekret"),
        *("me:sekret@host/v1", "host/v1?key=sekret", "htp://me:sekret@host", "http://sekret@host:port", "//:sekret@"),
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(url):
    with pytest.raises(ArgumentError, match=r"^treated_endpoint: expected only an address; a key") as caught:
        Endpoint("http://host", model="tiny", treated_endpoint=url)
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize("how", [{"concurrency": 0}, {"retries": -1}, {"timeout": 0}])
def test_numbers_out_of_range_are_refused_by_the_argument_s_name(how):
    with pytest.raises(ArgumentError, match=rf"^{next(iter(how))}: expected an? (integer|number) of at least"):
        Endpoint("http://host", model="tiny", **how)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ArgumentError, match=r"pip install 'armlet\[endpoint\]'"):
        Endpoint("http://host", model="tiny")


# What can be run


def test_treated_conditions_go_to_the_treated_server_and_no_other():
    with serving() as plain, serving() as treated:
        answers(plain, treated_endpoint=treated.url)
        answers(plain, condition=TREATED, treated_endpoint=treated.url)
        assert (len(plain.requests), len(treated.requests)) == (1, 1)
        assert plain.requests == treated.requests


def test_treated_conditions_are_refused_without_a_treated_server():
    with serving() as fake:
        with pytest.raises(ArgumentError, match=r"^treated_endpoint: .*cannot run outward; name the same"):
            answers(fake, condition=TREATED)
        assert fake.requests == []


def test_placebos_inside_the_gate_are_refused_and_the_baseline_again_and_the_change_of_temperature_are_not():
    compared = conditions([TREATED.treatment], [])
    with closing(Endpoint("http://host", model="tiny", treated_endpoint="http://host:1")) as engine:
        with pytest.raises(
            ArgumentError, match=r": identity, draw-only, matched \(outward\), zeroed \(outward\); leave them out$"
        ):
            engine.check(compared)
        servable, left_out = servable_conditions(compared, [], engine)
        assert [each.name for each in servable] == ["baseline", "outward", "A/A", "temperature"]
        assert [each.name for each in left_out] == ["identity", "draw-only", "matched (outward)", "zeroed (outward)"]
        engine.check(servable)


def test_two_treatments_need_two_servers():
    other = replace(TREATED, name="other", treatment=Treatment(Outward(band=0.2)))
    engine = Endpoint("http://host", model="tiny", treated_endpoint="http://host:1")
    with closing(engine), pytest.raises(ArgumentError, match=r"outward, other need 2; name one policy$"):
        engine.check([TREATED, other])


def test_experts_of_a_mixture_that_no_server_treats_are_refused():
    other = replace(TREATED, name="routed", treatment=Treatment(Outward(), experts="routed"))
    engine = Endpoint("http://host", model="tiny", treated_endpoint="http://host:1")
    with closing(engine), pytest.raises(ArgumentError, match="experts of a mixture; routed needs a local model"):
        engine.check([BASE, other])


def test_multiple_choice_is_refused():
    task = Task("chosen", "choice", (Problem("0", "q", "0", choices=("a", "b")),), {})
    with closing(Endpoint("http://host", model="tiny")) as engine:
        with pytest.raises(ArgumentError, match=r"but chosen has it$"):
            engine.check([BASE], [task])
        with pytest.raises(ArgumentError, match="multiple choice needs a local model"):
            engine.score_choices(asks(), BASE)


# Runs


@pytest.mark.slow
def test_a_run_cut_short_goes_on_to_the_same_items_and_findings(tmp_path):
    compared = conditions([TREATED.treatment], [Filling(Filler("/", 9))], temperature=0.7, samples=2, best_of=3)
    compared = [each for each in compared if not each.placebo]
    plan = Plan(
        [arithmetic(7)], compared, {"integer": SAMPLING}, 3, {"integer": "Add."}, graders("math-verify", {"integer"})
    )

    def go(folder, concurrency=2):
        how = {"treated_endpoint": treated.url, "concurrency": concurrency, "retries": 0}
        with closing(Endpoint(plain.url, model="tiny", **how)) as engine:
            engine.check(plan.conditions, plan.tasks)
            with open_run_folder(folder, plan.manifest(engine), {}) as journal:
                run(plan, engine, journal)
                return analyse_run(journal, plan.tasks, EQUAL).to_dict()

    with serving(logprobs=[-1.0]) as plain, serving() as treated:
        whole = go(tmp_path / "whole")
        asked = len(plain.requests)
        treated.faults[:] = [None] * 9 + [(500, {}, {"error": {"message": "out of memory"}})]
        with pytest.raises(ArmletError, match="answered 500: out of memory"):
            # One at a time: a call that another thread has just begun may outlive the client, and its socket be leaked.
            go(tmp_path / "cut", concurrency=1)
        assert 0 < len(plain.requests) - asked < asked
        assert go(tmp_path / "cut") == whole
        assert len(plain.requests) == 2 * asked  # nothing that was safe was asked again
    items = [(tmp_path / name / "items.jsonl").read_bytes() for name in ("whole", "cut")]
    assert items[0] == items[1]


@pytest.mark.slow
def test_answers_whose_ending_is_not_known_are_not_counted_as_truncated(tmp_path):
    plan = Plan(
        [arithmetic(3)], [BASE, TREATED], {"integer": SAMPLING}, 3, {"integer": ""}, graders("math-verify", {"integer"})
    )

    def truncated(finish):
        with (
            serving(finish=finish) as fake,
            closing(Endpoint(fake.url, "tiny", fake.url)) as engine,
            open_run_folder(tmp_path / str(finish), plan.manifest(engine), {}) as journal,
        ):
            run(plan, engine, journal)
            return analyse_run(journal, plan.tasks, EQUAL).tasks[0].conditions[0].answers.truncated

    assert [truncated(finish) for finish in (None, "tool_calls", "length", "eos_token")] == [None, None, 1, 0]


def test_at_one_address_a_request_turns_arm_on_or_off():
    with serving() as fake:
        for condition in (BASE, TREATED):
            answers(fake, condition=condition, treated_endpoint=fake.url)
        answers(fake)
    switches = [each.get("vllm_xargs") for each in fake.requests]
    assert switches == [{"armlet": "off"}, {"armlet": "on"}, None]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("extra_args: armlet must be 'on', 'off' or a strength in [0, 1], found 'neither'", None),
        ("extra_args: armlet was given, but this engine runs without ARM", "this engine runs without ARM"),
        ("no such model", "no such model"),
        (None, "cannot switch ARM: start vLLM with armlet"),
    ],
)
def test_a_server_that_does_not_refuse_nonsense_has_no_switch(said, message):
    with serving(faults=[(400, {}, {"error": {"message": said}})] if said else []) as fake:
        engine = Endpoint(fake.url, model="tiny", treated_endpoint=fake.url, retries=0)
        if message is None:
            engine.check_switch()
        else:
            with pytest.raises(ArmletError, match=message):
                engine.check_switch()
    assert fake.requests[0]["vllm_xargs"] == {"armlet": "neither"}
