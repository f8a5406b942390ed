"""Recognises gated MLPs by structure: which children a module has, and which product it passes to its down."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from armlet.attachment.gate_formula import has_formula

ACTIVATION_FUNCTIONS = (FunctionType, BuiltinFunctionType)

CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.Conv3d

TRIAL_TOKENS = 2  # of the values with which a module's code is tried out
SMALL = 1 / 64  # scale of such values below the limits of clamped MLPs, yet with a curve that float32 shows


class GatedMlp(NamedTuple):
    """A gated MLP."""

    mlp: nn.Module
    activation: str  # the name of its activation, a module or a function; "" if it is in the code of its forward
    downs: list[str]  # the names of the linears with the shape of down
    width: int
    forward: "GatedForward | None" = None  # what its forward computes, if the activation is in it and is known


class GatedForward(NamedTuple):
    """The forward of a gated MLP: down of the product that `current_formula` gives of gate and up."""

    linears: list[str]  # the names of gate and up, or of both in one
    down: str


def gated_mlp(mlp: nn.Module) -> GatedMlp | None:
    """Describes a gated MLP; None for any other module, such as a recurrent block, which has a convolution."""
    downs = possible_downs(mlp)
    if not downs or any(isinstance(part, CONVOLUTIONS) for part in mlp.modules()):
        return None
    if known := _forward_with_arm(mlp):
        return GatedMlp(mlp, "", [known.down], downs[known.down], known)
    activations = [name for name, child in mlp.named_children() if is_activation(child)]
    if len(activations) == 1:
        return GatedMlp(mlp, activations[0], list(downs), next(iter(downs.values())))
    trials = [] if activations else [_Trial(mlp, name) for name in downs]
    trials = [trial for trial in trials if succeeds(trial.gives_gated_product)]
    if len(trials) != 1:
        return None
    (trial,) = trials
    functions = [name for name, value in vars(mlp).items() if isinstance(value, ACTIVATION_FUNCTIONS)]
    functions = [name for name in functions if succeeds(partial(trial.is_activated_by, name))]
    forward = None if functions else trial.gated_forward()
    return GatedMlp(mlp, functions[0] if len(functions) == 1 else "", [trial.down], trial.width, forward)


def _forward_with_arm(mlp: nn.Module) -> GatedForward | None:
    """The forward of an MLP in whose place is one with ARM, which says what it is of."""
    gated = getattr(mlp._modules.get("arm"), "gated", None)
    return gated if isinstance(gated, GatedForward) else None


class UpOutput(NamedTuple):
    """Where the output of `up` is: that of a linear, or one half of it where gate and up are one linear."""

    linear: str  # the linear's name
    half: int | None = None  # 0 or 1 in a fused linear


def up_output(gated: GatedMlp, down: str) -> UpOutput | None:
    """The output of `up` in a gated MLP, given the name of its down; None if its code does not show it."""
    trial = _Trial(gated.mlp, down, before_norm=True)
    # Not `gives_gated_product`: some functions of gate see its other values too, such as Gemma 3n's top k.
    ups = [index for index in (0, 1) if succeeds(partial(trial.is_up_alone, index))]
    if len(ups) != 1:
        return None
    (index,), linears = ups, trial.linears
    return UpOutput(linears[index]) if len(linears) == 2 else UpOutput(linears[0], index)


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
        self.weight = None  # T5's code asks for its dtype, if it is a tensor

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x)
        return self.values


class _Trial:
    """Runs a module's forward with made-up values in place of its linears' outputs, to see what it passes to `down`.

    before_norm: whether that is rather what a norm gets, where down gets its output, as in BitNet.
    """

    def __init__(self, mlp: nn.Module, down: str, *, before_norm: bool = False) -> None:
        self.mlp, self.down, self.width = mlp, down, possible_downs(mlp)[down]
        generator = torch.Generator("cpu").manual_seed(0)
        # The outputs of the other linears, gate and up in either order, and an activated gate.
        self.first, self.second, self.activated = torch.randn(
            3, 1, TRIAL_TOKENS, self.width, generator=generator, device="cpu"
        )
        children = mlp._modules.items()
        self.ends_with_down = False  # whether forward returned what down did, in the last run
        self.linears = [name for name, child in children if hasattr(child, "in_features") and name != down]
        self.norms = [name for name, child in children if before_norm and "Norm" in type(child).__name__]

    def gives_gated_product(self) -> bool:
        """Whether each value is a function of its gate, and not just a factor, times its up or up + 1."""
        return self._is_elementwise((0, 1)) and self.is_up(0) != self.is_up(1)

    def is_up_alone(self, index: int) -> bool:
        """As `is_up`, where each value depends on no other of this linear, but perhaps on all of the other linear."""
        return self.is_up(index) and self._is_elementwise((index,))

    def _is_elementwise(self, indices: tuple[int, ...]) -> bool:
        """Whether each value of the product depends on its own among the outputs of these linears, and no other."""
        outputs = [self.first, self.second]
        values = self._product(*outputs)
        tokens, channels = (torch.arange(size, device="cpu") for size in (TRIAL_TOKENS, self.width))
        kept = (tokens[:, None] + channels) % 2 == 0
        for index in indices:
            outputs[index] = torch.where(kept, outputs[index], 1)
        others_changed = self._product(*outputs)
        return values.shape == self.first.shape and torch.allclose(others_changed[:, kept], values[:, kept])

    def is_up(self, index: int) -> bool:
        """Whether the output of the first (0) or second (1) linear, or that plus 1, is a factor of the product."""
        first, second = SMALL * self.first, SMALL * self.second
        if index == 0:
            return is_factor(lambda values: self._product(values, second), first)
        return is_factor(lambda values: self._product(first, values), second)

    def gated_forward(self) -> GatedForward | None:
        """What the class's forward computes, if that is a known formula and down, and nothing else."""
        children = {name for name, child in self.mlp._modules.items() if child is not None}
        parameters = inspect.signature(type(self.mlp).forward).parameters
        # Hooks of accelerate replace forward; dropouts would be left out; there is one argument beside self.
        if "forward" in vars(self.mlp) or children != {*self.linears, self.down} or len(parameters) != 2:
            return None
        linears = self.linears[::-1] if len(self.linears) == 2 and self.is_up(0) else self.linears

        def product(gate_up: Tensor) -> Tensor:
            gate, up = gate_up.chunk(2, -1)
            return self._product(gate, up) if linears == self.linears else self._product(up, gate)

        known = has_formula(self.mlp, self.width, product) and self.ends_with_down
        return GatedForward(linears, self.down) if known else None

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
        """What `down` gets, or a norm before it; other attributes of the module may be replaced."""
        outputs = (first, second) if len(self.linears) == 2 else (torch.cat((first, second), -1),)
        d_model: Any = self.mlp.get_submodule(self.down).out_features
        hidden = torch.zeros(1, TRIAL_TOKENS, d_model, device="cpu")
        recorder = _Linear(hidden)
        replaced = {name: _Linear(values) for name, values in zip(self.linears, outputs, strict=True)}
        children = {name: getattr(child, "without_arm", child) for name, child in self.mlp._modules.items()}
        norms = {name: _Linear(torch.ones_like(first)) for name in self.norms}
        dropouts = {name: nn.Identity() for name, child in children.items() if isinstance(child, nn.Dropout)}  # random
        shadow = copy.copy(self.mlp)
        modules = children | dropouts | norms | replaced | {self.down: recorder}
        if _forward_with_arm(self.mlp) or "_hf_hook" in vars(self.mlp):  # accelerate's, which moves tensors
            vars(shadow).pop("forward", None)
        vars(shadow).update(_modules=modules, training=False, **functions)
        with torch.no_grad():
            self.ends_with_down = shadow.forward(hidden) is recorder.values
        (values,) = recorder.inputs
        norm = next((norm for norm in norms.values() if values is norm.values), recorder)
        return norm.inputs[0]


def is_factor(product: Callable[[Tensor], Tensor], values: Tensor) -> bool:
    """Whether a product has these values, or each plus 1, as a factor that is otherwise not used."""
    below, zero, one, two = (product(scale * values) for scale in (-1, 0, 1, 2))
    step = one - zero
    tolerance = 1e-3 * step.abs().max()  # far above float32's rounding of values near 1, and below any curve

    def close(values: Tensor, others: Tensor) -> bool:
        return bool(((values - others).abs() <= tolerance).all())

    even = close(zero - below, step) and close(two - one, step)
    offset = close(zero * values, torch.zeros_like(step)) or close(zero * values, step)
    return even and offset and bool(step.any())


def succeeds(test: Callable[[], bool]) -> bool:
    """Whether a trial ends well; code that is not a gated MLP's may fail on made-up values."""
    try:
        return test()
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False
