"""The modules that `attach` puts at a site: ARM together with the module that it replaces."""

from collections.abc import Callable, Generator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.call_tracker import CallTracker
from armlet.attachment.gate_formula import current_formula
from armlet.attachment.module import ARM
from armlet.attachment.positions import DecoderCall
from armlet.attachment.sites import ForwardSite, Site
from armlet.attachment.tensor_parallel import own_part, whole_width, width_mesh
from armlet.redistribution.errors import ArmletError
from armlet.redistribution.rows import Policy


class ArmWrapper(nn.Module):
    """ARM and the module it replaces, with positions and padding mask from `tracker`.

    ARM replaces a module instead of adding a hook, because a compiled model compiles again for a new module type but
    ignores new hooks, and because a module that two layers share stays unchanged in the other layer.
    """

    def __init__(self, site: Site, arm: ARM, tracker: CallTracker) -> None:
        super().__init__()
        self.arm, self.tracker, self.part = arm, tracker, site.key
        self.site = site  # not a module, so the MLP does not become a child of this one
        self.mesh = width_mesh(site)

    def redistributed(self, a: Tensor) -> Tensor:
        """Applies ARM to `[batch, seq, width]`, or `[batch · seq, width]` if the model flattens its tokens.

        With tensor parallelism, `a` and the result may be this rank's part of the width.
        """
        if self.mesh is None or a.shape[-1] == self.arm.width:
            return self._redistributed(a)
        return own_part(self._redistributed(whole_width(a, self.mesh, self.arm.width)), self.mesh)

    def _redistributed(self, a: Tensor) -> Tensor:
        call, arm = self.tracker.current_call(), self.arm
        if call is None:  # outside the decoder, positions start at 0
            _refuse_recomputation()
            return a if self.tracker.should_skip() else arm(a)
        call.fired.add(self.part)
        tokens = a.view(call.batch, call.positions.shape[-1], -1) if a.dim() == 2 else a
        if lengths := call.packed_lengths(arm.scope):
            return self._by_sequence(tokens, call, lengths).view(a.shape)
        return arm(tokens, call.positions, call.mask, policy=self._policy(call)).view(a.shape)

    def _policy(self, call: DecoderCall) -> Policy:
        """The policy with which the call started."""
        return call.policies[self.site.placement]

    def _by_sequence(self, a: Tensor, call: DecoderCall, lengths: list[int]) -> Tensor:
        """Applies ARM to rows of several sequences, as if there were a row for each."""
        mask = a.new_ones(a.shape[:2], dtype=torch.bool) if call.mask is None else call.mask

        def rows(tokens: Tensor) -> Tensor:
            flat = tokens.expand(*a.shape[:2], *tokens.shape[2:]).flatten(0, 1)
            return nn.utils.rnn.pad_sequence([*flat.split(lengths)], batch_first=True)

        values = self.arm(rows(a), rows(call.positions), rows(mask), policy=self._policy(call))
        return torch.cat([row[:length] for row, length in zip(values, lengths, strict=True)])


def _put_back(wrapper: ArmWrapper, replaced: nn.Module) -> None:
    """Puts the replaced module back, with the adapters and accelerate's hooks that were added since."""
    if "_hf_hook" in vars(wrapper):
        from accelerate.hooks import add_hook_to_module, remove_hook_from_module

        hook: Any = vars(wrapper)["_hf_hook"]
        remove_hook_from_module(wrapper)
        add_hook_to_module(replaced, hook, append=True)
    for module in [wrapper.site.mlp, *wrapper.site.module.modules()]:
        module._modules |= {name: replaced for name, child in module._modules.items() if child is wrapper}


class RedistributedOutput(ArmWrapper):
    """The activation, a module or a function, followed by ARM."""

    def __init__(self, site: Site, arm: ARM, tracker: CallTracker) -> None:
        super().__init__(site, arm, tracker)
        self.activation: Callable[[Tensor], Tensor] = getattr(site.mlp, site.attribute)
        self.train(site.mlp.training)

    @property
    def without_arm(self) -> Callable[[Tensor], Tensor]:
        """The activation, for a trial of the module's code."""
        return self.activation

    def take_out(self) -> None:
        """Puts the activation back."""
        if isinstance(self.activation, nn.Module):
            _put_back(self, self.activation)
        else:  # a function, which cannot take a module's place
            delattr(self.site.mlp, self.site.attribute)
            setattr(self.site.mlp, self.site.attribute, self.activation)

    def forward(self, gate: Tensor) -> Tensor:
        """Returns the redistributed activated gate."""
        return self.redistributed(self.activation(gate))


class RedistributedForward(ArmWrapper):
    """The forward of an MLP with its activation inside, and with ARM after that."""

    def __init__(self, site: ForwardSite, arm: ARM, tracker: CallTracker) -> None:
        super().__init__(site, arm, tracker)
        self.gated = site.gated
        self.train(site.mlp.training)

    def put_in(self) -> None:
        """Puts `forward` in the place of the class's; this into the model, so that it follows to another device."""
        vars(self.site.mlp)["forward"] = self.forward
        self.site.mlp.add_module("arm", self)

    def take_out(self) -> None:
        """Uncovers the class's forward, also below accelerate's, which was put on later."""
        attributes = vars(self.site.mlp)
        if attributes.get("_old_forward") == self.forward:
            attributes["_old_forward"] = MethodType(type(self.site.mlp).forward, self.site.mlp)
        else:
            delattr(self.site.mlp, "forward")
        delattr(self.site.mlp, "arm")

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """Returns the MLP's output, for its only argument, with a redistributed activated gate."""
        (x,), mlp = (*args, *kwargs.values()), self.site.mlp
        outputs = [mlp.get_submodule(name)(x) for name in self.gated.linears]
        activated, other = current_formula(mlp).factors(torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0])
        return mlp.get_submodule(self.gated.down)(self.redistributed(activated) * other)


