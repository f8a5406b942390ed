"""Runs every prompt with every filler through a whole model, and measures those of its layers that can be read."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from armlet.attachment.sites import GATE, UnsupportedModelError, dense_site, find_layers, mixture_block
from armlet.checkpoints.given import NamedModel
from armlet.layer.capture import Trace, capturing
from armlet.mechanism.layers import LayerFindings, PromptMeasurement, Setup, concatenate
from armlet.redistribution.errors import ArgumentError

NO_GATE = "a mixture of experts has no single activated gate"
NO_WEIGHTS = "its attention returns no weights, or its output is not that of a linear map"

Unread = dict[int, str]
"""Layers that cannot be measured → the reason."""


def readable_layers(opened: NamedModel, wanted: Sequence[int] | str, setup: Setup) -> tuple[list[int], Unread]:
    """The layers of a model that can be measured, of all or of those wanted, and the others with the reasons.

    Raises UnsupportedModelError if a wanted layer, or every layer, cannot be measured; ArgumentError if there is no
    such layer.
    """
    layers, unread = list[int](), Unread()
    for index, layer in find_layers(opened.model, wanted):
        try:
            dense_site(type(opened.model).__name__, index, layer, GATE)
            layers.append(index)
        except UnsupportedModelError as error:
            unread[index] = NO_GATE if mixture_block(layer) else str(error).partition(": ")[2]  # without the layer
    if layers:
        with capturing(opened.model, layers, attention=True) as run:
            traces = run(setup.prompts[0].ids[None])
        missing = [index for index in layers if "Attention" not in traces[index]]
        unread |= dict.fromkeys(missing, NO_WEIGHTS)
    readable = [index for index in layers if index not in unread]
    if unread and (wanted != "all" or not readable):
        index, reason = min(unread.items())
        raise UnsupportedModelError(f"explain: layer {index} of {opened.name} cannot be read: {reason}")
    return readable, unread


def measure_model(
    opened: NamedModel, layers: Sequence[int], setup: Setup, tick: Callable[[], None]
) -> Iterator[LayerFindings]:
    """Yields the findings of each of these layers, after all prompts; tick: called after each prompt and filler."""
    parts: list[list[LayerFindings]] = []
    with capturing(opened.model, layers, attention=True) as run:
        for prompt, fillers in zip(setup.prompts, setup.tokens, strict=True):
            traces = _with_weights(run(prompt.ids[None]), layers)
            measured = {index: PromptMeasurement(index, traces[index], prompt, setup) for index in layers}
            tick()
            for filler in fillers:
                traces = _with_weights(run(prompt.filled(filler)[None]), layers)
                for index in layers:
                    measured[index].add(traces[index], len(filler))
                tick()
            parts.append([measured[index].findings() for index in layers])
    yield from map(concatenate, zip(*parts, strict=True))


def _with_weights(traces: Mapping[int, Trace], layers: Sequence[int]) -> Mapping[int, Trace]:
    for index in layers:
        if "Attention" not in traces[index]:
            raise ArgumentError(f"explain: layer {index} returned no attention weights for one of the prompts")
    return traces
