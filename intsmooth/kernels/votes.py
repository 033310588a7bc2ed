"""Noise, inference and voting in one compiled loop: nothing but class counts leaves it."""

import numpy as np

from intsmooth.kernels.jit import jit
from intsmooth.kernels.network import argmax, run_network
from intsmooth.kernels.sampler import fill_noise


@jit
def run_votes(kernels, table, output, image, size, key, first_sample, samples, noise_first, high, low, guide, bits, counts,
              levels, words, arena, scratch, blob):
    """Add the votes of `samples` noisy copies of `image` to counts (int64 per class).

    image: int16, its first `size` values are the levels; key: uint32 (8); first_sample: uint64, index in the stream;
    noise_first, high, low, guide, bits: the noise table as noise.sampler.table_arrays gives it. levels (int16), words
    (uint32), arena and scratch are this thread's own.
    """
    for sample in range(samples):
        fill_noise(levels, words, size, key, np.uint64(first_sample + np.uint64(sample)), noise_first, high, low, guide, bits)
        for place in range(size):  # the plan of a run has checked that the sum fits int16
            levels[place] = np.int16(levels[place] + image[place])
        run_network(kernels, table, levels, arena, scratch, blob)
        counts[argmax(arena, output)] += 1
