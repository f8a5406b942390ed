"""The modules that stand at a site while ARM is there: ARM, and the module that stood there before."""

from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment import positions as frame
from armlet.attachment.module import ARM
from armlet.attachment.sites import GATE, Site


class Place(nn.Module):
    """ARM in a model, with positions and padding from the frame of its attachment `key`.

    A module in another one's place rather than a hook: a model that was compiled before sees the other type and
    compiles anew, while it does not look at hooks; and a module that two layers share stays as it is in the other one.
    """

    def __init__(self, arm: ARM, key: str) -> None:
        super().__init__()
        self.arm, self.key = arm, key

    def redistributed(self, a: Tensor) -> Tensor:
        """`[batch, seq, width]`, or `[batch · seq, width]` where the model flattens its tokens."""
        call = frame.current(self.key)
        arm = self.arm
        if call is None:  # the layer runs outside its decoder: positions count from 0
            return arm(a)
        call.fired.add(arm.layer)
        if a.dim() == 2:
            return arm(a.view(*call.tokens(), -1), call.positions, call.mask).view(a.shape)
        return arm(a, call.positions, call.mask)


class Redistributed(Place):
    """The activation module and ARM behind it, in the place of the activation module."""

    def __init__(self, activation: nn.Module, arm: ARM, key: str) -> None:
        super().__init__(arm, key)
        self.activation = activation
        self.train(activation.training)

    def forward(self, gate: Tensor) -> Tensor:
        """From the gate to the activated gate, redistributed."""
        return self.redistributed(self.activation(gate))


class RedistributedInput(Place):
    """The linear `down` and ARM before it, in the place of down, and passing for it.

    Down has weights, and their names are those of its place: it is no child, which would rename them. Its parameters,
    buffers and children are this module's too (the same dictionaries, so that a weight that is replaced is replaced in
    both), and whoever walks the model's modules meets down itself, of its own type, as do quantisers and PEFT.
    """

    down: nn.Module

    def __init__(self, down: nn.Module, arm: ARM, key: str) -> None:
        super().__init__(arm, key)
        self.__dict__["down"] = down  # an assignment would make it a child
        self._parameters, self._buffers = down._parameters, down._buffers
        self._modules = down._modules | self._modules
        self.training = down.training

    def forward(self, product: Tensor, *args: Any, **kwargs: Any) -> Any:
        """From the product of activated gate and up, redistributed, to d_model."""
        return self.down(self.redistributed(product), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # How an object is copied and pickled is its own affair; and a copy in the making has no down yet.
        own = name.startswith("__") or "down" not in self.__dict__ or name in self._modules
        return super().__getattr__(name) if own else getattr(self.down, name)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Generator[tuple[str, nn.Module], None, None]:
        """Down and what is in it, and ARM."""
        memo = set() if memo is None else memo
        yield from self.down.named_modules(memo, prefix, remove_duplicate)
        yield from self.arm.named_modules(memo, f"{prefix}.arm" if prefix else "arm", remove_duplicate)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Down's, which may have more in it than its tensors."""
        return self.down.state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> "RedistributedInput":
        """Down too."""
        self.down.train(mode)
        return super().train(mode)

    def apply(self, fn: Callable[[nn.Module], None]) -> "RedistributedInput":
        """Down and what is in it, and ARM."""
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


def make_place(site: Site, arm: ARM, key: str) -> Place:
    """ARM together with the module that stands at the site now; nothing is put anywhere."""
    return (Redistributed if site.site == GATE else RedistributedInput)(site.module, arm, key)


def make_arm(site: Site, **arguments: Any) -> ARM:
    """An ARM for a site, on the site's device; arguments as of `ARM`."""
    with torch.inference_mode(False):  # counters must be ordinary tensors even where the caller is in inference mode
        arm = ARM(width=site.width, layer=site.layer, **arguments)
    device = next((p.device for p in site.mlp.parameters() if p.device.type != "meta"), torch.device("cpu"))
    return arm.to(device)
