"""All commands generate alike: only logits matter, and nothing global is changed."""

from types import SimpleNamespace

import pytest
import torch

from armlet.prompts.generation import (
    COLDEST_SAMPLED,
    Decoding,
    TokenStream,
    checkpoint_filters,
    generate_tokens,
    padding_token,
)
from families import tiny
from tiny_checkpoints import words

IDS = torch.tensor([[5, 6, 7]])
PENALTIES = {
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(30)),
    "forced_eos_token_id": 3,
    "num_beams": 2,
    "min_new_tokens": 2,
}


def new_tokens(model=None, mask=None, **changes):
    how = {"padding": 0} | {name: changes.pop(name) for name in ("processors", "stream") if name in changes}
    mask = torch.ones_like(IDS) if mask is None else mask
    decoding = Decoding(**({"max_new_tokens": 8} | changes))
    return generate_tokens(model or tiny(), IDS, mask, decoding, **how)[0, 3:].tolist()


def with_settings(**settings):
    model = tiny()
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return model


@pytest.mark.parametrize("name", PENALTIES)
def test_a_checkpoints_penalties_do_not_change_an_answer(name):
    assert new_tokens(with_settings(**{name: PENALTIES[name]})) == new_tokens()


def test_that_test_can_fail():
    plain = tiny().generate(IDS, max_new_tokens=8, do_sample=False, pad_token_id=0)
    penalised = with_settings(repetition_penalty=5.0).generate(IDS, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert plain[0, 3:].tolist() == new_tokens() != penalised[0, 3:].tolist()


def test_a_models_own_settings_stay_as_they_were_even_after_an_error():
    model = with_settings(repetition_penalty=5.0)
    settings = model.generation_config
    new_tokens(model)
    assert model.generation_config is settings
    model.forward = None
    with pytest.raises(TypeError):
        new_tokens(model)
    assert model.generation_config is settings


def test_an_answer_ends_with_the_checkpoints_end_token():
    whole = new_tokens()
    ends = [token for token in whole[1:] if token != whole[0]][:1]
    assert new_tokens(with_settings(eos_token_id=ends)) == whole[: whole.index(ends[0]) + 1]


def test_filters_decide_which_tokens_are_sampled():
    model, greedy = tiny(), new_tokens()
    assert new_tokens(model, temperature=5.0, filters={"top_k": 1}) == greedy
    assert new_tokens(model, temperature=5.0, filters={"top_p": 1e-6}) == greedy
    assert new_tokens(model, temperature=5.0) != greedy


def test_a_checkpoints_filters_are_those_that_it_sets():
    assert checkpoint_filters(tiny()) == {}
    assert checkpoint_filters(with_settings(top_k=3, min_p=0.1, repetition_penalty=2.0)) == {"top_k": 3, "min_p": 0.1}


@pytest.mark.parametrize("temperature", [0.0, COLDEST_SAMPLED / 2])
def test_the_coldest_temperatures_are_greedy(temperature):
    assert new_tokens(temperature=temperature, seed=1) == new_tokens(seed=2)
    assert new_tokens(temperature=5.0, seed=1) != new_tokens(temperature=5.0, seed=2)


def test_processors_see_the_logits_of_each_step_and_may_change_them():
    steps = []

    def only_nine(ids, logits):
        steps.append(ids.shape[1])
        return torch.full_like(logits, -torch.inf).index_fill(1, torch.tensor([9]), 0.0)

    assert new_tokens(processors=[only_nine]) == [9] * 8
    assert steps == list(range(3, 11))


def test_a_stream_receives_each_new_token_and_no_token_of_the_prompt():
    ticks = []
    stream = TokenStream(lambda: ticks.append(None))
    assert stream.tokens == []
    assert new_tokens(stream=stream) == stream.tokens
    assert len(ticks) == 8


def test_padding_is_not_attended_to():
    padded = torch.tensor([[0, 0, 5, 6, 7]])
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    tokens = generate_tokens(tiny(), padded, mask, Decoding(8), padding=0)
    assert tokens[0, 5:].tolist() == new_tokens()


@pytest.mark.parametrize(("pad", "end", "token"), [(4, 2, 4), (0, 2, 0), (None, 2, 2), (None, None, 0)])
def test_the_end_token_pads_where_there_is_no_padding_token(pad, end, token):
    assert padding_token(SimpleNamespace(pad_token_id=pad, eos_token_id=end)) == token


@pytest.mark.parametrize(("pad", "end", "token"), [(9, 2, 2), (9, 9, 0), (4, 2, 4)])
def test_a_padding_token_that_the_model_does_not_know_is_not_used(pad, end, token):
    assert padding_token(SimpleNamespace(pad_token_id=pad, eos_token_id=end), known=9) == token
    assert padding_token(words()) is not None


@pytest.fixture
def fake_gpus(monkeypatch):
    """Three generators of a machine with GPUs, each advanced differently, in place of CUDA's."""
    generators = tuple(torch.Generator().manual_seed(seed) for seed in range(3))
    monkeypatch.setattr(torch.cuda, "default_generators", generators)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: generators[device.index or 0].get_state())
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: generators[device.index or 0].set_state(state)
    )
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    def seed_all(seed):
        for generator in generators:
            generator.manual_seed(seed)

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    return generators


class ModelOnGpus:
    """Draws from the generators of the devices that its parameters are on, as sampling there would."""

    def __init__(self, *devices, error=None):
        self.devices, self.error = [torch.device(device) for device in devices], error
        self.device = self.devices[0]
        self.generation_config = tiny().generation_config
        self.drawn = []

    def parameters(self):
        return [SimpleNamespace(device=device) for device in self.devices]

    def generate(self, ids, **_):
        generators = [torch.cuda.default_generators[d.index or 0] for d in self.devices if d.type == "cuda"]
        self.drawn = [torch.rand(3, generator=generator).tolist() for generator in generators] + torch.rand(3).tolist()
        if self.error:
            raise self.error
        return ids


@pytest.mark.parametrize("devices", [("cuda:1",), ("cuda:0", "cuda:2", "cpu"), ("cuda",), ("cpu",)], ids=str)
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()], ids=["whole", "interrupted"])
def test_every_global_generator_is_as_before_and_those_in_use_were_seeded(fake_gpus, devices, error):
    ids = SimpleNamespace(to=lambda _: None)
    model = ModelOnGpus(*devices, error=error)
    states = [generator.get_state() for generator in (*fake_gpus, torch.default_generator)]
    for _ in range(2):
        previous = model.drawn
        if error:
            with pytest.raises(KeyboardInterrupt):
                generate_tokens(model, ids, ids, Decoding(8, 1.0, seed=5), padding=0)
        else:
            generate_tokens(model, ids, ids, Decoding(8, 1.0, seed=5), padding=0)
        assert previous in ([], model.drawn)
    for generator, state in zip((*fake_gpus, torch.default_generator), states, strict=True):
        assert torch.equal(generator.get_state(), state)
    on_gpus = [device for device in devices if device.startswith("cuda")]
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5)).tolist()
    assert model.drawn[: len(on_gpus)] == [expected] * len(on_gpus)
