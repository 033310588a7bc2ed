"""TFLite's integer softmax over the last axis.

Fixed-point formats are those of gemmlowp's fixedpoint.h: Qi.f has i integer and f = 31 - i fractional bits. Exponentials
of the differences to the row's maximum are Q0.31, their sum is Q12.19, its reciprocal comes from three Newton steps.
"""

import numpy as np

from intsmooth.kernels.fixed import rounding_divide_by_power_of_two, saturating_rounding_doubling_high_mul
from intsmooth.kernels.instruction import (
    A0,
    A1,
    A2,
    CHANNELS,
    COLUMNS,
    ROWS,
    SOURCE,
    SOURCE_PIXEL,
    SOURCE_ROW,
    TARGET,
    TARGET_PIXEL,
    TARGET_ROW,
)
from intsmooth.kernels.jit import jit

_ONE = 2147483647  # the Q0.31 number nearest to 1


@jit
def saturating_shift_left(x, exponent):
    """x * 2^exponent, saturated to int32."""
    wide = np.int64(x) << np.int64(exponent)
    return np.int32(min(max(wide, np.int64(-2147483648)), np.int64(2147483647)))


@jit
def _exp_between_minus_quarter_and_zero(a):
    """exp of a Q0.31 number in [-1/4, 0): Taylor's polynomial of degree 4 around -1/8."""
    mul = saturating_rounding_doubling_high_mul
    x = np.int32(a + np.int32(1 << 28))
    x2 = mul(x, x)
    x3, x4 = mul(x2, x), mul(x2, x2)
    tail = np.int32(mul(np.int32(rounding_divide_by_power_of_two(x4, 2) + x3), np.int32(715827883)) + x2)
    tail = rounding_divide_by_power_of_two(tail, 1)
    scale = np.int32(1895147668)  # exp(-1/8)
    return np.int32(scale + mul(scale, np.int32(x + tail)))


@jit
def exp_on_negative_values(a):
    """exp of a Q5.26 number <= 0, as Q0.31."""
    if a == 0:
        return np.int32(_ONE)
    quarter = np.int32(1 << 24)
    part = np.int32(np.int32(a & np.int32(quarter - 1)) - quarter)
    result = _exp_between_minus_quarter_and_zero(saturating_shift_left(part, 5))
    remainder = np.int32(part - a)
    for bit, factor in ((24, 1672461947), (25, 1302514674), (26, 790015084), (27, 290630308), (28, 39332535), (29, 720401),
                        (30, 242)):  # exp(-2^(bit-26)) as Q0.31
        if (remainder >> np.int32(bit)) & np.int32(1):
            result = saturating_rounding_doubling_high_mul(result, np.int32(factor))
    return result


@jit
def one_over_one_plus_x(a):
    """1 / (1 + a) for a Q0.31 number in [0, 1), as Q0.31."""
    mul = saturating_rounding_doubling_high_mul
    half_denominator = np.int32((np.int64(a) + np.int64(_ONE) + np.int64(1)) >> np.int64(1))
    x = np.int32(np.int32(1515870810) + mul(half_denominator, np.int32(-1010580540)))
    for _ in range(3):
        error = np.int32(np.int32(1 << 29) - mul(half_denominator, x))
        x = np.int32(x + saturating_shift_left(mul(x, error), 2))
    return saturating_shift_left(x, 1)


@jit
def _scaled_exp(code, difference):
    """exp of an int8 difference <= 0: A0 multiplier, A1 left shift of the rescaling to Q5.26."""
    shifted = np.int32(np.int64(difference) << np.int64(code[A1]))
    return exp_on_negative_values(saturating_rounding_doubling_high_mul(shifted, np.int32(code[A0])))


@jit
def softmax(code, levels, arena, scratch, blob):
    """A2: differences below it count as zero probability. Bytes are activations + 128, so the output is 256 * probability."""
    channels = code[CHANNELS]
    for row in range(code[ROWS]):
        for column in range(code[COLUMNS]):
            source = code[SOURCE] + row * code[SOURCE_ROW] + column * code[SOURCE_PIXEL]
            target = code[TARGET] + row * code[TARGET_ROW] + column * code[TARGET_PIXEL]
            highest = np.int32(0)
            for channel in range(channels):
                highest = max(highest, np.int32(arena[source + channel]))
            total = np.int32(0)
            for channel in range(channels):
                difference = np.int32(np.int32(arena[source + channel]) - highest)
                scratch[channel] = np.int32(0)
                if difference >= code[A2]:
                    scratch[channel] = _scaled_exp(code, difference)
                    total = np.int32(total + rounding_divide_by_power_of_two(scratch[channel], 12))
            headroom, top = np.int32(0), np.int64(total)
            while top < np.int64(1 << 31):
                top <<= np.int64(1)
                headroom = np.int32(headroom + 1)
            scale = one_over_one_plus_x(np.int32(top - np.int64(1 << 31)))
            shift = np.int32(12 - headroom + 31 - 8)
            for channel in range(channels):
                byte = np.int32(0)
                if np.int32(arena[source + channel]) - highest >= code[A2]:
                    product = saturating_rounding_doubling_high_mul(scale, scratch[channel])
                    if shift < 32:  # beyond, with 512 classes alike, nothing is left of a product below 2^31
                        byte = min(max(rounding_divide_by_power_of_two(product, shift), np.int32(0)), np.int32(255))
                arena[target + channel] = np.uint8(byte)

