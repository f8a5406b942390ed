"""The largest values in each layer of a model over windows of a text, and the tokens that have them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import isnan
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.attach import attach
from armlet.attachment.sites import GATE, PRODUCT, Site, UnsupportedModelError, find_layers, find_sites
from armlet.attachment.wrappers import RedistributedOutput
from armlet.bounds.formats import Q8_1, q8_1_sums
from armlet.redistribution.inward import Inward

UP, RESIDUAL = "up", "residual"
QUANTITIES = (GATE, UP, PRODUCT, RESIDUAL, Q8_1)
"""The activated gate, up, their product (the input of down), the hidden state after the layer, and sums of blocks."""

NOTHING = Inward(strength=0.0)  # moves no value

SeeProduct = Callable[[int, Tensor, Tensor | None], None]
"""Gets a layer's index, its product, and the activated gate, if it can be read; `[..., width]` each."""


@dataclass(frozen=True)
class Peak:
    """The largest magnitude of a quantity in one layer, and where it is first; float32."""

    value: float
    window: int
    position: int  # of the token in its window


@dataclass
class Peaks:
    """The largest magnitude of each quantity in each layer, over calls with consecutive windows.

    tokens: of a window. A quantity that cannot be read is absent.
    """

    tokens: int
    largest: dict[tuple[int, str], Peak] = field(default_factory=dict)
    seen: dict[tuple[int, str], int] = field(default_factory=dict)  # number of windows

    def add(self, layer: int, quantity: str, values: Tensor) -> None:
        """Adds a call's values `[windows, tokens, n]`, or the same with windows and tokens flattened."""
        magnitudes = values.abs().amax(-1)
        if magnitudes.dim() > 2:  # several streams of hidden states
            magnitudes = magnitudes.flatten(0, -3).amax(0)
        rows = magnitudes.float().reshape(-1, self.tokens)
        key, start = (layer, quantity), self.seen.get((layer, quantity), 0)
        self.seen[key] = start + len(rows)
        value = rows.max().item()
        if key not in self.largest or value > self.largest[key].value or isnan(value):
            window, position = divmod(int((rows.flatten() == value).int().argmax()), self.tokens)
            self.largest[key] = Peak(value, start + window, position)

    def check(self, windows: int) -> None:
        """Raises UnsupportedModelError if a layer ran more or less than once on each window."""
        for (layer, quantity), count in self.seen.items():
            if count != windows:
                raise UnsupportedModelError(
                    f"layer {layer} computed {quantity} for {count} windows of {windows}: the model does not run each "
                    "layer once, so the tokens of its largest values are not known"
                )

    def by_layer(self) -> dict[int, dict[str, Peak]]:
        """The peaks of each layer, by quantity."""
        layers = dict[int, dict[str, Peak]]()
        for (layer, quantity), peak in self.largest.items():
            layers.setdefault(layer, {})[quantity] = peak
        return layers


@contextmanager
def watching_products(downs: Mapping[int, nn.Module], peaks: Peaks) -> Iterator[None]:
    """Inside the block, adds what each `down` gets, after ARM if it is attached.

    downs: found before ARM was attached, as later hooks would see the values before ARM.
    """

    def add(layer: int, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        peaks.add(layer, PRODUCT, arguments[0])

    with ExitStack() as stack:
        for layer, down in downs.items():
            stack.callback(down.register_forward_pre_hook(partial(add, layer)).remove)
        yield


@contextmanager
def watching_layers(model: nn.Module, peaks: Peaks, see_product: SeeProduct) -> Iterator[None]:
    """Inside the block, adds every quantity of every layer of a model without ARM, whose outputs stay the same.

    Where the code of an MLP computes the activation without a module or a function of its own, gate and up are not
    read. `see_product` gets each product with its gate, after both were added.
    """
    products = find_sites(model, "all", site=PRODUCT)
    watches = {site.layer: _Watch(site, peaks, see_product) for site in products}
    with ExitStack() as stack:
        if layers := [layer for layer in watches if _has_gate(model, layer)]:
            stack.enter_context(attach(model, NOTHING, layers=layers, site=GATE))
        for module in model.modules():
            if isinstance(module, RedistributedOutput):
                stack.callback(module.register_forward_hook(watches[module.part[0]].see_gate).remove)
        for watch in watches.values():
            stack.enter_context(watch)
        for index, layer in find_layers(model, "all"):
            stack.callback(layer.register_forward_hook(partial(_see_residual, peaks, index)).remove)
        yield


def _has_gate(model: nn.Module, layer: int) -> bool:
    try:
        return bool(find_sites(model, [layer], site=GATE))
    except UnsupportedModelError:
        return False


def _see_residual(peaks: Peaks, index: int, _module: nn.Module, _arguments: object, output: Any) -> None:
    peaks.add(index, RESIDUAL, output[0] if isinstance(output, tuple) else output)


class _Watch(ExitStack):
    """Reads one MLP: the activated gate, and which linear's output times the gate is the product."""

    def __init__(self, site: Site, peaks: Peaks, see_product: SeeProduct) -> None:
        super().__init__()
        self.layer, self.peaks, self.see_product = site.layer, peaks, see_product
        self.gate: Tensor | None = None
        self.outputs: list[Tensor] = []
        self.callback(site.module.register_forward_pre_hook(self._see_product).remove)
        for child in site.mlp.children():
            if hasattr(child, "in_features") and child is not site.module:
                self.callback(child.register_forward_hook(self._see_linear).remove)

    def see_gate(self, _module: nn.Module, _arguments: object, activated: Tensor) -> None:
        self.gate = activated
        self.peaks.add(self.layer, GATE, activated)

    def _see_linear(self, _module: nn.Module, _arguments: object, output: Tensor) -> None:
        self.outputs.append(output)

    def _see_product(self, _module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        product, gate, outputs = arguments[0], self.gate, self.outputs
        self.gate, self.outputs = None, []
        self.peaks.add(self.layer, PRODUCT, product)
        if (sums := q8_1_sums(product)) is not None:
            self.peaks.add(self.layer, Q8_1, sums)
        if gate is not None and (up := _up_of(product, gate, outputs)) is not None:
            self.peaks.add(self.layer, UP, up)
        self.see_product(self.layer, product, gate)


def _up_of(product: Tensor, gate: Tensor, outputs: Sequence[Tensor]) -> Tensor | None:
    """The output, or the half of a fused output, that times the gate is exactly the product; None if there is none."""
    halves = outputs if len(outputs) == 2 else [half for output in outputs for half in output.chunk(2, -1)]
    return next((up for up in halves if up.shape == gate.shape and torch.equal(gate * up, product)), None)
