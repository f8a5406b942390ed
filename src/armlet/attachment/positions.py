"""Positions and padding of the tokens in one call of a decoder, read from the arguments of that call."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.sites import UnsupportedModelError
from armlet.redistribution.errors import ArmletError

TOKENS, CACHES = ("input_ids", "inputs_embeds"), ("cache", "past_key_values")
"""The argument names of tokens and of the cache; transformers before 5.24 calls the cache `past_key_values`."""

NEEDED = {"tokens": TOKENS, "a cache": CACHES, "positions": ("position_ids",), "padding": ("attention_mask",)}
"""What ARM must know about a call → the argument names that give it."""

OTHERS = ("use_cache", "token_type_ids", "output_attentions", "output_hidden_states", "return_dict")
"""Names that give none of it: a forward that names these and `NEEDED` alone takes no argument of unknown meaning."""

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(eq=False)
class DecoderCall:
    """One forward call of a decoder."""

    batch: int  # sequences
    positions: Tensor  # `[batch or 1, seq]` int64, each token's absolute position in its sequence
    mask: Tensor | None  # `[batch, seq]` bool, False for padding; None where no argument says that there is padding
    fired: set[int] = field(default_factory=set)  # the layers in which ARM acted


def argument_names(decoder: nn.Module) -> tuple[str, ...]:
    """The names of the arguments of a decoder's forward, in order; UnsupportedModelError where `NEEDED` are unknown."""
    parameters = inspect.signature(decoder.forward).parameters
    names = tuple(name for name, parameter in parameters.items() if parameter.kind not in VARIADIC)
    known = {*OTHERS, *(name for group in NEEDED.values() for name in group)}
    lacking = [what for what, group in NEEDED.items() if not _first_name(names, group)]
    if lacking and not known.issuperset(names):
        raise UnsupportedModelError(
            f"{type(decoder).__name__}: ARM reads {lacking[0]} from the argument {' or '.join(NEEDED[lacking[0]])} of "
            f"its forward, which takes ({', '.join(parameters)}): positions would be wrong without a warning; use "
            "versions of transformers and armlet that fit each other, or report the model"
        )
    return names


def cache_argument(model: nn.Module, output: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword argument that continues from the cache in `output`, an earlier output of `model`, if it has one."""
    name = _first_name(output, CACHES)
    if not name:
        raise ArmletError(f"{type(model).__name__} returned no cache to continue from: call it with use_cache=True")
    return {_first_name(inspect.signature(model.forward).parameters, CACHES) or name: output[name]}


def read_call(inputs: Mapping[str, Any], config: object) -> DecoderCall:
    """Positions and padding of a call with the arguments `inputs`, by name; `config` is the decoder's.

    ArmletError where these arguments do not tell the positions.
    """
    tokens = _first_given(inputs, TOKENS)
    if tokens is None:
        raise ArmletError("the decoder was called without input_ids and inputs_embeds: ARM cannot tell the positions")
    for name, value in inputs.items():
        if name not in CACHES and hasattr(value, "get_seq_length"):
            raise ArmletError(f"the decoder was given a cache as {name}: ARM knows it as {' or '.join(CACHES)} alone")
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

    In a sequence with padding, positions count its valid tokens, because after right padding `generate` passes wrong
    position ids. In any other they are the caller's position ids, as for packed sequences; without those, the columns.

    Args:
        columns: `[seq]` int64, the cache columns of these tokens.
        attention_mask: `[batch, past + seq]` with 0 for padding, or `[batch or 1, 1, seq, kept]` as made for static
            caches (bool, or 0 where attended); anything else says nothing about padding.
        position_ids: `[batch or 1, seq]`, or `[axes, batch, seq]`, whose first axis is time.
        window: a four-dimensional mask excludes tokens farther back, so that it cannot count tokens beyond it.
    """
    given = columns[None] if position_ids is None else position_ids
    given = given[0] if given.dim() == 3 else given
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() not in (2, 4):
        return given, None
    if attention_mask.dim() == 2:
        every = attention_mask != 0
        here = columns.expand(len(every), -1)
        counted, valid = (every.cumsum(-1) - 1).gather(1, here), every.gather(1, here)
        padded = ~every.all(-1, keepdim=True)
    else:
        attended = attention_mask[:, 0] if attention_mask.dtype == torch.bool else attention_mask[:, 0] == 0
        counted, valid = attended.sum(-1) - 1, _attends_itself(attended, columns)
        padded = (counted < columns).any(-1, keepdim=True)
        padded = padded if window is None else padded & (columns < window)
    return torch.where(padded, counted.clamp(min=0), given), valid


def _attends_itself(attended: Tensor, columns: Tensor) -> Tensor:
    """`[batch, seq]`: whether a token attends to itself, which padding does not."""
    queries, kept = attended.shape[-2:]
    last = torch.arange(kept - queries, kept, device=columns.device)
    diagonal = torch.minimum(columns, last)  # a cache that dropped old tokens has the new ones in its last columns
    return attended.gather(-1, diagonal[None, :, None].expand(len(attended), -1, 1)).squeeze(-1)


def _check_columns(attention_mask: object, past: int | Tensor, length: int) -> None:
    # Static caches give the past as a tensor, which is not read here: that would wait for the device.
    if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2 and isinstance(past, int):
        covered = attention_mask.shape[1]
        if covered < past + length:
            fault = f"covers {covered} tokens, but {past} are in the cache and {length} are new"
            raise ArmletError(f"attention_mask {fault}: give one for all of them")


def _first_name(names: Iterable[str], known: tuple[str, ...]) -> str:
    """The first of `known` that is among `names`, or ""."""
    names = set(names)
    return next((name for name in known if name in names), "")


def _first_given(inputs: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first argument that is not None: a forward that was renamed still takes the old name."""
    return next((inputs[name] for name in names if inputs.get(name) is not None), None)
