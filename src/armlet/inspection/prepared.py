"""A sample prepared for policies: what each makes of it, and its measures before and after."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from armlet.inspection.records import Effect, GateSample, Panel, RoutedGates
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.outcome import Outcome, drawer, outcome
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.redistribution.policies import detail
from armlet.redistribution.rows import Draw, Policy
from armlet.statistics.shape import difference, measure


class PreparedGates:
    """A sample with what does not depend on a policy, so that many policies can be applied to it.

    scope: values over which statistics are taken; seed: seed of the keyed noise, which also depends on the layer.

    Raises ArgumentError if there is no gate, or every scope contains NaN or Inf.
    """

    def __init__(self, sample: GateSample, scope: str = "token", seed: int = 0) -> None:
        self.sample, self.scope, self.seed = sample, scope, seed
        self.gates = [gate if isinstance(gate, Tensor) else gate.values for gate in sample.gates]
        if not self.gates:
            raise ArgumentError("inspect: at least one prompt and one policy are needed")
        self.finite = _finite_tokens(self.gates, scope)
        self.before = torch.cat(self.gates)[self.finite].float()
        self.halfwidth, noise = near_zero_halfwidth(self.before), Noise(seed)
        self.measured = measure(self.before, halfwidth=self.halfwidth)
        keys = noise.keys(self.before.shape[1] * max(sample.experts, 1), sample.layer or 0)
        self.draws = [_drawer(gate, noise, keys, sample.experts) for gate in sample.gates]

    def panel(self, policy: Policy) -> Panel:
        """The values before and after a policy."""
        return self.panel_of(self.outcomes(policy), type(policy).__name__, detail(policy))

    def outcomes(self, policy: Policy) -> list[Outcome]:
        """What a policy makes of each prompt's values."""
        pairs = zip(self.gates, self.draws, strict=True)
        return [outcome(gate, policy, scope=self.scope, draw=draw) for gate, draw in pairs]

    def panel_of(self, outcomes: Sequence[Outcome], name: str, settings: str) -> Panel:
        """The finite values before and after, as a figure needs them; name, settings: those of the policy, in words."""
        values = torch.cat([result.values for result in outcomes])[self.finite].float()
        moved = torch.cat([result.moved for result in outcomes])[self.finite]
        return Panel(name, settings, *(tensor.flatten().cpu().numpy() for tensor in (self.before, values, moved)))

    def measures_after(self, panel: Panel) -> dict[str, float]:
        """`shape.measure` of a panel's values after."""
        return measure(torch.from_numpy(panel.after).view(self.before.shape), halfwidth=self.halfwidth)

    def effect(self, policy: Policy) -> Effect:
        """The values before and after a policy, with their measures."""
        panel = self.panel(policy)
        after = self.measures_after(panel)
        share_moved = float(panel.moved.mean(dtype=np.float64))
        return Effect(policy, panel, share_moved, after, difference(self.measured, after))


def _finite_tokens(gates: Sequence[Tensor], scope: str) -> Tensor:
    """Which tokens are in a scope without NaN or Inf, `[tokens]`; raises ArgumentError if none is."""
    finite = torch.cat([gate.float().isfinite().all(-1) for gate in gates])
    if scope != "token":  # the scope is a whole prompt
        lengths = [len(gate) for gate in gates]
        finite = torch.cat([tokens.all().expand(len(tokens)) for tokens in finite.split(lengths)])
    if not finite.any():
        unit = "token" if scope == "token" else "prompt"
        raise ArgumentError(f"inspect: every {unit} contains NaN or Inf; try another dtype, such as float32")
    return finite


def _drawer(gate: Tensor | RoutedGates, noise: Noise, keys: Tensor, experts: int) -> Draw:
    """The uniforms that `attach` draws: by position, and in a mixture by expert; keys: of all experts' channels."""
    if isinstance(gate, Tensor):
        return drawer(gate, noise, None, keys)
    keys_of_rows = keys.to(gate.experts.device).view(3, experts, -1)[:, gate.experts]
    return drawer(gate.values, noise, gate.positions, keys_of_rows)
