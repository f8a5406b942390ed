"""Captures what the layers of a loaded model compute for one text: at ARM's sites, and in attention."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from armlet.attachment.attach import attach
from armlet.attachment.attached import attached
from armlet.attachment.experts import ExpertsArm
from armlet.attachment.mixtures import ExpertsSite, find_all_sites
from armlet.attachment.module import ARM
from armlet.attachment.sites import (
    ALL_EXPERTS,
    GATE,
    PRODUCT,
    ROUTED,
    SHARED,
    UP,
    UnsupportedModelError,
    find_layers,
    mixture_block,
)
from armlet.attachment.wrappers import RedistributedOutput
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.inward import Inward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Trace = dict[str, Tensor]
"""Tensors of one layer, by their names in `Layer1`: what ARM gets at the site (`VALUES`), and at the gate also gate,
`[1, s, f]` each; where they can be read, Attention_weights `[1, n, s, s]` and Attention `[1, s, n·h]`.

In a mixture of experts, what ARM gets is `[rows, f]`, a row for each token in each routed expert that it goes to, in
any order; positions and experts, `[rows]` each, say which, and there is no gate. See `routed_rows`."""

VALUES = {GATE: "activation", UP: "up", PRODUCT: "multiply"}
"""The sites of `attach` → the name of what ARM gets there."""

NOTHING = Inward(strength=0.0)  # moves no value, so that ARM returns each tensor as it is


@contextmanager
def capturing(
    model: "PreTrainedModel", layers: Sequence[int], *, site: str = GATE, attention: bool = False
) -> Iterator[Callable[[Tensor], dict[int, Trace]]]:
    """Inside the block, runs a model without ARM on a text `[1, s]` without padding, and returns the layers' traces.

    With `attention`, the model runs eager attention inside the block, the only kind that computes weights. Afterwards
    the model is as it was.

    Raises the errors of `attach`; the function raises ArgumentError if the model cannot run on a text alone, and
    UnsupportedModelError if it runs a layer several times, or several attentions in a layer.
    """
    traces: dict[int, Trace] = {}
    chosen = find_layers(model, layers)
    with ExitStack() as stack:
        for attachment in attached(model):
            stack.enter_context(attachment.paused())
        for kind in (ALL_EXPERTS, ROUTED):
            if indices := [index for index, layer in chosen if _kind(layer) == kind]:
                stack.enter_context(attach(model, NOTHING, layers=indices, site=site, experts=kind))
        activations = [module for module in model.modules() if isinstance(module, RedistributedOutput)]
        for activation in activations:  # which knows the gate before its activation, too
            stack.callback(activation.register_forward_hook(partial(_store_gate, traces)).remove)
        others = {module for module in model.modules() if isinstance(module, ARM)} - {a.arm for a in activations}
        for arm in others:
            store = partial(_store_rows if isinstance(arm, ExpertsArm) else _store_values, traces, VALUES[site])
            stack.callback(arm.register_forward_pre_hook(store, with_kwargs=True).remove)
        if attention:
            stack.enter_context(_eager_attention(model))
            for index, layer in chosen:
                stack.enter_context(_AttentionHooks(traces, index, layer))
        yield partial(_trace_text, model, traces)


def _trace_text(model: "PreTrainedModel", traces: dict[int, Trace], ids: Tensor) -> dict[int, Trace]:
    traces.clear()
    run_on_text(model, ids)
    return dict(traces)


@torch.no_grad()
def run_on_text(model: "PreTrainedModel", ids: Tensor) -> None:
    """Runs a model on a text `[1, s]`; raises ArgumentError if it cannot run on a text alone."""
    try:
        model(input_ids=ids.to(model.device), use_cache=False)
    except ArmletError:
        raise
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:  # of offloaded weights, too
        problem = f"{type(model).__name__} cannot run on a text alone ({type(error).__name__}: {error})"
        raise ArgumentError(f"model: {' '.join(problem.split())}") from error


def why_whole_model(error: ArmletError) -> str:
    """Why a model is not read by `Layer1`, from the error that says so, without the list of families."""
    return str(error).partition(", only ")[0].removeprefix("model: ")


def experts_of(model: nn.Module, index: int, site: str = GATE) -> int:
    """The number of routed experts of a layer at whose site ARM can be; 0 in a dense layer.

    Raises UnsupportedModelError as `attach` does, without the advice to choose shared experts, which are not measured.
    """
    ((_, layer),) = find_layers(model, [index])
    try:
        (place,) = find_all_sites(model, [index], site, _kind(layer))
    except UnsupportedModelError as error:
        raise UnsupportedModelError(str(error).partition(f", or experts={SHARED!r}")[0]) from error
    return place.experts if isinstance(place, ExpertsSite) else 0


def _kind(layer: nn.Module) -> str:
    """The experts of a layer that are measured, as in `attach`."""
    return ROUTED if mixture_block(layer) else ALL_EXPERTS


def routed_rows(trace: Trace, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Values `[rows, f]` of a mixture, and positions and experts `[rows]`, by token and then by expert.

    trace: of one text, by `capturing` or of `Layer1`, where values are `[1, s, k, f]` and experts `[1, s, k]`.
    """
    values, experts = trace[name], trace["experts"]
    if "positions" in trace:
        positions = trace["positions"]
    else:
        positions = torch.arange(experts.shape[1], device=experts.device).repeat_interleave(experts.shape[2])
        values, experts = values.flatten(0, 2), experts.flatten()
    order = torch.argsort(positions * (experts.max() + 1) + experts)
    return values[order], positions[order], experts[order]


