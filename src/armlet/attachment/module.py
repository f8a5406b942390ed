"""ARM as a module, with counters that show whether it acted."""

import threading
from collections.abc import Callable, Iterable, Sequence
from math import prod

import torch
from torch import Tensor, nn

from armlet.presentation.arguments import whole_number
from armlet.redistribution.arguments import check_arguments, check_policy
from armlet.redistribution.backends.choice import tally_for
from armlet.redistribution.backends.interception import intercepted, needs_torch_operations
from armlet.redistribution.entry import OneRow, redistribute_with_counts
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise, Source, source
from armlet.redistribution.operands import BackendResult
from armlet.redistribution.policies import as_policy
from armlet.redistribution.rows import Policy

_tally_lock = threading.Lock()  # without it, two threads that generate with one model would lose counts


def _tally(totals: Tensor, increments: Tensor) -> None:
    with _tally_lock:
        totals.add_(increments)


# A custom operator, so that torch.compile does not trace into it and compiled models acquire the lock, too.
_tally_operator = torch.library.custom_op("armlet::tally", _tally, mutates_args=("totals",))


@_tally_operator.register_fake
def _(_totals: Tensor, _increments: Tensor) -> None:
    return None


def _tally_batched(
    _info: object, in_dims: tuple[int | None, int | None], totals: Tensor, increments: Tensor
) -> tuple[None, None]:
    """The tally of all members of a `torch.vmap`, which are one call."""
    if in_dims[0] is not None:
        raise ArmletError("torch.vmap over the counters of ARM is not possible: map over its inputs alone")
    members = increments.movedim(in_dims[1] or 0, 0)
    _tally_operator(totals, torch.cat((members[0, :1], members[:, 1:].sum(0))))
    return None, None


_tally_operator.register_vmap(_tally_batched)


class ReadOnlyError(ArmletError, AttributeError):
    """Setting this attribute would change what is shown or saved, but not what runs.

    Use `Attachment.update`, or attach again with the other setting.
    """


