"""Log-likelihoods: of given choices after a prompt, and of tokens while a model generates them."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from armlet.attachment.positions import cache_argument
from armlet.evaluation.engines.padding import pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutputWithPast as ModelOutput


def weigh_choices(
    model: "PreTrainedModel", prompts: Sequence[Tensor], choices: Sequence[Sequence[Sequence[int]]], temperature: float
) -> list[list[float]]:
    """The summed log-likelihood of each choice of each prompt, in nats.

    Each prompt runs once, and its choices continue from its cache: shorter choices first, in batches of as many rows as
    there are prompts, so that there is little padding and a copy of the cache is no larger than the cache.

    Args:
        model: a causal language model.
        prompts: the tokens `[s]` of each.
        choices: for each prompt, the tokens of each of its choices.
        temperature: of the logits; 1 leaves them unchanged.
    """
    ids, mask = (tensor.to(model.device) for tensor in pad(prompts, "left"))
    cached: ModelOutput = model(input_ids=ids, attention_mask=mask, position_ids=_positions(mask), logits_to_keep=1)
    owners = torch.tensor([index for index, own_choices in enumerate(choices) for _ in own_choices])
    rows = [torch.tensor(choice, dtype=torch.int64) for own_choices in choices for choice in own_choices]
    shortest_first = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    totals = [0.0] * len(rows)
    for start in range(0, len(rows), len(prompts)):
        batch = shortest_first[start : start + len(prompts)]
        tokens, valid = (tensor.to(model.device) for tensor in pad([rows[index] for index in batch], "right"))
        logits = _choice_logits(model, cached, mask, owners[batch].to(model.device), tokens, valid)
        scores = (logits.float() / temperature).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        for index, total in zip(batch, (scores * valid).sum(-1).tolist(), strict=True):
            totals[index] = total
    remaining = iter(totals)
    return [[next(remaining) for _ in own_choices] for own_choices in choices]


def _choice_logits(
    model: "PreTrainedModel", cached: "ModelOutput", mask: Tensor, owners: Tensor, tokens: Tensor, valid: Tensor
) -> Tensor:
    """`[rows, longest, vocabulary]`: the logits for each token of these choices.

    `cached` is the model's output for the prompts, `mask` `[prompts, s]` their padding mask. `owners` `[rows]` are the
    indices of the choices' prompts, `tokens` `[rows, longest]` the choices, and `valid` their padding mask.
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

    def __init__(self, start: int) -> None:
        self.start = start  # where the prompt ends
        self._last: Tensor | None = None
        self._taken: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Take `[batch, tokens so far]` and `[batch, vocabulary]` logits; return the logits unchanged."""
        self._take(input_ids)
        self._last = scores.float().log_softmax(-1)
        return scores

    def means(self, generated: Tensor, lengths: Sequence[int]) -> list[float]:
        """Each row's mean over its first `lengths` new tokens; `generated` is `[batch, start + new]`."""
        if generated.shape[1] > self.start + len(self._taken):
            self._take(generated)
        taken = torch.stack(self._taken, dim=1)
        return [float(row[:length].mean()) for row, length in zip(taken, lengths, strict=True)]

    def _take(self, ids: Tensor) -> None:
        if self._last is not None:
            index = self.start + len(self._taken)
            self._taken.append(self._last.gather(-1, ids[:, index : index + 1])[:, 0])
