"""Log-likelihoods of choices after a prompt, and of tokens during generation."""

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


def choice_loglikelihoods(
    model: "PreTrainedModel", prompts: Sequence[Tensor], choices: Sequence[Sequence[Sequence[int]]], temperature: float
) -> list[list[float]]:
    """The summed log-likelihood in nats of each choice's tokens after its prompt `[s]`; `temperature` divides logits.

    Each prompt runs once, and its choices continue from its cache; in a model with states that cannot continue so, a
    prompt runs with each choice. Choices are batched by length, which saves padding, and a batch has as many rows as
    there are prompts, so that a copy of the cache is no larger than the cache.
    """
    ids, mask = (tensor.to(model.device) for tensor in pad(prompts, "left"))
    cached: ModelOutput = model(input_ids=ids, attention_mask=mask, position_ids=_positions(mask), logits_to_keep=1)
    continues = _choices_continue(model, cached)
    indices = [(prompt, index) for prompt, group in enumerate(choices) for index in range(len(group))]
    indices.sort(key=lambda pair: len(choices[pair[0]][pair[1]]))
    loglikelihoods = [[0.0] * len(group) for group in choices]
    for start in range(0, len(indices), len(prompts)):
        batch = indices[start : start + len(prompts)]
        rows = [torch.tensor(choices[prompt][index]) for prompt, index in batch]
        tokens, valid = (tensor.to(model.device) for tensor in pad(rows, "right"))
        prompt_rows = torch.tensor([prompt for prompt, _ in batch], device=model.device)
        if continues:
            logits = _choice_logits(model, cached, mask, prompt_rows, tokens, valid)
        else:
            logits = _whole_logits(model, ids[prompt_rows], mask[prompt_rows], tokens, valid)
        scores = (logits.float() / temperature).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        for (prompt, index), total in zip(batch, scores.where(valid != 0, 0).sum(-1).tolist(), strict=True):
            loglikelihoods[prompt][index] = total
    return loglikelihoods


def _choice_logits(
    model: "PreTrainedModel", cached: "ModelOutput", mask: Tensor, prompt_rows: Tensor, tokens: Tensor, valid: Tensor
) -> Tensor:
    """The logits `[rows, longest, vocabulary]` for each of the choices' `tokens` `[rows, longest]`, masked by `valid`.

    `cached` is the output for the prompts, masked by `mask` `[prompts, s]`; `prompt_rows` `[rows]` are their indices.
    """
    assert cached.logits is not None
    first = cached.logits[:, -1][prompt_rows, None]
    if tokens.shape[1] == 1:
        return first
    ((name, cache),) = cache_argument(model, cached).items()
    cache = copy.deepcopy(cache)  # the next batch of choices continues from the same prompts
    cache.batch_select_indices(prompt_rows)
    whole_mask = torch.cat((mask[prompt_rows], valid[:, :-1]), dim=1)
    positions = _positions(whole_mask)[:, mask.shape[1] :]
    rest = model(input_ids=tokens[:, :-1], attention_mask=whole_mask, position_ids=positions, **{name: cache})
    return torch.cat((first, rest.logits), dim=1)


def _whole_logits(model: "PreTrainedModel", ids: Tensor, mask: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
    """As `_choice_logits`, from each choice's prompt, `ids` and `mask` `[rows, s]`, and the choice in one call."""
    whole_mask = torch.cat((mask, valid[:, :-1]), dim=1)
    whole = torch.cat((ids, tokens[:, :-1]), dim=1)
    output: ModelOutput = model(
        input_ids=whole, attention_mask=whole_mask, position_ids=_positions(whole_mask), use_cache=False
    )
    assert output.logits is not None
    return output.logits[:, ids.shape[1] - 1 :]


def _choices_continue(model: "PreTrainedModel", cached: "ModelOutput") -> bool:
    """Whether several tokens can continue from the cache, and its rows can be selected: not with recurrent states."""
    (cache,) = cache_argument(model, cached).values()
    selectable = all(hasattr(layer, "batch_select_indices") for layer in getattr(cache, "layers", ()))
    return selectable and not getattr(model, "_is_stateful", False)


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


class LogProbabilities:
    """Records each new token's log-probability from the logits that `generate` samples from.

    It is a logits processor that changes nothing. Storing the logits of all steps would fill the memory.
    """

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._recorded: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Records the last token of `[batch, tokens so far]`; returns the `[batch, vocabulary]` logits unchanged."""
        self._record(input_ids)
        self._last = scores.float().log_softmax(-1)
        return scores

    def means(self, generated: Tensor, lengths: Sequence[int]) -> list[float]:
        """The mean over the first `lengths` new tokens of each row; `generated` is `[batch, seq + new]`."""
        self._record(generated)
        recorded = torch.cat(self._recorded, dim=1)
        return [float(row[:length].mean()) for row, length in zip(recorded, lengths, strict=True)]

    def _record(self, ids: Tensor) -> None:
        """Records the log-probability of the last token."""
        if self._last is not None:
            self._recorded.append(self._last.gather(-1, ids[:, -1:]))
