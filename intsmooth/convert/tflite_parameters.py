"""From TensorFlow Lite's float32 scales to the integers that its kernels compute with.

Every function repeats, step by step, the float arithmetic that TensorFlow Lite Micro does when it prepares an operator:
where it multiplies in double it is double here, where it divides in float32 it is float32. Different orders of the same
operations give multipliers that differ in the last bit, and so outputs that differ by 1. Scales are float32.
"""

import math

import numpy as np

from intsmooth.errors import UnsupportedError
from intsmooth.fixedpoint import multiply_by_quantized_multiplier, quantize_multiplier, quantize_multipliers
from intsmooth.reference.arithmetic import rounding_divide_by_power_of_two
from intsmooth.reference.softmax import exp_on_negative_values, one_minus_x_over_one_plus_x, one_over_one_plus_x

INT8_RANGE = (-128, 127)
ACTIVATION_RANGES = {"none": (None, None), "relu": (0.0, None), "relu6": (0.0, 6.0), "relu_n1_to_1": (-1.0, 1.0)}
SUM_LEFT_SHIFT = 20
SOFTMAX_INTEGER_BITS = 5
LOGISTIC_INTEGER_BITS = 4


def quantized(value, scale, zero_point):
    """zero_point + value / scale, the quotient in float32 and rounded to nearest, ties away from zero."""
    with np.errstate(over="ignore"):
        quotient = float(np.float32(value) / np.float32(scale))
    if not abs(quotient) < 2**31:
        raise UnsupportedError(f"{value} is beyond 32 bits at scale {float(scale):g}")
    return zero_point + int(math.copysign(math.floor(abs(quotient) + 0.5), quotient))


def activation_clamp(activation, scale, zero_point):
    """(lowest, highest) int8 output of a fused activation: "none", "relu", "relu6" or "relu_n1_to_1"."""
    low, high = ACTIVATION_RANGES[activation]
    lowest = INT8_RANGE[0] if low is None else max(INT8_RANGE[0], quantized(low, scale, zero_point))
    highest = INT8_RANGE[1] if high is None else min(INT8_RANGE[1], quantized(high, scale, zero_point))
    if lowest > INT8_RANGE[1] or highest < INT8_RANGE[0]:
        raise UnsupportedError(f"{activation} leaves no int8 value at scale {scale} and zero point {zero_point}")
    return lowest, highest


def convolution_parameters(input_scale, weight_scales, output_scale):
    """(multipliers, shifts), int32, one per weight scale: products and quotient in double, for every kind of layer."""
    factors = [float(input_scale) * float(scale) / float(output_scale) for scale in weight_scales]
    return quantize_multipliers(factors)


def product_parameters(a_scale, b_scale, output_scale):
    """(multipliers, shifts) of length 1 for MUL."""
    return quantize_multipliers([float(a_scale) * float(b_scale) / float(output_scale)])


def requantize_parameters(input_scale, output_scale):
    """(multipliers, shifts) of length 1 for QUANTIZE and RELU."""
    return quantize_multipliers([float(input_scale) / float(output_scale)])


def quantize_table(input_scale, input_zero_point, output_scale, output_zero_point):
    """int8 (256,) of QUANTIZE from int8; for uint8 input the entries are those of q - 128, the zero point less 128."""
    multiplier, shift = requantize_parameters(input_scale, output_scale)
    centred = np.arange(-128, 128, dtype=np.int64) - input_zero_point
    values = multiply_by_quantized_multiplier(centred, multiplier, shift) + output_zero_point
    return np.clip(values, *INT8_RANGE).astype(np.int8)


def sum_parameters(a_scale, b_scale, output_scale):
    """(multipliers, shifts) of length 3 for ADD and SUB: first operand, second operand, result."""
    twice_largest = 2 * float(max(a_scale, b_scale))
    result = twice_largest / ((1 << SUM_LEFT_SHIFT) * float(output_scale))
    if not result < 1:
        raise UnsupportedError("the output's scale is over 2^19 times finer than an operand's; TFLite refuses that too")
    return quantize_multipliers([float(a_scale) / twice_largest, float(b_scale) / twice_largest, result])


def mean_parameters(input_scale, output_scale, count):
    """(multipliers, shifts) of length 1 for MEAN over `count` elements: 1 / count is divided into the multiplier."""
    multiplier, shift = quantize_multiplier(float(input_scale) / float(output_scale))
    extra = min(count.bit_length() - 1, 32, 31 + shift)
    multiplier = (multiplier << extra) // count
    return np.array([multiplier], dtype=np.int32), np.array([shift - extra], dtype=np.int32)


def input_radius(integer_bits, left_shift, total_bits=31):
    """The largest difference that, shifted left, still fits into `integer_bits` integer bits."""
    return ((1 << integer_bits) - 1) * (1 << (total_bits - integer_bits)) // (1 << left_shift)


def softmax_parameters(input_scale, beta):
    """(multipliers, shifts, diff_min) for SOFTMAX; beta is float32."""
    real = float(np.float32(beta)) * float(input_scale) * (1 << (31 - SOFTMAX_INTEGER_BITS))
    if not real > 1:
        raise UnsupportedError(f"softmax needs beta * scale > 2^-26, which TFLite checks too; beta = {beta}")
    multiplier, shift = quantize_multiplier(min(real, 2.0**31 - 1) / 2)
    shift += 1
    diff_min = -input_radius(SOFTMAX_INTEGER_BITS, shift)
    if diff_min == 0:  # only the maximum itself takes part, and 0 times anything is 0
        shift = min(shift, 30)
    return np.array([multiplier], dtype=np.int32), np.array([shift], dtype=np.int32), diff_min


def _unary_table(input_scale, zero_point, function):
    """int8 (256,): function(Q4.27) for inputs inside the radius that fits into it, -128 and 127 outside."""
    multiplier, shift = quantize_multiplier(float(input_scale))
    shift += 31 - LOGISTIC_INTEGER_BITS
    if shift < 0:
        raise UnsupportedError(f"an input of scale {float(input_scale):g}, too small for the shift that TFLite makes of it")
    radius = input_radius(LOGISTIC_INTEGER_BITS, shift)
    centred = np.arange(-128, 128, dtype=np.int64) - zero_point
    inside = np.abs(centred) < radius
    scaled = multiply_by_quantized_multiplier(np.where(inside, centred, 0), multiplier, shift)
    table = np.where(inside, np.clip(function(scaled), -128, 127), np.where(centred <= -radius, -128, 127))
    return table.astype(np.int8)


def logistic_table(input_scale, zero_point):
    """int8 (256,) of LOGISTIC; output zero point -128, scale 1/256."""

    def logistic(x):
        positive = one_over_one_plus_x(exp_on_negative_values(-np.abs(x), LOGISTIC_INTEGER_BITS))
        result = np.where(x > 0, positive, np.int32(2**31 - 1) - positive)
        return rounding_divide_by_power_of_two(np.where(x == 0, 1 << 30, result), 31 - 8) - 128

    return _unary_table(input_scale, zero_point, logistic)


def tanh_table(input_scale, zero_point):
    """int8 (256,) of TANH; output zero point 0, scale 1/128."""

    def tanh(x):
        magnitude = one_minus_x_over_one_plus_x(exp_on_negative_values(-np.abs(x), LOGISTIC_INTEGER_BITS + 1))
        result = np.where(x < 0, -magnitude, magnitude)
        return rounding_divide_by_power_of_two(np.where(x == 0, 0, result), 31 - 7)

    return _unary_table(input_scale, zero_point, tanh)
