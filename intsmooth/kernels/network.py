"""The interpreter: one compiled loop over an instruction table, and the loops over samples around it.

A sample runs through the whole network while its activations stay in the cache; only a class index leaves. Nothing here
allocates, validates or holds the GIL.
"""

import numpy as np

from intsmooth.kernels.instruction import CHANNELS, COLUMNS, OPERATION, ROWS, TARGET, TARGET_PIXEL, TARGET_ROW
from intsmooth.kernels.jit import jit
from intsmooth.kernels.table import call_kernel


@jit
def run_network(kernels, table, levels, arena, scratch, blob):
    """One sample through all instructions; kernels are the addresses that the table's first column indexes."""
    for step in range(table.shape[0]):
        code = table[step]
        call_kernel(kernels[code[OPERATION]], code, levels, arena, scratch, blob)


@jit
def argmax(arena, output):
    """Index of the largest byte of the tensor that `output` (an instruction's target columns) describes; ties to the lowest."""
    best, best_at, index = np.int64(-1), np.int64(0), np.int64(0)
    for row in range(output[ROWS]):
        for column in range(output[COLUMNS]):
            at = output[TARGET] + row * output[TARGET_ROW] + column * output[TARGET_PIXEL]
            for channel in range(output[CHANNELS]):
                if np.int64(arena[at + channel]) > best:
                    best, best_at = np.int64(arena[at + channel]), index
                index += 1
    return best_at


@jit
def run_batch(kernels, table, output, levels, results, decisions, arena, scratch, blob):
    """levels int16 (N, n, padded) -> results uint8 (N, elements of the output), decisions int64 (N)."""
    for sample in range(levels.shape[0]):
        run_network(kernels, table, levels[sample], arena, scratch, blob)
        decisions[sample] = argmax(arena, output)
        at = 0
        for row in range(output[ROWS]):
            for column in range(output[COLUMNS]):
                start = output[TARGET] + row * output[TARGET_ROW] + column * output[TARGET_PIXEL]
                for channel in range(output[CHANNELS]):
                    results[sample, at] = arena[start + channel]
                    at += 1
