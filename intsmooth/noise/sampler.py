"""Integer noise on request: which table, which stream, which samples, on either backend, with the same bits."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from intsmooth.errors import InputError
from intsmooth.noise.law import NoiseTable
from intsmooth.noise.stream import NONCE_TAG
from intsmooth.reference import sampler as reference

BACKENDS = ("numba", "numpy")
MIN_GUIDE_BITS = 11
MAX_COORDINATES = 2**31 - 1


class TableArrays(NamedTuple):
    """A NoiseTable in the form that kernels/sampler.py reads, in the order of fill_noise's last arguments; read-only.

    first: int32; high, low: uint32[m], halves of the thresholds; guide: uint32[2 << bits]; bits: uint32.
    """

    first: np.int32
    high: np.ndarray
    low: np.ndarray
    guide: np.ndarray
    bits: np.uint32


@lru_cache(maxsize=64)
def table_arrays(table: NoiseTable) -> TableArrays:
    """The kernel's arrays of a table; cached. What a guide entry means is written in kernels/sampler.py."""
    from intsmooth.kernels.sampler import TAIL_BITS

    high = (table.thresholds >> np.uint64(32)).astype(np.uint32)
    low = table.thresholds.astype(np.uint32)
    bits = max(MIN_GUIDE_BITS, (high.size + 1).bit_length())
    everywhere = _guide_entries(high, np.arange(1 << bits) << (32 - bits), 32 - bits, bits)
    width = 33 - TAIL_BITS - bits
    ends = ((np.arange(1 << bits) << width) - (1 << 32 - TAIL_BITS)) % (1 << 32)
    guide = np.concatenate([everywhere, _guide_entries(high, ends, width, bits)])
    for array in (high, low, guide):
        array.setflags(write=False)
    return TableArrays(np.int32(table.first), high, low, guide, np.uint32(bits))


def _guide_entries(high, begin, width, bits):
    """Entries of the cells [begin, begin + 2^width) of 32-bit words; position left-justified, count in the low bits."""
    before = np.searchsorted(high, begin, side="left")
    inside = np.searchsorted(high, begin + (1 << width), side="left") - before
    next_high = np.append(high, np.uint32(0))[before].astype(np.int64)
    # Without a threshold the position is the cell's last one: no word lies above it, and equality is looked at closely.
    position = np.where(inside == 1, next_high - begin, (1 << width) - 1)
    count = np.where(inside > 1, (1 << bits) - 1, before)
    return ((position << 32 - width) | count).astype(np.uint32)


def sample_noise(
    table: NoiseTable, key: np.ndarray, first: int, count: int, n: int, backend: str = "numba"
) -> np.ndarray:
    """Noise of samples first, first + 1, ..., first + count - 1 of one image and stage, in levels: int16[count, n].

    Every coordinate follows the table's law up to table.tv in total variation if the key stream is uniform, and is a
    pure function of (table, key, sample index, coordinate). key: uint32[8] (stream.stream_key); indices below 2^64;
    1 <= n < 2^31; backend "numba" or "numpy" (the naive twin; needs no numba), same bits. Raises InputError.
    """
    key = _checked_key(key)
    first = _checked("first", first, 0, 2**64 - 1)
    count = _checked("count", count, 0, 2**64 - first)
    n = _checked("n", n, 1, MAX_COORDINATES)
    if backend not in BACKENDS:
        raise InputError(f"backend is {backend!r}; it must be one of {', '.join(BACKENDS)}")
    if backend == "numpy":
        return reference.sample_noise(table.first, table.thresholds, key, NONCE_TAG, first, count, n)
    from intsmooth.kernels.sampler import SCRATCH_WORDS, fill_samples

    noise = np.empty((count, n), dtype=np.int16)
    scratch = np.empty(SCRATCH_WORDS, dtype=np.uint32)
    row = np.empty(-(-n // 16) * 16, dtype=np.int16)
    fill_samples(noise, scratch, row, n, key, np.uint64(first), *table_arrays(table))
    return noise


def _checked(name: str, value, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not lowest <= value <= highest:
        raise InputError(f"{name} is {value!r}; an integer from {lowest} to {highest} is required")
    return int(value)


def _checked_key(key) -> np.ndarray:
    """A fresh uint32[8], so that the compiled function sees one array type whatever the caller holds."""
    if not isinstance(key, np.ndarray) or key.dtype != np.uint32 or key.shape != (8,):
        found = f"{key.dtype} of shape {key.shape}" if isinstance(key, np.ndarray) else type(key).__name__
        raise InputError(f"key is {found}; a uint32 array of shape (8,) is required: see stream_key")
    return np.array(key, dtype=np.uint32)
