"""Sets the outputs of gate and up in a gated MLP to given values, in the code that runs, and returns what it makes.

Nothing of that code is copied or assumed: in an MLP with linears, hooks replace their outputs; in routed experts, whose
weights are one tensor, those of gate and up are replaced by ones that give these values, and those of down by ones that
show the products. So neither weights nor rounding of sums hide what a clamp does.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from armlet.attachment.expert_reach import FusedWeights, fused_weights
from armlet.attachment.gated_mlps import possible_downs
from armlet.attachment.sites import DOWN

EXPERTS_AT_ONCE = 64
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CODE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What code raises that is not called as it expects."""


class NotForcedError(Exception):
    """The values of gate and up cannot be set in a module; the message says why. Internal: it becomes a verdict."""


class Forced(Protocol):
    """A module in which the values of gate and up can be set."""

    width: int  # of gate and of up, on this rank
    experts: int  # 1 without experts
    by_column: bool  # whether outputs are products of gate and up, or sums of few, and not mixed by down

    def __call__(self, raw: Tensor, experts: Sequence[int] | None = None) -> Tensor:
        """What comes of rows of gate and up, `[rows, 2·width]`, the same in all experts: `[experts, rows, n]`.

        The columns are in the module's order. experts: the indices of those to run, all by default.
        """
        ...


def forced(module: nn.Module, dtype: torch.dtype) -> Forced:
    """The way to set the values of a module; dtype: of hidden states.

    Raises NotForcedError if there is none.
    """
    return (
        ForcedExperts(module, dtype)
        if hasattr(module, "gate_up_proj") and not _linears(module)
        else ForcedMlp(module, dtype)
    )


def _linears(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_children() if hasattr(child, "in_features")]


class ForcedMlp:
    """A gated MLP with linears gate, up and down, or gate and up in one: hooks set outputs, and see down's input."""

    experts, by_column = 1, True

    def __init__(self, mlp: nn.Module, dtype: torch.dtype) -> None:
        downs = possible_downs(mlp)
        names = [name for name in downs if DOWN in name] if len(downs) > 1 else [*downs]
        if len(names) != 1:
            raise NotForcedError(f"{type(mlp).__name__} has no linears in the shapes of gate, up and down")
        self.mlp, self.dtype, self.width = mlp, dtype, downs[names[0]]
        self.linears = [mlp.get_submodule(name) for name in _linears(mlp) if name != names[0]]
        self.down = mlp.get_submodule(names[0])
        self.hidden: int = self.down.out_features  # pyright: ignore[reportAssignmentType, reportAttributeAccessIssue]

    def __call__(self, raw: Tensor, experts: Sequence[int] | None = None) -> Tensor:
        """See `Forced`."""
        device = next(self.mlp.parameters()).device
        hidden = torch.zeros(1, len(raw), self.hidden, dtype=self.dtype, device=device)
        products: list[Tensor] = []
        watch = self.down.register_forward_pre_hook(lambda _, inputs: products.append(inputs[0]), prepend=True)
        try:
            with replaced_outputs(self.linears, raw):
                self.mlp(hidden)
        finally:
            watch.remove()
        if len(products) != 1:
            raise NotForcedError("its code does not call its linear down once")
        return products[0].reshape(1, len(raw), -1)


@contextmanager
def replaced_outputs(linears: Sequence[nn.Module], raw: Tensor) -> Iterator[None]:
    """Inside the block, linears return parts of `raw`, `[rows, columns of all]`.

    Raises NotForcedError at its end unless each ran once.
    """
    calls: list[nn.Module] = []

    def replace(values: Tensor, linear: nn.Module, _arguments: object, output: Any) -> Any:
        calls.append(linear)
        tensor, *rest = output if isinstance(output, tuple) else (output,)
        values = values.to(tensor).reshape(tensor.shape)
        return (values, *rest) if isinstance(output, tuple) else values

    with ExitStack() as stack:
        for linear, values in zip(linears, raw.chunk(len(linears), -1), strict=True):
            # First, since an engine may clamp in a hook of its own.
            stack.callback(linear.register_forward_hook(partial(replace, values), prepend=True).remove)
        yield
    if sorted(map(id, calls)) != sorted(map(id, linears)):
        raise NotForcedError("its code does not call each of its linears gate and up once")


