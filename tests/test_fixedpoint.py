"""The package's arithmetic: quantizing a real factor, and the high multiply from 16-bit limbs alone."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from int32_values import BOUNDARIES, INT32_MAX, INT32_MIN, int32s

from intsmooth import fixedpoint
from intsmooth.errors import InputError

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True)


def high_mul_from_limbs(a, b):
    """The saturating rounding doubling high multiply with 16-bit limbs in 32-bit registers, as a small CPU would do it.

    Every value is a uint32; a product of two 16-bit limbs fits, and carries are propagated by hand.
    """
    word = np.uint32(0xFFFF)

    def limbs(x):
        magnitude = np.where(x < 0, (~x.view(np.uint32)) + np.uint32(1), x.view(np.uint32))
        return magnitude & word, magnitude >> np.uint32(16)

    (a0, a1), (b0, b1) = limbs(a), limbs(b)
    low, middle, other, high = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    column = (low >> np.uint32(16)) + (middle & word) + (other & word)
    p0 = low & word
    p1 = column & word
    upper = high + (middle >> np.uint32(16)) + (other >> np.uint32(16)) + (column >> np.uint32(16))
    lower = (p1 << np.uint32(16)) | p0
    # |a b| = upper * 2^32 + lower; add half of 2^31 (one less for a negative product, whose ties go up) and shift by 31
    negative = (a < 0) != (b < 0)
    half = np.where(negative, np.uint32((1 << 30) - 1), np.uint32(1 << 30))
    total = lower + half
    upper = upper + (total < lower).astype(np.uint32)
    quotient = (upper << np.uint32(1)) | (total >> np.uint32(31))
    quotient = np.where(quotient > np.uint32(INT32_MAX), np.uint32(INT32_MAX), quotient)
    return np.where(negative, (~quotient) + np.uint32(1), quotient).view(np.int32)


def test_high_mul_needs_no_64_bit_arithmetic_on_boundaries():
    a, b = (x.ravel().astype(np.int32) for x in np.meshgrid(BOUNDARIES, BOUNDARIES))
    expected = fixedpoint.saturating_rounding_doubling_high_mul(a, b)
    np.testing.assert_array_equal(high_mul_from_limbs(a, b), expected, strict=True)


def test_high_mul_needs_no_64_bit_arithmetic_on_random_values():
    rng = np.random.default_rng(3)
    a, b = rng.integers(INT32_MIN, INT32_MAX, (2, 200_000), endpoint=True).astype(np.int32)
    a[:1000] >>= rng.integers(0, 31, 1000).astype(np.int32)
    expected = fixedpoint.saturating_rounding_doubling_high_mul(a, b)
    np.testing.assert_array_equal(high_mul_from_limbs(a, b), expected, strict=True)


@SETTINGS
@given(int32s, int32s)
def test_high_mul_is_within_half_a_step(a, b):
    result = int(fixedpoint.saturating_rounding_doubling_high_mul(a, b))
    if (a, b) == (INT32_MIN, INT32_MIN):
        assert result == INT32_MAX
    else:
        assert abs(result - Fraction(a * b, 2**31)) <= Fraction(1, 2)


def frexp_quantize(real):
    """TensorFlow Lite's QuantizeMultiplier, in doubles as it stands in quantization_util.cc."""
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    fixed = math.floor(fraction * 2**31 + 0.5)
    if fixed == 2**31:
        fixed, shift = fixed // 2, shift + 1
    return (fixed, shift) if shift >= -31 else (0, 0)


@SETTINGS
@given(st.floats(2.0**-40, 2.0**29) | st.floats(2.0**-34, 2.0**-30) | st.floats(2.0**-10, 1.0, width=32))
def test_quantize_multiplier_equals_tflite(real):
    assert fixedpoint.quantize_multiplier(real) == frexp_quantize(real)


@pytest.mark.parametrize(("real", "expected"), [
    (0, (0, 0)), (0.0, (0, 0)), (1, (2**30, 1)), (0.5, (2**30, 0)), (Fraction(1, 3), (1431655765, -1)),
    (2.0**29, (2**30, 30)), (1 - 2.0**-40, (2**30, 1)), (2.0**-32, (2**30, -31)),
    (2.0**-32 * (1 - 2.0**-40), (2**30, -31)), (2.0**-33, (0, 0)), (Fraction(2**31 + 1, 2**33), (2**30 + 1, -1)),
    (np.float32(0.1), (1717986944, -3)), (np.float64(0.75), (1610612736, 0)),
])  # fmt: skip
def test_quantize_multiplier_boundaries(real, expected):
    assert fixedpoint.quantize_multiplier(real) == expected


@pytest.mark.parametrize("real", [-1.0, -Fraction(1, 7), float("nan"), float("inf"), -float("inf"), 2.0**30, 1e300])
def test_quantize_multiplier_refuses(real):
    with pytest.raises(InputError, match="factor must"):
        fixedpoint.quantize_multiplier(real)


@SETTINGS
@given(st.fractions(Fraction(1, 2**31), 2**29))
def test_quantized_multiplier_is_within_half_a_step_of_the_real_one(real):
    multiplier, shift = fixedpoint.quantize_multiplier(real)
    assert 2**30 <= multiplier < 2**31 and -31 <= shift <= 30
    assert abs(fixedpoint.real_multiplier(multiplier, shift) / real - 1) <= Fraction(1, 2**31)


def test_quantize_multipliers_returns_int32_arrays():
    multipliers, shifts = fixedpoint.quantize_multipliers([0.5, Fraction(3, 4), 0])
    assert multipliers.dtype == shifts.dtype == np.int32
    assert multipliers.tolist() == [2**30, 3 * 2**29, 0] and shifts.tolist() == [0, 0, 0]


def test_saturate():
    values = [-(10**9), -129, -128, 0, 127, 128, 10**9]
    assert fixedpoint.saturate(values, -128, 127).tolist() == [-128, -128, -128, 0, 127, 127, 127]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(Fraction(1, 2), 1), (Fraction(-1, 2), -1), (Fraction(5, 2), 3), (-2.5, -3), (2.4999, 2), (-2.4999, -2), (7, 7)],
)
def test_round_half_away(value, expected):
    assert fixedpoint.round_half_away(value) == expected


@SETTINGS
@given(st.floats(2.0**-33, 2.0**29) | st.floats(2.0**-14, 1.0))
def test_nearest_result_multiplier_is_a_coarser_or_the_same_factor(real):
    multiplier, shift = fixedpoint.nearest_result_multiplier(real)
    normal, right = fixedpoint.quantize_multiplier(real)
    assert 0 <= multiplier < 2**31 and (shift == right if right >= 0 else right <= shift <= 0)
    assert multiplier == (fixedpoint.round_half_away(Fraction(real) * 2 ** (31 - shift)) if normal else 0)


@pytest.mark.parametrize("real", [0.91234567, 0.07654321, 3.4567891e-3, 1.4567891e-4, 6.5432109e-5, 3.1415927e-5, 1.1415927e-6])
def test_nearest_result_multiplier_errs_rarely(real):
    """Against the real product rounded once, on two million accumulators that reach all int8 results."""
    reach = min(int(128 / real), 2**31 - 1)
    x = np.random.default_rng(5).integers(-reach, reach, 2_000_000)
    once = np.rint(x * real)
    wrong = [np.mean(fixedpoint.multiply_by_quantized_multiplier(x, *choose(real)) != once)
             for choose in (fixedpoint.nearest_result_multiplier, fixedpoint.quantize_multiplier)]  # fmt: skip
    assert wrong[0] <= 2e-4 and wrong[0] <= wrong[1] + 1e-4, wrong
