"""Measures the activated gate of one layer before and after each policy."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from armlet.attachment.sites import GATE
from armlet.inspection.records import Effect, GateSample, Panel, RoutedGates
from armlet.inspection.result import Inspection
from armlet.layer.capture import VALUES, Trace, routed_rows
from armlet.layer.decoder import Layer1
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.outcome import drawer, outcome
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.redistribution.policies import detail
from armlet.redistribution.rows import Draw, Policy
from armlet.statistics.shape import difference, measure


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
                yield _values(trace, site)
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
        yield _values(run(ids)[layer], site)
        tick()


def _values(trace: Trace, site: str) -> Tensor | RoutedGates:
    """The values at a site in a trace of one text."""
    name = VALUES[site]
    return RoutedGates(*routed_rows(trace, name)) if "experts" in trace else trace[name][0].contiguous()


def inspect_gates(sample: GateSample, policies: Sequence[Policy], *, scope: str = "token", seed: int = 0) -> Inspection:
    """Redistributes each prompt's activated gate `[seq, width]` with each policy; measures it before and after.

    The keyed noise depends on seed and layer.

    Raises ArgumentError if there is no gate or no policy, or every scope contains NaN or Inf.
    """
    gates = [gate if isinstance(gate, Tensor) else gate.values for gate in sample.gates]
    if not gates or not policies:
        raise ArgumentError("inspect: at least one prompt and one policy are needed")
    finite = torch.cat([gate.float().isfinite().all(-1) for gate in gates])
    if scope != "token":  # the scope is a whole prompt
        lengths = [len(gate) for gate in gates]
        finite = torch.cat([tokens.all().expand(len(tokens)) for tokens in finite.split(lengths)])
    if not finite.any():
        unit = "token" if scope == "token" else "prompt"
        raise ArgumentError(f"inspect: every {unit} contains NaN or Inf; try another dtype, such as float32")
    before = torch.cat(list(gates))[finite].float()
    halfwidth, noise = near_zero_halfwidth(before), Noise(seed)
    measured = measure(before, halfwidth=halfwidth)
    keys = noise.keys(before.shape[1] * max(sample.experts, 1), sample.layer or 0)
    draws = [_drawer(gate, noise, keys, sample.experts) for gate in sample.gates]

    def effect(policy: Policy) -> Effect:
        outcomes = [outcome(gate, policy, scope=scope, draw=draw) for gate, draw in zip(gates, draws, strict=True)]
        values = torch.cat([result.values for result in outcomes])[finite].float()
        moved = torch.cat([result.moved for result in outcomes])[finite]
        arrays = (tensor.flatten().cpu().numpy() for tensor in (before, values, moved))
        panel, after = Panel(type(policy).__name__, detail(policy), *arrays), measure(values, halfwidth=halfwidth)
        return Effect(policy, panel, moved.double().mean().item(), after, difference(measured, after))

    tokens, width, passed = len(before), before.shape[1], int((~finite).sum())
    effects = [effect(policy) for policy in policies]
    return Inspection(sample, scope, seed, tokens, width, passed, measured, effects, sample.interrupted)


def _drawer(gate: Tensor | RoutedGates, noise: Noise, keys: Tensor, experts: int) -> Draw:
    """The uniforms that `attach` draws: by position, and in a mixture by expert; keys: of all experts' channels."""
    if isinstance(gate, Tensor):
        return drawer(gate, noise, None, keys)
    keys_of_rows = keys.to(gate.experts.device).view(3, experts, -1)[:, gate.experts]
    return drawer(gate.values, noise, gate.positions, keys_of_rows)
