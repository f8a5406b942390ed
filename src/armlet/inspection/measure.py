"""What each policy does to the activated gate of one layer: the numbers behind `armlet inspect`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from armlet.inspection.panel import Panel
from armlet.layer.decoder import Layer1
from armlet.redistribution.entry import drawer, outcome
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import detail, settings
from armlet.statistics.shape import difference, measure


@dataclass
class Sample:
    """Activated gates, and what is known of where they come from.

    Args:
        source: model or synthetic sample, in words.
        activation: for the figure, "SiLU" or "GELU".
        gates: `[seq, width]` for each prompt.
        axis: the least range that the figure shows.
        interrupted: fewer prompts than asked for, cut short by Ctrl-C.
    """

    source: str
    activation: str = "SiLU"
    gates: list[Tensor] = field(default_factory=list)
    axis: tuple[float, float] | None = None
    interrupted: bool = False


@dataclass(frozen=True)
class Effect:
    """One policy on the same values.

    Args:
        policy: what moved them.
        panel: the values before and after, `[tokens · width]`, and which moved.
        share_moved: fraction of all values.
        after: `shape.measure` of the values after.
    """

    policy: Policy
    panel: Panel
    share_moved: float
    after: dict[str, float]


@dataclass(frozen=True)
class Inspection:
    """The activated gate of one layer, and each policy's effect on it.

    Args:
        tokens: tokens measured.
        width: values of each.
        passed: tokens left out, because their scope holds NaN or Inf and passes through.
        before: `shape.measure` of the values before.
        effects: one for each policy.
    """

    tokens: int
    width: int
    passed: int
    before: dict[str, float]
    effects: list[Effect]

    def plain(self) -> dict[str, Any]:
        """For JSON: numbers that are not finite become None."""
        return {
            "tokens": self.tokens,
            "width": self.width,
            "passed": self.passed,
            "before": _finite(self.before),
            "policies": [
                {
                    "policy": effect.policy.name,
                    **settings(effect.policy),
                    "share_moved": effect.share_moved,
                    "after": _finite(effect.after),
                    "difference": _finite(difference(self.before, effect.after)),
                }
                for effect in self.effects
            ],
        }


def activated_gates(
    layers: Iterable[Layer1], prompts: Sequence[Tensor], layer: int, tick: Callable[[], None] = lambda: None
) -> Iterator[Tensor]:
    """The activated gate `[seq, width]` of one layer for each prompt in turn, in the layers' dtype.

    Args:
        layers: from layer 0 up to the one that is wanted.
        prompts: token ids `[1, seq]`.
        layer: which is wanted.
        tick: called after each prompt in each layer.
    """
    states: list[Tensor] = []
    for part in layers:
        device = part.gate.weight.device
        states = states or [part.embed(ids.to(device)) for ids in prompts]
        for at, x in enumerate(states):
            with torch.no_grad():
                states[at], trace = part(x, trace=True)
            if part.options.layer == layer:
                yield trace["activation"][0]
            tick()


def inspect_gates(
    gates: Sequence[Tensor], policies: Sequence[Policy], *, scope: str = "token", seed: int = 0, layer: int = 0
) -> Inspection:
    """Redistributes each prompt's activated gate with each policy and measures before and after.

    Args:
        gates: `[seq, width]` each, one call each; any float dtype.
        policies: at least one.
        scope: as in `redistribute`.
        seed: of the keyed noise.
        layer: which the keyed noise depends on.

    Raises:
        ArgumentError: nothing to measure: no gate, no policy, or NaN or Inf everywhere.
    """
    if not gates or not policies:
        raise ArgumentError("inspect: at least one prompt and one policy are needed")
    kept = torch.cat([_kept(gate, scope) for gate in gates])
    if not kept.any():
        raise ArgumentError("inspect: every token holds NaN or Inf; try another dtype, such as --dtype float32")
    before = torch.cat(list(gates))[kept].float()
    halfwidth = near_zero_halfwidth(before)
    effects = [_effect(policy, gates, before, halfwidth, kept, scope, Noise(seed), layer) for policy in policies]
    measured = measure(before, halfwidth=halfwidth)
    return Inspection(len(before), before.shape[1], int((~kept).sum()), measured, effects)


def _kept(gate: Tensor, scope: str) -> Tensor:
    """`[seq]` bool: the tokens that no policy passes over. A prompt is one call, so one scope but for "token"."""
    finite = gate.float().isfinite().all(-1)
    return finite if scope == "token" else finite.all().expand(len(gate))


def _effect(
    policy: Policy,
    gates: Sequence[Tensor],
    before: Tensor,
    halfwidth: Tensor,
    kept: Tensor,
    scope: str,
    noise: Noise,
    layer: int,
) -> Effect:
    keys = noise.keys(before.shape[1], layer)
    results = [outcome(gate, policy, scope=scope, draw=drawer(gate, noise, None, keys)) for gate in gates]
    after = torch.cat([result.values for result in results])[kept].float()
    moved = torch.cat([result.moved for result in results])[kept]
    panel = Panel(type(policy).__name__, detail(policy), *(v.flatten().cpu().numpy() for v in (before, after, moved)))
    return Effect(policy, panel, moved.double().mean().item(), measure(after, halfwidth=halfwidth))


def _finite(measures: dict[str, float]) -> dict[str, float | None]:
    return {name: value if isfinite(value) else None for name, value in measures.items()}