class RedistributedLinear(ArmWrapper):
    """ARM before or after a linear, which this module impersonates.

    The linear is not registered as a child, which would rename its weights. Both modules use the same dictionaries of
    parameters and buffers, so a weight replaced in one is replaced in both, and this module has the linear's children.
    Code that walks the model's modules, such as PEFT, finds the linear itself, or this module, which is of its class
    to `isinstance`. Code that compares types leaves it alone, such as torch's dynamic quantisation: run it before.
    """

    linear: nn.Module

    def __init__(self, site: Site, arm: ARM, tracker: CallTracker) -> None:
        super().__init__(site, arm, tracker)
        self._impersonate(site.module)

    def _impersonate(self, linear: nn.Module) -> None:
        self.__dict__["linear"] = linear  # plain assignment would register it as a child
        self._parameters, self._buffers = linear._parameters, linear._buffers
        self._modules = linear._modules | {"arm": self.arm}
        self.training = self.arm.training = linear.training

    def take_out(self) -> None:
        """Puts the linear back."""
        _put_back(self, self.linear)

    def settle(self) -> None:
        """Puts this module around an adapter that was put around it, so that ARM acts on what it gets or adds."""
        if self.site.mlp._modules.get(self.site.attribute) is self:
            return
        if torch.compiler.is_dynamo_compiling():
            raise ArmletError(
                f"layer {self.site.layer}: {self.site.attribute} was replaced after attach(site={self.site.site!r}); "
                "call the model once without compiling, so that ARM acts on the new module, or detach()"
            )
        self.take_out()
        self._impersonate(self.site.module)
        setattr(self.site.mlp, self.site.attribute, self)

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride] - nobody sets it
        """The class of the linear, for `isinstance`, by which PEFT chooses an adapter; `type` tells the truth."""
        return type(self.linear) if "linear" in vars(self) else type(self)

    def __reduce_ex__(self, _protocol: object) -> tuple[Callable[..., object], tuple[type], dict[str, object]]:
        return _blank, (type(self),), self.__dict__  # the default one compares `__class__` with the type

    def _get_name(self) -> str:
        return type(self).__name__

    def __getattr__(self, name: str) -> Any:
        # Copying and pickling must see this object, and a copy under construction does not have the linear yet.
        local = name.startswith("__") or "linear" not in self.__dict__ or name in self._modules
        return super().__getattr__(name) if local else getattr(self.linear, name)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Generator[tuple[str, nn.Module], None, None]:
        """Yields the modules of the linear, and ARM."""
        memo = set() if memo is None else memo
        yield from self.linear.named_modules(memo, prefix, remove_duplicate)
        yield from self.arm.named_modules(memo, f"{prefix}.arm" if prefix else "arm", remove_duplicate)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The state dict of the linear, which may contain more than its tensors."""
        return self.linear.state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> "RedistributedLinear":
        """Sets the mode of the linear too."""
        self.linear.train(mode)
        return super().train(mode)

    def apply(self, fn: Callable[[nn.Module], None]) -> "RedistributedLinear":
        """Applies `fn` to the linear and its modules, and to ARM."""
        self.linear.apply(fn)
        self.arm.apply(fn)
        return self

    def extra_repr(self) -> str:
        """Describes the linear in `print(model)`."""
        return f"{type(self.linear).__name__}({self.linear.extra_repr()})"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RedistributedLinear":
        self.linear._apply(fn, recurse)
        self.arm._apply(fn)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.linear._load_from_state_dict(*args, **kwargs)


def _blank(kind: type[RedistributedLinear]) -> RedistributedLinear:
    return kind.__new__(kind)


class RedistributedInput(RedistributedLinear):
    """ARM on the product of activated gate and up, followed by the linear down."""

    def forward(self, product: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Redistributes the product, and applies down."""
        return self.linear(self.redistributed(product), *args, **kwargs)


class RedistributedUp(RedistributedLinear):
    """The linear up, or gate and up in one, followed by ARM on the output of up."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Applies the linear, and redistributes the output of up."""
        output: Tensor = self.linear(x, *args, **kwargs)
        if self.site.half is None:
            return self.redistributed(output)
        parts = list(output.chunk(2, -1))
        parts[self.site.half] = self.redistributed(parts[self.site.half].contiguous())
        return torch.cat(parts, -1)


def _refuse_recomputation() -> None:
    if not torch.compiler.is_dynamo_compiling() and torch._C._current_graph_task_id() != -1:
        raise ArmletError(
            "activation checkpointing re-runs a layer in the backward pass, outside the decoder's forward, where ARM "
            "does not know positions and padding, so that gradients would be wrong: disable it, or detach()"
        )
