"""The modules that stand at a site while ARM is there: ARM together with the module that it replaces."""

from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.module import ARM
from armlet.attachment.sites import Site
from armlet.attachment.watch import Watch


class ArmPlace(nn.Module):
    """ARM in a model, with positions and padding from the calls that `watch` follows.

    It replaces a module and is no hook: a model that was compiled before sees another type and compiles again, while it
    ignores new hooks; and a module that two layers share stays as it is in the other layer.
    """

    def __init__(self, arm: ARM, watch: Watch) -> None:
        super().__init__()
        self.arm, self.watch = arm, watch

    def redistributed(self, a: Tensor) -> Tensor:
        """`[batch, seq, width]`, or `[batch · seq, width]` where the model flattens its tokens."""
        call, arm = self.watch.current(), self.arm
        if call is None:  # outside the decoder positions count from 0
            return a if self.watch.leaves_out() else arm(a)
        call.fired.add(arm.layer)
        if a.dim() == 2:
            tokens = (call.batch, call.positions.shape[-1])
            return arm(a.view(*tokens, -1), call.positions, call.mask).view(a.shape)
        return arm(a, call.positions, call.mask)


class RedistributedOutput(ArmPlace):
    """The activation module followed by ARM."""

    def __init__(self, activation: nn.Module, arm: ARM, watch: Watch) -> None:
        super().__init__(arm, watch)
        self.activation = activation
        self.train(activation.training)

    def forward(self, gate: Tensor) -> Tensor:
        """From the gate to the activated gate, redistributed."""
        return self.redistributed(self.activation(gate))


class RedistributedInput(ArmPlace):
    """ARM followed by the linear `down`, which this module impersonates.

    The names of down's weights depend on its place in the model, so down is not a child, which would rename them. Its
    parameters, buffers and children are this module's too (the same dictionaries, so that a weight that is replaced in
    one is replaced in both), and code that walks the model's modules, such as quantisers and PEFT, meets down itself.
    """

    down: nn.Module

    def __init__(self, down: nn.Module, arm: ARM, watch: Watch) -> None:
        super().__init__(arm, watch)
        self.__dict__["down"] = down  # an assignment would make it a child
        self._parameters, self._buffers = down._parameters, down._buffers
        self._modules = down._modules | self._modules
        self.training = down.training

    def forward(self, product: Tensor, *args: Any, **kwargs: Any) -> Any:
        """From the product of activated gate and up, redistributed, to d_model."""
        return self.down(self.redistributed(product), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Copying and pickling must see this object, and a copy that is being built has no down yet.
        local = name.startswith("__") or "down" not in self.__dict__ or name in self._modules
        return super().__getattr__(name) if local else getattr(self.down, name)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Generator[tuple[str, nn.Module], None, None]:
        """Those of down, and ARM."""
        memo = set() if memo is None else memo
        yield from self.down.named_modules(memo, prefix, remove_duplicate)
        yield from self.arm.named_modules(memo, f"{prefix}.arm" if prefix else "arm", remove_duplicate)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Down's, which may contain more than its tensors."""
        return self.down.state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> "RedistributedInput":
        """Down too."""
        self.down.train(mode)
        return super().train(mode)

    def apply(self, fn: Callable[[nn.Module], None]) -> "RedistributedInput":
        """To down and its modules, and to ARM."""
        self.down.apply(fn)
        self.arm.apply(fn)
        return self

    def extra_repr(self) -> str:
        """Down's."""
        return f"{type(self.down).__name__}({self.down.extra_repr()})"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RedistributedInput":
        self.down._apply(fn, recurse)
        self.arm._apply(fn)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.down._load_from_state_dict(*args, **kwargs)


def make_arm(site: Site, **arguments: Any) -> ARM:
    """An ARM for a site, on the site's device; arguments as of `ARM`."""
    with torch.inference_mode(False):  # counters must be ordinary tensors even where the caller is in inference mode
        arm = ARM(width=site.width, layer=site.layer, **arguments)
    device = next((p.device for p in site.mlp.parameters() if p.device.type != "meta"), torch.device("cpu"))
    return arm.to(device)
