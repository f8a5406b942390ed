"""Measure what each policy does to the activated gate of one layer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from armlet.inspection.panel import Panel, Window
from armlet.inspection.result import Effect, Inspection
from armlet.layer.decoder import Layer1
from armlet.redistribution.entry import drawer, outcome
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.outcome import Outcome
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import detail
from armlet.statistics.shape import difference, measure


@dataclass
class GateSample:
    """Activated gates, and where they come from.

    Args:
        source: the model or the synthetic sample.
        activation: for the figure, "SiLU" or "GELU".
        gates: `[seq, width]` for each prompt.
        axis: the least range that the figure shows.
        interrupted: Ctrl-C left prompts out.
    """

    source: str
    activation: str = "SiLU"
    gates: list[Tensor] = field(default_factory=list)
    axis: Window | None = None
    interrupted: bool = False


def activated_gates(
    layers: Iterable[Layer1], prompts: Sequence[Tensor], layer: int, tick: Callable[[], None] = lambda: None
) -> Iterator[Tensor]:
    """The activated gate `[seq, width]` of one layer for each prompt in turn, in the layers' dtype.

    Args:
        layers: from layer 0 to the one that is wanted.
        prompts: token ids `[1, seq]`.
        layer: index of the wanted layer.
        tick: called after each prompt in each layer.
    """
    states: list[Tensor] = []
    for decoder in layers:
        device = decoder.gate.weight.device
        states = states or [decoder.embed(ids.to(device)) for ids in prompts]
        for index, x in enumerate(states):
            with torch.no_grad():
                states[index], trace = decoder(x, trace=True)
            if decoder.options.layer == layer:
                yield trace["activation"][0]
            tick()


def inspect_gates(
    gates: Sequence[Tensor], policies: Sequence[Policy], *, scope: str = "token", seed: int = 0, layer: int = 0
) -> Inspection:
    """Redistributes each prompt's activated gate with each policy and measures before and after.

    Args:
        gates: `[seq, width]` each, each redistributed in one call; any float dtype.
        policies: at least one.
        scope: as in `redistribute`.
        seed: of the keyed noise.
        layer: which the keyed noise depends on.

    Raises:
        ArgumentError: nothing to measure: no gate, no policy, or NaN or Inf everywhere.
    """
    if not gates or not policies:
        raise ArgumentError("inspect: at least one prompt and one policy are needed")
    baseline = _gate_baseline(gates, scope)
    keys = Noise(seed).keys(baseline.values.shape[1], layer)

    def redistributed(gate: Tensor, policy: Policy) -> Outcome:
        return outcome(gate, policy, scope=scope, draw=drawer(gate, Noise(seed), None, keys))

    effects = [_effect(policy, baseline, [redistributed(gate, policy) for gate in gates]) for policy in policies]
    passed = int((~baseline.finite).sum())
    tokens, width = baseline.values.shape
    return Inspection(tokens, width, passed, baseline.measures, effects)


@dataclass(frozen=True)
class _Baseline:
    """The finite tokens of all prompts before redistribution.

    Args:
        finite: `[all tokens]` bool, the tokens that are measured.
        values: `[tokens, width]` float32, these tokens' gates.
        halfwidth: `[tokens, 1]`, their near-zero half-width.
        measures: `shape.measure` of the values.
    """

    finite: Tensor
    values: Tensor
    halfwidth: Tensor
    measures: dict[str, float]


def _gate_baseline(gates: Sequence[Tensor], scope: str) -> _Baseline:
    finite = torch.cat([_finite_tokens(gate, scope) for gate in gates])
    if not finite.any():
        unit = "token" if scope == "token" else "prompt"
        raise ArgumentError(f"inspect: every {unit} contains NaN or Inf; try another dtype, such as --dtype float32")
    values = torch.cat(list(gates))[finite].float()
    halfwidth = near_zero_halfwidth(values)
    return _Baseline(finite, values, halfwidth, measure(values, halfwidth=halfwidth))


def _effect(policy: Policy, baseline: _Baseline, outcomes: Sequence[Outcome]) -> Effect:
    values = torch.cat([result.values for result in outcomes])[baseline.finite].float()
    moved = torch.cat([result.moved for result in outcomes])[baseline.finite]
    arrays = (tensor.flatten().cpu().numpy() for tensor in (baseline.values, values, moved))
    panel = Panel(type(policy).__name__, detail(policy), *arrays)
    after = measure(values, halfwidth=baseline.halfwidth)
    return Effect(policy, panel, moved.double().mean().item(), after, difference(baseline.measures, after))


def _finite_tokens(gate: Tensor, scope: str) -> Tensor:
    """`[seq]` bool: tokens whose scope is finite; scopes other than "token" are the whole prompt."""
    finite = gate.float().isfinite().all(-1)
    return finite if scope == "token" else finite.all().expand(len(gate))
