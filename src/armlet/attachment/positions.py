"""Positions and padding of the tokens in one call of a decoder, read from what its caller passed."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.caller import PADDING_ATTRIBUTE, Arguments, forward_names, mask_parts, padding_of
from armlet.attachment.expert_rows import ExpertRows
from armlet.attachment.sites import Part, UnsupportedModelError
from armlet.redistribution.backends.interception import captured
from armlet.redistribution.errors import ArmletError
from armlet.redistribution.rows import Policy

TOKENS, CACHES = ("input_ids", "inputs_embeds"), ("cache", "past_key_values")
"""The argument names of tokens and of the cache, which transformers before 5.24 calls `past_key_values`."""

REQUIRED_ARGUMENTS = {"tokens": TOKENS, "cache": CACHES, "positions": ("position_ids",), "padding": ("attention_mask",)}
"""Each input that ARM needs → the argument names that can provide it."""

OTHER_ARGUMENTS = ("use_cache", "token_type_ids", "output_attentions", "output_hidden_states", "return_dict")
"""Known arguments that ARM does not need. A forward with only these and the required ones has no unknown argument."""

PACKED = "cu_seq_lens_q"
"""The argument with the bounds of packed sequences, `[sequences + 1]`, which `generate_batch` passes."""

UNKNOWN_PADDING = "an attention mask of four dimensions, or a block mask, does not show which tokens are padding"
PASS_PADDING = "pass the attention_mask with a column for each token, to the model to which ARM is attached"


@dataclass(eq=False)
class DecoderCall:
    """One forward call of a decoder."""

    batch: int  # sequences
    positions: Tensor  # `[batch or 1, seq]` int64, each token's absolute position in its sequence
    mask: Tensor | None  # `[batch, seq]` bool, False for padding; None if there is none, or it is unknown
    fired: set[Part] = field(default_factory=set)  # the sites at which ARM acted
    rows: dict[Part, ExpertRows] = field(default_factory=dict)  # of the experts that run now, by site
    policies: Sequence[Policy] = ()  # with which the call started, of each placement
    starts: Tensor | None = None  # `[batch or 1, seq]` bool, True where a sequence starts; None: at the rows' starts
    padding_known: bool = True
    _lengths: list[int] | None = None  # of packed sequences, read once in a call; empty if nothing is packed

    def packed_lengths(self, scope: str) -> list[int] | None:
        """The number of tokens of each sequence, row by row, if statistics over this scope must be taken by sequence.

        Raises ArmletError if that is impossible, or if the scope needs padding, which is unknown.
        """
        if scope == "token":
            return None
        if not self.padding_known:
            raise ArmletError(f"scope {scope!r}: {UNKNOWN_PADDING}; {PASS_PADDING}")
        if self.starts is None:
            return None
        if torch.compiler.is_dynamo_compiling() or captured(self.starts):
            none = ~self.starts[:, 1:].any()
            torch.ops.aten._assert_async.msg(none, f"scope {scope!r} does not work on packed rows when compiled")
            return None
        if self._lengths is None:
            self._lengths = self._read_lengths(self.starts)
        if self._lengths and scope == "call":
            raise ArmletError(
                "scope 'call' would mix the sequences packed in one row, whose position ids restart: use another scope"
            )
        return self._lengths or None

    def _read_lengths(self, starts: Tensor) -> list[int]:
        """The numbers of tokens of packed sequences, empty if nothing is packed; waits for a GPU."""
        if not starts[:, 1:].any():
            return []
        sequences = starts.expand(self.batch, -1).flatten().cumsum(0)
        return sequences.unique_consecutive(return_counts=True)[1].tolist()


def argument_names(decoder: nn.Module, label: str) -> tuple[str, ...]:
    """Argument names of a decoder's forward, in order; raises UnsupportedModelError, after `label`, without one."""
    names = forward_names(decoder)
    known_names = {*OTHER_ARGUMENTS, *(name for group in REQUIRED_ARGUMENTS.values() for name in group)}
    missing = [purpose for purpose, group in REQUIRED_ARGUMENTS.items() if not _first_name(names, group)]
    # Only a hand-written decoder without a cache needs no more than its tokens.
    if missing and ("cache" not in missing or not known_names.issuperset(names)):
        expected = " or ".join(REQUIRED_ARGUMENTS[missing[0]])
        raise UnsupportedModelError(
            f"{label}: the forward of {type(decoder).__name__}({', '.join(names)}) has no argument {expected}, from "
            f"which ARM reads the {missing[0]}; positions would be silently wrong, so it cannot be attached to this "
            "decoder. If an older or newer transformers has the argument, use that"
        )
    return names


