"""The convolution tile for 16 output channels and three kernel rows: 8 pixels of two neighbouring output rows.

With one block of 16 channels, the tile of `conv_tile.py` needs a broadcast for every dot (17 loads for 16 dots). Two output
rows share two of their three input rows: four input rows of 8 pixels are 32 broadcasts and 3 weight loads for 48 dots.
The accumulators are 16 registers, the weights 3.
"""

from functools import cache

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from intsmooth.kernels import vector as v
from intsmooth.kernels.conv_tile import BIAS, add_skip, requantize_and_store
from intsmooth.kernels.convolution import HAS_SKIP, RECTIFIED, SEGMENT_STEPS
from intsmooth.kernels.instruction import (
    CHANNELS,
    COLUMNS,
    CONSTANTS,
    HIGH,
    LOW,
    ROWS,
    SECOND,
    SECOND_PIXEL,
    SECOND_ROW,
    SOURCE,
    SOURCE_ROW,
    TARGET,
    TARGET_PIXEL,
    TARGET_ROW,
    TARGET_ZERO,
    WEIGHTS,
)
from intsmooth.kernels.isa import ISA
from intsmooth.kernels.jit import jit_as

PIXELS, KERNEL_ROWS, OUTPUT_ROWS = 8, 3, 2


def _accumulate(builder, slots, known_step, x, row_step, steps, weights):
    """slots[row][pixel][0] += the kernel rows of x times weights (kernel row, step, 64 bytes)."""
    intp = x.type
    with cgutils.for_range(builder, steps, intp=intp) as loop:
        column = builder.add(x, builder.mul(loop.index, ir.Constant(intp, 4)))
        at = builder.add(weights, builder.mul(loop.index, ir.Constant(intp, 64)))
        kernel = []
        for _ in range(KERNEL_ROWS):
            kernel.append(v.load(builder, at))
            at = builder.add(at, builder.mul(steps, ir.Constant(intp, 64)))
        for input_row in range(KERNEL_ROWS + OUTPUT_ROWS - 1):
            for pixel in range(PIXELS):
                four = v.splat(builder, v.load(builder, v.offset(builder, column, pixel * known_step), v.I32))
                for output_row in range(OUTPUT_ROWS):
                    if 0 <= input_row - output_row < KERNEL_ROWS:
                        slot = slots[output_row][pixel][0]
                        weight = kernel[input_row - output_row]
                        builder.store(v.dot4(builder, ISA, builder.load(slot), four, weight), slot)
            column = builder.add(column, row_step)


@intrinsic(prefer_literal=True)
def two_row_tile(typing, known_step, x, row_step, steps, weights, parameters, out, out_row, out_step, out_zero, low, high,
                 lanes, rectified, has_skip, skip, skip_row, skip_step):
    """Arguments as of conv_tile.conv_tile; row_step is from one input row to the next, and output rows step likewise."""

    def codegen(context, builder, signature, values):
        (x, row_step, steps, weights, parameters, out, out_row, out_step, out_zero, low, high, lanes, rectified, has_skip, skip,
         skip_row, skip_step) = values[1:]
        bias, zero = v.load(builder, v.offset(builder, parameters, BIAS)), ir.Constant(x.type, 0)
        slots = [[[cgutils.alloca_once_value(builder, bias)] for _ in range(PIXELS)] for _ in range(OUTPUT_ROWS)]
        _accumulate(builder, slots, known_step.literal_value, x, row_step, steps, weights)
        with builder.if_then(builder.icmp_signed("!=", has_skip, zero)):
            for row, at in zip(slots, (skip, builder.add(skip, skip_row)), strict=True):
                add_skip(builder, row, at, skip_step, parameters)
        bounds = [v.splat(builder, builder.trunc(value, v.I32)) for value in (out_zero, low, high)]
        with builder.if_else(builder.icmp_signed("!=", rectified, zero)) as (then, otherwise):
            for branch, flag in ((then, True), (otherwise, False)):
                with branch:
                    for row, at in zip(slots, (out, builder.add(out, out_row)), strict=True):
                        requantize_and_store(builder, row, parameters, flag, *bounds, at, out_step, lanes)
        return context.get_dummy_value()

    return types.void(known_step, *[types.intp] * 17), codegen


@cache
def conv_rows_layer(known_step):
    """The layer for one step in bytes between neighbouring pixels; at least 2 rows of at least 8 pixels, vertical step 1."""

    @jit_as(f"conv_rows_{known_step}")
    def layer(code, levels, arena, scratch, blob):
        base, constants = arena.ctypes.data, blob.ctypes.data
        weights, parameters = constants + code[WEIGHTS], constants + code[CONSTANTS]
        row, last_row, last = 0, code[ROWS] - OUTPUT_ROWS, code[COLUMNS] - PIXELS
        while True:  # the last pair of rows and the last tile may overlap those before: they compute the same bytes again
            x = base + code[SOURCE] + row * code[SOURCE_ROW]
            out = base + code[TARGET] + row * code[TARGET_ROW]
            skip = base + code[SECOND] + row * code[SECOND_ROW]
            column = 0
            while True:
                two_row_tile(known_step, x + column * known_step, code[SOURCE_ROW], code[SEGMENT_STEPS], weights, parameters,
                             out + column * code[TARGET_PIXEL], code[TARGET_ROW], code[TARGET_PIXEL], code[TARGET_ZERO],
                             code[LOW], code[HIGH], code[CHANNELS], code[RECTIFIED], code[HAS_SKIP],
                             skip + column * code[SECOND_PIXEL], code[SECOND_ROW], code[SECOND_PIXEL])
                if column >= last:
                    break
                column = min(column + PIXELS, last)
            if row >= last_row:
                break
            row = min(row + OUTPUT_ROWS, last_row)

    return layer
