"""Finds out where ARM can reach the experts of a mixture, by running their own code on tiny weights.

The input and the weights are such that each value that reaches the activation names its token and its expert. So the
order of the rows is measured, not assumed, for the code that will run, and no implementation is silently left out.
"""

import copy
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from armlet.attachment.expert_rows import EAGER, ROW_ORDERS, every_row
from armlet.attachment.gate_formula import made_up
from armlet.attachment.gated_mlps import SMALL, is_factor, succeeds

APPLY_GATE = "_apply_gate"
"""The method in which transformers applies activation and product with up to the experts' fused `gate_up`."""

SIZE = 8  # width and d_model of the tiny weights; grouped kernels need a multiple of 16 bytes
SCALE = 1 / 8  # tokens and experts as small numbers, below the limits of clamped gates
ROUTING = [[1, 0], [2, 1], [0, 2]]  # experts of three tokens, in an order that differs between the implementations


def up_columns(experts: nn.Module, width: int) -> slice | None:
    """Where the output of `up` is in the `gate_up` that the experts' `_apply_gate` gets; None if it does not show."""
    tried = zip(_halves(SIZE), _halves(width), strict=True)
    columns = [half for tiny, half in tried if succeeds(partial(_is_up, experts, tiny))]
    return columns[0] if len(columns) == 1 else None


def _halves(width: int) -> tuple[slice, ...]:
    """Where one of gate and up, of this width each, may be in both: after the other, before it, or alternating."""
    return slice(width, None), slice(width), slice(1, None, 2), slice(0, None, 2)


def _is_up(experts: nn.Module, columns: slice) -> bool:
    """Whether each value that `_apply_gate` returns has the same of these columns, or that plus 1, as a factor."""
    shadow = copy.copy(experts)
    modules = {name: getattr(child, "without_arm", child) for name, child in experts._modules.items()}
    vars(shadow)["_modules"] = modules
    gate_up = made_up(4, SIZE) * SMALL

    def product(values: Tensor) -> Tensor:
        replaced = gate_up.clone()
        replaced[:, columns] = values
        return getattr(type(experts), APPLY_GATE)(shadow, replaced)

    first = product(torch.where(torch.arange(SIZE, device="cpu") == 0, 0, gate_up[:, columns]))
    aligned = torch.equal(first[:, 1:], product(gate_up[:, columns])[:, 1:])
    return aligned and is_factor(product, gate_up[:, columns])


class FusedWeights(NamedTuple):
    """The layout of the experts' weights `gate_up_proj` and `down_proj`."""

    experts: int
    gates: int  # at least as many as experts: some experts only return their input (LongCat)
    width: int
    transposed: bool  # `[experts, inputs, outputs]`, not `[experts, outputs, inputs]`


def fused_weights(experts: nn.Module) -> FusedWeights | None:
    """The layout of a module's fused expert weights; None for any other module."""
    gate_up, down = (getattr(experts, name, None) for name in ("gate_up_proj", "down_proj"))
    if not (isinstance(gate_up, Tensor) and isinstance(down, Tensor) and gate_up.dim() == down.dim() == 3):
        return None
    count, first, second = down.shape
    transposed = gate_up.shape[1:] == (second, 2 * first)
    if not transposed and gate_up.shape[1:] != (2 * second, first):
        return None
    return FusedWeights(count, gate_up.shape[0], first if transposed else second, transposed)


def reached(experts: nn.Module, weights: FusedWeights, attribute: str, routing_name: str) -> frozenset[str]:
    """The implementations in which each row passes through `attribute` exactly once, in the known order.

    Args:
        experts: the module with all experts of a layer.
        weights: the layout of its weights.
        attribute: the name of its activation module, or `APPLY_GATE`.
        routing_name: the name of forward's argument with the routing; "" if all experts run on all tokens.
    """
    names = ROW_ORDERS if dispatches(experts) else (EAGER,)
    return frozenset(name for name in names if _has_rows_in_order(experts, weights, attribute, name, routing_name))


def dispatches(experts: nn.Module) -> bool:
    """Whether transformers chooses the implementation when the experts run (`use_experts_implementation`)."""
    return hasattr(experts, "is_transposed") and hasattr(experts, "config")


class _Recorder(nn.Module):
    """Records what an activation, or an `_apply_gate` (`fused`), would get."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused, self.values = fused, list[Tensor]()

    def forward(self, values: Tensor) -> Tensor:
        self.values.append(values.reshape(-1, values.shape[-1]))
        return values[..., :SIZE] if self.fused else values


def _has_rows_in_order(experts: nn.Module, weights: FusedWeights, attribute: str, name: str, routing_name: str) -> bool:
    recorder = _Recorder(fused=attribute == APPLY_GATE)
    step = 1 if getattr(experts, "is_concatenated", True) else 2  # between the gate's values in `gate_up`
    routing = torch.tensor(ROUTING, device="cpu") % weights.experts
    hidden = torch.zeros(len(routing), SIZE, device="cpu")
    hidden[:, 0], hidden[:, 1] = torch.arange(len(routing), device="cpu") * SCALE, 1
    if routing_name:
        tokens, chosen = ROW_ORDERS[name](routing)
        arguments = (hidden, routing, torch.ones(routing.shape, device="cpu"))
    else:
        arguments = (hidden.repeat(weights.experts, 1),)
        tokens, chosen, _ = every_row(*arguments, weights.experts)
    shadow = _with_tiny_weights(experts, weights, step)
    vars(shadow)["config"] = SimpleNamespace(_experts_implementation=name)
    vars(shadow).pop(attribute, None)  # an activation that is a function
    (vars(shadow) if recorder.fused else shadow._modules)[attribute] = recorder
    try:
        with torch.no_grad():
            type(experts).forward(shadow, *arguments)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False  # other weights or another forward, whose rows nobody can name
    columns = slice(0, 2 * step, step) if recorder.fused else slice(2)
    expected = torch.stack((tokens, chosen), -1) * SCALE
    return bool(recorder.values) and torch.equal(torch.cat(recorder.values)[:, columns], expected)


def _with_tiny_weights(experts: nn.Module, weights: FusedWeights, step: int) -> nn.Module:
    """A shallow copy of the experts, whose gate is (token, expert, 0, ...) for an input (token, 1, 0, ...)."""
    gate_up = torch.zeros(weights.gates, 2 * SIZE, SIZE, device="cpu")
    gate_up[:, 0, 0], gate_up[:, step, 1] = 1, torch.arange(weights.gates, device="cpu") * SCALE
    tiny = {"gate_up_proj": gate_up, "down_proj": torch.zeros(weights.experts, SIZE, SIZE, device="cpu")}
    tiny = {key: value.transpose(1, 2).contiguous() if weights.transposed else value for key, value in tiny.items()}
    for key in experts._parameters.keys() - tiny.keys():  # biases
        tiny[key] = torch.zeros(weights.experts, 2 * SIZE if "gate_up" in key else SIZE, device="cpu")
    shadow = copy.copy(experts)
    values: dict[str, Any] = vars(shadow)
    values |= {"_parameters": {}, "_modules": {name: nn.Identity() for name in experts._modules}, **tiny}
    values |= {name: SIZE for name in ("hidden_size", "hidden_dim") if name in values}
    values.pop(APPLY_GATE, None)  # ARM at the other site
    return shadow
