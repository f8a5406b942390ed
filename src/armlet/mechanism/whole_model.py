"""Runs every prompt with every filler through a whole model, and measures those of its layers that can be read."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from armlet.attachment.sites import UnsupportedModelError, find_layers
from armlet.checkpoints.given import NamedModel
from armlet.layer.capture import Trace, capturing, experts_of
from armlet.mechanism.layers import LayerFindings, PromptMeasurement, Setup, concatenate
from armlet.mechanism.measure import view
from armlet.prompts.fillers import Prompt
from armlet.redistribution.errors import ArgumentError

NO_WEIGHTS = "no attention in it returns weights and the output of a linear map"

Unread = dict[int, str]
"""Layers that cannot be measured → the reason."""


def readable_layers(opened: NamedModel, wanted: Sequence[int] | str, setup: Setup) -> tuple[dict[int, int], Unread]:
    """The layers that can be measured, of all or of those wanted, and the others with the reasons.

    Layers that can be measured have their number of routed experts, 0 in a dense layer.

    Raises UnsupportedModelError if a wanted layer, or every layer, cannot be measured; ArgumentError if there is no
    such layer.
    """
    experts, unread = dict[int, int](), Unread()
    for index, _ in find_layers(opened.model, wanted):
        try:
            experts[index] = experts_of(opened.model, index)
        except UnsupportedModelError as error:
            _layer, _, reason = str(error).partition(": ")
            # Without the advice, which is about ARM: to put it elsewhere, or into one's own code.
            unread[index] = f"its activated gate cannot be read: {re.split('; |: use ', reason)[0]}"
    if experts:
        with capturing(opened.model, [*experts], attention=True) as run:
            traces = run(setup.prompts[0].ids[None])
        unread |= {index: why for index in experts if (why := _unreadable(traces[index], setup.prompts[0]))}
    readable = {index: number for index, number in experts.items() if index not in unread}
    if unread and (wanted != "all" or not readable):
        index, reason = min(unread.items())
        raise UnsupportedModelError(f"explain: layer {index} of {opened.name}: {reason}")
    return readable, unread


def _unreadable(trace: Trace, prompt: Prompt) -> str:
    """Why a trace of a prompt cannot be measured; "" if it can."""
    if "Attention" not in trace:
        return NO_WEIGHTS
    try:
        view(trace, prompt, 0)
    except UnsupportedModelError as error:
        return str(error)
    return ""


def measure_model(
    opened: NamedModel, layers: Mapping[int, int], setup: Setup, tick: Callable[[], None]
) -> Iterator[LayerFindings]:
    """Yields the findings of each layer, after all prompts.

    layers: as from `readable_layers`; tick: called after each prompt and filler.
    """
    parts: list[list[LayerFindings]] = []
    with capturing(opened.model, [*layers], attention=True) as run:
        for prompt, fillers in zip(setup.prompts, setup.tokens, strict=True):
            traces = _with_weights(run(prompt.ids[None]), layers)
            measured = {i: PromptMeasurement(i, traces[i], prompt, setup, experts) for i, experts in layers.items()}
            tick()
            for filler in fillers:
                traces = _with_weights(run(prompt.filled(filler)[None]), layers)
                for index in layers:
                    measured[index].add(traces[index], len(filler))
                tick()
            parts.append([measured[index].findings() for index in layers])
    yield from map(concatenate, zip(*parts, strict=True))


def _with_weights(traces: Mapping[int, Trace], layers: Collection[int]) -> Mapping[int, Trace]:
    for index in layers:
        if "Attention" not in traces[index]:
            raise ArgumentError(f"explain: layer {index} returned no attention weights for one of the prompts")
    return traces
