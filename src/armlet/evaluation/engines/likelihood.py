"""Log-likelihoods: of given choices behind a prompt, and of the tokens that a model has just generated."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from armlet.attachment.positions import cache_argument
from armlet.evaluation.engines.padding import pad_left, pad_right

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def weigh_choices(
    model: "PreTrainedModel", prompts: Sequence[Tensor], choices: Sequence[Sequence[Sequence[int]]], temperature: float
) -> list[list[float]]:
    """The summed log-likelihood of each choice of each prompt, in nats.

    A prompt runs once, and its choices go on from its cache: as many rows at a time as there are prompts, the shorter
    choices first, so that neither padding nor copies of the cache outgrow the batch.

    Args:
        model: a causal language model.
        prompts: the tokens `[s]` of each.
        choices: for each prompt, the tokens of each of its choices.
        temperature: of the logits; 1 leaves them.
    """
    ids, mask = (each.to(model.device) for each in pad_left(prompts))
    # Any: the call's declared result leaves out the cache.
    whole: Any = model(input_ids=ids, attention_mask=mask, position_ids=_positions(mask), logits_to_keep=1)
    owned = [(at, torch.tensor(choice, dtype=torch.int64)) for at, own in enumerate(choices) for choice in own]
    order = sorted(range(len(owned)), key=lambda at: len(owned[at][1]))
    totals = [0.0] * len(owned)
    for start in range(0, len(order), len(prompts)):
        rows = order[start : start + len(prompts)]
        owners = torch.tensor([owned[at][0] for at in rows], device=model.device)
        tokens, real = (each.to(model.device) for each in pad_right([owned[at][1] for at in rows]))
        logits = _logits(model, whole, mask, owners, tokens, real)
        scores = (logits.float() / temperature).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        for at, total in zip(rows, (scores * real).sum(-1).tolist(), strict=True):
            totals[at] = total
    given = iter(totals)
    return [[next(given) for _ in own] for own in choices]


def _logits(model: "PreTrainedModel", whole: Any, mask: Tensor, owners: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
    """`[rows, longest, vocabulary]`: what the model says before each token of these choices."""
    first = whole.logits[:, -1][owners, None]
    if tokens.shape[1] == 1:
        return first
    ((name, cache),) = cache_argument(model, whole).items()
    cache = copy.deepcopy(cache)  # the next choices go on from the same prompts
    cache.batch_select_indices(owners)
    both = torch.cat((mask[owners], real[:, :-1]), dim=1)
    positions = _positions(both)[:, mask.shape[1] :]
    rest: Any = model(input_ids=tokens[:, :-1], attention_mask=both, position_ids=positions, **{name: cache})
    return torch.cat((first, rest.logits), dim=1)


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


class LogProbabilities:
    """Reads each new token's log-probability off the logits that `generate` is about to sample from.

    A logits processor: it changes nothing. The scores of all steps together would fill the memory.

    Args:
        start: where the prompt ends.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self._last: Tensor | None = None
        self._taken: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`[batch, so far]` tokens and `[batch, vocabulary]` logits; gives the logits back."""
        self._take(input_ids)
        self._last = scores.float().log_softmax(-1)
        return scores

    def means(self, made: Tensor, lengths: Sequence[int]) -> list[float]:
        """Each row's mean over its first `lengths` new tokens; `made` is `[batch, start + new]`."""
        if made.shape[1] > self.start + len(self._taken):
            self._take(made)
        taken = torch.stack(self._taken, dim=1)
        return [float(row[:length].mean()) for row, length in zip(taken, lengths, strict=True)]

    def _take(self, ids: Tensor) -> None:
        if self._last is not None:
            at = self.start + len(self._taken)
            self._taken.append(self._last.gather(-1, ids[:, at : at + 1])[:, 0])
