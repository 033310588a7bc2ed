"""Depthwise convolution: 16 channels of several neighbouring pixels at a time, one tap after the other.

A tap of 16 channels is 16 adjacent bytes, widened to int32 lanes and multiplied with the tap's 16 weights. There are no
dot products along channels to use here: a tap costs one load and one multiply-add for 16 products.
"""

from functools import cache

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from intsmooth.kernels import vector as v
from intsmooth.kernels.conv_tile import BIAS, PARAMETER_BYTES, REQUANTIZE
from intsmooth.kernels.instruction import (
    A0,
    A1,
    CHANNELS,
    COLUMNS,
    CONSTANTS,
    HIGH,
    LOW,
    ROWS,
    SOURCE,
    SOURCE_PIXEL,
    SOURCE_ROW,
    TARGET,
    TARGET_PIXEL,
    TARGET_ROW,
    TARGET_ZERO,
    WEIGHTS,
)
from intsmooth.kernels.isa import ISA
from intsmooth.kernels.jit import jit_as

# The meaning of the free columns: offsets of the taps (int32 in the blob), their number.
TAPS, TAP_COUNT = A0, A1
TILES = tuple(range(1, 9))  # pixels, all of them so that narrow images leave no lane idle


@intrinsic(prefer_literal=True)
def depthwise_tile(typing, pixels, x, pixel_step, taps, tap_count, weights, parameters, out, out_step, out_zero, low, high,
                   lanes):
    """`pixels` outputs of 16 channels, of which `lanes` exist; everything but `pixels` is an address or a count (intp)."""

    def codegen(context, builder, signature, values):
        count = pixels.literal_value
        x, pixel_step, taps, tap_count, weights, parameters, out, out_step, out_zero, low, high, lanes = values[1:]
        intp = x.type
        bias = v.load(builder, v.offset(builder, parameters, BIAS))
        slots = [cgutils.alloca_once_value(builder, bias) for _ in range(count)]
        with cgutils.for_range(builder, tap_count, intp=intp) as loop:
            where = builder.add(taps, builder.mul(loop.index, ir.Constant(intp, 4)))
            at = builder.add(x, builder.sext(v.load(builder, where, v.I32, 4), intp))
            factors = v.load(builder, builder.add(weights, builder.mul(loop.index, ir.Constant(intp, 64))))
            for slot in slots:
                builder.store(v.multiply_add(builder, ISA, builder.load(slot), at, factors), slot)
                at = builder.add(at, pixel_step)
        lowest, highest, zero = (v.splat(builder, builder.trunc(value, v.I32)) for value in (low, high, out_zero))
        results = []
        for slot in slots:
            value = v.requantize(builder, builder.load(slot), v.offset(builder, parameters, REQUANTIZE), False)
            results.append(v.clamp(builder, builder.add(value, zero), lowest, highest))
        v.store_pixels(builder, results, out, out_step, lanes)
        return context.get_dummy_value()

    return types.void(pixels, *[types.intp] * 12), codegen


@cache
def depthwise_layer(pixels):
    """The layer for tiles of so many pixels."""

    @jit_as(f"depthwise_{pixels}")
    def layer(code, levels, arena, scratch, blob):
        pixel_step, out_step = code[SOURCE_PIXEL], code[TARGET_PIXEL]
        constants = blob.ctypes.data
        source, target = arena.ctypes.data + code[SOURCE], arena.ctypes.data + code[TARGET]
        taps, count = constants + code[TAPS], code[TAP_COUNT]
        last = code[COLUMNS] - pixels
        for row in range(code[ROWS]):
            x, out = source + row * code[SOURCE_ROW], target + row * code[TARGET_ROW]
            for first in range(0, code[CHANNELS], 16):
                block = first // 16
                column = 0
                while True:
                    depthwise_tile(pixels, x + column * pixel_step + first, pixel_step, taps, count,
                                   constants + code[WEIGHTS] + block * count * 64,
                                   constants + code[CONSTANTS] + block * PARAMETER_BYTES,
                                   out + column * out_step + first, out_step, code[TARGET_ZERO], code[LOW], code[HIGH],
                                   code[CHANNELS] - first)
                    if column >= last:
                        break
                    column = min(column + pixels, last)

    return layer
