"""Pooling: average and maximum over windows clipped to the image."""

import numpy as np

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


@jit
def _clip(code, row, column):
    """First and one-past-last image row and column of the window of output (row, column)."""
    y, x = row * code[STEP_ROWS] - code[ABOVE], column * code[STEP_COLUMNS] - code[LEFT]
    return (max(y, 0), min(y + code[WINDOW_ROWS], code[IMAGE_ROWS]),
            max(x, 0), min(x + code[WINDOW_COLUMNS], code[IMAGE_COLUMNS]))


@jit
def average_pool(code, levels, arena, scratch, blob):
    """Mean of the activations inside the image, ties away from zero; bytes are activations + 128."""
    channels = code[CHANNELS]
    for row in range(code[ROWS]):
        for column in range(code[COLUMNS]):
            y0, y1, x0, x1 = _clip(code, row, column)
            count = np.int32((y1 - y0) * (x1 - x0))
            half = np.int32(count >> 1)
            scratch[:channels] = np.int32(-128) * count
            for y in range(y0, y1):
                for x in range(x0, x1):
                    at = code[SOURCE] + y * code[SOURCE_ROW] + x * code[SOURCE_PIXEL]
                    for channel in range(channels):
                        scratch[channel] += np.int32(arena[at + channel])
            out = code[TARGET] + row * code[TARGET_ROW] + column * code[TARGET_PIXEL]
            for channel in range(channels):
                total = scratch[channel]  # `//` floors, so both divisions are of non-negative numbers
                mean = (total + half) // count if total > 0 else -((half - total) // count)
                arena[out + channel] = np.uint8(min(max(mean + 128, code[LOW]), code[HIGH]))


@jit
def max_pool(code, levels, arena, scratch, blob):
    channels = code[CHANNELS]
    for row in range(code[ROWS]):
        for column in range(code[COLUMNS]):
            y0, y1, x0, x1 = _clip(code, row, column)
            out = code[TARGET] + row * code[TARGET_ROW] + column * code[TARGET_PIXEL]
            arena[out:out + channels] = np.uint8(code[LOW])
            for y in range(y0, y1):
                for x in range(x0, x1):
                    at = code[SOURCE] + y * code[SOURCE_ROW] + x * code[SOURCE_PIXEL]
                    for channel in range(channels):
                        arena[out + channel] = max(arena[out + channel], arena[at + channel])
            for channel in range(channels):
                arena[out + channel] = min(arena[out + channel], np.uint8(code[HIGH]))