def cache_argument(model: nn.Module, output: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword argument with which `model` continues from the cache in `output`; raises ArmletError without one."""
    name = _first_name(output, CACHES)
    if not name:
        raise ArmletError(f"{type(model).__name__} returned no cache to continue from: call it with use_cache=True")
    return {_first_name(inspect.signature(model.forward).parameters, CACHES) or name: output[name]}


def read_call(
    outer_calls: Sequence[Arguments],
    inputs: Arguments,
    axes: int = 0,
    outer_model: Callable[[], nn.Module | None] = lambda: None,
) -> DecoderCall:
    """Reads positions and padding mask of a decoder's call.

    Args:
        outer_calls: the arguments of the calls around it, from the outside inward.
        inputs: the decoder's own arguments.
        axes: see `mrope_axes`.
        outer_model: returns a model around these calls, whose arguments are not known.

    Raises:
        ArmletError: the arguments do not determine the positions.
    """
    tokens = _first_given(inputs, TOKENS)
    if tokens is None:
        raise ArmletError("called with neither input_ids nor inputs_embeds, so ARM cannot determine positions")
    for name, value in inputs.items():
        if name not in CACHES and hasattr(value, "get_seq_length"):
            raise ArmletError(f"the decoder was passed a cache as {name}: ARM only knows {' or '.join(CACHES)}")
    batch, length = tokens.shape[:2]
    if inputs.get(PACKED) is not None:
        return _packed_call(inputs, batch, length, axes)
    caller = next((call for call in outer_calls if _has_tokens(call, (batch, length))), inputs)
    caller = inputs if _other_padding(caller, inputs) else caller
    position_ids = _text_positions(caller.get("position_ids"), axes)
    cache = _first_given(inputs, CACHES)
    past = 0 if cache is None else cache.get_seq_length()
    columns = past + torch.arange(length, device=tokens.device)
    padding, padding_known = _padding(caller.get("attention_mask"), inputs.get("attention_mask"), past, length)
    if not padding_known:
        if position_ids is None:
            raise ArmletError(f"{UNKNOWN_PADDING}, and there are no position_ids: {PASS_PADDING}")
        if not torch.compiler.is_dynamo_compiling() and (model := outer_model()):
            raise ArmletError(f"{UNKNOWN_PADDING}; attach to the model that you call, {type(model).__name__}")
        return DecoderCall(batch, position_ids, None, starts=_starts(position_ids, None), padding_known=False)
    positions, mask, starts = locate(columns, padding, position_ids)
    _refuse_packed_axes(caller.get("position_ids"), axes, mask)
    return DecoderCall(batch, positions, None if mask is None else mask.expand(batch, -1), starts=starts)


def mrope_axes(config: object) -> int:
    """The number of axes of M-RoPE's position ids; 0 without M-RoPE."""
    return len((getattr(config, "rope_parameters", None) or {}).get("mrope_section", ()))


def locate(
    columns: Tensor, padding: Tensor | None, position_ids: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Absolute positions, the padding mask and the starts of sequences of one call's tokens.

    A token's position is the number of valid tokens before it. In a packed row, in which position ids are not
    consecutive, it is the caller's position id. Other position ids are ignored: some models count from 1, and
    `generate` passes wrong ones after right padding.

    Args:
        columns: `[seq]` int64, the cache columns of these tokens.
        padding: `[batch or 1, past + seq]` with 0 for padding, or None if there is none.
        position_ids: `[batch or 1, seq]` as passed by the caller, or None.

    Returns:
        Positions `[batch or 1, seq]`; the mask, likewise, None without padding; bool `[batch or 1, seq]`, True where a
        sequence starts, None if all start where their rows do.
    """
    positions, valid = columns[None], None
    if padding is not None:
        valid_columns = padding != 0
        token_columns = columns.expand(len(valid_columns), -1)
        positions = (valid_columns.cumsum(-1) - 1).gather(1, token_columns).clamp(min=0)
        valid = valid_columns.gather(1, token_columns)
    starts = None if position_ids is None else _starts(position_ids, valid)
    if starts is not None and position_ids is not None:
        positions = torch.where(starts[:, 1:].any(-1, keepdim=True), position_ids, positions)
    return positions, valid, starts


def _starts(position_ids: Tensor, valid: Tensor | None) -> Tensor | None:
    """Bool `[batch or 1, seq]`: the row's start, and valid tokens whose position id does not follow the last one's."""
    if position_ids.shape[-1] < 2:
        return None
    return nn.functional.pad(_steps(position_ids, valid) != 1, (1, 0), value=True)


def _steps(position_ids: Tensor, valid: Tensor | None) -> Tensor:
    """By how much each id but the first is above that of the valid token before; 1 for padding and without such one."""
    if valid is None:
        return position_ids.diff(dim=-1)
    columns = torch.arange(valid.shape[-1], device=valid.device)
    before = torch.where(valid, columns, -1).cummax(-1).values[:, :-1]
    ids = position_ids.expand(len(valid), -1)
    steps = ids[:, 1:] - ids.gather(1, before.clamp(min=0))
    return torch.where(valid[:, 1:] & (before >= 0), steps, 1)


def _packed_call(inputs: Arguments, batch: int, length: int, axes: int) -> DecoderCall:
    """A call with the bounds of its sequences, one row after another; tokens after the last sequence are padding."""
    position_ids, bounds = _text_positions(inputs.get("position_ids"), axes), inputs[PACKED]
    if position_ids is None:
        raise ArmletError(f"the decoder was passed packed sequences ({PACKED}) without position_ids of text: pass both")
    tokens = torch.arange(batch * length, device=position_ids.device).view(batch, length)
    return DecoderCall(batch, position_ids, tokens < bounds[-1], starts=torch.isin(tokens, bounds[:-1]))


def _other_padding(caller: Arguments, inputs: Arguments) -> bool:
    """Whether a module between the caller and the decoder passed on another padding mask, as one that sorts rows does.

    While compiling or in a CUDA graph, when values cannot be compared, another tensor counts as another mask.
    """
    outer, inner = padding_of(caller.get("attention_mask")), padding_of(inputs.get("attention_mask"))
    if outer is None or inner is None or outer is inner or outer.shape != inner.shape:
        return False
    if torch.compiler.is_dynamo_compiling() or captured(inner):
        return True
    return not torch.equal(outer.to(inner.device) != 0, inner != 0)


def _has_tokens(call: Arguments, shape: tuple[int, int]) -> bool:
    """Whether a call has as many tokens as its decoder, so that its masks and position ids are for the same tokens."""
    tokens = _first_given(call, TOKENS)
    return tokens is not None and tuple(tokens.shape[:2]) == shape and "attention_mask" in call


def _text_positions(position_ids: object, axes: int) -> Tensor | None:
    """Position ids `[batch or 1, seq]`: not the axes of M-RoPE, but the text's axis that may come before them."""
    if not isinstance(position_ids, Tensor):
        return None
    if position_ids.dim() == 3:
        return position_ids[0] if axes and len(position_ids) == axes + 1 else None
    return position_ids


def _refuse_packed_axes(position_ids: object, axes: int, valid: Tensor | None) -> None:
    """Raises ArmletError if M-RoPE's first axis, time, goes back in a row, which it does not do in one sequence."""
    if not axes or not isinstance(position_ids, Tensor) or position_ids.dim() != 3 or len(position_ids) != axes:
        return
    if torch.compiler.is_dynamo_compiling() or captured(position_ids):
        return
    if (_steps(position_ids[0], valid) < 0).any():
        raise ArmletError(
            "position_ids with the axes of M-RoPE restart, so a row has several sequences, and they do not show the "
            "positions in each: pass the positions of text before them, as a first axis"
        )


def _padding(caller_mask: Any, decoder_mask: Any, past: int | Tensor, length: int) -> tuple[Tensor | None, bool]:
    """The mask with a column for each token, None without padding, and whether it is known."""
    first = next(iter(mask_parts(caller_mask)), None)
    caller_padding = getattr(first, PADDING_ATTRIBUTE, first)
    given = [mask for mask in map(padding_of, (caller_padding, decoder_mask)) if mask is not None]
    if not given:
        return None, caller_padding is None
    covering = [mask for mask in given if _covers(mask, past, length)]
    if not covering:
        tokens = f"there are {past} cached and {length} new tokens"
        raise ArmletError(f"attention_mask has {given[0].shape[1]} columns, but {tokens}; pass one that covers both")
    return covering[0], True


def _covers(mask: Tensor, past: int | Tensor, length: int) -> bool:
    # Static caches return the length as a tensor, which is not read on another device, to avoid a synchronisation.
    is_known = isinstance(past, int) or (past.device.type == "cpu" and not torch.compiler.is_dynamo_compiling())
    return mask.shape[1] >= (int(past) if is_known else 0) + length


def _first_name(names: Iterable[str], candidates: tuple[str, ...]) -> str:
    """The first of `candidates` that is in `names`, or ""."""
    names = set(names)
    return next((name for name in candidates if name in names), "")


def _first_given(inputs: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of `names` that is not None; a forward whose argument was renamed may still accept the old name."""
    return next((inputs[name] for name in names if inputs.get(name) is not None), None)
