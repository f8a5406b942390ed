"""The next token and the answers are those of the model with `attach`, and off leaves no trace."""

import pytest
import torch

from armlet import Noise, attach, attached
from armlet.playground.predictions import Predictor
from armlet.playground.two_answers import stream_answers
from armlet.redistribution.errors import ArgumentError
from playgrounds import reader, setting


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_next_token_has_the_models_probabilities(everywhere):
    opened = reader("qwen2")
    page = setting(policy="outward:band=0.6", layer=1, everywhere=everywhere, seed=4)
    prediction = Predictor(opened).next_token(page)
    model, ids = opened.opened.model, opened.tokens(page.text)
    with torch.no_grad():
        before = model(ids).logits[0, -1].softmax(-1)
        with attach(model, page.chosen(), layers="all" if everywhere else 1, noise=Noise(4)):
            after = model(ids).logits[0, -1].softmax(-1)
    shown = [int(token.text[1:]) for token in prediction.tokens]
    assert shown == torch.maximum(before, after).topk(10).indices.tolist()
    assert [token.without for token in prediction.tokens] == pytest.approx(before[shown].tolist(), rel=1e-5)
    assert [token.treated for token in prediction.tokens] == pytest.approx(after[shown].tolist(), rel=1e-5)
    expected = torch.nn.functional.kl_div(after.log(), before, reduction="sum").item()
    assert prediction.divergence == pytest.approx(expected, rel=1e-4)
    assert prediction.divergence > 0


@pytest.mark.parametrize("name", ["identity", "draw-only"])
def test_a_placebo_that_changes_nothing_has_no_divergence(name):
    prediction = Predictor(reader()).next_token(setting(placebo=name))
    assert prediction.divergence == 0
    assert all(token.without == token.treated for token in prediction.tokens)


def test_off_is_exact_also_where_logits_are_nan():
    opened = reader()
    assert Predictor(opened).off_is_exact(setting())[0]
    with torch.no_grad():
        opened.opened.model.model.layers[1].mlp.gate_proj.weight[0, 0] = torch.nan
    assert Predictor(opened).off_is_exact(setting())[0]
    with pytest.raises(ArgumentError, match="its logits without ARM contain NaN or Inf"):
        Predictor(opened).next_token(setting())


def test_a_trace_that_stays_is_seen(monkeypatch):
    opened = reader()
    model = opened.opened.model

    class Leaving:
        def __init__(self, model, *_, **__):
            self.model = model

        def __enter__(self):
            return self

        def __exit__(self, *_):
            with torch.no_grad():
                self.model.model.layers[0].mlp.down_proj.weight.mul_(1.01)

        paused = lambda self: self  # noqa: E731

    monkeypatch.setattr("armlet.playground.predictions.attach", Leaving)
    assert not Predictor(opened).off_is_exact(setting())[0]
    assert attached(model) == []


def test_both_answers_are_those_of_the_model_and_differ_where_it_says():
    opened = reader("llama", seed=3)
    page = setting(policy="outward:proportion=0.6", seed=2)
    pairs = list(stream_answers(opened, page, 8))
    model, ids = opened.opened.model, opened.tokens(page.text)
    plain = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    without = model.generate(ids, **plain)[0, ids.shape[1] :]
    with attach(model, page.chosen(), noise=Noise(2)):
        treated = model.generate(ids, **plain)[0, ids.shape[1] :]
    assert not torch.equal(without, treated)
    decode = opened.opened.tokenizer.decode
    assert "".join(pairs[-1].without) == decode(without)
    assert "".join(pairs[-1].treated) == decode(treated)
    assert pairs[-1].finished
    assert len(pairs) == 17
    first = int((without != treated).nonzero()[0])
    assert pairs[-1].without[1].strip() == decode(without[first : first + 1])


def test_an_answer_that_is_left_leaves_no_arm_and_no_thread():
    opened = reader()
    answers = stream_answers(opened, setting(), 40)
    for _ in range(45):
        next(answers)
    assert attached(opened.opened.model)
    answers.close()
    assert attached(opened.opened.model) == []
