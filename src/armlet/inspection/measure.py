"""Measures the activated gate of one layer before and after each policy."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from armlet.attachment.sites import GATE
from armlet.inspection.prepared import PreparedGates
from armlet.inspection.records import GateSample, RoutedGates
from armlet.inspection.result import Inspection
from armlet.layer.capture import VALUES, Trace, routed_rows
from armlet.layer.decoder import Layer1
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.rows import Policy


def activated_gates(
    layers: Iterable[Layer1],
    prompts: Sequence[Tensor],
    layer: int,
    tick: Callable[[], None] = lambda: None,
    site: str = GATE,
) -> Iterator[Tensor | RoutedGates]:
    """Yields the activated gates of one layer, or its values at another site, for each prompt `[1, seq]`.

    They have the layers' dtype. layers: layers 0 to `layer`; tick: called after each prompt in each layer.
    """
    states: list[Tensor] = []
    for decoder in layers:
        states = states or [decoder.embed(ids.to(decoder.Output.weight.device)) for ids in prompts]
        for index, x in enumerate(states):
            with torch.no_grad():
                states[index], trace = decoder(x, trace=True)
            if decoder.options.layer == layer:
                yield gate_values(trace, site)
            tick()


def captured_gates(
    run: Callable[[Tensor], dict[int, Trace]],
    prompts: Sequence[Tensor],
    layer: int,
    tick: Callable[[], None],
    site: str = GATE,
) -> Iterator[Tensor | RoutedGates]:
    """As `activated_gates`, by `run` of a model with `capturing`."""
    for ids in prompts:
        yield gate_values(run(ids)[layer], site)
        tick()


def gate_values(trace: Trace, site: str) -> Tensor | RoutedGates:
    """The values at a site in a trace of one text."""
    name = VALUES[site]
    return RoutedGates(*routed_rows(trace, name)) if "experts" in trace else trace[name][0].contiguous()


def inspect_gates(sample: GateSample, policies: Sequence[Policy], *, scope: str = "token", seed: int = 0) -> Inspection:
    """Redistributes each prompt's activated gate `[seq, width]` with each policy; measures it before and after.

    The keyed noise depends on seed and layer.

    Raises ArgumentError if there is no gate or no policy, or every scope contains NaN or Inf.
    """
    if not policies:
        raise ArgumentError("inspect: at least one prompt and one policy are needed")
    prepared = PreparedGates(sample, scope, seed)
    tokens, width = prepared.before.shape
    passed = int((~prepared.finite).sum())
    effects = [prepared.effect(policy) for policy in policies]
    return Inspection(sample, scope, seed, tokens, width, passed, prepared.measured, effects, sample.interrupted)
