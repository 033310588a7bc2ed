"""The integer arithmetic of quantized inference, written straight from its definition.

real = scale * (q - zero_point). Rescaling an int32 accumulator by a real factor is done by a 32-bit multiplier and a
shift, with two roundings: a high multiply to nearest, then a division by a power of two to nearest, ties away from
zero. The definitions are those of gemmlowp (fixedpoint/fixedpoint.h, doc/quantization.md) as the TensorFlow Lite int8
specification uses them. C++'s integer division truncates towards zero where Python's `//` floors, so it is spelled out.
"""

import numpy as np

INT32_MIN = -(2**31)
INT32_MAX = 2**31 - 1


def truncating_divide(numerator, denominator):
    """C++'s `/` on int64: the quotient rounded towards zero. denominator > 0."""
    numerator = np.asarray(numerator, dtype=np.int64)
    magnitude = np.abs(numerator) // denominator
    return np.where(numerator < 0, -magnitude, magnitude)


def saturating_rounding_doubling_high_mul(a, b):
    """int32 x int32 -> int32: a * b / 2^31 to nearest, ties towards plus infinity.

    Meaning: with a and b read as fractions of 2^31 in [-1, 1), the product read the same way. The only product that
    does not fit, -1 * -1, saturates to INT32_MAX.
    """
    a = np.asarray(a, dtype=np.int64)
    b = np.asarray(b, dtype=np.int64)
    product = a * b
    nudge = np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    result = truncating_divide(product + nudge, 1 << 31)
    overflow = (a == INT32_MIN) & (b == INT32_MIN)
    return np.where(overflow, INT32_MAX, result).astype(np.int32)


def rounding_divide_by_power_of_two(x, exponent):
    """int32 -> int32: x / 2^exponent to nearest, ties away from zero; 0 <= exponent <= 62, arrays broadcast."""
    x = np.asarray(x, dtype=np.int64)
    exponent = np.asarray(exponent, dtype=np.int64)
    half = (np.int64(1) << exponent) >> 1
    magnitude = (np.abs(x) + half) >> exponent
    return np.where(x < 0, -magnitude, magnitude).astype(np.int32)


def multiply_by_quantized_multiplier(x, multiplier, shift):
    """int32 -> int32: x * multiplier / 2^31 * 2^shift; multiplier and shift broadcast against x's last axis.

    0 <= multiplier < 2^31, -31 <= shift <= 30. A positive shift is applied first and wraps modulo 2^32 as int32 does;
    a valid model never wraps, which its plan proves.
    """
    x = np.asarray(x, dtype=np.int64)
    shift = np.asarray(shift, dtype=np.int64)
    shifted = (x << np.maximum(shift, 0)).astype(np.int32)
    product = saturating_rounding_doubling_high_mul(shifted, multiplier)
    return rounding_divide_by_power_of_two(product, np.maximum(-shift, 0))


def requantize(accumulator, multiplier, shift, zero_point, clamp):
    """int32 accumulators -> int8: rescale, add the output's zero point, clamp to (lowest, highest)."""
    value = multiply_by_quantized_multiplier(accumulator, multiplier, shift) + np.int32(zero_point)
    lowest, highest = clamp
    return np.clip(value, lowest, highest).astype(np.int8)
