"""Treatments of one's own, for `armlet evaluate --treatment`: steering by a vector, and pruning of channels.

Run: armlet evaluate abacus --items 100 --treatment examples/treatments.py:zero_channels

A treatment is a context manager over the loaded model. What it changes before its `yield`, it undoes after it, whatever
happens in between: armlet compares the model before and after, and refuses a treatment that leaves a change.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

LAYER, LENGTH = 1, 2.0  # where the vector is added, and its length
SHARE = 0.1  # of the gate's channels that are set to 0


@contextmanager
def add_vector(model: PreTrainedModel) -> Iterator[None]:
    """Adds a vector to the residual stream after a layer, here a random one: put a steering vector in its place."""
    vector = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    vector = (LENGTH * vector / vector.norm()).to(model.device, model.dtype)

    def add(_module: nn.Module, _arguments: object, output: Tensor) -> Tensor:
        return output + vector

    hook = layers(model)[LAYER].register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def zero_channels(model: PreTrainedModel) -> Iterator[None]:
    """Sets a share of the channels of each MLP's gate to 0, those with the smallest weights, which are changed."""
    gates = [layer.get_submodule("mlp.gate_proj").get_parameter("weight") for layer in layers(model)]
    saved = [gate.detach().clone() for gate in gates]
    try:
        with torch.no_grad():
            for gate in gates:
                smallest = gate.norm(dim=1).argsort()[: round(SHARE * len(gate))]
                gate[smallest] = 0  # silu(0) is 0, so these channels add nothing
        yield
    finally:
        with torch.no_grad():
            for gate, weights in zip(gates, saved, strict=True):
                gate.copy_(weights)


def layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers, under their name in most models of transformers."""
    decoder_layers = model.get_submodule("model.layers")
    assert isinstance(decoder_layers, nn.ModuleList)
    return decoder_layers
