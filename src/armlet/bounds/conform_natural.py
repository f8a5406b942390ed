"""The largest values of each gated MLP of a model for texts, and the shares of values beyond its clamp."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from armlet.attachment.attach import attach
from armlet.attachment.config import AttachArguments
from armlet.attachment.expert_reach import APPLY_GATE
from armlet.attachment.mixtures import find_all_sites
from armlet.attachment.sites import ALL_EXPERTS, GATE, SITES, UP, UnsupportedModelError
from armlet.attachment.wrappers import ArmWrapper
from armlet.bounds.conform_forced import ForcedExperts, ForcedMlp
from armlet.bounds.conform_parts import DENSE, Clamp, Part
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import Noise

if TYPE_CHECKING:
    pass

LINEAR_GATE = "linear gate"
NOTHING = Inward(strength=0.0)  # moves no value


@dataclass
class Natural:
    """Statistics of one part over texts.

    largest: the largest magnitudes, by what they are: the output of the linear gate (`LINEAR_GATE`), and what the
    policy sees at a site of `attach`. Absent where it cannot be read.
    """

    calls: int = 0
    largest: dict[str, float] = field(default_factory=dict)
    beyond: dict[str, int] = field(default_factory=dict)  # by site: number of values that the clamp changes
    values: int = 0  # number of values of gate, and of up

    def see(self, name: str, values: Tensor) -> None:
        """Adds values of any shape."""
        if values.numel():
            self.largest[name] = max(self.largest.get(name, 0.0), values.abs().max().item())

    def see_raw(self, gate: Tensor, up: Tensor, clamp: Clamp) -> None:
        """Adds the outputs of the linears, gate and up."""
        self.see(LINEAR_GATE, gate)
        self.see(UP, up)
        counts = {GATE: (gate > clamp.gate).sum(), UP: (up.abs() > clamp.limit).sum()}
        self.beyond = {site: self.beyond.get(site, 0) + int(count) for site, count in counts.items()}
        self.values += gate.numel()

    def share(self, site: str) -> float | None:
        """The share of a site's values that the clamp changes."""
        return self.beyond[site] / self.values if self.values else None


@dataclass(frozen=True)
class RawPart:
    """A part whose values of gate and up can be read: where they are in it."""

    module: ForcedMlp | ForcedExperts
    columns: tuple[slice, slice]
    clamp: Clamp


@contextmanager
def watching_raw(natural: Natural, part: Part, raw: RawPart | None) -> Iterator[None]:
    """Inside the block, counts the calls of a part's module, and adds the outputs of its linears if `raw` is given."""
    assert part.module is not None
    with ExitStack() as stack:
        if raw and isinstance(raw.module, ForcedMlp):
            watch = _MlpWatch(natural, raw, len(raw.module.linears))
            for linear in raw.module.linears:
                stack.callback(linear.register_forward_hook(watch, prepend=True).remove)
        elif raw:
            see = partial(_see_experts, natural, raw)
            stack.callback(part.module.register_forward_pre_hook(see, with_kwargs=True).remove)
        stack.callback(part.module.register_forward_pre_hook(partial(_count, natural)).remove)
        yield


def _count(natural: Natural, *_: object) -> None:
    natural.calls += 1


@dataclass
class _MlpWatch:
    """Joins the outputs of the linears gate and up of each call."""

    natural: Natural
    raw: RawPart
    linears: int
    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)

    def __call__(self, linear: nn.Module, _arguments: object, output: Tensor) -> None:
        self.outputs[linear] = output.detach()
        if len(self.outputs) == self.linears:
            joined = torch.cat([self.outputs[linear] for linear in self.raw.module.linears], -1)  # type: ignore[union-attr]
            self.outputs.clear()
            _see_columns(self.natural, self.raw, joined)


def _see_columns(natural: Natural, raw: RawPart, joined: Tensor) -> None:
    gate, up = (joined[..., columns] for columns in raw.columns)
    natural.see_raw(gate, up, raw.clamp)


@torch.no_grad()
def _see_experts(natural: Natural, raw: RawPart, experts: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Computes the linears of the experts that tokens are routed to, again."""
    _, hidden, routing, *_ = inspect.signature(type(experts).forward).bind(experts, *args, **kwargs).args
    bias = getattr(experts, "gate_up_proj_bias", None)
    transposed = raw.module.weights.transposed  # type: ignore[union-attr]
    for expert in routing.unique().tolist():
        if expert >= raw.module.experts:
            continue  # of other devices, or without weights
        weight = experts.gate_up_proj[expert]
        tokens = hidden[(routing == expert).any(-1)].to(weight.dtype)
        weight = weight.T if transposed else weight
        _see_columns(natural, raw, F.linear(tokens, weight, None if bias is None else bias[expert]))


@contextmanager
def watching_sites(model: nn.Module, naturals: Sequence[tuple[Part, Natural]]) -> Iterator[None]:
    """Inside the block, adds what the policy sees at each site that `attach` can reach."""
    placements = _placements(model, [part for part, _ in naturals])
    with ExitStack() as stack:
        if placements:
            stack.enter_context(attach(model, placements))
        for part, natural in naturals:
            for wrapper in _wrappers(part.module):
                see = partial(_see_site, natural, wrapper.site.site)
                stack.callback(wrapper.arm.register_forward_pre_hook(see).remove)
        yield


def _wrappers(mlp: nn.Module | None) -> list[ArmWrapper]:
    """What `attach` has put into an MLP, as children or in one; `modules()` and `isinstance` take some for linears."""
    children = [child for child in (mlp._modules.values() if mlp else ()) if child is not None]
    inside = [inner for child in children for inner in child._modules.values() if inner is not None]
    return [module for module in [*children, *inside] if issubclass(type(module), ArmWrapper)]  # type: ignore[misc]


def _placements(model: nn.Module, parts: Sequence[Part]) -> list[AttachArguments]:
    """Where `attach` can be, for each site and kind of part."""
    layers = dict[str, list[int]]()
    for part in parts:
        if not _is_replaced(part.module):
            layers.setdefault(ALL_EXPERTS if part.kind == DENSE else part.kind, []).append(part.layer)
    placements = list[AttachArguments]()
    for site, (experts, indices) in product(SITES, layers.items()):
        if not _can_attach(model, indices, site, experts):
            indices = [index for index in indices if _can_attach(model, [index], site, experts)]
        if indices:
            rest = {"site": site, "experts": experts}
            placements.append(AttachArguments(policy=NOTHING, layers=indices, scope="token", noise=Noise(0), **rest))
    return placements


def _is_replaced(mlp: nn.Module | None) -> bool:
    """Whether a module has code of its own instead of its class's, which `attach` would replace."""
    return "_hf_hook" not in vars(mlp) and bool(vars(mlp).keys() & {APPLY_GATE, "forward"})


def _can_attach(model: nn.Module, layers: Sequence[int], site: str, experts: str) -> bool:
    try:
        return bool(find_all_sites(model, layers, site, experts))
    except (UnsupportedModelError, ArgumentError):
        return False


def _see_site(natural: Natural, site: str, _arm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    natural.see(site, arguments[0].detach())
