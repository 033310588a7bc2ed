"""The arithmetic of quantized inference on NumPy arrays, and the one place where a float scale becomes integers.

`quantize_multiplier` (TensorFlow Lite's choice) and `nearest_result_multiplier` (for models whose own definition rounds
once) are used when a model is converted or exported; from then on only (multiplier, shift) pairs exist.
The other functions work on int32 values held in any integer array and serve planning, export and reports; the compiled
kernels and the naive twins carry their own versions. Source: gemmlowp (fixedpoint/fixedpoint.h) and TensorFlow Lite
(QuantizeMultiplier, MultiplyByQuantizedMultiplier with double rounding).
"""

import math
from fractions import Fraction

import numpy as np

from intsmooth.errors import InputError

INT8_MIN, INT8_MAX = -128, 127
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
SHIFT_MIN, SHIFT_MAX = -31, 30
TYPICAL_RESULT = 32  # magnitude of an int8 result, in steps


def saturate(x, lowest, highest):
    """Integers -> int64 within [lowest, highest]."""
    return np.clip(np.asarray(x, dtype=np.int64), lowest, highest)


def saturating_rounding_doubling_high_mul(a, b):
    """int32 x int32 -> int32: floor((a * b + 2^30) / 2^31), INT32_MAX where a = b = INT32_MIN.

    Meaning: the product of two fractions of 2^31, to nearest, ties towards plus infinity.
    """
    product = np.asarray(a, dtype=np.int64) * np.asarray(b, dtype=np.int64)
    return np.minimum((product + (1 << 30)) >> 31, INT32_MAX).astype(np.int32)


def rounding_divide_by_power_of_two(x, exponent):
    """int32 -> int32: x / 2^exponent to nearest, ties away from zero; 0 <= exponent <= 31, arrays broadcast."""
    x = np.asarray(x, dtype=np.int64)
    exponent = np.asarray(exponent, dtype=np.int64)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return ((x >> exponent) + ((x & mask) > threshold)).astype(np.int32)


def multiply_by_quantized_multiplier(x, multiplier, shift):
    """int32 -> int32: x * multiplier / 2^31 * 2^shift with double rounding.

    0 <= multiplier < 2^31, -31 <= shift <= 30, and |x| * 2^max(shift, 0) < 2^31 as a plan proves; arrays broadcast.
    """
    shift = np.asarray(shift, dtype=np.int64)
    shifted = np.asarray(x, dtype=np.int64) << np.maximum(shift, 0)
    product = saturating_rounding_doubling_high_mul(shifted, multiplier)
    return rounding_divide_by_power_of_two(product, np.maximum(-shift, 0))


def round_half_away(value):
    """A rational to the nearest int, ties away from zero, as C's round()."""
    value = Fraction(value)
    magnitude = math.floor(abs(value) + Fraction(1, 2))
    return -magnitude if value < 0 else magnitude


def quantize_multiplier(real):
    """The (multiplier, shift) closest to a real factor >= 0: real ~ multiplier / 2^31 * 2^shift.

    real: int, float or Fraction; a float counts as the rational that it is. Returns ints: either 0 and 0, or
    2^30 <= multiplier < 2^31 and -31 <= shift <= 30. Factors below 2^-32 become 0, exactly as TensorFlow Lite's
    QuantizeMultiplier. Raises InputError where real is negative, not finite, or so large that shift would exceed 30.
    """
    if isinstance(real, (float, np.floating)) and not math.isfinite(real):
        raise InputError(f"a rescaling factor must be finite, not {real}; check the scales it comes from")
    exact = Fraction(float(real)) if isinstance(real, np.floating) else Fraction(real)
    if exact < 0:
        raise InputError(
            f"a rescaling factor must not be negative, it is {float(exact):g}; check the scales it comes from"
        )
    if exact == 0:
        return 0, 0
    shift = exact.numerator.bit_length() - exact.denominator.bit_length()
    if exact >= Fraction(2) ** shift:
        shift += 1
    multiplier = round_half_away(exact / Fraction(2) ** shift * 2**31)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    if shift < SHIFT_MIN:
        return 0, 0
    if shift > SHIFT_MAX:
        raise InputError(f"a rescaling factor must be below 2^{SHIFT_MAX}, it is {float(exact):g}; check the scales")
    return multiplier, shift


def nearest_result_multiplier(real):
    """The (multiplier, shift) for a real factor >= 0 whose results are most often the product rounded once, to nearest.

    A right shift e costs a second rounding, which errs where the first one ends on a tie: one result in 2^(e + 1). A
    smaller e leaves the multiplier fewer bits: an error of the factor, of relative size r, moves a result of size y by
    y r, and changes it as often. The sum of the two, at y = TYPICAL_RESULT, is least for e = 0 where factors are above
    about 2^-14, which most are; then there is one rounding, as ONNX defines.

    real, returned ints and InputError: as of `quantize_multiplier`, but 0 <= multiplier < 2^31.
    """
    multiplier, shift = quantize_multiplier(real)
    if shift >= 0:
        return multiplier, shift
    exact = Fraction(float(real)) if isinstance(real, np.floating) else Fraction(real)
    approximate, costs = float(exact), []  # a double is exact enough to compare costs
    for exponent in range(-shift + 1):
        scaled = math.ldexp(approximate, 31 + exponent)
        second_rounding = 2.0 ** -(exponent + 1) if exponent else 0.0
        costs.append(TYPICAL_RESULT * abs(round(scaled) / scaled - 1) + second_rounding)
    exponent = costs.index(min(costs))
    if exponent == -shift:
        return multiplier, shift
    return round_half_away(exact * 2 ** (31 + exponent)), -exponent


def quantize_multipliers(reals, quantize=quantize_multiplier):
    """`quantize` (or `nearest_result_multiplier`) for a sequence: (multipliers, shifts), both int32 arrays."""
    pairs = [quantize(real) for real in reals]
    multipliers, shifts = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(multipliers, dtype=np.int32), np.array(shifts, dtype=np.int32)


def real_multiplier(multiplier, shift):
    """The rational factor that a (multiplier, shift) pair stands for."""
    return Fraction(int(multiplier), 2**31) * Fraction(2) ** int(shift)
