"""The operations that are timed, on `gate_up`, `[tokens, 2·width]`: gate, then up, as a served model has them."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from armlet.redistribution.backends.plain import PLAIN
from armlet.redistribution.backends.triton.moves import gated_rows
from armlet.redistribution.cut import Cut
from armlet.redistribution.entry import redistribute
from armlet.redistribution.inward import Inward
from armlet.redistribution.literal import literal
from armlet.redistribution.noise import Noise
from armlet.redistribution.operands import Operands
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

Work = Callable[[], object]

FUSED: dict[str, Policy] = {
    "outward": Outward(),
    "inward": Inward(),
    "inward, limit": Inward(limit=2.0, curve="clip"),
    "cut": Cut(),
}
"""Policies that one Triton program computes together with SiLU and the product with up."""

PLAIN_SCOPES: dict[str, tuple[Policy, str]] = {
    "transport": (Transport(), "token"),
    "outward, sequence": (Outward(), "sequence"),
    "outward, call": (Outward(), "call"),
    "transport, call": (Transport(), "call"),
}
"""Policy and scope of what runs in plain PyTorch: SiLU, ARM and the product are operations of their own."""

COPY, REFERENCE, LITERAL, COMPILED = "copy", "silu·up", "literal algorithm", "compiled"
SEQUENCES = 8  # of the tokens at scope "sequence", where their number allows it


def inputs(tokens: int, width: int, dtype: torch.dtype, device: str) -> Tensor:
    """`gate_up` of normal values, the gate with standard deviation 2."""
    generator = torch.Generator(device).manual_seed(0)
    gate_up = torch.randn(tokens, 2 * width, generator=generator, device=device, dtype=torch.float32)
    gate_up[:, :width] *= 2
    return gate_up.to(dtype)


def copy(gate_up: Tensor) -> Work:
    """A copy that moves as many bytes as a fused operation: three widths of each token, read or written."""
    source = gate_up.flatten()[: gate_up.numel() * 3 // 4]
    return partial(torch.empty_like(source).copy_, source)


def reference(gate_up: Tensor) -> Work:
    """SiLU·up in one program."""
    from benchmarks.gpu.silu_up import silu_up

    return partial(silu_up, gate_up)


def fused(gate_up: Tensor, policy: Policy) -> Work:
    """SiLU, ARM at scope "token" and the product with up in one program."""
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    draws = Operands()
    if isinstance(policy, Outward):
        positions = torch.arange(tokens, device=gate_up.device)
        draws = Operands(Noise(0).keys(width).to(gate_up.device), positions)
    return partial(gated_rows, gate_up, policy, "silu", draws)


def in_plain_pytorch(gate_up: Tensor, policy: Policy, scope: str) -> Work:
    """SiLU, ARM and the product with up, each an operation of its own."""
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    gate, up = gate_up[:, :width], gate_up[:, width:]
    sequences = SEQUENCES if scope == "sequence" and tokens % SEQUENCES == 0 else 1

    def work() -> Tensor:
        activated = functional.silu(gate).view(sequences, -1, width)
        return redistribute(activated, policy, scope=scope).view(tokens, width) * up

    return work


def as_published(gate_up: Tensor) -> Work:
    """SiLU, the published algorithm over the whole tensor, in float32 as it needs it, and the product with up."""
    width = gate_up.shape[1] // 2

    def work() -> Tensor:
        gate, up = gate_up[:, :width], gate_up[:, width:]
        return literal(functional.silu(gate).float()).to(up.dtype) * up

    return work


def compiled(gate_up: Tensor, policy: Policy, backend: str) -> Work:
    """SiLU, ARM's plain PyTorch and the product with up, compiled together by `torch.compile`."""
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    draws = Operands(Noise(0).keys(width).to(gate_up.device), torch.arange(tokens, device=gate_up.device)[:, None])

    def work(values: Tensor) -> Tensor:
        activated = functional.silu(values[:, None, :width])
        return PLAIN.move_rows(activated, policy, draws).values[:, 0] * values[:, width:]

    return partial(torch.compile(work, backend=backend, dynamic=False), gate_up)
