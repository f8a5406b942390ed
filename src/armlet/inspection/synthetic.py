"""Two samples with a known shape, so that a policy's effect can be seen and tested without a model."""

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError

CENTRES = (-2.5, -1.0, 0.0, 1.0, 2.5)
"""Where the modes of the sample "modes" lie."""

WEIGHTS = (0.095, 0.145, 0.52, 0.145, 0.095)
"""Share of the values in each mode. The middle one holds half, as near-zero gates do in a model: the median of |a|,
which `Transport` takes its scale from, then says how wide the middle is and not how far away the outer modes are."""

DEVIATIONS = (0.18, 0.2, 0.28, 0.2, 0.18)

DEGREES_OF_FREEDOM = 3
"""Of the sample "heavy-tail": a variance exists, a fourth moment does not, so a few values dominate every sample."""


def synthetic(kind: str, *, seed: int = 0, tokens: int = 64, width: int = 4096) -> Tensor:
    """Draw a sample that stands in for a model's activated gate.

    Args:
        kind: "modes", a mixture of five normals at `CENTRES`, all but impossibly rare draws within −4 to 4, or
            "heavy-tail", Student's t with `DEGREES_OF_FREEDOM`.
        seed: of a generator of its own; the global one is not touched.
        tokens: rows, at least 1.
        width: values in a row, at least 1.

    Returns:
        `[tokens, width]` float32, every row drawn alike.

    Raises:
        ArgumentError: an unknown kind, or a size below 1.
    """
    if kind not in SAMPLES:
        raise ArgumentError(f"synthetic: no sample is called {kind!r}; choose one of {', '.join(SAMPLES)}")
    if tokens < 1 or width < 1:
        raise ArgumentError(f"synthetic: a sample needs at least 1 token and width 1, got {tokens} and {width}")
    return SAMPLES[kind]((tokens, width), torch.Generator().manual_seed(seed))


def _modes(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    count = shape[0] * shape[1]
    mode = torch.multinomial(torch.tensor(WEIGHTS), count, replacement=True, generator=generator).view(shape)
    return torch.tensor(CENTRES)[mode] + torch.tensor(DEVIATIONS)[mode] * torch.randn(shape, generator=generator)


def _heavy_tail(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Student's t: a normal over the root mean square of as many other normals as there are degrees of freedom."""
    normals = torch.randn((1 + DEGREES_OF_FREEDOM, *shape), generator=generator)
    return normals[0] / normals[1:].square().mean(0).sqrt()


SAMPLES = {"modes": _modes, "heavy-tail": _heavy_tail}
"""Name of a sample -> what draws it."""
