"""A few small calls of every Triton program, to run under compute-sanitizer."""

import torch

from armlet.redistribution.backends.triton.moves import TRITON, gated_rows
from armlet.redistribution.noise import Noise
from armlet.redistribution.operands import Operands
from benchmarks.gpu.operations import FUSED

WIDTHS = (3, 200, 1_536)


def main(device: str = "cuda") -> None:
    """Runs each policy with a mask, strengths and keyed noise, and fused with SiLU and up."""
    for width in WIDTHS:
        generator = torch.Generator(device).manual_seed(0)
        gate_up = torch.randn(3, 2 * width, generator=generator, device=device)
        mask = torch.tensor([[True], [False], [True]], device=device)
        draws = (Noise(0).keys(width).to(device), torch.arange(3, device=device)[:, None])
        for policy in FUSED.values():
            operands = Operands(*draws, mask=mask, strength=torch.full((3,), 0.5, device=device))
            TRITON.move_rows(gate_up[:, None, :width].contiguous(), policy, operands)
            gated_rows(gate_up, policy, "silu", Operands(draws[0], draws[1][:, 0]))
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
