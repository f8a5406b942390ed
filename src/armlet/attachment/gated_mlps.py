"""Recognises gated MLPs by structure: which children a module has, and which product it passes to its down."""

import copy
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ACTIVATION_FUNCTIONS = (FunctionType, BuiltinFunctionType)

CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.Conv3d

TRIAL_TOKENS = 2  # of the values with which a module's code is tried out


class GatedMlp(NamedTuple):
    """A gated MLP."""

    mlp: nn.Module
    activation: str  # the name of its activation, a module or a function; "" if it is in the code of its forward
    downs: list[str]  # the names of the linears with the shape of down
    width: int


def gated_mlp(mlp: nn.Module) -> GatedMlp | None:
    """Describes a gated MLP; None for any other module, such as a recurrent block, which has a convolution."""
    downs = possible_downs(mlp)
    if not downs or any(isinstance(part, CONVOLUTIONS) for part in mlp.modules()):
        return None
    activations = [name for name, child in mlp.named_children() if is_activation(child)]
    if len(activations) == 1:
        return GatedMlp(mlp, activations[0], list(downs), next(iter(downs.values())))
    trials = [] if activations else [_Trial(mlp, name) for name in downs]
    trials = [trial for trial in trials if _succeeds(trial.gives_gated_product)]
    if len(trials) != 1:
        return None
    (trial,) = trials
    functions = [name for name, value in vars(mlp).items() if isinstance(value, ACTIVATION_FUNCTIONS)]
    functions = [name for name in functions if _succeeds(partial(trial.is_activated_by, name))]
    return GatedMlp(mlp, functions[0] if len(functions) == 1 else "", [trial.down], trial.width)


def possible_downs(mlp: nn.Module) -> dict[str, int]:
    """The linears of a module with the shape of down in a gated MLP, and their input size, the width of that MLP."""
    children: dict[str, Any] = dict(mlp.named_children())
    shapes = {name: (c.in_features, c.out_features) for name, c in children.items() if hasattr(c, "in_features")}
    downs: dict[str, int] = {}
    for down, (width, d_model) in shapes.items():
        others = [shape for name, shape in shapes.items() if name != down]
        # gate and up, or a fused gate_up; experts of which there are none have a width of 0
        if width and others in ([(d_model, width)] * 2, [(d_model, 2 * width)]):
            downs[down] = width
    return downs


def is_activation(child: nn.Module) -> bool:
    """Whether a module has no parameters and may be an activation."""
    plain = not any(True for _ in child.parameters()) and not hasattr(child, "in_features")
    return plain and not isinstance(child, nn.Dropout | nn.Identity | nn.ModuleList | nn.ModuleDict)


class _Linear(nn.Module):
    """In place of a linear: returns given values, and records what it gets."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values, self.inputs = values, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x)
        return self.values


class _Trial:
    """Runs a module's forward with made-up values in place of its linears' outputs, to see what it passes to `down`."""

    def __init__(self, mlp: nn.Module, down: str) -> None:
        self.mlp, self.down, self.width = mlp, down, possible_downs(mlp)[down]
        generator = torch.Generator("cpu").manual_seed(0)
        # The outputs of the other linears, gate and up in either order, and an activated gate.
        self.first, self.second, self.activated = torch.randn(
            3, 1, TRIAL_TOKENS, self.width, generator=generator, device="cpu"
        )

    def gives_gated_product(self) -> bool:
        """Whether each value is a function of its gate, and not a linear one, times its up."""
        values = self._product(self.first, self.second)
        tokens, channels = (torch.arange(size, device="cpu") for size in (TRIAL_TOKENS, self.width))
        kept = (tokens[:, None] + channels) % 2 == 0
        others_changed = self._product(torch.where(kept, self.first, 1), torch.where(kept, self.second, 1))
        doubled = [self._product(2 * self.first, self.second), self._product(self.first, 2 * self.second)]
        linear = [torch.allclose(twice, 2 * values) for twice in doubled]
        elementwise = values.shape == self.first.shape and torch.allclose(others_changed[:, kept], values[:, kept])
        return elementwise and sorted(linear) == [False, True]

    def is_activated_by(self, function: str) -> bool:
        """Whether this attribute computes the activated gate, once and from the gate alone."""
        gates: list[Tensor] = []

        def record(gate: Tensor) -> Tensor:
            gates.append(gate)
            return self.activated

        values = self._product(self.first, self.second, **{function: record})
        for gate, up in ((self.first, self.second), (self.second, self.first)):
            if torch.equal(values, self.activated * up):
                return len(gates) == 1 and torch.equal(gates[0], gate)
        return False

    def _product(self, first: Tensor, second: Tensor, **functions: Callable[[Tensor], Tensor]) -> Tensor:
        """What `down` gets; other attributes of the module may be replaced."""
        children = self.mlp._modules.items()
        linears = [name for name, child in children if hasattr(child, "in_features") and name != self.down]
        outputs = (first, second) if len(linears) == 2 else (torch.cat((first, second), -1),)
        d_model: Any = self.mlp.get_submodule(self.down).out_features
        hidden = torch.zeros(1, TRIAL_TOKENS, d_model, device="cpu")
        recorder = _Linear(hidden)
        replaced = {name: _Linear(values) for name, values in zip(linears, outputs, strict=True)}
        dropouts = {name: nn.Identity() for name, child in children if isinstance(child, nn.Dropout)}  # random
        shadow = copy.copy(self.mlp)
        modules = self.mlp._modules | dropouts | replaced | {self.down: recorder}
        vars(shadow).update(_modules=modules, training=False, **functions)
        with torch.no_grad():
            shadow.forward(hidden)
        (values,) = recorder.inputs
        return values


def _succeeds(test: Callable[[], bool]) -> bool:
    """Whether a trial ends well; code that is not a gated MLP's may fail on made-up values."""
    try:
        return test()
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False
