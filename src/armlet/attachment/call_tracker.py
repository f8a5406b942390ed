"""Tracks forward calls of a decoder with ARM attached: passes token positions to the sites, and checks that all ran.

A decoder passes only hidden states to its MLPs. A forward pre-hook stores the call's positions and padding mask in
thread-local storage, where the sites read them. A forward hook removes them, even if the call fails.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import torch
from torch import nn

from armlet.attachment.caller import Caller, running_modules
from armlet.attachment.positions import DecoderCall, argument_names, mrope_axes, read_call
from armlet.attachment.sites import Part
from armlet.redistribution.errors import ArmletError
from armlet.redistribution.rows import Policy

Undo = list[Callable[[], object]]
"""Steps that remove ARM from a model, run from the last to the first; a copy of the model has copies of them."""


class NotFiredError(ArmletError, RuntimeError):
    """The model ran but ARM did not, so the output would be mistaken for a treated one.

    The message names the layers. Switch off what skips them or what replaces their MLP (early exit, a fused kernel), or
    call `detach`.
    """


class CallTracker:
    """Tracks the forward calls of `decoder`, with ARM attached to `parts`; `policies` are those of its placements.

    A call that is running when ARM is switched on or off finishes in the mode in which it started. Calls that started
    with ARM are in `_running`; modules and hooks stay installed until they end. Calls that started without it are
    detected by `should_skip`. Compiled calls are not tracked, because replacing modules does not affect a running one.

    Each call keeps the policies with which it started. Hooks and undo steps are methods and partial functions, not
    closures, so that an attached model can be copied and pickled; a copy has its own calls.
    """

    def __init__(self, model: nn.Module, decoder: nn.Module, parts: Iterable[Part], policies: Sequence[Policy]) -> None:
        self.decoder, self.parts = decoder, frozenset(parts)
        self.names = argument_names(decoder, f"{type(model).__name__}, layer {min(self.parts)[0]}")
        self.caller, self.mrope_axes = Caller(model, decoder), mrope_axes(getattr(decoder, "config", None))
        self.policies = tuple(policies)  # of calls that start now; only changed under the lock, as `enabled`
        self.enabled = False  # whether calls that start now use ARM
        self.before_call: list[Callable[[], None]] = []  # run before each call, while ARM is in the model
        self.owner: object = None  # the attachment, which so lives as long as ARM is in the model
        self._undo: Undo | None = None  # while ARM is in the model
        self._reset()

    def _reset(self) -> None:
        self.lock = threading.RLock()
        self._running: set[DecoderCall] = set()
        self._thread = threading.local()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("lock", "_running", "_thread")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._reset()

    def set_enabled(self, enabled: bool, install: Callable[[Undo], None]) -> None:
        """Sets whether later calls use ARM. `install` puts ARM's modules into the model, either all or none."""
        self._end_interrupted_call()
        with self.lock:
            if enabled and self._undo is None:
                with ExitStack() as failing:
                    undo: Undo = []
                    failing.callback(_run_all, undo)
                    install(undo)
                    self.caller.install(undo)
                    undo.append(self.decoder.register_forward_pre_hook(self.begin_call, with_kwargs=True).remove)
                    undo.append(self.decoder.register_forward_hook(self.end_call, always_call=True).remove)
                    failing.pop_all()
                self._undo = undo
            self.enabled = enabled
            self._uninstall_if_unused()

    def current_call(self) -> DecoderCall | None:
        """The ARM call running in this thread, or None outside the decoder's forward."""
        return getattr(self._thread, "call", None)

    def _end_interrupted_call(self) -> None:
        """Ends this thread's call if Ctrl-C has ended it: torch runs no hook then, not even with `always_call`."""
        call = self.current_call()
        if call is not None and not self._is_in_forward():
            with self.lock:
                self._running.discard(call)
            self._thread.call = None

    def _is_in_forward(self) -> bool:
        """Whether this thread is in the decoder's forward."""
        return any(module is self.decoder for module in running_modules())

    def should_skip(self) -> bool:
        """Whether ARM should skip a layer that runs without a current call.

        While ARM is on, it acts on a layer that runs outside its decoder, and skips one whose decoder's forward started
        while ARM was off. While ARM is off, it skips both.
        """
        if not self.enabled or torch.compiler.is_dynamo_compiling():
            return not self.enabled
        return self._is_in_forward()

    def begin_call(self, decoder: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Forward pre-hook: reads positions and padding mask from the arguments, and starts to track the call."""
        interrupted, self._thread.call = self.current_call(), None  # a call that Ctrl-C has ended; else None
        if not self.enabled:
            self._uninstall_if_unused()
            return
        _reject_gradient_checkpointing(decoder)
        inputs = dict(zip(self.names, args, strict=False)) | kwargs
        call = read_call(self.caller.calls(), inputs, self.mrope_axes, self.caller.outer_model)
        if torch.compiler.is_dynamo_compiling():
            self._prepare_sites()
            call.policies, self._thread.call = self.policies, call
            return
        with self.lock:
            self._running.discard(interrupted)
            if self.enabled:
                self._prepare_sites()
                call.policies = self.policies
                self._running.add(call)
                self._thread.call = call

    def _prepare_sites(self) -> None:
        for step in self.before_call:
            step()

    def end_call(self, decoder: nn.Module, _args: tuple[object, ...], output: object) -> None:
        """Forward hook: ends a call (output None if it failed); raises NotFiredError if ARM did not run in a layer."""
        call, self._thread.call = self.current_call(), None
        if call is None:
            return
        if not torch.compiler.is_dynamo_compiling():
            with self.lock:
                self._running.discard(call)
            # After a failure torch is iterating over the hooks; the next call or `set_enabled` removes them.
            if output is not None:
                self._uninstall_if_unused()
        if output is not None and call.fired != self.parts:
            missing = sorted({layer for layer, *_ in self.parts - call.fired})
            raise NotFiredError(
                f"{type(decoder).__name__} ran, but ARM did not run in layers {missing}: they were skipped, or "
                "their MLP does not call its activation module or `down` (fused kernel?); disable the skipping or the "
                "kernel, or detach()"
            )

    def _uninstall_if_unused(self) -> None:
        if self.enabled or torch.compiler.is_dynamo_compiling():
            return
        with self.lock:
            if self._undo is not None and not self.enabled and not self._running:
                _run_all(self._undo)
                self._undo = None


def _run_all(undo: Undo) -> None:
    with ExitStack() as steps:  # which runs all of them, even if one fails
        for step in undo:
            steps.callback(step)


def _reject_gradient_checkpointing(decoder: nn.Module) -> None:
    if decoder.training and any(getattr(module, "gradient_checkpointing", False) for module in decoder.modules()):
        raise ArmletError(
            "gradient checkpointing re-runs layers outside the decoder's forward, where ARM does not know positions "
            "and padding; disable it (model.gradient_checkpointing_disable()) or detach()"
        )
