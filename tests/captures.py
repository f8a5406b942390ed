"""What ARM got and returned in a model, and what it should have returned, by the formula of the noise alone."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from armlet import ARM, Noise, Outward, redistribute


@dataclass
class Capture:
    """What one ARM got and returned in one call."""

    layer: int
    values: Tensor
    output: Tensor

    @property
    def tokens(self) -> int:
        """The number of tokens of the model's call."""
        return self.values.shape[:-1].numel()

    def check(self, positions: Tensor, real: Tensor) -> tuple[str, int]:
        """What is wrong with the output, if anything, and the number of rows of real tokens.

        Args:
            positions: `[tokens]`, those that the tokens have.
            real: `[tokens]`, False for padding.
        """
        if self.tokens != len(positions):
            return f"ARM got {self.tokens} tokens of {len(positions)}", 0
        values, output = (tensor.reshape(len(positions), -1) for tensor in (self.values, self.output))
        draws = uniforms(values.shape[-1], self.layer, positions)
        wrong = (moved(values, draws, real) != output).any(-1)
        if not wrong.any():
            return "", int(real.sum())
        return f"{'tokens' if (wrong & real).any() else 'padding'} with other draws than those of their positions", 0


@dataclass
class ExpertsCapture:
    """What an ARM got and returned in one call of a module of routed experts, and what that module got."""

    layer: int
    site: str
    experts: nn.Module
    hidden: Tensor  # `[tokens, d_model]`, or `[experts · tokens, d_model]` if all experts run on all tokens
    routing: Tensor | None  # `[tokens, choices]`, the experts of each token; None if all run on all
    parts: list[Capture] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of experts."""
        named = self.experts.named_parameters(recurse=False)
        return next(len(weight) for name, weight in named if name.startswith("down_proj"))

    @property
    def tokens(self) -> int:
        """The number of tokens of the model's call."""
        return len(self.hidden) // self.count if self.routing is None else len(self.routing)

    def check(self, positions: Tensor, real: Tensor) -> tuple[str, int]:
        """As `Capture.check`; a row is a token in one of its experts."""
        if self.tokens != len(positions):
            return f"the experts got {self.tokens} tokens of {len(positions)}", 0
        values, output = (torch.cat(tensors) if tensors else torch.empty(0, 1) for tensors in self._rows())
        pairs, inputs = self._pairs()
        rows = match(self.experts, self.site, inputs, pairs, values)
        if rows is None:
            return f"{len(values)} rows that are not those of {len(pairs)} routed tokens, each once", 0
        token, expert = pairs[rows].unbind(-1)
        width, acted = values.shape[-1], real[token] & (rows >= 0)
        draws = uniforms(width, self.layer, positions[token], expert * width, self.count * width)
        wrong = (moved(values, draws, acted) != output).any()
        return "rows with other draws than those of their token and expert" if wrong else "", int(
            real[pairs[:, 0]].sum()
        )

    def _rows(self) -> tuple[list[Tensor], list[Tensor]]:
        flat = [(part.values.flatten(0, -2), part.output.flatten(0, -2)) for part in self.parts]
        return [values for values, _ in flat], [output for _, output in flat]

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """Token and expert of each row, `[rows, 2]`, and its input, `[rows, d_model]`."""
        if self.routing is None:
            hidden = self.hidden.view(self.count, -1, self.hidden.shape[-1])
            expert, token = torch.nonzero((hidden != 0).any(-1)).unbind(-1)
            return torch.stack((token, expert), -1), hidden[expert, token]
        token = torch.arange(self.tokens)[:, None].expand(self.routing.shape)
        pairs = torch.stack((token, self.routing), -1).flatten(0, 1)
        pairs = pairs[pairs[:, 1] < self.count]  # some experts only return their input
        return pairs, self.hidden[pairs[:, 0]]


class Captures:
    """Captures what ARM does at a site of a model, call by call, until `remove`."""

    def __init__(self, model: nn.Module, site: str) -> None:
        self.site = site
        self.calls: list[Capture | ExpertsCapture] = []
        self._running: list[ExpertsCapture] = []
        self._hooks: list[Any] = []
        for name, module in model.named_modules():
            if isinstance(module, ARM):
                self._hooks.append(module.register_forward_hook(self._note))
                if experts := experts_around(model, name):
                    begin = lambda experts, args, kwargs, layer=module.layer: self._begin(layer, experts, args, kwargs)  # noqa: E731
                    self._hooks.append(experts.register_forward_pre_hook(begin, with_kwargs=True))
                    self._hooks.append(experts.register_forward_hook(self._end))

    def _note(self, arm: ARM, args: tuple[Any, ...], output: Tensor) -> None:
        capture = Capture(arm.layer, args[0].clone(), output.clone())
        (self._running[-1].parts if self._running else self.calls).append(capture)

    def _begin(self, layer: int, experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, *others = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        routing = next((value for value in others if not value.is_floating_point()), None)
        hidden = hidden.reshape(-1, hidden.shape[-1]).clone()
        self._running.append(ExpertsCapture(layer, self.site, experts, hidden, routing))
        self.calls.append(self._running[-1])

    def _end(self, *_: Any) -> None:
        self._running.pop()

    def remove(self) -> None:
        """Ends capturing."""
        for hook in self._hooks:
            hook.remove()


def experts_around(model: nn.Module, path: str) -> nn.Module | None:
    """The module with the weights of all experts of a layer that contains an ARM, by its name, if one does."""
    parts = path.split(".")
    around = [model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts) - 1, 0, -1)]
    return next((module for module in around if isinstance(getattr(module, "down_proj", None), nn.Parameter)), None)


