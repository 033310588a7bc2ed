"""Operators that treat each element by itself: requantization, clamps, tables, and sums and products of two tensors.

Multipliers and shifts of length 1 are arrays of one element, those of `add` and `sub` hold three: first input, second
input, output. Two inputs broadcast the NumPy way on their shapes without the batch.
"""

import numpy as np

from intsmooth.reference.arithmetic import multiply_by_quantized_multiplier, requantize

INT8_RANGE = (-128, 127)


def align_ranks(a, b):
    """Insert axes of length 1 behind the batch axis until both arrays have the same number of dimensions."""
    rank = max(a.ndim, b.ndim)
    a = a.reshape(a.shape[:1] + (1,) * (rank - a.ndim) + a.shape[1:])
    b = b.reshape(b.shape[:1] + (1,) * (rank - b.ndim) + b.shape[1:])
    return a, b


def input_requantize(levels, multiplier, shift, *, output_zero_point):
    """Noisy levels, int16, -> int8, saturated: the first operator of every network, where noise is clipped."""
    return requantize(levels.astype(np.int32), multiplier, shift, output_zero_point, INT8_RANGE)


def requantize_int8(x, multiplier, shift, *, input_zero_point, output_zero_point, clamp):
    """int8 -> int8 of another scale and zero point."""
    centred = x.astype(np.int32) - np.int32(input_zero_point)
    return requantize(centred, multiplier, shift, output_zero_point, clamp)


def clamp_int8(x, *, clamp):
    """int8 -> int8 within (lowest, highest)."""
    lowest, highest = clamp
    return np.clip(x, lowest, highest).astype(np.int8)


def lookup(x, table):
    """int8 -> int8 through 256 entries: table[x + 128]."""
    return table[x.astype(np.int32) + 128]


def scaled_operand(x, zero_point, left_shift, multiplier, shift):
    """(x - zero_point) * 2^left_shift, rescaled to the common scale of a sum: int32."""
    centred = (x.astype(np.int32) - np.int32(zero_point)) * np.int32(1 << left_shift)
    return multiply_by_quantized_multiplier(centred, multiplier, shift)


def add(a, b, multiplier, shift, *, a_zero_point, b_zero_point, output_zero_point, left_shift, clamp):
    """int8 + int8 -> int8: both operands go to a common, finer scale, are added, and the sum is requantized."""
    a, b = align_ranks(a, b)
    total = scaled_operand(a, a_zero_point, left_shift, multiplier[0], shift[0]) + scaled_operand(
        b, b_zero_point, left_shift, multiplier[1], shift[1]
    )
    return requantize(total, multiplier[2], shift[2], output_zero_point, clamp)


def sub(a, b, multiplier, shift, *, a_zero_point, b_zero_point, output_zero_point, left_shift, clamp):
    """int8 - int8 -> int8, as `add`."""
    a, b = align_ranks(a, b)
    difference = scaled_operand(a, a_zero_point, left_shift, multiplier[0], shift[0]) - scaled_operand(
        b, b_zero_point, left_shift, multiplier[1], shift[1]
    )
    return requantize(difference, multiplier[2], shift[2], output_zero_point, clamp)


def mul(a, b, multiplier, shift, *, a_zero_point, b_zero_point, output_zero_point, clamp):
    """int8 * int8 -> int8: the product of the centred values, requantized."""
    a, b = align_ranks(a, b)
    product = (a.astype(np.int32) - np.int32(a_zero_point)) * (b.astype(np.int32) - np.int32(b_zero_point))
    return requantize(product, multiplier, shift, output_zero_point, clamp)