def _store_gate(
    traces: dict[int, Trace], site: RedistributedOutput, arguments: tuple[Tensor, ...], activated: Tensor
) -> None:
    flat = {"gate": arguments[0], "activation": activated}  # some models flatten batch and tokens
    _store(traces, site.part[0], {name: a.reshape(1, -1, a.shape[-1]) for name, a in flat.items()})


def _store(traces: dict[int, Trace], layer: int, tensors: Trace) -> None:
    trace = traces.setdefault(layer, {})
    if twice := trace.keys() & tensors.keys():
        names = ", ".join(sorted(twice))
        raise UnsupportedModelError(f"layer {layer} computes {names} several times for one text; choose another layer")
    trace.update(tensors)


def _store_values(
    traces: dict[int, Trace], name: str, arm: Any, arguments: tuple[Tensor, ...], _named: dict[str, Any]
) -> None:
    values = arguments[0]
    _store(traces, arm.layer, {name: values.reshape(1, -1, values.shape[-1])})


def _store_rows(
    traces: dict[int, Trace],
    name: str,
    arm: Any,
    arguments: tuple[Tensor, Tensor, Tensor | None],
    named: dict[str, Any],
) -> None:
    rows, positions, mask = arguments
    parts = {name: rows, "positions": positions, "experts": named["experts"]}
    trace = traces.setdefault(arm.layer, {})
    for key, part in parts.items():  # some models compute one expert after the other
        valid = part if mask is None else part[mask]
        trace[key] = torch.cat((trace[key], valid)) if key in trace else valid


@contextmanager
def _eager_attention(model: "PreTrainedModel") -> Iterator[None]:
    key = "_attn_implementation_internal"
    configs = {id(c): c for module in model.modules() if hasattr(c := getattr(module, "config", None), key)}
    parts = [getattr(c, name, None) for c in configs.values() for name in getattr(c, "sub_configs", {})]
    configs |= {id(part): part for part in parts if hasattr(part, key)}
    before = [(config, getattr(config, key)) for config in configs.values()]
    try:
        if hasattr(model, "set_attn_implementation"):
            model.set_attn_implementation("eager")
        yield
    finally:
        for config, implementation in before:
            setattr(config, key, implementation)


class _AttentionHooks(ExitStack):
    """Finds a layer's attention by what it returns: its output, and weights `[1, n, s, s]`.

    The attention before its projection is the input of the linear map whose output the module returns.
    """

    def __init__(self, traces: dict[int, Trace], index: int, layer: nn.Module) -> None:
        super().__init__()
        self.traces, self.index = traces, index
        self.maps = dict[nn.Module, tuple[Tensor, Tensor]]()  # input and output of each linear map that ran
        for module in layer.modules():
            hook = self._store_map if hasattr(module, "in_features") else self._store_attention
            self.callback(module.register_forward_hook(hook).remove)

    def _store_map(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.maps[module] = (arguments[0], output)

    def _store_attention(self, module: nn.Module, _arguments: object, output: Any) -> None:
        if not isinstance(output, tuple) or len(output) < 2:
            return
        result, weights = output[0], output[1]
        if not isinstance(weights, Tensor) or weights.dim() != 4 or weights.shape[-1] != weights.shape[-2]:
            return
        for part in module.modules():
            if part in self.maps and _same(self.maps[part][1], result):
                attention = self.maps[part][0].reshape(1, weights.shape[-1], -1)
                _store(self.traces, self.index, {"Attention_weights": weights, "Attention": attention})
                break
        self.maps.clear()


def _same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same values, in whatever shape."""
    return first.numel() == second.numel() and torch.equal(first.reshape(-1), second.reshape(-1))
