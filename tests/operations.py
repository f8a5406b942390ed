"""The operations that PyTorch runs in a model, and where ARM stands among them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from armlet import ARM

MOVES = re.compile(
    r"_?(unsafe_)?(view|reshape|expand|slice|select|split|chunk|transpose|permute|t$|unsqueeze|squeeze|clone|to_copy|to$|"
    r"copy|detach|alias|index|gather|lift|contiguous|constant_pad|cat|as_strided|empty|zeros|new_|where|masked|unbind)"
)
"""Operations that only move values."""
MULTIPLICATIONS = ("mul", "mul_")
LINEAR = ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "_grouped_mm", "grouped_mm")
ACTIVATIONS = ("silu", "gelu", "relu", "sigmoid", "tanh", "clamp", "clamp_max", "pow", "silu_", "relu_", "gelu_")
BOUNDS = ("clamp", "clamp_", "clamp_min", "clamp_max", "add")
SOFTCAP = ("div", "tanh", "mul")
"""What a model does to up before the product: a clamp or an addition of 1, or all of a softcap."""
GATES = ("silu", "gelu", "relu", "sigmoid", "tanh")
FEED_FORWARD = re.compile(r"mlp|ffn|feed_?forward|expert|moe|glu", re.IGNORECASE)
"""Parts of the names of modules in which a layer has its MLP."""


@dataclass
class Operation:
    """One operation, or one call of an ARM, whose name is "ARM"."""

    name: str
    path: str  # of the module that ran it
    inputs: list[Tensor]
    output: Tensor


class Operations(TorchDispatchMode):
    """Records operations and ARM's calls, in order; what ARM does inside is left out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.steps: list[Operation] = []
        self._names = {module: name for name, module in model.named_modules()}
        self._running: list[nn.Module] = []
        self._arms = 0

    def __enter__(self) -> "Operations":
        self._hooks = [
            register_module_forward_pre_hook(self._begin),
            register_module_forward_hook(self._end, always_call=True),
        ]
        return super().__enter__()

    def __exit__(self, *arguments: Any) -> None:
        super().__exit__(*arguments)
        for hook in self._hooks:
            hook.remove()

    def _begin(self, module: nn.Module, _args: object) -> None:
        self._running.append(module)
        self._arms += isinstance(module, ARM)

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._running.pop()
        if isinstance(module, ARM):
            self._arms -= 1
            self.steps.append(Operation("ARM", self._names[module], [args[0].clone()], output.clone()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[-1]
        keep = not self._arms and not MOVES.match(name)
        inputs = [value.clone() for value in args if is_float(value)] if keep else []
        output = func(*args, **(kwargs or {}))
        if keep and is_float(output):
            path = next((self._names[module] for module in reversed(self._running) if module in self._names), "")
            self.steps.append(Operation(name, path, inputs, output.clone()))
        return output


def is_float(value: object) -> bool:
    """Whether a value is a tensor of floats."""
    return isinstance(value, Tensor) and value.is_floating_point()


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values in the same order, whatever their shape."""
    return one.numel() == other.numel() and torch.equal(one.reshape(-1), other.reshape(-1))


def reader(steps: list[Operation], index: int, value: Tensor) -> int | None:
    """The index of the first operation after `index` that reads a value."""
    return next((i for i in range(index + 1, len(steps)) if any(same(value, given) for given in steps[i].inputs)), None)


def placement_problem(steps: list[Operation], index: int, site: str) -> str:
    """What is wrong with the place of the ARM at `index`; "" if nothing is."""
    if site == "up":
        return up_problem(steps, index)
    arm = steps[index]
    source = next((i for i in reversed(range(index)) if same(steps[i].output, arm.inputs[0])), None)
    user = reader(steps, index, arm.output)
    if source is None or user is None:
        return "no operation computes ARM's input" if source is None else "no operation reads ARM's output"
    if site == "product":
        if steps[source].name not in MULTIPLICATIONS:
            return f"ARM's input comes from {steps[source].name}, not from activated gate times up"
        return "" if steps[user].name in LINEAR else f"{steps[user].name}, not down, reads ARM's output"
    if not is_activation(steps, source):
        return f"ARM's input comes from {steps[source].name}, not from an activation"
    if steps[user].name == "clamp":  # Step-3.7 bounds the activated gate
        user = reader(steps, user, steps[user].output) or user
    if steps[user].name not in MULTIPLICATIONS:
        return f"{steps[user].name} reads ARM's output, not the product with up"
    return "" if down_of(steps, user) else "the product does not reach down"


def up_problem(steps: list[Operation], index: int) -> str:
    """What is wrong with the place of the ARM at `index`, if it is that of up; "" if nothing is."""
    source = next((i for i in reversed(range(index)) if has_columns(steps[i].output, steps[index].inputs[0])), None)
    if source is None or not is_linear(steps, source):
        name = "no operation" if source is None else steps[source].name
        return f"ARM's input comes from {name}, not from the linear up"
    product, value = product_with_up(steps, index)
    if product is None or steps[product].name not in MULTIPLICATIONS:
        name = "no operation" if product is None else steps[product].name
        return f"{name} reads ARM's output, not the product with the activated gate"
    others = [producer(steps, product, given) for given in steps[product].inputs if not same(given, value)]
    if not any(other is not None and is_bounded_activation(steps, other) for other in others):
        return f"{steps[product].name} multiplies ARM's output, but not with an activated gate"
    return "" if down_of(steps, product) else "the product does not reach down"


def product_with_up(steps: list[Operation], index: int) -> tuple[int | None, Tensor]:
    """The first operation that reads the output of the ARM at `index`, after the model's own clamp or + 1; and that."""
    value = steps[index].output
    user = reader(steps, index, value)
    while user is not None and (last := _end_of_bound(steps, user)) is not None:
        value = steps[last].output
        user = reader(steps, last, value)
    return user, value


def _end_of_bound(steps: list[Operation], index: int) -> int | None:
    """The last operation of the clamp, addition or softcap that begins at `index`; None if there is none."""
    if steps[index].name in BOUNDS:
        return index
    chain: list[int | None] = [index]
    for name in SOFTCAP:
        last = chain[-1]
        if last is None or steps[last].name != name or len(steps[last].inputs) > 1:
            return None
        chain.append(reader(steps, last, steps[last].output))
    return chain[-2]


def producer(steps: list[Operation], index: int, value: Tensor) -> int | None:
    """The index of the last operation before `index` that returned a value."""
    return next((i for i in reversed(range(index)) if same(steps[i].output, value)), None)


def has_columns(whole: Tensor, value: Tensor) -> bool:
    """Whether a value is all of a tensor, or one half of its columns, of gate and up in one linear."""
    if whole.numel() != 2 * value.numel() or whole.shape[-1] != 2 * value.shape[-1]:
        return same(whole, value)
    return any(same(half, value) for half in (*whole.chunk(2, -1), whole[..., ::2], whole[..., 1::2]))


def is_linear(steps: list[Operation], index: int) -> bool:
    """Whether an operation is a linear, or adds its bias to one."""
    if steps[index].name in ("add", "add_"):
        linears = [producer(steps, index, given) for given in steps[index].inputs]
        return any(linear is not None and steps[linear].name in LINEAR for linear in linears)
    return steps[index].name in LINEAR


def is_bounded_activation(steps: list[Operation], index: int) -> bool:
    """Whether an operation is an activation, or a clamp of one, as in Step-3.7."""
    if steps[index].name not in BOUNDS:
        return is_activation(steps, index)
    before = producer(steps, index, steps[index].inputs[0])
    return before is not None and steps[before].name not in BOUNDS and is_activation(steps, before)


def is_activation(steps: list[Operation], index: int) -> bool:
    """Whether an operation is an activation, or a multiplication that ends one, as in x · sigmoid(x)."""
    step = steps[index]
    before = [other for other in steps[max(0, index - 8) : index] if any(same(other.output, v) for v in step.inputs)]
    ends = step.name in MULTIPLICATIONS and any(
        other.name in (*ACTIVATIONS, "add", *MULTIPLICATIONS) for other in before
    )
    return step.name in ACTIVATIONS or ends


def down_of(steps: list[Operation], product: int) -> bool:
    """Whether a linear reads the product, directly or after a norm."""
    first = reader(steps, product, steps[product].output)
    if first is None or steps[first].name in LINEAR:
        return first is not None
    linear = next((step for step in steps[first:] if step.name in LINEAR), None)
    return "norm" in steps[first].path and linear is not None and bool(FEED_FORWARD.search(linear.path))


def gated_products(steps: list[Operation]) -> Iterator[tuple[int, int]]:
    """The activations and multiplications, by index, of the gated MLPs that ran: activation, product, down."""
    for index, step in enumerate(steps):
        if step.name not in GATES or not FEED_FORWARD.search(step.path):
            continue
        value, last = step.output, index
        if arm := next(
            (i for i in range(index + 1, len(steps)) if steps[i].name == "ARM" and same(steps[i].inputs[0], value)),
            None,
        ):
            value, last = steps[arm].output, arm
        product = reader(steps, last, value)
        if product is None or steps[product].name not in MULTIPLICATIONS:
            continue
        down = reader(steps, product, steps[product].output)
        if down is not None and (steps[down].name in LINEAR or (steps[down].name == "ARM" and arm is None)):
            yield index, product


def untreated(steps: list[Operation], site: str, prefixes: Iterable[str]) -> list[str]:
    """The modules in layers with ARM, by the start of their names, in which a gated MLP ran without ARM."""
    indices, prefixes = [index for index, step in enumerate(steps) if step.name == "ARM"], tuple(prefixes)
    arms = [steps[index] for index in indices]
    if site == "up":
        products = {product_with_up(steps, index)[0] for index in indices}
        paths = {steps[product].path for _, product in gated_products(steps) if product not in products}
        return sorted(path for path in paths if path.startswith(prefixes))
    missing = []
    for activation, product in gated_products(steps):
        values = [
            steps[product].output,
            *([steps[activation].output] if site == "gate" else []),
        ]  # x · sigmoid(x): both
        path = steps[product].path
        if path.startswith(prefixes) and not any(same(arm.inputs[0], value) for arm in arms for value in values):
            missing.append(path)
    return sorted(set(missing))
