"""Two samples of known shape, to see and test a policy's effect without a model."""

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError

CENTRES = (-2.5, -1.0, 0.0, 1.0, 2.5)
DEVIATIONS = (0.18, 0.2, 0.28, 0.2, 0.18)
MODE_WEIGHTS = (0.095, 0.145, 0.52, 0.145, 0.095)
"""Share of the values in each mode. Half are in the middle one, as in a model about half of the gate is near zero:
`Transport`'s scale, the median of |a|, then measures how wide the middle mode is, not how far off the others are."""

DEGREES_OF_FREEDOM = 3
"""Of the sample "heavy-tail": it has a variance but no fourth moment, so a few values dominate every draw."""

SYNTHETIC_AXES = {"modes": (-4.0, 4.0)}  # the range that a figure of a sample shows at least


def synthetic(kind: str, *, seed: int = 0, tokens: int = 64, width: int = 4096) -> Tensor:
    """Draws a sample `[tokens, width]`, float32, that stands in for a model's activated gate: independent values.

    kind: "modes", a mixture of five normals at `CENTRES`, practically all of it within −4 to 4, or "heavy-tail",
    Student's t with `DEGREES_OF_FREEDOM`; ArgumentError for another. seed: of a generator of its own.
    """
    if kind not in ("modes", "heavy-tail"):
        raise ArgumentError(f"synthetic: there is no sample {kind!r}; choose one of modes, heavy-tail")
    shape, generator = (tokens, width), torch.Generator().manual_seed(seed)
    if kind == "modes":
        weights = torch.tensor(MODE_WEIGHTS)
        mode = torch.multinomial(weights, tokens * width, replacement=True, generator=generator).view(shape)
        return torch.tensor(CENTRES)[mode] + torch.tensor(DEVIATIONS)[mode] * torch.randn(shape, generator=generator)
    # Student's t: a normal over the root mean square of as many other normals as there are degrees of freedom.
    normals = torch.randn((1 + DEGREES_OF_FREEDOM, *shape), generator=generator)
    return normals[0] / normals[1:].square().mean(0).sqrt()
