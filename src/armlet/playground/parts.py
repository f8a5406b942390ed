"""The tensors of the layer's figure with ARM in it: their shapes and ranges, and the one that the reader chose."""

from collections.abc import Mapping

from torch import Tensor

from armlet.attachment.module import ARM
from armlet.layer.layer_map import PART_NAMES
from armlet.playground.effect import GateEffect
from armlet.playground.reading import Reader, Reading
from armlet.playground.setting import Setting
from armlet.presentation.numbers import short_number
from armlet.redistribution.noise import Noise


def layer_tensors(reader: Reader, reading: Reading, effect: GateEffect, setting: Setting) -> dict[str, Tensor]:
    """The tensors of the layer by their names in decoder.py, with ARM as set; fewer where that code is no match."""
    if reading.decoder is None:
        shown = isinstance(reading.gate, Tensor)
        return {**reading.tensors, "ARM": effect.after[None]} if shown else {}
    place = {"layer": reading.decoder.options.layer, "noise": Noise(setting.seed)}
    return reader.trace(reading, lambda width: ARM(setting.acting(), width=width, **place))


def different(tensors: dict[str, Tensor]) -> list[str]:
    """The names without parts that this layer lacks, which return what they were given; those of the map are kept."""
    first = {id(tensor): name for name, tensor in reversed(tensors.items())}
    return [name for name, tensor in tensors.items() if name in PART_NAMES or first[id(tensor)] == name]


def part_texts(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The shape and the range of each tensor, in words."""
    return {name: _text(tensor) for name, tensor in tensors.items()}


def _text(tensor: Tensor) -> str:
    shape = " × ".join(map(str, tensor.shape[1:]))
    values = tensor.float()
    numbers = [short_number(value.item()) for value in (values.min(), values.max(), values.mean(), values.std())]
    low, high, mean, spread = numbers
    return f"{shape} values, from {low} to {high}, mean {mean}, standard deviation {spread}"
