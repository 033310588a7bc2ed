"""The definitions of the fixed-point arithmetic, against exact rationals and against the package's own version."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from int32_values import BOUNDARIES, INT32_MAX, int32s

from intsmooth import fixedpoint
from intsmooth.reference import arithmetic

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True)


def nearest(value, tie):
    """A rational to the nearest integer; tie decides between the lower and upper neighbour of a half."""
    lower = value.numerator // value.denominator
    rest = value - lower
    if rest == Fraction(1, 2):
        return lower + 1 if tie(value) else lower
    return lower + (rest > Fraction(1, 2))


def exact_high_mul(a, b):
    return min(nearest(Fraction(a * b, 2**31), lambda value: True), INT32_MAX)


def exact_divide(x, exponent):
    return nearest(Fraction(x, 2**exponent), lambda value: value > 0)


def test_truncating_divide_is_that_of_cpp():
    numerators = np.array([-7, -6, -5, -1, 0, 1, 5, 6, 7])
    assert arithmetic.truncating_divide(numerators, 3).tolist() == [-2, -2, -1, 0, 0, 0, 1, 2, 2]


def test_high_mul_on_boundaries():
    a, b = (x.ravel() for x in np.meshgrid(BOUNDARIES, BOUNDARIES))
    expected = [exact_high_mul(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    for function in (arithmetic, fixedpoint):
        result = function.saturating_rounding_doubling_high_mul(a.astype(np.int32), b.astype(np.int32))
        assert result.dtype == np.int32
        np.testing.assert_array_equal(result, expected)


def test_rounding_divide_on_boundaries():
    for exponent in range(32):
        expected = [exact_divide(x, exponent) for x in BOUNDARIES]
        for function in (arithmetic, fixedpoint):
            result = function.rounding_divide_by_power_of_two(np.array(BOUNDARIES, dtype=np.int32), exponent)
            assert result.dtype == np.int32
            np.testing.assert_array_equal(result, expected)


@SETTINGS
@given(int32s, int32s, st.integers(0, 31))
def test_definitions_equal_exact_rationals(a, b, exponent):
    for function in (arithmetic, fixedpoint):
        assert function.saturating_rounding_doubling_high_mul(a, b) == exact_high_mul(a, b)
        assert function.rounding_divide_by_power_of_two(a, exponent) == exact_divide(a, exponent)


@SETTINGS
@given(int32s, st.integers(0, INT32_MAX) | st.sampled_from([2**30, INT32_MAX, 0]), st.integers(-31, 30))
def test_multiply_by_quantized_multiplier(x, multiplier, shift):
    x >>= max(shift, 0)  # what a plan proves: x * 2^shift fits
    expected = exact_divide(exact_high_mul(x << max(shift, 0), multiplier), max(-shift, 0))
    for function in (arithmetic, fixedpoint):
        assert function.multiply_by_quantized_multiplier(x, multiplier, shift) == expected
    assert abs(expected - Fraction(x * multiplier, 2**31) * Fraction(2) ** shift) <= 1


@pytest.mark.parametrize("ratio", [
    1.0, 0.5, 0.9999999, 0.7, 3.0, 100.5, 2.0**14, *(1.37 * 2.0**-k for k in range(1, 31, 2)),
    *(2.0**-k for k in range(2, 31, 2)),
])  # fmt: skip
def test_multiply_equals_tflm_on_boundaries(ratio):
    """TFLM's QUANTIZE from int32 to int16 shows 16 bits of each rescaled int32."""
    from tflite_builder import ModelBuilder, run_tflm

    scale = np.float32(2.0**-20)
    multiplier, shift = fixedpoint.quantize_multiplier(float(np.float32(ratio * scale)) / float(scale))
    x = np.array([value for value in BOUNDARIES if abs(value) << max(shift, 0) <= INT32_MAX], dtype=np.int32)
    model = ModelBuilder()
    source = model.tensor((1, len(x)), "int32", scale=np.float32(ratio * scale))
    target = model.tensor((1, len(x)), "int16", scale=scale)
    model.operator("QUANTIZE", [source], [target], "QuantizeOptions")
    expected = run_tflm(model.build([source], [target]), x[np.newaxis])[0]
    for function in (arithmetic, fixedpoint):
        result = np.clip(function.multiply_by_quantized_multiplier(x, multiplier, shift), -32768, 32767)
        np.testing.assert_array_equal(result, expected)


def test_left_shift_wraps_like_int32():
    x = np.array([2**30, -(2**30), 3], dtype=np.int32)
    assert arithmetic.multiply_by_quantized_multiplier(x, 2**30, 1).tolist() == [-(2**30), -(2**30), 3]
    assert arithmetic.multiply_by_quantized_multiplier(x, 2**30, 2).tolist() == [0, 0, 6]


def test_one_multiplier_per_channel():
    x = np.arange(-6, 6, dtype=np.int32).reshape(2, 2, 3) * 100003
    multiplier, shift = np.array([2**30, 2**31 - 1, 1234567890]), np.array([1, -7, 0])
    result = arithmetic.multiply_by_quantized_multiplier(x, multiplier, shift)
    for channel in range(3):
        each = arithmetic.multiply_by_quantized_multiplier(x[..., channel], multiplier[channel], shift[channel])
        np.testing.assert_array_equal(result[..., channel], each)


def test_requantize_adds_the_zero_point_and_clamps():
    accumulators = np.array([-10000, -100, 0, 100, 10000], dtype=np.int32)
    result = arithmetic.requantize(accumulators, 2**30, 0, -5, (-50, 40))
    assert result.dtype == np.int8 and result.tolist() == [-50, -50, -5, 40, 40]
