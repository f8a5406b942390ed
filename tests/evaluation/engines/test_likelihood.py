"""Log-likelihoods are those of each text run alone, whatever else is in the batch."""

import pytest
import torch
import transformers as hf

from armlet import Inward, Outward, attach
from armlet.evaluation.engines.likelihood import LogProbabilities, choice_loglikelihoods
from families import FAMILIES, tiny

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
CHOICES = [[[1, 2], [3]], [[4, 5, 6], [7, 8], [2]], [[1], [2]]]


def alone(model, prompt, choice, temperature):
    """Token by token, out of one plain forward call without padding or cache."""
    logits = model(torch.tensor([prompt + choice])).logits[0].float() / temperature
    scores = logits.log_softmax(-1)
    return sum(scores[len(prompt) + at - 1, token].item() for at, token in enumerate(choice))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_the_scores_of_choices_do_not_depend_on_the_batch(family, temperature):
    model = tiny(family)
    with torch.no_grad():
        found = choice_loglikelihoods(model, [torch.tensor(prompt) for prompt in PROMPTS], CHOICES, temperature)
        wanted = [
            [alone(model, prompt, choice, temperature) for choice in own]
            for prompt, own in zip(PROMPTS, CHOICES, strict=True)
        ]
    # float32 sums in another order: padding and cache change the last bits of tiny models' logits.
    assert all(one == pytest.approx(other, abs=2e-4) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("policy", [Outward(), Inward(knee=0.9)], ids=repr)
def test_the_scores_of_choices_do_not_depend_on_the_batch_with_arm_too(policy):
    model = tiny("llama")
    with torch.no_grad(), attach(model, policy, layers="all"):
        found = choice_loglikelihoods(model, [torch.tensor(prompt) for prompt in PROMPTS], CHOICES, 1.0)
        wanted = [
            [alone(model, prompt, choice, 1.0) for choice in own] for prompt, own in zip(PROMPTS, CHOICES, strict=True)
        ]
    assert all(one == pytest.approx(other, abs=2e-3) for one, other in zip(found, wanted, strict=True))


def test_a_token_that_a_model_excludes_does_not_enter_the_scores_as_padding():
    model = tiny("llama")
    excluded = torch.zeros(model.config.vocab_size)
    excluded[0] = -torch.inf  # the token with which shorter choices are padded
    model.lm_head.register_forward_hook(lambda _module, _given, output: output + excluded)
    with torch.no_grad():
        scores = choice_loglikelihoods(model, [torch.tensor([5, 6]), torch.tensor([7])], [[[1, 2]], [[3]]], 1.0)
    assert torch.tensor(scores).isfinite().all()


STATEFUL = {
    "jamba": (hf.JambaConfig, {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 8}),
    "falcon_h1": (hf.FalconH1Config, {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8}),
    "lfm2": (hf.Lfm2Config, {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False}),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", STATEFUL)
def test_models_with_states_score_choices_too(family):
    model = tiny(family, families=STATEFUL)
    with torch.no_grad():
        scores = choice_loglikelihoods(model, [torch.tensor(prompt) for prompt in PROMPTS], CHOICES, 1.0)
        expected = [
            [alone(model, prompt, choice, 1.0) for choice in group]
            for prompt, group in zip(PROMPTS, CHOICES, strict=True)
        ]
    # Padding changes the last bits, and recurrent states carry them on.
    assert all(one == pytest.approx(other, abs=2e-3) for one, other in zip(scores, expected, strict=True))


def test_choices_of_one_token_need_no_second_call():
    model, calls = tiny("llama"), []
    model.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        choice_loglikelihoods(model, [torch.tensor([1, 2])], [[[3], [4]]], 1.0)
    assert len(calls) == 1


def test_log_probabilities_of_generated_tokens_are_those_of_a_second_reading():
    from transformers import LogitsProcessorList

    model = tiny("llama")
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    watched = LogProbabilities()
    with torch.no_grad():
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            logits_processor=LogitsProcessorList([watched]),
        )
        found = watched.means(made, [6, 4])
        scores = model(made).logits.float().log_softmax(-1)
    wanted = [scores[row, torch.arange(2, 2 + n), made[row, 3 : 3 + n]].mean().item() for row, n in ((0, 6), (1, 4))]
    assert found == pytest.approx(wanted, abs=1e-4)  # with a cache and without
