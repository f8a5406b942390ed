"""Number formats: their largest numbers, llama.cpp's sums of blocks, and what NVFP4 stores as 0."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from armlet.bounds.formats import (
    FLOAT_FORMATS,
    MAXIMA,
    VALUE_BOUNDS,
    nvfp4_zeros,
    q8_1_sums,
    rounded_down,
)

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def decoded(exponent_bits, mantissa_bits, code):
    """The number of a code of a small float without infinities: sign 0, then exponent, then mantissa."""
    exponent, mantissa = divmod(code, 2**mantissa_bits)
    bias = 2 ** (exponent_bits - 1) - 1
    share = mantissa / 2**mantissa_bits
    return 2.0 ** (exponent - bias) * (1 + share) if exponent else 2.0 ** (1 - bias) * share


def largest_finite(exponent_bits, mantissa_bits):
    """The largest number of an IEEE format, whose largest exponent is for infinity and NaN."""
    return decoded(exponent_bits, mantissa_bits, (2**exponent_bits - 1) * 2**mantissa_bits - 1)


def test_the_largest_numbers_are_those_of_the_codes():
    ieee = {"float16": (5, 10), "bfloat16": (8, 7), "e5m2": (5, 2)}
    assert {name: largest_finite(*bits) for name, bits in ieee.items()} == {
        name: maximum for name, maximum in FLOAT_FORMATS.items() if name != "e4m3"
    }
    assert FLOAT_FORMATS["e4m3"] == decoded(4, 3, 2**7 - 2)  # of all 127 codes of its sign, only the last is NaN
    assert max(decoded(2, 1, code) for code in range(8)) * decoded(4, 3, 2**7 - 2) == MAXIMA["nvfp4"]
    assert tuple(decoded(2, 1, code) for code in range(8)) == E2M1


def test_the_next_number_after_the_largest_is_no_number_of_the_format():
    for name, dtype in {"float16": torch.float16, "e5m2": torch.float8_e5m2}.items():
        step = FLOAT_FORMATS[name] - torch.tensor(FLOAT_FORMATS[name] * 0.9999).to(dtype).double().item()
        assert torch.tensor(FLOAT_FORMATS[name]).to(dtype).double().item() == FLOAT_FORMATS[name]
        assert torch.tensor(FLOAT_FORMATS[name] * 1.2 + step).to(dtype).isinf()


def slow_sums(row):
    sums = []
    for start in range(0, len(row), 32):
        block = row[start : start + 32]
        scale = max(map(abs, block)) / 127
        sums.append(abs(scale * sum(round(x / scale) for x in block)) if scale else 0.0)
    return sums


@given(st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 3000.0]))
def test_sums_of_blocks_are_the_scale_times_the_sum_of_the_codes(seed, scale):
    values = torch.randn(3, 64, generator=torch.Generator().manual_seed(seed)) * scale
    values[1, :32] = 0
    expected = torch.tensor([slow_sums(row) for row in values.tolist()])
    one_code = values.unflatten(-1, (2, 32)).abs().amax(-1) / 127  # a tie may round otherwise in float32
    assert ((q8_1_sums(values) - expected).abs() <= 1.01 * one_code).all()


def test_values_within_the_bound_have_no_sum_that_overflows_float16_and_larger_ones_may():
    block = torch.full((1, 32), VALUE_BOUNDS["q8_1"])
    assert q8_1_sums(block).half().isfinite().all()
    assert q8_1_sums(block * 1.001).half().isinf().all()


def nearest_e2m1(x):
    """The e2m1 number nearest to a magnitude; a tie goes to the even code."""
    return min(range(len(E2M1)), key=lambda code: (abs(E2M1[code] - x), code % 2))


def slow_zeros(row, tensor_scale):
    zeros = lost = 0
    for start in range(0, len(row), 16):
        block = [abs(x) for x in row[start : start + 16]]
        scale = torch.tensor(max(block) / 6 / tensor_scale).clamp(max=448).to(torch.float8_e4m3fn).item()
        for x in block:
            zeros += x > 0 and (scale == 0 or nearest_e2m1(x / (scale * tensor_scale)) == 0)
            lost += x > 0 and scale == 0
    return zeros, lost


@given(st.integers(0, 2**31), st.sampled_from([1.0, 1e4, 1e7]))
def test_nvfp4_stores_as_0_what_the_nearest_number_says(seed, spike):
    values = torch.randn(4, 32, generator=torch.Generator().manual_seed(seed))
    values[0, 0], values[1, :16] = spike, 0
    scale = values.abs().max().item() / MAXIMA["nvfp4"]
    assert nvfp4_zeros(values, scale) == slow_zeros(values.flatten().tolist(), scale)


def test_a_spike_loses_the_blocks_of_ordinary_values_and_that_test_can_fail():
    values = torch.ones(1, 32)
    values[0, 0] = 1e7
    assert nvfp4_zeros(values, 1e7 / MAXIMA["nvfp4"]) == (31, 16)
    assert nvfp4_zeros(torch.ones(1, 32), 1 / MAXIMA["nvfp4"]) == (0, 0)


def test_blocks_that_do_not_fill_the_width_have_no_statistics():
    assert q8_1_sums(torch.ones(1, 48)) is None
    assert nvfp4_zeros(torch.ones(1, 24), 1.0) is None


@given(st.floats(1e-3, 6e4), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_rounding_down_gives_a_number_of_the_dtype_that_is_no_larger_and_the_largest_or_next_to_it(value, dtype):
    number = rounded_down(value, dtype)
    assert torch.tensor(number, dtype=torch.float64).to(dtype).double().item() == number
    assert value * (1 - 2 * torch.finfo(dtype).eps) <= number <= value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_number_of_the_dtype_stays(dtype):
    assert rounded_down(448.0, dtype) == 448.0
