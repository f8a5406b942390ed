"""The modules that `attach` puts at a site: ARM together with the module that it replaces."""

from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.call_tracker import CallTracker
from armlet.attachment.module import ARM
from armlet.attachment.sites import Site


class ArmWrapper(nn.Module):
    """ARM and the module it replaces, with positions and padding mask from `tracker`.

    ARM replaces a module instead of adding a hook, because a compiled model compiles again for a new module type but
    ignores new hooks, and because a module that two layers share stays unchanged in the other layer.
    """

    def __init__(self, arm: ARM, tracker: CallTracker) -> None:
        super().__init__()
        self.arm, self.tracker = arm, tracker

    def redistributed(self, a: Tensor) -> Tensor:
        """Applies ARM to `[batch, seq, width]`, or `[batch · seq, width]` if the model flattens its tokens."""
        call, arm = self.tracker.current_call(), self.arm
        if call is None:  # outside the decoder, positions start at 0
            return a if self.tracker.should_skip() else arm(a)
        call.fired.add(arm.layer)
        if a.dim() == 2:
            tokens = (call.batch, call.positions.shape[-1])
            return arm(a.view(*tokens, -1), call.positions, call.mask, policy=call.policy).view(a.shape)
        return arm(a, call.positions, call.mask, policy=call.policy)


class RedistributedOutput(ArmWrapper):
    """The activation module followed by ARM."""

    def __init__(self, activation: nn.Module, arm: ARM, tracker: CallTracker) -> None:
        super().__init__(arm, tracker)
        self.activation = activation
        self.train(activation.training)

    def forward(self, gate: Tensor) -> Tensor:
        """Returns the redistributed activated gate."""
        return self.redistributed(self.activation(gate))


class RedistributedInput(ArmWrapper):
    """ARM followed by the linear `down`, which this module impersonates.

    `down` is not registered as a child, which would rename its weights. Both modules use the same dictionaries of
    parameters and buffers, so a weight replaced in one is replaced in both, and this module has the children of `down`.
    Code that walks the model's modules, such as quantisers and PEFT, finds `down` itself.
    """

    down: nn.Module

    def __init__(self, down: nn.Module, arm: ARM, tracker: CallTracker) -> None:
        super().__init__(arm, tracker)
        self.__dict__["down"] = down  # plain assignment would register it as a child
        self._parameters, self._buffers = down._parameters, down._buffers
        self._modules = down._modules | self._modules
        self.training = arm.training = down.training

    def forward(self, product: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Redistributes the product of activated gate and up, and applies `down`."""
        return self.down(self.redistributed(product), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Copying and pickling must see this object, and a copy under construction does not have `down` yet.
        local = name.startswith("__") or "down" not in self.__dict__ or name in self._modules
        return super().__getattr__(name) if local else getattr(self.down, name)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Generator[tuple[str, nn.Module], None, None]:
        """Yields the modules of `down`, and ARM."""
        memo = set() if memo is None else memo
        yield from self.down.named_modules(memo, prefix, remove_duplicate)
        yield from self.arm.named_modules(memo, f"{prefix}.arm" if prefix else "arm", remove_duplicate)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The state dict of `down`, which may contain more than its tensors."""
        return self.down.state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> "RedistributedInput":
        """Sets the mode of `down` too."""
        self.down.train(mode)
        return super().train(mode)

    def apply(self, fn: Callable[[nn.Module], None]) -> "RedistributedInput":
        """Applies `fn` to `down` and its modules, and to ARM."""
        self.down.apply(fn)
        self.arm.apply(fn)
        return self

    def extra_repr(self) -> str:
        """Describes `down` in `print(model)`."""
        return f"{type(self.down).__name__}({self.down.extra_repr()})"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RedistributedInput":
        self.down._apply(fn, recurse)
        self.arm._apply(fn)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.down._load_from_state_dict(*args, **kwargs)


def make_arm(site: Site, **arguments: Any) -> ARM:
    """Makes the ARM of a site on the site's device; see `ARM` for the arguments."""
    with torch.inference_mode(False):  # counters must be ordinary tensors even if the caller is in inference mode
        arm = ARM(width=site.width, layer=site.layer, **arguments)
    device = next((p.device for p in site.mlp.parameters() if p.device.type != "meta"), torch.device("cpu"))
    return arm.to(device)
