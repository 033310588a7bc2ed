"""The naive twin of the noise sampler: coordinates from ChaCha20 words by inversion of a table of thresholds.

Coordinate j of sample i is first + #{thresholds <= u}, u = high * 2^32 + low, where

    high = word (j % 256) // 16 of the block with counter 16 * (j // 256) + j % 16
    low  = word 0 of the block with counter 2^31 + j

both with nonce (tag, i mod 2^32, i div 2^32). `low` can matter only where some threshold has the high half `high`.
"""

import numpy as np

from intsmooth.reference import chacha

COORDINATES_AT_ONCE = 1 << 18  # per pass: enough to hide NumPy's overhead, a few MB of arrays


def nonce(tag, sample):
    """The three nonce words of a sample index below 2^64 (an integer or an array of them)."""
    sample = np.asarray(sample, dtype=np.uint64)
    return tag, (sample & np.uint64(0xFFFFFFFF)).astype(np.uint32), (sample >> np.uint64(32)).astype(np.uint32)


def high_words(key, tag, samples, n):
    """The high halves of u, uint32[len(samples), n]."""
    groups = -(-n // 256)
    counters = np.broadcast_to(np.arange(16 * groups), (len(samples), 16 * groups))
    words = chacha.blocks(key, counters, nonce(tag, np.asarray(samples, dtype=np.uint64)[:, None]))
    words = words.reshape(len(samples), groups, 16, 16)  # sample, group, lane, word
    return words.swapaxes(2, 3).reshape(len(samples), 256 * groups)[:, :n]


def low_words(key, tag, samples, coordinates):
    """The low halves of u for pairs of sample index and coordinate, two arrays of one shape: uint32 of that shape."""
    return chacha.blocks(key, 2**31 + np.asarray(coordinates, dtype=np.int64), nonce(tag, samples))[..., 0]


def sample_noise(first, thresholds, key, tag, first_sample, count, n):
    """Noise of the samples first_sample ... first_sample + count - 1, int16[count, n].

    first: lowest outcome; thresholds: uint64[m], ascending; key: uint32[8]; tag: first word of the nonce.
    """
    noise = np.empty((count, n), dtype=np.int16)
    high_halves = (thresholds >> np.uint64(32)).astype(np.uint32)
    step = max(1, COORDINATES_AT_ONCE // n)
    for begin in range(0, count, step):
        samples = np.array([first_sample + i for i in range(begin, min(begin + step, count))], dtype=np.uint64)
        high = high_words(key, tag, samples, n)
        outcome = np.searchsorted(high_halves, high, side="left")
        # Only the next threshold can share the word. (Past the last one, 0 may ask for a low half that is not needed.)
        row, column = np.nonzero(np.append(high_halves, np.uint32(0))[outcome] == high)
        if len(row):
            low = low_words(key, tag, samples[row], column)
            u = high[row, column].astype(np.uint64) << np.uint64(32) | low
            outcome[row, column] = np.searchsorted(thresholds, u, side="right")
        noise[begin : begin + step] = first + outcome
    return noise
