"""Convolution layers: loops over channel groups, rows and tiles of pixels around the convolution tile."""

from functools import cache

from intsmooth.kernels.conv_tile import PARAMETER_BYTES, conv_tile
from intsmooth.kernels.instruction import (
    A0,
    A1,
    A2,
    A3,
    A4,
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

# The meaning of the free columns for a convolution.
SEGMENTS, SEGMENT_COUNT, SEGMENT_STEPS, RECTIFIED, HAS_SKIP = A0, A1, A2, A3, A4

# Register blocks: (pixels, blocks of 16 channels), each compiled when a plan asks for it. AVX-512 has 32 registers of 16
# lanes; with AVX2 sixteen lanes are two of 16 registers, so that only small tiles fit. All widths up to 8 are there, so
# that images 5, 6 or 7 pixels wide leave no lane idle.
TILES = tuple((pixels, blocks) for blocks, widths in (
    ((1, (*range(1, 9), 16)), (2, range(1, 9))) if ISA == "vnni512" else ((1, range(1, 5)),)) for pixels in widths)

KNOWN_STEPS = (3, 16, 32, 64, 128)  # worth a kernel of their own; other steps share one


@cache
def conv_layer(pixels, blocks, known_step):
    """The layer for one register block and one step in bytes between neighbouring pixels of the input, 0 for any step."""

    @jit_as(f"conv_{pixels}_{blocks}_{known_step}")
    def layer(code, levels, arena, scratch, blob):
        pixel_step, out_step, skip_step = code[SOURCE_PIXEL], code[TARGET_PIXEL], code[SECOND_PIXEL]
        source, target, second = (arena.ctypes.data + code[SOURCE], arena.ctypes.data + code[TARGET],
                                  arena.ctypes.data + code[SECOND])
        segments, count, steps = blob.ctypes.data + code[SEGMENTS], code[SEGMENT_COUNT], code[SEGMENT_STEPS]
        weights, parameters = blob.ctypes.data + code[WEIGHTS], blob.ctypes.data + code[CONSTANTS]
        channels, last = code[CHANNELS], code[COLUMNS] - pixels
        for first in range(0, channels, 16 * blocks):
            lanes = channels - first - 16 * (blocks - 1)
            for row in range(code[ROWS]):
                x = source + row * code[SOURCE_ROW]
                out = target + row * code[TARGET_ROW] + first
                skip = second + row * code[SECOND_ROW] + first
                column = 0
                while True:  # the last tile may overlap the one before it: it computes the same bytes again
                    conv_tile(pixels, blocks, known_step, x + column * pixel_step, pixel_step, segments, count, steps, weights, parameters,
                              out + column * out_step, out_step, code[TARGET_ZERO], code[LOW], code[HIGH], lanes,
                              code[RECTIFIED], code[HAS_SKIP], skip + column * skip_step, skip_step)
                    if column >= last:
                        break
                    column = min(column + pixels, last)
            weights += count * steps * 64 * blocks
            parameters += PARAMETER_BYTES * blocks

    return layer
