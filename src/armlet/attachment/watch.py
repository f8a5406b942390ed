"""Calls of a decoder with ARM in it: the positions of each call reach the sites, and every site must fire.

A decoder passes hidden states alone to its MLPs. A hook before its forward stores the call's positions and padding for
this thread, the sites read them there, and a hook after the forward, even a failed one, removes them.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from traceback import walk_stack
from typing import Any

import torch
from torch import nn

from armlet.attachment.positions import DecoderCall, argument_names, read_call
from armlet.redistribution.errors import ArmletError

# The code of every call of a module, hooks included; None where torch implements it elsewhere.
_MODULE_CALL = getattr(nn.Module.__call__, "__code__", None)


class NotFiredError(ArmletError, RuntimeError):
    """The model ran, but ARM did not: an error, because the result would pass for a treated one."""


class Watch:
    """Follows the calls of `decoder`, in which ARM is in `layers`.

    A call that is running when ARM is switched on or off finishes as it began. One that began with ARM is in
    `_running`, and modules and hooks stay until it ends; one that began without is recognised by `leaves_out`.
    Calls of compiled code are not in `_running`: modules that are replaced do not change what such a call runs.

    Hooks are methods, not closures, so that an attached model can be copied and pickled; a copy has its own calls.
    """

    def __init__(self, decoder: nn.Module, layers: Iterable[int]) -> None:
        self.decoder, self.layers, self.names = decoder, frozenset(layers), argument_names(decoder)
        self.on = False  # whether calls that begin now get ARM; only changed under the lock
        self._reset()

    def _reset(self) -> None:
        self.lock = threading.RLock()
        self._running: set[DecoderCall] = set()
        self._installed: ExitStack | None = None
        self._thread = threading.local()

    def __getstate__(self) -> dict[str, object]:
        return {name: self.__dict__[name] for name in ("decoder", "layers", "on", "names")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._reset()

    def switch(self, on: bool, install: Callable[[ExitStack], None]) -> None:
        """From now on calls begin with ARM or without; `install` puts its modules into the model, all or none."""
        with self.lock:
            if on and self._installed is None:
                with ExitStack() as undo:
                    install(undo)
                    undo.callback(self.decoder.register_forward_pre_hook(self.before, with_kwargs=True).remove)
                    undo.callback(self.decoder.register_forward_hook(self.after, always_call=True).remove)
                    self._installed = undo.pop_all()
            self.on = on
            self._remove_if_idle()

    def current(self) -> DecoderCall | None:
        """This thread's call with ARM; None outside the decoder's forward."""
        return getattr(self._thread, "call", None)

    def leaves_out(self) -> bool:
        """Whether ARM must not act on a layer that runs without a current call.

        Such a layer runs outside its decoder, unless the decoder's forward began while ARM was off.
        """
        if not self.on or torch.compiler.is_dynamo_compiling():
            return not self.on
        calls = (frame for frame, _ in walk_stack(sys._getframe()) if frame.f_code is _MODULE_CALL)
        return any(call.f_locals.get("self") is self.decoder for call in calls)

    def before(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Reads positions and padding from the arguments of a call, and begins it."""
        self._thread.call = None
        if not self.on:
            self._remove_if_idle()
            return
        _refuse_recomputation(decoder)
        inputs = dict(zip(self.names, args, strict=False)) | kwargs
        call = read_call(inputs, getattr(decoder, "config", None))
        if torch.compiler.is_dynamo_compiling():
            self._thread.call = call
            return
        with self.lock:
            if self.on:
                self._running.add(call)
                self._thread.call = call

    def after(self, decoder: nn.Module, _args: tuple[Any, ...], output: object) -> None:
        """Ends a call, even a failed one, whose output is None; NotFiredError where a layer ran without its site."""
        call, self._thread.call = self.current(), None
        if call is None:
            return
        if not torch.compiler.is_dynamo_compiling():
            with self.lock:
                self._running.discard(call)
            # After a failure torch iterates over the hooks themselves; the next call or switch removes them.
            if output is not None:
                self._remove_if_idle()
        if output is not None and call.fired != self.layers:
            missing = ", ".join(map(str, sorted(self.layers - call.fired)))
            raise NotFiredError(
                f"{type(decoder).__name__} ran, but ARM did not fire in layer {missing}: the layer was skipped, or its "
                "MLP does not call its activation module, or down (a fused kernel?); switch that off, or detach()"
            )

    def _remove_if_idle(self) -> None:
        if self.on or torch.compiler.is_dynamo_compiling():
            return
        with self.lock:
            if self._installed is not None and not self.on and not self._running:
                self._installed.close()
                self._installed = None


def _refuse_recomputation(decoder: nn.Module) -> None:
    if decoder.training and any(getattr(module, "gradient_checkpointing", False) for module in decoder.modules()):
        raise ArmletError(
            "gradient checkpointing runs the layers again outside the decoder's forward, where positions and padding "
            "are unknown to ARM: switch it off (model.gradient_checkpointing_disable()), or detach()"
        )
