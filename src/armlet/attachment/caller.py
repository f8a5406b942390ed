"""What the caller of a model passed: the arguments of the calls around a decoder, and the padding in `generate`.

A model passes other masks and position ids to its decoder than its caller passed: masks of four dimensions, in which
image tokens attend to each other, or the axes of M-RoPE. Only the caller's own arguments determine positions.
"""

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from traceback import walk_stack
from typing import Any

import torch
from torch import Tensor, nn

Arguments = Mapping[str, Any]
"""The arguments of a call by name."""

PREPARE = "prepare_inputs_for_generation"
"""The method of Hugging Face models that prepares the arguments of a step of `generate`."""

PADDING_ATTRIBUTE = "armlet_padding"
"""The attribute of a mask that `generate` made: the 2-D mask it was made from, or None if there is no padding."""

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

# Code object of `Module.__call__`, by which its stack frames are recognised; None if it is not a Python function.
_MODULE_CALL = getattr(nn.Module.__call__, "__code__", None)


class Caller:
    """Stores the arguments of the calls around `decoder` that are running in each thread.

    Its hooks are methods and partial functions, so that a model with ARM can be copied and pickled.
    """

    def __init__(self, root: nn.Module, decoder: nn.Module) -> None:
        path = next((name.split(".") for name, module in root.named_modules() if module is decoder and name), [])
        around = (root.get_submodule(".".join(path[:depth])) for depth in range(len(path)))
        # torch.compile's module passes on its arguments; traced from inside, it would be its own module a second time.
        self.around = [module for module in around if "_orig_mod" not in module._modules]
        self._thread = threading.local()

    def __getstate__(self) -> dict[str, object]:
        return {"around": self.around}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _thread=threading.local())

    def install(self, undo: list[Callable[[], object]]) -> None:
        """Adds the hooks; the steps added to `undo` remove them."""
        for module in self.around:
            begin = partial(self._begin_call, forward_names(module))
            undo.append(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
            undo.append(module.register_forward_hook(self._end_call, always_call=True).remove)
            if hasattr(module, PREPARE):
                undo.append(partial(_Preparation.of(module).remove, module))

    def outer_model(self) -> nn.Module | None:
        """The model that is running around those with hooks, if ARM was attached to a part of it."""
        outer = [module for module in running_modules() if module not in self.around and hasattr(module, PREPARE)]
        return next((module for module in outer if isinstance(module, nn.Module)), None)

    def calls(self) -> list[Arguments]:
        """The arguments of the calls around the decoder that are running in this thread, from the outside inward."""
        calls = self._calls
        if calls and not torch.compiler.is_dynamo_compiling():  # Ctrl-C ends a call, and torch runs no hook then
            running = set(running_modules())
            calls = tuple(call for call in calls if call[0] in running)
        return [arguments for _, arguments in calls]

    @property
    def _calls(self) -> tuple[tuple[nn.Module, Arguments], ...]:
        return getattr(self._thread, "calls", ())

    def _begin_call(
        self, names: tuple[str, ...], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        arguments = dict.fromkeys(names) | dict(zip(names, args, strict=False)) | kwargs
        if "decoder_input_ids" in names:  # an encoder reads the others
            arguments = {name.removeprefix("decoder_"): arguments[name] for name in arguments if "decoder_" in name}
        self._thread.calls = (*_outside(self._calls, module), (module, arguments))

    def _end_call(self, module: nn.Module, _args: tuple[Any, ...], _output: object) -> None:
        self._thread.calls = _outside(self._calls, module)


def _outside(
    calls: tuple[tuple[nn.Module, Arguments], ...], module: nn.Module
) -> tuple[tuple[nn.Module, Arguments], ...]:
    """The calls outside of a module's, if it is in a call."""
    for index, (caller, _) in enumerate(calls):
        if caller is module:
            return calls[:index]
    return calls


class _Preparation:
    """A model's `prepare_inputs_for_generation`, which also stores in masks what they were made from.

    It stands in the model's `__dict__` while an attachment needs it, and has the signature that `generate` reads.
    """

    def __init__(self, model: nn.Module) -> None:
        self.prepare: Callable[..., dict[str, Any]] = getattr(model, PREPARE)
        self.is_own = PREPARE in vars(model)  # else it is a method of the class
        self.attachments = 0

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.prepare)

    @staticmethod
    def of(model: nn.Module) -> "_Preparation":
        """The one in a model, for one attachment more."""
        preparation = vars(model).get(PREPARE)
        if not isinstance(preparation, _Preparation):
            preparation = vars(model)[PREPARE] = _Preparation(model)
        preparation.attachments += 1
        return preparation

    def remove(self, model: nn.Module) -> None:
        """Ends one attachment's use; after the last, the model has its own again."""
        self.attachments -= 1
        if self.attachments or vars(model).get(PREPARE) is not self:  # someone wrapped this, or replaced it
            return
        del vars(model)[PREPARE]
        if self.is_own:
            vars(model)[PREPARE] = self.prepare

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        prepared = self.prepare(*args, **kwargs)
        for name in ("attention_mask", "decoder_attention_mask"):
            mask_of_model, padding = prepared.get(name), kwargs.get(name)
            if mask_of_model is not padding and padding_of(mask_of_model) is None:
                for mask in mask_parts(mask_of_model):
                    setattr(mask, PADDING_ATTRIBUTE, padding)
        return prepared


def padding_of(attention_mask: object) -> Tensor | None:
    """A mask with a column for each token, if this is one."""
    return attention_mask if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2 else None


def mask_parts(attention_mask: object) -> list[Any]:
    """The mask, or the masks of each kind of attention layer, without None."""
    masks = attention_mask.values() if isinstance(attention_mask, dict) else (attention_mask,)
    return [mask for mask in masks if mask is not None]


def forward_names(module: nn.Module) -> tuple[str, ...]:
    """The names of the arguments of a module's forward, in order, without *args and **kwargs."""
    parameters = inspect.signature(module.forward).parameters
    return tuple(name for name, parameter in parameters.items() if parameter.kind not in VARIADIC)


def running_modules() -> Iterator[object]:
    """The modules whose forward is running in this thread, from the inside outward."""
    module_frames = (frame for frame, _ in walk_stack(sys._getframe()) if frame.f_code is _MODULE_CALL)
    return (frame.f_locals.get("self") for frame in module_frames)
