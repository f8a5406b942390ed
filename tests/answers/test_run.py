"""`generate` gives what its command prints, from a path and from a loaded model, and refuses what it cannot do."""

import json

import pytest
import torch

from armlet import Inward, Noise, Outward, attach, load_config
from armlet.answers import generate
from armlet.attachment.config import ConfigError, load_origin
from armlet.errors import AlreadyAttachedError
from armlet.prompts.generation import TokenStream
from armlet.redistribution.errors import ArgumentError
from command_line import result
from families import tiny
from fresh_interpreter import loaded_beyond_torch
from tiny_checkpoints import save, words

PROMPT = "w5 w6 w7"
TREATMENT = {"policy": "outward:band=0.5", "layers": "0,2", "max_new_tokens": 12}


@pytest.fixture(scope="module")
def loaded():
    return tiny(), words()


def generated(loaded, prompt=PROMPT, **how):
    return generate(loaded[0], prompt, loaded[1], **TREATMENT | how)


@pytest.mark.slow
def test_a_path_gives_what_the_command_prints_and_a_loaded_model_the_same_answers(tmp_path, loaded):
    folder = save(tmp_path / "tiny")
    options = ("--policy", "outward:band=0.5", "--layers", "0,2", "--max-new-tokens", 12, "--seed", 3)
    printed = result("generate", folder, PROMPT, *options)
    from_path = json.loads(json.dumps(generate(folder, PROMPT, **TREATMENT, seed=3).to_dict()))
    assert from_path == printed
    # A model that was built in memory has no folder to name.
    assert json.loads(json.dumps(generated(loaded, seed=3).to_dict())) == printed | {"model": "LlamaForCausalLM"}


@pytest.mark.slow
def test_a_dtype_is_named_or_torchs_own(tmp_path):
    folder = save(tmp_path / "tiny")
    named, own = (generate(folder, PROMPT, **TREATMENT, dtype=dtype) for dtype in ("float64", torch.float64))
    assert named.to_dict() == own.to_dict()
    with pytest.raises(ArgumentError, match=r"dtype: expected auto, .*, found 'int32'"):
        generate(folder, PROMPT, **TREATMENT, dtype=torch.int32)


def test_text_and_objects_are_the_same_arguments(loaded):
    objects = {"policy": Outward(band=0.5), "layers": [0, 2], "noise": Noise(0)}
    assert generated(loaded, **objects).to_dict() == generated(loaded).to_dict()


@pytest.mark.slow
def test_an_armlet_json_gives_the_arguments_and_samples_the_answer_again(tmp_path, loaded):
    warm = {"temperature": 1.5, "max_new_tokens": 12}
    answers = generate(loaded[0], PROMPT, loaded[1], **warm, policy="inward:knee=0.5", site="product", seed=9)
    paths = answers.save(tmp_path)
    assert [path.name for path in paths] == ["generate.png", "generate.svg", "armlet.json", "generate.json"]
    assert json.loads((tmp_path / "generate.json").read_text()) == json.loads(json.dumps(answers.to_dict()))
    assert answers.save(tmp_path) == paths
    arguments = load_config(tmp_path)
    assert arguments["policy"] == Inward(knee=0.5)
    assert generate(loaded[0], PROMPT, loaded[1], **warm, **arguments).to_dict() == answers.to_dict()


def test_another_armlet_json_is_not_replaced_and_nothing_is_written(tmp_path, loaded):
    (tmp_path / "armlet.json").write_text('{"policy": "inward"}')
    with pytest.raises(ArgumentError, match=r"armlet.json: exists and is not this result's setting; move it, or use"):
        generated(loaded).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["armlet.json"]
    assert load_config(tmp_path)["policy"] == Inward()


def test_a_seed_next_to_a_noise_is_that_of_sampling(loaded):
    one, other = (generated(loaded, temperature=1.5, noise=Noise(3), seed=seed) for seed in (3, 4))
    assert one.to_dict() == generated(loaded, temperature=1.5, noise=Noise(3)).to_dict()
    assert one.armlet == other.armlet
    assert one.baseline != other.baseline


