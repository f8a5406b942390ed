"""What stands around a scheme: each way there and back is the identity, and each does what it is named for."""

import pytest
import torch
from torch.nn.functional import linear

from armlet import Inward
from armlet.precision.schemes import QuantScheme
from armlet.precision.transforms import (
    BY_ERROR,
    Compand,
    Hadamard,
    LeastError,
    Percentile,
    Rounding,
    Smooth,
    Transform,
    compand,
    expand,
    hadamard,
)

INT8, INT4 = QuantScheme("int8", "tensor"), QuantScheme("int4", "token")
COMPANDS = [Compand(0.9), Compand(0.9, fixed=True), Compand(BY_ERROR)]
TRANSFORMS = [Transform(), Percentile(0.99), LeastError(), Smooth(0.5), Hadamard(), *COMPANDS]
each_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)


def tailed(*shape, seed=0):
    """Values with wide tails, and a channel and a token that stand out."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) ** 3
    x[..., 3] *= 30
    x[0, 0] *= 50
    return x


X, WEIGHT = tailed(2, 16, 48), torch.randn(32, 48, generator=torch.Generator().manual_seed(9))


def error(transform, scheme, x=X):
    rounded = Rounding.fit(scheme, transform, x, WEIGHT)(x)
    return (rounded - x).square().mean().item()


@each_transform
def test_a_transform_and_its_inverse_are_the_identity_within_float_rounding(transform):
    fitted = transform.fit(X, WEIGHT, INT8)
    z, inverse = fitted.forward(X)
    # A rotation mixes the values of a block, and rounds to its largest; the others round each value by itself.
    scale = X.abs().amax(-1, keepdim=True) if isinstance(transform, Hadamard) else X.abs()
    assert ((inverse(z) - X).abs() <= 16 * 2**-23 * scale).all()


@pytest.mark.parametrize("transform", [Smooth(0.5), Hadamard()], ids=repr)
def test_the_way_back_folds_into_the_weight_of_down(transform):
    fitted = transform.fit(X.double(), WEIGHT.double(), INT8)
    z, inverse = fitted.forward(X.double())
    weight = WEIGHT.double()
    folded = inverse(weight) if isinstance(transform, Smooth) else fitted.forward(weight)[0]  # W·s, and W·H
    torch.testing.assert_close(linear(z, folded), linear(X.double(), WEIGHT.double()), rtol=1e-10, atol=1e-8)


def test_compand_is_inwards_curve_in_units_of_each_tokens_knee():
    z, _ = Compand(0.9).fit(X, WEIGHT, INT8).forward(X)
    knees = X.abs().kthvalue(round(0.9 * 48), dim=-1, keepdim=True).values
    torch.testing.assert_close(z, Inward.compand(X.double(), knees).div(knees).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(expand(compand(X)), Inward.expand(Inward.compand(X.double(), 1.0), 1.0).float())


@pytest.mark.parametrize("knee", [0.9, BY_ERROR])
def test_companding_a_token_of_zeros_or_of_few_values_is_no_error(knee):
    x = torch.zeros(1, 3, 48)
    x[0, 1, 5] = 7.0
    x[0, 2, ::2] = 1e-30
    rounded = Rounding.fit(INT8, Compand(knee), x, WEIGHT)(x)
    assert rounded.isfinite().all()
    torch.testing.assert_close(rounded, x)


def test_a_knee_by_error_is_each_tokens_best():
    def squared(knee, row):
        z = Inward.compand(row.double(), knee)
        step = z.abs().max() / 7
        return (Inward.expand((z / step).round() * step, knee) - row).square().sum().item()

    rounded = Rounding.fit(INT4, Compand(BY_ERROR), X, WEIGHT)(X)
    for row, coded in zip(X.flatten(0, 1), rounded.flatten(0, 1), strict=True):
        tried = [squared(row.abs().max().item() / 2 ** (step / 2), row) for step in range(16)]
        assert (coded - row).square().sum().item() == pytest.approx(min(tried), rel=1e-3)


@pytest.mark.parametrize("scheme", [INT8, INT4], ids=str)
def test_companding_rounds_the_bulk_more_finely_and_a_rotation_the_whole(scheme):
    plain = Rounding.fit(scheme, Transform(), X, WEIGHT)(X)
    companded = Rounding.fit(scheme, Compand(0.5), X, WEIGHT)(X)
    small = X.abs() < X.abs().median()
    assert (companded - X)[small].square().mean() < 0.5 * (plain - X)[small].square().mean()
    assert error(Hadamard(), scheme) < error(Transform(), scheme)


def test_the_mse_clip_is_never_worse_than_none_and_better_where_one_value_is_far_out():
    x = torch.randn(1, 64, 48, generator=torch.Generator().manual_seed(1))
    x[0, 0, 0] = 12.0
    static = QuantScheme("int4", "static")
    assert error(LeastError(), static, x) < error(Transform(), static, x)
    assert error(LeastError(), INT8) <= error(Transform(), INT8)


def test_a_percentile_clips_what_is_beyond_it_alone():
    rounded = Rounding.fit(INT8, Percentile(0.9), X, WEIGHT)(X)
    limit = X.abs().flatten(1).kthvalue(round(0.9 * 16 * 48), dim=-1).values[:, None, None]
    torch.testing.assert_close(rounded.abs().amax((1, 2), keepdim=True), limit)
    assert ((rounded - X).abs() <= limit / 127 * 0.51)[X.abs() <= limit].all()


def test_a_static_range_is_that_of_calibration():
    rounding = Rounding.fit(QuantScheme("int8", "static"), Transform(), X, WEIGHT)
    torch.testing.assert_close(rounding(100 * X).abs().max(), X.abs().max())


def test_smoothquant_evens_out_channels():
    z, _ = Smooth(1.0).fit(X, WEIGHT, INT8).forward(X)
    torch.testing.assert_close(z.abs().amax((0, 1)), torch.ones(48))


def test_a_rotation_spreads_one_value_over_its_block():
    x = torch.zeros(1, 1, 32 * 3 * 7)
    x[..., 5] = 96**0.5
    z, _ = Hadamard().fit(x, WEIGHT, INT8).forward(x)
    torch.testing.assert_close(z.abs()[0, 0], torch.tensor([1.0] * 96 + [0.0] * (672 - 96)))


def test_a_rotation_by_factors_is_that_by_their_kronecker_product():
    x = torch.randn(2, 3, 96 * 7, dtype=torch.float64)
    z, _ = Hadamard().fit(x, WEIGHT, INT8).forward(x)
    matrix = torch.kron(*hadamard(96 * 7)) / 96**0.5
    torch.testing.assert_close(z, (x.unflatten(-1, (7, 96)) @ matrix).flatten(-2))


@pytest.mark.parametrize(
    ("width", "order"),
    [(1536, 1536), (172, 4), (8960, 1280), (18944, 512), (48, 48), (20, 20), (12, 12), (64, 64), (35, 1)],
)
def test_a_hadamard_matrix_is_of_plus_and_minus_one_with_orthogonal_rows(width, order):
    matrix = torch.kron(*hadamard(width))
    assert matrix.shape == (order, order)
    assert matrix.abs().eq(1).all()
    assert torch.equal(matrix @ matrix.T, order * torch.eye(order, dtype=matrix.dtype))


@each_transform
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_every_dtype_is_kept(transform, dtype):
    x = (X / 100).to(dtype)
    rounded = Rounding.fit(INT8, transform, x, WEIGHT)(x)
    assert rounded.dtype == dtype
    assert rounded.isfinite().all()
