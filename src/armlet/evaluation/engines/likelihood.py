"""Log-likelihoods: of given choices after a prompt, and of tokens while a model generates them."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from armlet.attachment.positions import cache_argument
from armlet.evaluation.engines.tokens import pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutputWithPast as ModelOutput


def weigh_choices(
    model: "PreTrainedModel", prompts: Sequence[Tensor], choices: Sequence[Sequence[Sequence[int]]], temperature: float
) -> list[list[float]]:
    """The summed log-likelihood in nats of each choice's tokens after its prompt `[s]`; `temperature` is the logits'.

    Each prompt runs once, and its choices continue from its cache: shorter choices first, in batches of as many rows as
    there are prompts, so that there is little padding and a copy of the cache is no larger than the cache.
    """
    ids, mask = (tensor.to(model.device) for tensor in pad(prompts, "left"))
    cached: ModelOutput = model(input_ids=ids, attention_mask=mask, position_ids=_positions(mask), logits_to_keep=1)
    places = [(owner, index) for owner, group in enumerate(choices) for index in range(len(group))]
    places.sort(key=lambda place: len(choices[place[0]][place[1]]))
    likelihoods = [[0.0] * len(group) for group in choices]
    for start in range(0, len(places), len(prompts)):
        batch = places[start : start + len(prompts)]
        rows = [torch.tensor(choices[owner][index]) for owner, index in batch]
        tokens, valid = (tensor.to(model.device) for tensor in pad(rows, "right"))
        owners = torch.tensor([owner for owner, _ in batch], device=model.device)
        logits = _choice_logits(model, cached, mask, owners, tokens, valid)
        scores = (logits.float() / temperature).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        for (owner, index), total in zip(batch, (scores * valid).sum(-1).tolist(), strict=True):
            likelihoods[owner][index] = total
    return likelihoods


def _choice_logits(
    model: "PreTrainedModel", cached: "ModelOutput", mask: Tensor, owners: Tensor, tokens: Tensor, valid: Tensor
) -> Tensor:
    """The logits `[rows, longest, vocabulary]` for each of the choices' `tokens` `[rows, longest]`, masked by `valid`.

    `cached` is the output for the prompts, masked by `mask` `[prompts, s]`; `owners` `[rows]` are the choices' prompts.
    """
    assert cached.logits is not None
    first = cached.logits[:, -1][owners, None]
    if tokens.shape[1] == 1:
        return first
    ((name, cache),) = cache_argument(model, cached).items()
    cache = copy.deepcopy(cache)  # the next batch of choices continues from the same prompts
    cache.batch_select_indices(owners)
    whole_mask = torch.cat((mask[owners], valid[:, :-1]), dim=1)
    positions = _positions(whole_mask)[:, mask.shape[1] :]
    rest = model(input_ids=tokens[:, :-1], attention_mask=whole_mask, position_ids=positions, **{name: cache})
    return torch.cat((first, rest.logits), dim=1)


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


class LogProbabilities:
    """Records each new token's log-probability from the logits that `generate` samples from.

    It is a logits processor that changes nothing; storing the logits of all steps would fill the memory.
    """

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._taken: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Take `[batch, tokens so far]` and `[batch, vocabulary]` logits; return the logits unchanged."""
        self._take(input_ids)
        self._last = scores.float().log_softmax(-1)
        return scores

    def means(self, generated: Tensor, lengths: Sequence[int]) -> list[float]:
        """Each row's mean over its first `lengths` new tokens; `generated` is `[batch, seq + new]`."""
        self._take(generated)
        taken = torch.cat(self._taken, dim=1)
        return [float(row[:length].mean()) for row, length in zip(taken, lengths, strict=True)]

    def _take(self, ids: Tensor) -> None:
        """Keep the last token's log-probability."""
        if self._last is not None:
            self._taken.append(self._last.gather(-1, ids[:, -1:]))
