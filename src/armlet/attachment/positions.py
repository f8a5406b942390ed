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

from armlet.attachment.sites import UnsupportedModelError
from armlet.redistribution.errors import ArmletError

TOKENS, CACHES = ("input_ids", "inputs_embeds"), ("cache", "past_key_values")
"""The names under which decoders take these; transformers calls the cache `past_key_values` before 5.24."""

NEEDED = {"tokens": TOKENS, "a cache": CACHES, "positions": ("position_ids",), "padding": ("attention_mask",)}
"""What a frame is made of."""

OTHERS = ("use_cache", "token_type_ids", "output_attentions", "output_hidden_states", "return_dict")
"""Names that stand for nothing of that: a forward which names nothing else takes nothing by a name unknown here."""

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

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


def current(key: str) -> Frame | None:
    """The frame that the attachment `key` left in this thread; None outside the decoder's forward."""
    return getattr(_thread, key, None)


class Watch:
    """Leaves a frame for the attachment `key` during each forward of `decoder`, and checks that `layers` fired.

    Its hooks are methods, not closures, so that an attached model can be pickled.

    Raises:
        UnsupportedModelError: the decoder's forward takes tokens, cache or positions under names unknown here, so that
            a frame would be wrong.
    """

    def __init__(self, decoder: nn.Module, layers: Iterable[int], key: str) -> None:
        self.names = _understood(decoder)
        self.expected, self.key = frozenset(layers), key

    def install(self, decoder: nn.Module) -> ExitStack:
        """Hooks into `decoder`; closing the stack takes the hooks out."""
        hooks = ExitStack()
        hooks.callback(decoder.register_forward_pre_hook(self.before, with_kwargs=True).remove)
        hooks.callback(decoder.register_forward_hook(self.behind, always_call=True).remove)
        return hooks

    def before(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Reads positions and padding off the call."""
        _refuse_recomputation(decoder)
        setattr(
            _thread,
            self.key,
            _frame(dict(zip(self.names, args, strict=False)) | kwargs, getattr(decoder, "config", None)),
        )

    def behind(self, decoder: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        """Takes the frame away, also where the call failed (then there is no output).

        Raises:
            NotFiredError: a layer ran without its site.
        """
        frame = current(self.key)
        setattr(_thread, self.key, None)
        if frame is not None and output is not None and frame.fired != self.expected:
            missing = ", ".join(map(str, sorted(self.expected - frame.fired)))
            raise NotFiredError(
                f"{type(decoder).__name__} ran, but ARM did not fire in layer {missing}: the layer was skipped, or its "
                "MLP does not call its activation module, or down (a fused kernel?); switch that off, or detach()"
            )


def going_on(model: nn.Module, output: Any) -> dict[str, Any]:
    """The argument with which `model` goes on from the cache of `output`, of a call of it, whatever that is called.

    Raises:
        ArmletError: there is no cache in the output.
    """
    given = _name(output.keys(), CACHES)
    if not given:
        raise ArmletError(f"{type(model).__name__} gave no cache to go on from: call it with use_cache=True")
    return {_name(inspect.signature(model.forward).parameters, CACHES) or given: output[given]}


def _name(names: Iterable[str], known: tuple[str, ...]) -> str:
    """The first of `known` that there is, or ""."""
    names = set(names)
    return next((name for name in known if name in names), "")


def _understood(decoder: nn.Module) -> tuple[str, ...]:
    """The names of the arguments of its forward, in order."""
    signature = inspect.signature(decoder.forward)
    names = tuple(name for name, given in signature.parameters.items() if given.kind not in VARIADIC)
    known = {*OTHERS, *(name for group in NEEDED.values() for name in group)}
    lacking = [what for what, group in NEEDED.items() if not _name(names, group)]
    if lacking and not known.issuperset(names):
        raise UnsupportedModelError(
            f"{type(decoder).__name__}: ARM reads {lacking[0]} off {' or '.join(NEEDED[lacking[0]])} of its forward, "
            f"which takes ({', '.join(signature.parameters)}): it would go wrong without a word; use versions of "
            "transformers and armlet that fit each other, or report the model"
        )
    return names


def _refuse_recomputation(decoder: nn.Module) -> None:
    if decoder.training and any(getattr(module, "gradient_checkpointing", False) for module in decoder.modules()):
        raise ArmletError(
            "gradient checkpointing runs the layers again outside the decoder's forward, where positions and padding "
            "are unknown to ARM: switch it off (model.gradient_checkpointing_disable()), or detach()"
        )


def _frame(inputs: dict[str, Any], config: Any) -> Frame:
    tokens = _given(inputs, TOKENS)
    if tokens is None:
        raise ArmletError("the decoder was called without input_ids and inputs_embeds: ARM cannot tell the positions")
    for name, value in inputs.items():
        if name not in CACHES and hasattr(value, "get_seq_length"):
            raise ArmletError(f"the decoder was given a cache as {name}: ARM knows it as {' or '.join(CACHES)} alone")
    batch, length = tokens.shape[:2]
    attention_mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
    if attention_mask is None and isinstance(positions, Tensor) and positions.dim() == 2:
        return Frame(batch, positions, None)  # as `locate` says; what `generate` gives for each new token
    cache = _given(inputs, CACHES)
    past = 0 if cache is None else cache.get_seq_length()
    window = getattr(config, "sliding_window", None)
    if isinstance(attention_mask, dict):  # one for each kind of attention layer
        window = None if "full_attention" in attention_mask else window
        attention_mask = attention_mask.get("full_attention", next(iter(attention_mask.values())))
    _check_columns(attention_mask, past, length)
    columns = past + torch.arange(length, device=tokens.device)
    positions, mask = locate(columns, attention_mask, positions, window=window)
    return Frame(batch, positions, None if mask is None else mask.expand(batch, -1))


def _given(inputs: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first that the caller gave; a forward that was renamed still takes the old name."""
    return next((inputs[name] for name in names if inputs.get(name) is not None), None)


def _check_columns(attention_mask: object, past: int | Tensor, length: int) -> None:
    # Static caches hold the past as a tensor, which is not read here: that would wait for the device.
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() != 2 or not isinstance(past, int):
        return
    covered = attention_mask.shape[1]
    if covered < past + length:
        raise ArmletError(
            f"attention_mask covers {covered} tokens, but {past} are in the cache and {length} are new: "
            "give one for all of them"
        )


def locate(
    columns: Tensor, attention_mask: object, position_ids: Tensor | None, *, window: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Absolute positions `[batch or 1, seq]` and padding mask `[batch or 1, seq]` (or None) of the tokens of one call.

    A sequence with padding is counted by its real tokens, since `generate` goes on from a wrong position behind right
    padding; any other takes the position ids that the caller gives, as packed sequences do; without them, its columns.

    Args:
        columns: `[seq]` int64, where in the cache these tokens come to stand.
        attention_mask: `[batch, past + seq]` with 0 for padding, or `[batch or 1, 1, seq, kept]` as made for static
            caches (bool, or 0 where attended); anything else says nothing about padding.
        position_ids: `[batch or 1, seq]`, or `[axes, batch, seq]` of which the first axis is time.
        window: a four-dimensional mask leaves out what is farther back; tokens beyond it cannot be counted by it.
    """
    given = columns[None] if position_ids is None else position_ids
    given = given[0] if given.dim() == 3 else given
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() not in (2, 4):
        return given, None
    if attention_mask.dim() == 2:
        real = attention_mask != 0
        here = columns.expand(len(real), -1)
        counted, real = (real.cumsum(-1) - 1).gather(1, here), real.gather(1, here)
        padded = ~(attention_mask != 0).all(-1, keepdim=True)
    else:
        attended = attention_mask[:, 0] if attention_mask.dtype == torch.bool else attention_mask[:, 0] == 0
        counted, real = attended.sum(-1) - 1, _own(attended, columns)
        padded = (counted < columns).any(-1, keepdim=True)
        padded = padded if window is None else padded & (columns < window)
    return torch.where(padded, counted.clamp(min=0), given), real


def _own(attended: Tensor, columns: Tensor) -> Tensor:
    """`[batch, seq]`: whether a token attends to itself, which padding does not; a cache that rolls has it last."""
    queries, kept = attended.shape[-2:]
    rolled = torch.arange(kept - queries, kept, device=columns.device)
    own = torch.minimum(columns, rolled)
    return attended.gather(-1, own[None, :, None].expand(len(attended), -1, 1)).squeeze(-1)