def test_a_loaded_model_is_left_as_it_was(loaded):
    model, state = loaded[0], torch.get_rng_state()
    before = model(torch.tensor([[5, 6, 7]])).logits
    generated(loaded, temperature=1.5)
    assert torch.equal(model(torch.tensor([[5, 6, 7]])).logits, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_with_arm_has_no_baseline(loaded):
    with attach(loaded[0], Outward(), site="product"), pytest.raises(AlreadyAttachedError, match="baseline"):
        generated(loaded)
    generated(loaded)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"policy": ["outward", "inward"]}, "policy: expected one"),
        ({"layers": "3"}, "has layers 0 to 2, found 3"),
        ({"layers": "every"}, "expected indices such as"),
        ({"scope": "word"}, "scope: expected one of"),
        ({"site": "down"}, "site"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected an integer of at least 1"),
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"temperature": -0.5}, "temperature: expected a number of at least 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"layers": True}, "layers: expected an integer"),
        ({"seed": -1}, "seed: expected an integer from 0 to"),
        ({"seed": 2**63}, "seed"),
        ({"dtype": "float32"}, "it is loaded"),
        ({"noise": 3}, "noise: expected"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused(loaded, how, message):
    with pytest.raises(ArgumentError, match=message):
        generated(loaded, **how)


def test_the_order_of_prompt_and_tokenizer_is_said(loaded):
    model, tokenizer = loaded
    with pytest.raises(ArgumentError, match="the order is model, prompt, tokenizer"):
        generate(model, tokenizer, PROMPT)
    with pytest.raises(ArgumentError, match="ask several one after the other"):
        generate(model, [PROMPT], tokenizer)
    with pytest.raises(ArgumentError, match="expected the model's tokenizer"):
        generate(model, PROMPT)


def test_noise_that_a_file_cannot_store_is_refused_before_the_answers(loaded, monkeypatch):
    monkeypatch.setattr(TokenStream, "put", lambda *_: pytest.fail("a token was generated"))
    with pytest.raises(ConfigError):
        generated(loaded, noise=Noise.fresh(torch.Generator()))


def interrupt_at(monkeypatch, count):
    """Presses Ctrl-C at the count-th call of `generate`'s stream, which receives the prompt first."""
    put, calls = TokenStream.put, []

    def pressing(self, value):
        calls.append(value)
        if len(calls) == count:
            raise KeyboardInterrupt
        put(self, value)

    monkeypatch.setattr(TokenStream, "put", pressing)


def test_ctrl_c_before_the_first_token_leaves_nothing_to_return(loaded, monkeypatch):
    interrupt_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        generated(loaded)


@pytest.mark.parametrize(("count", "tokens"), [(5, None), (14, 0), (16, 1)])
def test_ctrl_c_keeps_what_was_generated(loaded, monkeypatch, capsys, count, tokens):
    whole = generated(loaded)
    interrupt_at(monkeypatch, count)
    answers = generated(loaded)
    assert answers.interrupted
    assert capsys.readouterr().err == "interrupted: this is what there is\n"
    if tokens is None:
        assert (answers.baseline.tokens, answers.treated) == (whole.baseline.tokens[:3], None)
    else:
        assert answers.baseline == whole.baseline
        assert answers.treated.tokens == whole.treated.tokens[:tokens]
    assert "incomplete" in repr(answers)


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("outward:strength=0", "outward: strength 0 changes nothing"),
        ("outward:proportion=0.3,band=2", "outward: band has no effect, because proportion replaces band and share"),
    ],
)
def test_a_setting_without_effect_is_said_once(loaded, policy, sentence):
    answers = generated(loaded, policy=policy)
    assert answers.sentences() == [sentence]
    assert repr(answers).splitlines()[-1] == sentence


def test_a_result_is_equal_to_itself_only_and_can_be_a_key(loaded):
    answers, again = generated(loaded), generated(loaded)
    assert answers.to_dict() == again.to_dict()
    assert {answers: 1, again: 2}[answers] == 1
    assert answers != again


def test_a_notebook_shows_both_answers_and_the_figure(loaded):
    answers = generated(loaded)
    html = answers._repr_html_()
    assert html.count("<img") == 1
    assert f"first difference at token {answers.first_difference + 1}" in html
    assert "".join(answers.treated_parts) == answers.treated.text
    assert answers.treated_parts[1].strip() == f"w{answers.treated.tokens[answers.first_difference]}"


@pytest.mark.slow
def test_importing_the_room_loads_neither_plots_nor_transformers():
    assert not {"matplotlib", "transformers", "scipy"} & set(loaded_beyond_torch("import armlet.answers"))


def test_a_published_policy_is_saved_with_its_origin(tmp_path, loaded):
    generated(loaded, policy="published:Qwen2.5-Math-7B/AIME24").save(tmp_path)
    assert load_origin(tmp_path).tasks == ("AIME24",)
