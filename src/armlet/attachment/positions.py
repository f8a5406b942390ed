"""Positions and padding of the tokens in one call of a decoder, read from the arguments of that call."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.expert_rows import ExpertRows
from armlet.attachment.sites import UnsupportedModelError
from armlet.redistribution.errors import ArmletError
from armlet.redistribution.rows import Policy

TOKENS, CACHES = ("input_ids", "inputs_embeds"), ("cache", "past_key_values")
"""The argument names of tokens and of the cache, which transformers before 5.24 calls `past_key_values`."""

REQUIRED_ARGUMENTS = {"tokens": TOKENS, "cache": CACHES, "positions": ("position_ids",), "padding": ("attention_mask",)}
"""Each input that ARM needs → the argument names that can provide it."""

OTHER_ARGUMENTS = ("use_cache", "token_type_ids", "output_attentions", "output_hidden_states", "return_dict")
"""Known arguments that ARM does not need. A forward with only these and the required ones has no unknown argument."""

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(eq=False)
class DecoderCall:
    """One forward call of a decoder."""

    batch: int  # sequences
    positions: Tensor  # `[batch or 1, seq]` int64, each token's absolute position in its sequence
    mask: Tensor | None  # `[batch, seq]` bool, False for padding; None if no argument marks padding
    fired: set[tuple[int, int]] = field(default_factory=set)  # layer and number of the sites at which ARM acted
    rows: ExpertRows | None = None  # of the experts that run now
    policy: Policy | None = None  # the policy with which the call started, in all of its layers


def argument_names(decoder: nn.Module) -> tuple[str, ...]:
    """Argument names of a decoder's forward, in order; raises UnsupportedModelError if one may be renamed."""
    parameters = inspect.signature(decoder.forward).parameters
    names = tuple(name for name, parameter in parameters.items() if parameter.kind not in VARIADIC)
    known_names = {*OTHER_ARGUMENTS, *(name for group in REQUIRED_ARGUMENTS.values() for name in group)}
    missing = [purpose for purpose, group in REQUIRED_ARGUMENTS.items() if not _first_name(names, group)]
    if missing and not known_names.issuperset(names):
        expected = " or ".join(REQUIRED_ARGUMENTS[missing[0]])
        raise UnsupportedModelError(
            f"{type(decoder).__name__}: forward({', '.join(parameters)}) has no argument {expected}, from which ARM "
            f"reads the {missing[0]}; positions would be silently wrong. Use versions of transformers and armlet that "
            "match, or open an issue"
        )
    return names


def cache_argument(model: nn.Module, output: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword argument with which `model` continues from the cache in `output`; raises ArmletError without one."""
    name = _first_name(output, CACHES)
    if not name:
        raise ArmletError(f"{type(model).__name__} returned no cache to continue from: call it with use_cache=True")
    return {_first_name(inspect.signature(model.forward).parameters, CACHES) or name: output[name]}


def read_call(inputs: Mapping[str, Any], config: object) -> DecoderCall:
    """Reads positions and padding mask from named arguments; raises ArmletError if they do not determine positions."""
    tokens = _first_given(inputs, TOKENS)
    if tokens is None:
        raise ArmletError("called with neither input_ids nor inputs_embeds, so ARM cannot determine positions")
    for name, value in inputs.items():
        if name not in CACHES and hasattr(value, "get_seq_length"):
            raise ArmletError(f"the decoder was passed a cache as {name}: ARM only knows {' or '.join(CACHES)}")
    batch, length = tokens.shape[:2]
    attention_mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
    if attention_mask is None and isinstance(positions, Tensor) and positions.dim() == 2:
        return DecoderCall(batch, positions, None)  # what `locate` would return; `generate` passes it for new tokens
    cache = _first_given(inputs, CACHES)
    past = 0 if cache is None else cache.get_seq_length()
    window = getattr(config, "sliding_window", None)
    if isinstance(attention_mask, dict):  # one mask for each kind of attention layer
        window = None if "full_attention" in attention_mask else window
        attention_mask = attention_mask.get("full_attention", next(iter(attention_mask.values())))
    _check_columns(attention_mask, past, length)
    columns = past + torch.arange(length, device=tokens.device)
    positions, mask = locate(columns, attention_mask, positions, window=window)
    return DecoderCall(batch, positions, None if mask is None else mask.expand(batch, -1))


def locate(
    columns: Tensor, attention_mask: object, position_ids: Tensor | None, *, window: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Absolute positions `[batch or 1, seq]` and padding mask `[batch or 1, seq]` (or None) of the tokens of one call.

    For a padded sequence, a token's position is the number of valid tokens before it, because `generate` passes wrong
    position ids after right padding. Otherwise it is the caller's position id (packed sequences), or the cache column
    if none was passed.

    Args:
        columns: `[seq]` int64, the cache columns of these tokens.
        attention_mask: `[batch, past + seq]` with 0 for padding, or `[batch or 1, 1, seq, columns]` as made for static
            caches (bool, or additive with 0 for attended); anything else does not mark padding.
        position_ids: `[batch or 1, seq]`, or `[axes, batch, seq]`, whose first axis is time.
        window: sliding-window size; a 4-D mask hides older tokens, so positions beyond it cannot be counted from it.
    """
    fallback = columns[None] if position_ids is None else position_ids
    fallback = fallback[0] if fallback.dim() == 3 else fallback
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() not in (2, 4):
        return fallback, None
    if attention_mask.dim() == 2:
        valid_columns = attention_mask != 0
        token_columns = columns.expand(len(valid_columns), -1)
        counted_positions = (valid_columns.cumsum(-1) - 1).gather(1, token_columns)
        valid = valid_columns.gather(1, token_columns)
        padded = ~valid_columns.all(-1, keepdim=True)
    else:
        attended = attention_mask[:, 0] if attention_mask.dtype == torch.bool else attention_mask[:, 0] == 0
        counted_positions, valid = attended.sum(-1) - 1, _attends_itself(attended, columns)
        padded = (counted_positions < columns).any(-1, keepdim=True)
        padded = padded if window is None else padded & (columns < window)
    return torch.where(padded, counted_positions.clamp(min=0), fallback), valid


def _attends_itself(attended: Tensor, columns: Tensor) -> Tensor:
    """`[batch, seq]` bool: True for tokens that attend to themselves; padding does not."""
    queries, keys = attended.shape[-2:]
    last = torch.arange(keys - queries, keys, device=columns.device)
    diagonal = torch.minimum(columns, last)  # a cache that dropped old tokens has the new ones in its last columns
    return attended.gather(-1, diagonal[None, :, None].expand(len(attended), -1, 1)).squeeze(-1)


def _check_columns(attention_mask: object, past: int | Tensor, length: int) -> None:
    # Static caches return the length as a tensor, not read here to avoid a device synchronisation.
    if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2 and isinstance(past, int):
        covered = attention_mask.shape[1]
        if covered < past + length:
            tokens = f"there are {past} cached and {length} new tokens"
            raise ArmletError(f"attention_mask has {covered} columns, but {tokens}; pass one that covers both")


def _first_name(names: Iterable[str], candidates: tuple[str, ...]) -> str:
    """The first of `candidates` that is in `names`, or ""."""
    names = set(names)
    return next((name for name in candidates if name in names), "")


def _first_given(inputs: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of `names` that is not None; a forward whose argument was renamed may still accept the old name."""
    return next((inputs[name] for name in names if inputs.get(name) is not None), None)