class ARM(nn.Module):
    """The Activation Redistribution Module, for people who write their own MLP: `act = arm(act)`.

    It has no parameters and adds no keys to a state dict. Its arguments are read-only attributes.

    Args:
        policy: `Outward`, `Inward`, `Transport` or `Cut`, one of your own (docs/howto/own_policy.md), or text as on the
            command line, such as "outward:band=0.2".
        width: the MLP's intermediate size; with tensor parallelism, the size over all ranks.
        layer: the layer's index, counted from 0; keyed noise depends on it.
        scope: "token", "sequence" or "call", see `redistribute`.
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()` or a tensor of uniforms shaped as each call's values.

    Raises:
        ArgumentError: an argument is unknown or out of range.
    """

    keys: Tensor | None
    totals: Tensor

    def __init__(
        self,
        policy: Policy | str,
        *,
        width: int,
        layer: int = 0,
        scope: str = "token",
        noise: Source | Tensor = Noise(0),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        policy = as_policy(policy)
        check_policy(policy, scope)
        width, layer = whole_number("width", width, 1), whole_number("layer", layer, 0)
        self._policy, self._width, self._layer, self._scope = policy, width, layer, scope
        self._noise = source(noise)
        keys = self._noise.keys(width, layer) if isinstance(self._noise, Noise) else None
        self.register_buffer("keys", keys, persistent=False)
        # Calls, tokens, values moved, rows passed through; `_counts` for single rows, `totals` for all other calls.
        self._counts = torch.zeros(4, dtype=torch.int64, device="cpu")
        self.register_buffer("totals", torch.zeros(4, dtype=torch.int64), persistent=False)
        self._row: OneRow | None = None

    @property
    def policy(self) -> Policy:
        """How values move."""
        return self._policy

    @property
    def width(self) -> int:
        """The MLP's intermediate size."""
        return self._width

    @property
    def layer(self) -> int:
        """The layer's index, counted from 0."""
        return self._layer

    @property
    def scope(self) -> str:
        """Over which values statistics are taken."""
        return self._scope

    @property
    def noise(self) -> Source:
        """Where the uniform draws come from."""
        return self._noise

    def __setattr__(self, name: str, value: Tensor | nn.Module) -> None:
        if isinstance(getattr(type(self), name, None), property):
            advice = "make a new ARM(...), or in a model with ARM attached, use update() of its Attachment"
            raise ReadOnlyError(f"ARM: {name} is read-only: {advice}")
        super().__setattr__(name, value)

    def forward(
        self,
        a: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        policy: Policy | None = None,
        noise: Source | None = None,
    ) -> Tensor:
        """Redistributes an activated gate; arguments, shapes and errors are as in `redistribute`.

        Pass `positions` when decoding with a cache: without them, positions start at 0 in every call. `policy` and
        `noise` act in this call instead of the module's.
        """
        policy = self._policy if policy is None else policy
        if noise is None and not torch.compiler.is_dynamo_compiling():
            row = self._row
            if row is None or row.policy is not policy or row.keys is not self.keys:
                row = self._row = OneRow(policy, self._noise, self._width, self.keys, self._counts)
            values = row.move(a, positions, mask)
            if values is not None:
                return values
        check_arguments(a, policy, self._scope)
        if a.shape[-1] != self._width:
            raise ArgumentError(f"ARM: expected values of width {self._width}, found shape {list(a.shape)}")
        source, keys = (self._noise, self.keys) if noise is None else (noise, None)
        result = redistribute_with_counts(
            a, policy, scope=self._scope, noise=source, positions=positions, keys=keys, mask=mask
        )
        self._count(a, result, mask)
        return result.values

    def _count(self, a: Tensor, result: BackendResult, mask: Tensor | None, *, new_call: bool = True) -> None:
        visible = intercepted() or needs_torch_operations(result.moved)
        valid = None if mask is None else mask.to(a.device) != 0
        if not visible and (tally := tally_for(a.device)):
            with _tally_lock:
                if tally(self.totals, result, prod(a.shape[:-1]) if valid is None else valid, calls=int(new_call)):
                    return
        tokens = torch.full((), prod(a.shape[:-1]), device=a.device) if valid is None else valid.sum()
        calls = torch.full_like(tokens, int(new_call))
        increments = torch.stack((calls, tokens, result.moved.sum(), result.passed.sum()))
        (_tally_operator if visible else _tally)(self.totals, increments.to(self.totals.device))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ARM":
        """Moves the buffers with their values, which `to_empty` would leave undefined."""
        values = {name: buffer for name, buffer in self._buffers.items() if buffer is not None and not buffer.is_meta}
        super()._apply(fn, recurse)
        self._buffers.update({name: value.to(self.totals.device) for name, value in values.items()})
        return self

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_row": None}  # it contains memory addresses, which a copy must not share

    def report(self) -> dict[str, int | float]:
        """Returns the counts so far.

        Returns:
            calls; tokens, without padding; moved: the number of values moved; share_moved: their share of all values of
            those tokens; passed: the number of scopes with NaN or Inf, which passed through unchanged.
        """
        calls, tokens, moved, passed = (self._counts + self.totals.cpu()).tolist()
        share = moved / (tokens * self.width) if tokens else 0.0
        return {"calls": calls, "tokens": tokens, "moved": moved, "share_moved": share, "passed": passed}

    def reset(self) -> None:
        """Sets all counts to 0."""
        with _tally_lock:
            self._counts.zero_()
            self.totals.zero_()

    def extra_repr(self) -> str:
        """The arguments, shown by `print(model)`."""
        return f"{self.policy}, width={self.width}, layer={self.layer}, scope={self.scope!r}, noise={self.noise}"


def joint_report(arms: Sequence[ARM]) -> dict[str, int | float]:
    """The counts of all ARMs of one layer together: `ARM.report`, with the calls of the layer."""
    reports = [arm.report() for arm in arms]
    if len(reports) == 1:
        return reports[0]
    total = {name: sum(report[name] for report in reports) for name in reports[0]}
    values = sum(report["tokens"] * arm.width for report, arm in zip(reports, arms, strict=True))
    share = total["moved"] / values if values else 0.0
    return total | {"calls": max(report["calls"] for report in reports), "share_moved": share}


def set_policy(arms: Iterable[ARM], policy: Policy) -> None:
    """Gives attached ARMs another, checked policy."""
    for arm in arms:
        arm._policy = policy
