"""Measures the activated gate of one layer before and after each policy."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from armlet.inspection.records import Effect, GateSample, Panel
from armlet.inspection.result import Inspection
from armlet.layer.decoder import Layer1
from armlet.layer.options import check_one_gate
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.outcome import drawer, outcome
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.redistribution.policies import detail
from armlet.redistribution.rows import Policy
from armlet.statistics.shape import difference, measure


def activated_gates(
    layers: Iterable[Layer1], prompts: Sequence[Tensor], layer: int, tick: Callable[[], None] = lambda: None
) -> Iterator[Tensor]:
    """Yields the activated gate `[seq, width]` of one layer for each prompt `[1, seq]`, in the layers' dtype.

    layers: layers 0 to `layer`; tick: called after each prompt in each layer.
    """
    states: list[Tensor] = []
    for decoder in layers:
        states = states or [decoder.embed(ids.to(decoder.Output.weight.device)) for ids in prompts]
        for index, x in enumerate(states):
            with torch.no_grad():
                states[index], trace = decoder(x, trace=True)
            if decoder.options.layer == layer:
                check_one_gate(decoder.options)
                yield trace["activation"][0]
            tick()


def inspect_gates(sample: GateSample, policies: Sequence[Policy], *, scope: str = "token", seed: int = 0) -> Inspection:
    """Redistributes each prompt's activated gate `[seq, width]` with each policy; measures it before and after.

    The keyed noise depends on seed and layer.

    Raises ArgumentError if there is no gate or no policy, or every scope contains NaN or Inf.
    """
    gates = sample.gates
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
    keys, measured = noise.keys(before.shape[1], sample.layer or 0), measure(before, halfwidth=halfwidth)

    def effect(policy: Policy) -> Effect:
        outcomes = [outcome(gate, policy, scope=scope, draw=drawer(gate, noise, None, keys)) for gate in gates]
        values = torch.cat([result.values for result in outcomes])[finite].float()
        moved = torch.cat([result.moved for result in outcomes])[finite]
        arrays = (tensor.flatten().cpu().numpy() for tensor in (before, values, moved))
        panel, after = Panel(type(policy).__name__, detail(policy), *arrays), measure(values, halfwidth=halfwidth)
        return Effect(policy, panel, moved.double().mean().item(), after, difference(measured, after))

    tokens, width, passed = len(before), before.shape[1], int((~finite).sum())
    effects = [effect(policy) for policy in policies]
    return Inspection(sample, scope, seed, tokens, width, passed, measured, effects, sample.interrupted)
