"""Hypothesis strategies for activated gates, and how fast and slow results are compared."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from armlet.redistribution import Cut, Inward, Outward, Transport

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

# Ties, both zeros and denormals are what order statistics get wrong; the rest is the range of real gates.
ELEMENTS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, -0.5, -0.25, 1.0, 1e-40, -1e-40, 3e4]),
    st.floats(-0.28125, 8.0, width=32),
    st.floats(-50.0, 50.0, width=32),
)


def shapes(width=20):
    return st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, width))


def gates(width=20, elements=ELEMENTS):
    """float32 `[batch, seq, width]`."""
    return shapes(width).flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=elements)).map(torch.from_numpy)


@st.composite
def masked_gates(draw, width=12):
    """A gate and a mask with any padding, also whole rows."""
    a = draw(gates(width))
    return a, torch.from_numpy(draw(hnp.arrays(bool, a.shape[:2])))


def uniforms(a, seed=0):
    return torch.rand(a.shape, generator=torch.Generator().manual_seed(seed))


def same_bits(a, b):
    """Equal as bits: −0 and 0 differ, NaN equals itself."""
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(kind), b.contiguous().view(kind))


def assert_close(fast, slow, dtype=torch.float32):
    """Within rounding of `dtype`: a few float32 roundings of the statistics, and one to the dtype itself.

    The absolute part is a denormal: where a result is smaller than the dtype's least normal number, its relative
    error is not bounded.
    """
    eps = max(torch.finfo(dtype).eps, 8 * torch.finfo(torch.float32).eps)
    tiny = torch.finfo(torch.float32 if dtype == torch.float64 else dtype).smallest_normal
    scale = np.abs(slow).max(initial=0.0)
    # A sum a + strength·(a′ − a) rounds relative to its largest term, hence the share of the scale.
    np.testing.assert_allclose(fast.to(torch.float64).numpy(), slow, rtol=eps, atol=eps * scale * 0.5 + tiny)


POLICIES = [
    Outward(),
    Outward(write="add", proportion=0.3),
    Inward(knee=0.8),
    Inward(knee=0.8, curve="clip"),
    Inward(limit=0.5, side="above", curve="tanh"),
    Transport(),
    Cut(),
    Cut(threshold=0.2),
]


each_policy = pytest.mark.parametrize("policy", POLICIES, ids=repr)


def gate(*shape, seed=0):
    return torch.nn.functional.silu(2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)))
