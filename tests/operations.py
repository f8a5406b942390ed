"""The operations that PyTorch runs in a model, and where ARM stands among them."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from armlet import ARM

VIEWS = re.compile(
    r"view|reshape|_unsafe_view|expand|slice|select|split|chunk|transpose|permute|^t$|unsqueeze|squeeze|clone|_to_copy|"
    r"copy_|detach|alias|index|gather|lift|contiguous|pad|cat|to|as_strided|empty|zeros|new_|where|masked|unbind"
)
"""Operations that only move values."""
PRODUCTS = ("mul", "mul_")
LINEAR = ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "_grouped_mm", "grouped_mm")
ACTIVATIONS = ("silu", "gelu", "relu", "sigmoid", "tanh", "silu_", "relu_", "gelu_", "clamp", "pow", "clamp_max", "clamp_min")


@dataclass
class Operation:
    """One operation."""

    name: str
    inputs: list[Tensor]
    output: Tensor


class Operations(TorchDispatchMode):
    """Records operations and ARM's calls, in order; what ARM does inside is left out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.steps: list[Operation] = []
        self._inside = 0
        self._hooks: list[Any] = []
        for name, module in model.named_modules():
            if isinstance(module, ARM):
                self._hooks.append(module.register_forward_pre_hook(self._enter))
                self._hooks.append(module.register_forward_hook(self._leave(name)))

    def _enter(self, _arm: nn.Module, _args: object) -> None:
        self._inside += 1

    def _leave(self, path: str) -> Any:
        def hook(_arm: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self.steps.append(Operation(f"ARM {path}", [args[0].clone()], output.clone()))
            self._inside -= 1

        return hook

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[-1]
        keep = not self._inside and not VIEWS.match(name)
        inputs = [value.clone() for value in args if isinstance(value, Tensor) and value.is_floating_point()] if keep else []
        output = func(*args, **(kwargs or {}))
        if keep and isinstance(output, Tensor) and output.is_floating_point():
            self.steps.append(Operation(name, inputs, output.clone()))
        return output

    def __exit__(self, *arguments: Any) -> None:
        super().__exit__(*arguments)
        for hook in self._hooks:
            hook.remove()


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values in the same order, whatever their shape."""
    return one.numel() == other.numel() and torch.equal(one.reshape(-1), other.reshape(-1))


def placement_problem(steps: list[Operation], index: int, site: str) -> str:
    """What is wrong with the place of the ARM at `index`; "" if nothing is."""
    arm = steps[index]
    source = next((i for i in reversed(range(index)) if same(steps[i].output, arm.inputs[0])), None)
    if source is None:
        return "no operation's result is ARM's input"
    user = next((step for step in steps[index + 1 :] if any(same(value, arm.output) for value in step.inputs)), None)
    if user is None:
        return "no operation reads ARM's output"
    if site == "product":
        factors = [step for step in steps[:source] if any(same(step.output, value) for value in steps[source].inputs)]
        if steps[source].name not in PRODUCTS or not any(step.name in (*ACTIVATIONS, *PRODUCTS) for step in factors):
            return f"ARM's input is the result of {steps[source].name}, not of activated gate times up"
        return "" if user.name in LINEAR else f"{user.name}, not down, reads ARM's output"
    if not _activation(steps, source):
        return f"ARM's input is the result of {steps[source].name}, not of an activation"
    if user.name not in PRODUCTS:
        return f"{user.name} reads ARM's output, not the product with up"
    down = next((step for step in steps[index + 1 :] if step is not user and any(same(value, user.output) for value in step.inputs)), None)
    return "" if down and down.name in LINEAR else f"{down and down.name} reads the product, not down"


def _activation(steps: list[Operation], source: int) -> bool:
    """Whether a step is an activation, or the product or clamp that ends one."""
    step = steps[source]
    if step.name in ACTIVATIONS:
        return True
    before = [other for other in steps[max(0, source - 8) : source] if any(same(other.output, value) for value in step.inputs)]
    return step.name in PRODUCTS and any(other.name in (*ACTIVATIONS, "add", *PRODUCTS) for other in before)
