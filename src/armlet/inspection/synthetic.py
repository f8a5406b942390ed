"""Two samples of known distribution, to show and test a policy's effect without a model."""

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError

CENTRES = (-2.5, -1.0, 0.0, 1.0, 2.5)
DEVIATIONS = (0.18, 0.2, 0.28, 0.2, 0.18)
MODE_WEIGHTS = (0.095, 0.145, 0.52, 0.145, 0.095)
"""Share of the values in each mode. Half are in the middle mode, as about half of a model's gate is near zero, so
`Transport`'s scale, the median of |a|, depends on the width of the middle mode, not on the distance of the others."""

DEGREES_OF_FREEDOM = 3
"""For the sample "heavy-tail", which has a variance but no fourth moment, so a few values dominate every draw."""

SYNTHETIC_AXES = {"modes": (-4.0, 4.0)}  # the smallest range that a figure of a sample shows


def synthetic(kind: str, *, seed: int = 0, tokens: int = 64, width: int = 4096) -> Tensor:
    """Draws a float32 sample `[tokens, width]` of independent values, which replaces a model's activated gate.

    kind: "modes", a mixture of five normals at `CENTRES`, practically all of it within −4 to 4, or "heavy-tail",
    Student's t with `DEGREES_OF_FREEDOM`; others raise ArgumentError. seed: seed of a separate generator.
    """
    if kind not in ("modes", "heavy-tail"):
        raise ArgumentError(f"synthetic: expected modes or heavy-tail, found {kind!r}")
    shape, generator = (tokens, width), torch.Generator().manual_seed(seed)
    if kind == "modes":
        weights = torch.tensor(MODE_WEIGHTS)
        mode = torch.multinomial(weights, tokens * width, replacement=True, generator=generator).view(shape)
        return torch.tensor(CENTRES)[mode] + torch.tensor(DEVIATIONS)[mode] * torch.randn(shape, generator=generator)
    # Student's t: a normal divided by the root mean square of `DEGREES_OF_FREEDOM` other normals.
    normals = torch.randn((1 + DEGREES_OF_FREEDOM, *shape), generator=generator)
    return normals[0] / normals[1:].square().mean(0).sqrt()