def check_calls(calls: list[Capture | ExpertsCapture], mask: Tensor) -> tuple[list[str], Counter[int]]:
    """What is wrong in the calls of ARM in one call of a model, and the rows of real tokens in each layer.

    Args:
        calls: ARM's.
        mask: `[batch, cached + new tokens]`, 0 for padding. A position is the number of real tokens before it.
    """
    new = next((call.tokens // len(mask) for call in calls), 0)
    positions, real = (mask.cumsum(-1) - 1).clamp(min=0)[:, -new:].flatten(), mask[:, -new:].flatten().bool()
    problems: list[str] = []
    count: Counter[int] = Counter()
    for call in calls:
        problem, rows = call.check(positions, real)
        problems += [f"layer {call.layer}: {problem}"] if problem else []
        count[call.layer] += rows
    return problems, count


def uniforms(width: int, layer: int, positions: Tensor, first: Tensor | int = 0, channels: int = 0) -> Tensor:
    """The draws of `Noise(0)` by the formula: `[rows, width]`, for rows at `positions`, from channel `first` on."""
    base, step, _ = Noise(0).keys(channels or width, layer)
    channel = torch.as_tensor(first).reshape(-1, 1) + torch.arange(width)
    return ((base[channel] + positions.reshape(-1, 1) * step[channel]) % 2**32 // 2**8).float() / 2**24


def moved(values: Tensor, draws: Tensor, real: Tensor) -> Tensor:
    """What `Outward()` makes of rows with these draws; rows of padding stay."""
    return torch.where(real[:, None], redistribute(values[None], Outward(), noise=draws[None])[0], values)


def match(experts: nn.Module, site: str, inputs: Tensor, pairs: Tensor, values: Tensor) -> Tensor | None:
    """For each row of `values`, the index of its pair of token and expert, −1 for zeros; None unless all are there."""
    if not len(pairs):
        return None if values.any() else torch.full((len(values),), -1)
    identity = pairs[:, 0] * (pairs.max() + 1) + pairs[:, 1]  # a router may choose one expert twice
    for expected in candidates(experts, site, inputs, pairs[:, 1]):
        if expected.shape[-1] != values.shape[-1] or not len(values):
            continue
        distance, nearest = torch.cdist(values, expected, compute_mode="donot_use_mm_for_euclid_dist").min(-1)
        close = distance < 1e-4 * (1 + values.norm(dim=-1))  # float32, in another order than the model's kernels
        if torch.equal(identity[nearest[close]].sort()[0], identity.sort()[0]) and not values[~close].any():
            return torch.where(close, nearest, -1)
    return None


def candidates(experts: nn.Module, site: str, inputs: Tensor, expert: Tensor) -> Iterator[Tensor]:
    """The values of routed tokens at a site, in every layout and activation that families have."""
    weights = dict(experts.named_parameters(recurse=False))
    weight = weights["gate_up_proj"][expert]
    weight = weight if weight.shape[1] == inputs.shape[-1] else weight.transpose(1, 2)
    gate_up = (inputs[:, None] @ weight)[:, 0]
    if "gate_up_proj_bias" in weights:
        gate_up = gate_up + weights["gate_up_proj_bias"][expert]
    if site == "up":
        yield from (gate_up.chunk(2, -1)[1], gate_up[..., 1::2])
        return
    if site == "product" and "_apply_gate" in vars(experts):  # the class still has its own method
        yield getattr(type(experts), "_apply_gate")(experts, gate_up)  # noqa: B009 - a name that nn.Module lacks
    numbers = {name: value for name, value in vars(experts).items() if isinstance(value, int | float)}
    limit = next((value for name, value in numbers.items() if "limit" in name), torch.inf)
    alpha = next((value for name, value in numbers.items() if "alpha" in name), 1.0)
    for gate, up in (gate_up.chunk(2, -1), (gate_up[..., ::2], gate_up[..., 1::2])):
        bounded = gate.clamp(max=limit)
        gates = [
            F.silu(gate),
            F.silu(bounded),
            bounded * torch.sigmoid(alpha * bounded),
            F.relu(gate),
            F.relu(gate) ** 2,
        ]
        gates += [F.gelu(gate), F.gelu(gate, approximate="tanh")]
        if site == "gate":
            yield from gates
            continue
        limited = up.clamp(-limit, limit)
        yield from (
            activation.clamp(max=limit) * factor for activation in gates for factor in (up, limited, limited + 1)
        )