class ForcedExperts:
    """Routed experts with replaced weights: row i of the hidden states picks row i of gate and up."""

    by_column = True

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        weights, name = fused_weights(module), type(module).__name__
        if weights is None:
            raise NotForcedError(f"{name} has no weights gate_up_proj and down_proj of all experts in one tensor")
        tensors: list[Tensor] = [module.gate_up_proj, module.down_proj]  # pyright: ignore[reportAssignmentType]
        if any(tensor.dtype not in FLOATS for tensor in tensors):
            raise NotForcedError(f"{name} has quantised weights ({tensors[0].dtype}), which cannot be replaced")
        spread = hasattr(tensors[0], "placements") or getattr(module, "_is_expert_parallel", False)
        if spread or tensors[0].is_meta or "gate_up_proj" not in module._parameters:
            raise NotForcedError(f"{name} has its weights on several devices or offloaded, which cannot be replaced")
        self.module, self.dtype, self.weights = module, dtype, weights
        self.width, self.experts, self.contiguous = weights.width, weights.experts, False
        self.hidden: int = tensors[0].shape[1 if weights.transposed else 2]

    def __call__(self, raw: Tensor, experts: Sequence[int] | None = None) -> Tensor:
        """See `Forced`."""
        try:
            return self._run(raw, experts)
        except RuntimeError:
            if self.contiguous:
                raise
        self.contiguous = True  # some kernels do not take expanded weights
        return self._run(raw, experts)

    def _run(self, raw: Tensor, experts: Sequence[int] | None) -> Tensor:
        with replaced_weights(self.module, self.weights, raw, contiguous=self.contiguous) as device:
            parts = torch.tensor(range(self.experts) if experts is None else experts).split(EXPERTS_AT_ONCE)
            return torch.cat([self._outputs(chosen.to(device), len(raw)) for chosen in parts])

    def _outputs(self, experts: Tensor, rows: int) -> Tensor:
        hidden = torch.eye(rows, self.hidden, dtype=self.dtype, device=experts.device).repeat(len(experts), 1)
        routing = experts.repeat_interleave(rows)[:, None]
        output = self.module(hidden, routing, torch.ones(routing.shape, dtype=self.dtype, device=experts.device))
        return output.reshape(len(experts), rows, -1)[..., : self.width]


def _is_of_mlp(name: str) -> bool:
    return "gate_up" in name or "down" in name


@contextmanager
def replaced_weights(
    module: nn.Module, weights: FusedWeights, raw: Tensor, *, contiguous: bool
) -> Iterator[torch.device]:
    """Inside the block, gate and up are row i of `raw` for the i-th unit vector in all experts; down is an identity.

    Where the width is larger than the model's, column j of the output is the sum of products j, j + d_model, and so
    on. Biases are 0.
    """
    before = {name: tensor for name, tensor in module._parameters.items() if tensor is not None and _is_of_mlp(name)}
    made = {name: torch.zeros_like(tensor[:1]) for name, tensor in before.items()}
    columns = made["gate_up_proj"][0] if weights.transposed else made["gate_up_proj"][0].T  # [d_model, 2·width]
    columns[: len(raw)] = raw.to(columns)
    down = made["down_proj"][0] if weights.transposed else made["down_proj"][0].T  # [width, d_model]
    indices = torch.arange(len(down), device=down.device)
    down[indices, indices % down.shape[1]] = 1
    made = {name: tensor.expand_as(before[name]) for name, tensor in made.items()}  # a layer may fill the memory
    made = {name: tensor.contiguous() if contiguous else tensor for name, tensor in made.items()}
    new = {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in made.items()}
    try:
        module._parameters.update(new)
        yield columns.device
    finally:
        module._parameters.update(before)
