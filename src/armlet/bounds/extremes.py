"""The largest values in each layer of a model over windows of a text, and the tokens that have them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import isnan
from typing import Any

from torch import Tensor, nn

from armlet.attachment.attach import attach
from armlet.attachment.module import ARM
from armlet.attachment.sites import GATE, PRODUCT, UP, UnsupportedModelError, find_layers, find_sites
from armlet.bounds.formats import Q8_1, q8_1_sums
from armlet.redistribution.inward import Inward

RESIDUAL = "residual"
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

    Gate and up are not read where `attach` cannot reach them. `see_product` gets each product with its gate, after both
    were added.
    """
    gates = dict[int, Tensor]()

    def see(name: str, layer: int, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        values = arguments[0]
        peaks.add(layer, name, values)
        if name == GATE:
            gates[layer] = values
        elif name == PRODUCT:
            if (sums := q8_1_sums(values)) is not None:
                peaks.add(layer, Q8_1, sums)
            see_product(layer, values, gates.pop(layer, None))

    downs = find_sites(model, "all", site=PRODUCT)
    with ExitStack() as stack:
        for site in (GATE, UP):
            for arm in stack.enter_context(_reading(model, [down.layer for down in downs], site)):
                stack.callback(arm.register_forward_pre_hook(partial(see, site, arm.layer)).remove)
        for down in downs:
            stack.callback(down.module.register_forward_pre_hook(partial(see, PRODUCT, down.layer)).remove)
        for index, layer in find_layers(model, "all"):
            stack.callback(layer.register_forward_hook(partial(_see_residual, peaks, index)).remove)
        yield


@contextmanager
def _reading(model: nn.Module, layers: Sequence[int], site: str) -> Iterator[list[ARM]]:
    """ARM that changes nothing at a site, in the layers in which it can be there."""
    before = _arms(model)
    if reachable := [layer for layer in layers if _has_site(model, layer, site)]:
        with attach(model, NOTHING, layers=reachable, site=site):
            yield [arm for arm in _arms(model) if arm not in before]
    else:
        yield []


def _arms(model: nn.Module) -> list[ARM]:
    return [module for module in model.modules() if isinstance(module, ARM)]


def _has_site(model: nn.Module, layer: int, site: str) -> bool:
    try:
        return bool(find_sites(model, [layer], site=site))
    except UnsupportedModelError:
        return False


def _see_residual(peaks: Peaks, index: int, _module: nn.Module, _arguments: object, output: Any) -> None:
    peaks.add(index, RESIDUAL, output[0] if isinstance(output, tuple) else output)
