"""ARM on the routed experts of a mixture: on each row, one token in one expert, in whatever order the rows arrive."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.call_tracker import CallTracker, NotFiredError
from armlet.attachment.expert_reach import APPLY_GATE
from armlet.attachment.expert_rows import EAGER, ROW_ORDERS, ExpertRows, every_row
from armlet.attachment.gate_formula import current_formula
from armlet.attachment.mixtures import ExpertsSite
from armlet.attachment.module import ARM
from armlet.attachment.sites import GATE, PRODUCT, SHARED, UP, Site
from armlet.attachment.wrappers import ArmWrapper
from armlet.redistribution.arguments import check_arguments
from armlet.redistribution.entry import DETERMINISTIC_POLICIES, redistribute_with_counts
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import WORD, Explicit, Noise, Source
from armlet.redistribution.rows import Policy


class ExpertsArm(ARM):
    """ARM for rows `[rows, width]` of several experts, with draws of their own for each expert."""

    def __init__(self, policy: Policy, *, width: int, experts: int, **arguments: Any) -> None:
        super().__init__(policy, width=width, **arguments)
        if isinstance(self.noise, Noise):
            start, step, stride = self.noise.keys(experts * width, self.layer)
            start = start + (self.noise.stream & WORD) * stride
            # Only the lowest 32 bits matter, and rows gather their keys: int32 takes half the memory.
            self.keys = torch.stack((start, step)).to(torch.int32).view(2, experts, width)

    def forward(
        self,
        a: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        policy: Policy | None = None,
        noise: Source | None = None,
        experts: Tensor | None = None,
        new_call: bool = True,
    ) -> Tensor:
        """Redistributes rows, given the position of each row's token, whether it is valid, and its expert.

        Rows that come in several parts count as one call: `new_call` says whether these are the first.
        """
        policy = self.policy if policy is None else policy
        check_arguments(a, policy, self.scope)
        noise = self.noise if noise is None else noise
        if type(policy) in DETERMINISTIC_POLICIES:
            noise = Noise.midpoint()  # not used: spares the draws
        elif noise is self.noise and self.keys is not None and positions is not None:
            noise = Explicit(Noise().uniforms(a.shape, positions, self.keys.to(a.device)[:, experts]))
        result = redistribute_with_counts(a, policy, scope=self.scope, noise=noise, positions=positions, mask=mask)
        self._count(a, result, mask, new_call=new_call)
        return result.values


class RoutedExperts(ArmWrapper):
    """ARM and what it acts on in the routed experts; hooks of the experts' module say which rows arrive."""

    arm: ExpertsArm
    site: ExpertsSite

    def __init__(self, site: ExpertsSite, arm: ExpertsArm, tracker: CallTracker) -> None:
        super().__init__(site, arm, tracker)
        self.train(site.mlp.training)

    def route(self, _experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the experts: works out the rows of this call."""
        call = self.tracker.current_call()
        if call is None:
            return
        site, implementation = self.site, self.site.check_implementation()
        hidden = args[0] if args else kwargs["hidden_states"]
        if site.routing_name:
            routing = kwargs[site.routing_name] if site.routing_name in kwargs else args[1]
            tokens, experts = ROW_ORDERS[implementation](routing)
            routed, count = None, routing.shape[0]
        else:
            tokens, experts, routed = every_row(hidden, site.experts)
            count = hidden.shape[0] // site.experts
        positions = call.positions.to(tokens.device).expand(call.batch, -1).reshape(-1)
        if positions.shape[0] != count:
            raise ArmletError(
                f"layer {site.layer}: {type(site.mlp).__name__} got {count} tokens of the decoder's "
                f"{positions.shape[0]}, so ARM does not know their positions; use experts={SHARED!r}, or detach()"
            )
        valid = None if call.mask is None else call.mask.to(tokens.device).reshape(-1)[tokens]
        mask = valid if routed is None else routed if valid is None else routed & valid
        call.rows[self.part] = ExpertRows(experts, positions[tokens], mask)

    def redistributed(self, a: Tensor) -> Tensor:
        """Applies ARM to the next rows, `[..., width]`."""
        call = self.tracker.current_call()
        if call is None and self.tracker.should_skip():
            return a
        if call is None or self.part not in call.rows:
            raise ArmletError(
                f"layer {self.site.layer}: routed experts ran outside the decoder's forward, where ARM does not know "
                "the positions of their tokens; call the model, or use paused() or detach()"
            )
        rows, known = a.reshape(-1, a.shape[-1]), call.rows[self.part]
        new_call = known.done == 0
        experts, positions, mask = known.take(len(rows))
        values = self.arm(rows, positions, mask, policy=self._policy(call), experts=experts, new_call=new_call)
        return values.view(a.shape)

    def finish(self, experts: nn.Module, _args: tuple[Any, ...], _output: object) -> None:
        """Forward hook of the experts: raises NotFiredError unless each row was treated exactly once."""
        call = self.tracker.current_call()
        rows = call.rows.pop(self.part, None) if call else None
        if call is None or rows is None:
            return
        count = rows.experts.shape[0]
        if self.site.check_implementation() == EAGER and self.site.routing_name:
            # The loop skips the experts that another device has, or that only return their input.
            count = int((rows.experts < self.site.experts).sum())
        if rows.done != count:
            raise NotFiredError(
                f"layer {self.site.layer}: {type(experts).__name__} computed {count} rows, but ARM treated "
                f"{rows.done}; use another implementation (model.set_experts_implementation), or detach()"
            )
        call.fired.add(self.part)


class RedistributedActivation(RoutedExperts):
    """The experts' activation, a module or a function, followed by ARM."""

    def __init__(self, site: ExpertsSite, arm: ExpertsArm, tracker: CallTracker) -> None:
        super().__init__(site, arm, tracker)
        self.activation = getattr(site.mlp, site.attribute)

    @property
    def without_arm(self) -> Callable[[Tensor], Tensor]:
        """The activation, for a trial of the experts' code."""
        return self.activation

    def forward(self, gate: Tensor) -> Tensor:
        """Returns the redistributed activated gate."""
        return self.redistributed(self.activation(gate))


class ExpertsGate(nn.Module):
    """The experts' `_apply_gate` with ARM on the activated gate or on up inside it, or on the product it returns.

    Its children are the `RoutedExperts` by their sites, of one or several attachments.
    """

    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.__dict__["experts"] = experts  # plain assignment would make them a child
        self.train(experts.training)

    def forward(self, gate_up: Tensor) -> Tensor:
        """Returns the product of activated gate and up for `gate_up`, the rows of both."""
        arms: dict[str, Any] = self._modules
        if UP in arms:
            columns, raw = arms[UP].site.up, gate_up
            gate_up = raw.clone()
            gate_up[..., columns] = arms[UP].redistributed(raw[..., columns])
        if GATE in arms:
            activated, other = current_formula(arms[GATE].site.mlp).factors(gate_up)
            product = arms[GATE].redistributed(activated) * other
        else:
            product = getattr(type(self.experts), APPLY_GATE)(self.experts, gate_up)
        return arms[PRODUCT].redistributed(product) if PRODUCT in arms else product

    def take_out(self, site: str) -> None:
        """Removes ARM at a site, and this module with the last one."""
        delattr(self, site)
        if not self._modules:
            delattr(self.experts, APPLY_GATE)
            delattr(self.experts, "arm")

    @classmethod
    def of(cls, experts: nn.Module) -> "ExpertsGate":
        """The one of these experts, made if there is none."""
        if APPLY_GATE not in vars(experts):
            vars(experts)[APPLY_GATE] = gate = cls(experts)  # is used instead of the class's method, as no child would
            experts.add_module("arm", gate)  # so that it follows the model to another device
        return vars(experts)[APPLY_GATE]


def check_routed(sites: Iterable[Site], scope: str, noise: Source) -> None:
    """Raises ArgumentError for a scope or noise that routed experts cannot have."""
    if not any(isinstance(site, ExpertsSite) for site in sites):
        return
    if scope != "token":
        raise ArgumentError(
            f"scope: the rows of a routed expert are single tokens of many sequences, so its statistics are those of "
            f"one row, scope 'token'; found {scope!r}, which only experts={SHARED!r} allows"
        )
    if isinstance(noise, Explicit):
        raise ArgumentError(
            "noise: the number of rows that routed experts get at once differs from call to call, so no tensor of "
            "uniforms fits; use Noise(seed)"
        )
