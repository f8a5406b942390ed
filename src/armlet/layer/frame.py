"""How positions and padding reach a site: read off the decoder's own arguments, for the time of one forward call.

The decoder calls its MLPs with hidden states alone, so a hook before the decoder's forward leaves a `Frame` for the
sites of this thread, and a hook behind it (also when the call fails) takes it away and checks that each site fired.
"""

import inspect
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from armlet.redistribution.errors import ArmletError

_thread = threading.local()  # of the module, not of a model, so that an attached model can be copied and pickled


class NotFiredError(ArmletError, RuntimeError):
    """The model ran, but ARM did not: an error, since the result would pass for a treated one."""


class Frame:
    """One forward call of a decoder.

    Args:
        batch: sequences in the call.
        positions: `[batch or 1, seq]` int64, each token's absolute position in its sequence.
        mask: `[batch, seq]` bool, False for padding; None where nothing says that there is any.
    """

    def __init__(self, batch: int, positions: Tensor, mask: Tensor | None) -> None:
        self.batch, self.positions, self.mask = batch, positions, mask
        self.fired: set[int] = set()

    def tokens(self) -> tuple[int, int]:
        """(batch, seq) of the call."""
        return self.batch, self.positions.shape[-1]


def current(key: int) -> Frame | None:
    """The frame that the attachment `key` left in this thread; None outside the decoder's forward."""
    return getattr(_thread, f"frame_{key}", None)


def watch(decoder: nn.Module, layers: Iterable[int], key: int) -> ExitStack:
    """Leaves a frame for the attachment `key` during each forward of `decoder`; closing the stack ends that.

    Raises (in the forward):
        NotFiredError: one of `layers` ran without its site.
    """
    names = tuple(inspect.signature(decoder.forward).parameters)
    expected = frozenset(layers)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _refuse_recomputation(module)
        setattr(_thread, f"frame_{key}", _frame(dict(zip(names, args, strict=False)) | kwargs))

    def behind(module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        frame = current(key)
        setattr(_thread, f"frame_{key}", None)
        if frame is not None and output is not None and frame.fired != expected:
            missing = ", ".join(map(str, sorted(expected - frame.fired)))
            raise NotFiredError(
                f"{type(module).__name__} ran, but ARM did not fire in layer {missing}: the layer was skipped, or its "
                "MLP does not call its activation module (a fused kernel?); switch that off, or detach()"
            )

    handles = ExitStack()
    for handle in (
        decoder.register_forward_pre_hook(before, with_kwargs=True),
        decoder.register_forward_hook(behind, always_call=True),
    ):
        handles.callback(handle.remove)
    return handles


def _refuse_recomputation(decoder: nn.Module) -> None:
    if decoder.training and any(getattr(module, "gradient_checkpointing", False) for module in decoder.modules()):
        raise ArmletError(
            "gradient checkpointing runs the layers again outside the decoder's forward, where positions and padding "
            "are unknown to ARM: switch it off (model.gradient_checkpointing_disable()), or detach()"
        )


def _frame(inputs: dict[str, Any]) -> Frame:
    tokens = inputs.get("input_ids")
    tokens = inputs.get("inputs_embeds") if tokens is None else tokens
    if tokens is None:
        raise ArmletError("the decoder was called without input_ids and inputs_embeds: ARM cannot tell the positions")
    cache = inputs.get("past_key_values")
    past = 0 if cache is None else cache.get_seq_length()
    batch, length = tokens.shape[:2]
    columns = past + torch.arange(length, device=tokens.device)
    attention_mask = inputs.get("attention_mask")
    if isinstance(attention_mask, dict):  # one for each kind of attention layer; the padding is the same in all
        attention_mask = attention_mask.get("full_attention", next(iter(attention_mask.values())))
    positions, mask = locate(columns, attention_mask, inputs.get("position_ids"))
    return Frame(batch, positions, mask)


def locate(columns: Tensor, attention_mask: object, position_ids: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Absolute positions `[batch or 1, seq]` and padding mask `[batch, seq]` (or None) of the tokens of one call.

    A sequence with padding is counted by its real tokens, since `generate` goes on from a wrong position behind right
    padding; any other takes the position ids that the caller gives, as packed sequences do; without them, its columns.

    Args:
        columns: `[seq]` int64, where in the cache these tokens come to stand.
        attention_mask: `[batch, past + seq]` with 0 for padding, or `[batch, 1, seq, columns]` as made for static
            caches (bool, or 0 where attended); anything else says nothing about padding.
        position_ids: `[batch or 1, seq]`, or `[axes, batch, seq]` of which the first axis is time.
    """
    given = columns[None] if position_ids is None else position_ids
    given = given[0] if given.dim() == 3 else given
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() not in (2, 4):
        return given, None
    if attention_mask.dim() == 4:
        return given, _attended(attention_mask, columns)
    real = attention_mask != 0
    counted = (real.cumsum(-1) - 1).clamp(min=0)
    here = columns.expand(len(real), -1)
    padded = ~real.all(-1, keepdim=True)
    return torch.where(padded, counted.gather(1, here), given), real.gather(1, here)


def _attended(attention_mask: Tensor, columns: Tensor) -> Tensor:
    """`[batch, seq]`: a token is real if it may attend to itself; rolling caches keep fewer columns: to anything."""
    attended = attention_mask[:, 0] if attention_mask.dtype == torch.bool else attention_mask[:, 0] == 0
    if attended.shape[-1] <= attended.shape[-2]:
        return attended.any(-1)
    return attended.gather(-1, columns[None, :, None].expand(len(attended), -1, 1)).squeeze(-1)
