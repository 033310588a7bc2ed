"""Softmax and the exponential in integers, as TensorFlow Lite's int8 kernels compute them (gemmlowp's fixedpoint.h).

Qi.f is an int32 with i integer bits and f fraction bits, i + f = 31; its value is raw / 2^f. A product of Qa.b and
Qc.d is one high multiply and is Q(a+c). Moving to k fewer integer bits is a saturating left shift by k, to k more a
rounding division by 2^k.
"""

import numpy as np

from intsmooth.reference.arithmetic import (
    INT32_MAX,
    INT32_MIN,
    multiply_by_quantized_multiplier,
    rounding_divide_by_power_of_two,
    saturating_rounding_doubling_high_mul,
)

SCALED_DIFFERENCE_INTEGER_BITS = 5  # inputs of exp are Q5.26: values down to -32
SUM_INTEGER_BITS = 12  # the sum of exponentials is Q12.19: up to 4095 terms of at most 1

# exp(-2^k) as Q0.31, for k = -2 .. 4
EXP_OF_MINUS_POWER_OF_TWO = {-2: 1672461947, -1: 1302514674, 0: 790015084, 1: 290630308, 2: 39332535, 3: 720401, 4: 242}
EXP_OF_MINUS_ONE_EIGHTH = 1895147668  # Q0.31
ONE_THIRD = 715827883  # Q0.31
FORTY_EIGHT_SEVENTEENTHS = 1515870810  # Q2.29
MINUS_THIRTY_TWO_SEVENTEENTHS = -1010580540  # Q2.29


def fixed_product(a, b):
    return saturating_rounding_doubling_high_mul(a, b)


def saturating_left_shift(x, bits):
    """int32 -> int32: x * 2^bits, saturated."""
    return np.clip(np.asarray(x, dtype=np.int64) << bits, INT32_MIN, INT32_MAX).astype(np.int32)


def exp_between_minus_one_quarter_and_zero(a):
    """exp(a) for a in [-1/4, 0), Q0.31 -> Q0.31: Taylor's expansion around -1/8 to the fourth power."""
    x = a + np.int32(1 << 28)
    x2 = fixed_product(x, x)
    x3 = fixed_product(x2, x)
    x4_over_4 = rounding_divide_by_power_of_two(fixed_product(x2, x2), 2)
    third = fixed_product(x4_over_4 + x3, ONE_THIRD)
    higher_terms = rounding_divide_by_power_of_two(third + x2, 1)
    return np.int32(EXP_OF_MINUS_ONE_EIGHTH) + fixed_product(EXP_OF_MINUS_ONE_EIGHTH, x + higher_terms)


def exp_on_negative_values(a, integer_bits):
    """exp(a) for a <= 0, Q(integer_bits) -> Q0.31, integer_bits <= 5; exp(0) is the largest Q0.31.

    a = r - (a multiple of 1/4), r in [-1/4, 0): exp(r) by the polynomial, then a factor exp(-2^k) per bit of the rest.
    """
    a = np.asarray(a, dtype=np.int32)
    fraction_bits = 31 - integer_bits
    one_quarter = np.int32(1 << (fraction_bits - 2))
    rest = (a & (one_quarter - np.int32(1))) - one_quarter
    result = exp_between_minus_one_quarter_and_zero(saturating_left_shift(rest, integer_bits))
    remainder = rest - a
    for k, factor in EXP_OF_MINUS_POWER_OF_TWO.items():
        if k < integer_bits:
            bit = np.int32(1 << (fraction_bits + k))
            result = np.where(remainder & bit, fixed_product(result, factor), result)
    return np.where(a == 0, np.int32(INT32_MAX), result)


def half_denominator_reciprocal(a):
    """1 / ((1 + a) / 2) for a in [0, 1), Q0.31 -> Q2.29: three steps of Newton and Raphson from 48/17 - 32/17 d."""
    total = np.asarray(a, dtype=np.int64) + INT32_MAX
    half_denominator = ((total + 1) >> 1).astype(np.int32)
    x = np.int32(FORTY_EIGHT_SEVENTEENTHS) + fixed_product(half_denominator, MINUS_THIRTY_TWO_SEVENTEENTHS)
    for _ in range(3):
        error = np.int32(1 << 29) - fixed_product(half_denominator, x)
        x = x + saturating_left_shift(fixed_product(x, error), 2)
    return x


def one_over_one_plus_x(a):
    """1 / (1 + a) for a in [0, 1), Q0.31 -> Q0.31."""
    return saturating_left_shift(half_denominator_reciprocal(a), 1)


def one_minus_x_over_one_plus_x(a):
    """(1 - a) / (1 + a) for a in [0, 1), Q0.31 -> Q0.31."""
    return saturating_left_shift(half_denominator_reciprocal(a) - np.int32(1 << 29), 2)


def count_leading_zeros(x):
    """Number of leading zero bits of positive int32 values."""
    length = np.zeros(np.shape(x), dtype=np.int64)
    for bit in range(31):
        length += np.asarray(x) >= (1 << bit)
    return 32 - length


def softmax(x, multiplier, shift, *, diff_min):
    """int8 -> int8 over the last axis; output zero point -128, scale 1/256.

    multiplier and shift turn (x - max) into Q5.26 of beta * scale * (x - max). Elements with x - max < diff_min are
    -128 and left out of the sum; diff_min is such that no kept difference overflows. The last axis holds at most 4095
    elements, so that the sum fits.
    """
    difference = x.astype(np.int32) - x.max(axis=-1, keepdims=True).astype(np.int32)
    kept = difference >= diff_min
    scaled = multiply_by_quantized_multiplier(np.where(kept, difference, 0), multiplier, shift)
    exponential = exp_on_negative_values(scaled, SCALED_DIFFERENCE_INTEGER_BITS)
    terms = np.where(kept, rounding_divide_by_power_of_two(exponential, SUM_INTEGER_BITS), 0)
    total = terms.sum(axis=-1, keepdims=True, dtype=np.int32)

    headroom = count_leading_zeros(total)
    # total = 2^bits_over_unit * (1 + fraction), the fraction as Q0.31
    bits_over_unit = SUM_INTEGER_BITS - headroom
    fraction = ((total.astype(np.int64) << headroom) - (1 << 31)).astype(np.int32)
    quotient = fixed_product(one_over_one_plus_x(fraction), exponential)
    probability = rounding_divide_by_power_of_two(quotient, bits_over_unit + 31 - 8)
    result = np.clip(probability - 128, -128, 127)
    return np.where(kept, result, -128).astype(np.int8)
