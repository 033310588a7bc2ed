"""Pooling: average and maximum over windows clipped to the image, 16 channels at a time."""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from intsmooth.kernels import vector as v
from intsmooth.kernels.instruction import (
    A0,
    A1,
    A2,
    A3,
    A4,
    A5,
    A6,
    A7,
    CHANNELS,
    COLUMNS,
    HIGH,
    LOW,
    ROWS,
    SOURCE,
    SOURCE_PIXEL,
    SOURCE_ROW,
    TARGET,
    TARGET_PIXEL,
    TARGET_ROW,
)
from intsmooth.kernels.jit import jit

# Free columns of a window: its extent, the step, the padding above and to the left, the image's extent.
WINDOW_ROWS, WINDOW_COLUMNS, STEP_ROWS, STEP_COLUMNS, ABOVE, LEFT, IMAGE_ROWS, IMAGE_COLUMNS = A0, A1, A2, A3, A4, A5, A6, A7


def _reduce(builder, combine, start, x, rows, columns, row_step, pixel_step):
    """combine(...combine(start, first pixel)..., last pixel) over a window; a pixel is 16 bytes as int32 lanes."""
    slot = cgutils.alloca_once_value(builder, start)
    with cgutils.for_range(builder, rows, intp=x.type) as outer:
        row = builder.add(x, builder.mul(outer.index, row_step))
        with cgutils.for_range(builder, columns, intp=x.type) as inner:
            at = builder.add(row, builder.mul(inner.index, pixel_step))
            builder.store(combine(builder.load(slot), builder.zext(v.load(builder, at, v.V16I8), v.V16I32)), slot)
    return builder.load(slot)


@intrinsic
def window_sums(typing, x, rows, columns, row_step, pixel_step, sums):
    """Write the 16 channel sums of a window of bytes to `sums` (address of 16 int32)."""

    def codegen(context, builder, signature, values):
        v.store(builder, _reduce(builder, builder.add, v.constant(0), *values[:5]), values[5])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


@intrinsic
def window_maxima(typing, x, rows, columns, row_step, pixel_step, low, high, out, lanes):
    """Write the 16 channel maxima of a window of bytes, clamped, to `out`; of them `lanes` exist."""

    def codegen(context, builder, signature, values):
        def larger(a, b):
            return builder.select(builder.icmp_signed(">", a, b), a, b)

        low, high = (v.splat(builder, builder.trunc(value, v.I32)) for value in values[5:7])
        value = v.clamp(builder, _reduce(builder, larger, low, *values[:5]), low, high)
        v.store_pixels(builder, [value], values[7], ir.Constant(values[7].type, 0), values[8])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), codegen


@jit
def _clip(code, row, column):
    """First row and column inside the image of the window of output (row, column), and its extent inside the image."""
    y, x = row * code[STEP_ROWS] - code[ABOVE], column * code[STEP_COLUMNS] - code[LEFT]
    top, left = max(y, 0), max(x, 0)
    return (top, min(y + code[WINDOW_ROWS], code[IMAGE_ROWS]) - top,
            left, min(x + code[WINDOW_COLUMNS], code[IMAGE_COLUMNS]) - left)


@jit
def average_pool(code, levels, arena, scratch, blob):
    """Mean of the activations inside the image, ties away from zero; bytes are activations + 128."""
    for row in range(code[ROWS]):
        for column in range(code[COLUMNS]):
            top, rows, left, columns = _clip(code, row, column)
            count = np.int32(rows * columns)
            half = np.int32(count >> 1)
            x = arena.ctypes.data + code[SOURCE] + top * code[SOURCE_ROW] + left * code[SOURCE_PIXEL]
            out = code[TARGET] + row * code[TARGET_ROW] + column * code[TARGET_PIXEL]
            for first in range(0, code[CHANNELS], 16):
                window_sums(x + first, rows, columns, code[SOURCE_ROW], code[SOURCE_PIXEL], scratch.ctypes.data)
                for channel in range(first, min(first + 16, code[CHANNELS])):
                    total = np.int32(scratch[channel - first] - np.int32(128) * count)
                    # `//` floors, so both divisions are of non-negative numbers
                    mean = (total + half) // count if total > 0 else -((half - total) // count)
                    arena[out + channel] = np.uint8(min(max(mean + 128, code[LOW]), code[HIGH]))


@jit
def max_pool(code, levels, arena, scratch, blob):
    """Maximum of the activations inside the image; the order of bytes is that of activations."""
    for row in range(code[ROWS]):
        for column in range(code[COLUMNS]):
            top, rows, left, columns = _clip(code, row, column)
            x = arena.ctypes.data + code[SOURCE] + top * code[SOURCE_ROW] + left * code[SOURCE_PIXEL]
            out = arena.ctypes.data + code[TARGET] + row * code[TARGET_ROW] + column * code[TARGET_PIXEL]
            for first in range(0, code[CHANNELS], 16):
                window_maxima(x + first, rows, columns, code[SOURCE_ROW], code[SOURCE_PIXEL], code[LOW], code[HIGH], out + first,
                              code[CHANNELS] - first)
