"""The constant blob: weights and parameters in the order in which the kernels read them."""

import numpy as np

from intsmooth.kernels.conv_tile import BIAS, PARAMETER_BYTES, REQUANTIZE, SKIP
from intsmooth.kernels.vector import REQUANTIZE_BYTES

LANES = 16
ALIGNMENT = 64


class ConstantBlob:
    """Collects byte strings at aligned offsets; equal strings are stored once."""

    def __init__(self):
        self._parts, self._size, self._seen = [], 0, {}

    def add(self, array: np.ndarray) -> int:
        """Append the bytes of `array` (little endian, C order); returns their offset."""
        data = np.ascontiguousarray(array).tobytes()
        if data not in self._seen:
            self._seen[data] = self._size
            padding = -len(data) % ALIGNMENT
            self._parts += [data, b"\0" * padding]
            self._size += len(data) + padding
        return self._seen[data]

    def bytes(self) -> np.ndarray:
        """All parts as one aligned uint8 array, with room for a vector load at its end."""
        return aligned_bytes(b"".join(self._parts) + b"\0" * ALIGNMENT)


def aligned_bytes(data: bytes) -> np.ndarray:
    """A uint8 copy of `data` that starts at a multiple of the alignment."""
    room = np.zeros(len(data) + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    room[start:start + len(data)] = np.frombuffer(data, np.uint8)
    return room[start:start + len(data)]


def can_fold_zero(shift) -> bool:
    """Whether the zero point times 2^(31 + e) fits into the 64-bit rounding constant beside the product."""
    return int(np.min(shift)) >= -23


def requantize_blocks(multiplier, shift, zero_byte: int, fold: bool) -> np.ndarray:
    """Requantization parameters of channels in groups of 16, uint8 (groups, REQUANTIZE_BYTES); see kernels/vector.py."""
    multiplier, shift = (pad_lanes(np.asarray(values, np.int64), 1) for values in (multiplier, shift))
    one = np.int64(1)
    right = np.maximum(-shift, 0)
    rounding = np.where(shift > 0, one << np.maximum(30 - shift, 0), one << 30)
    rounding += np.where(right > 0, (one << np.maximum(right - 1, 0)) << 31, 0)
    total_shift = 31 - shift
    if fold:
        rounding += np.int64(zero_byte) << total_shift
    sign = np.where(right > 0, -(one << 31), 0)
    lanes = [values.reshape(-1, LANES)[:, parity::2] for values in (multiplier, rounding, total_shift, sign) for parity in (0, 1)]
    blocks = np.ascontiguousarray(np.concatenate(lanes, axis=1), "<i8").view(np.uint8)
    assert blocks.shape[1] == REQUANTIZE_BYTES
    return blocks


def pad_lanes(values: np.ndarray, multiple: int) -> np.ndarray:
    """`values` with zeros appended on the first axis up to a multiple of 16 * multiple."""
    missing = -len(values) % (LANES * multiple)
    return np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])


def channel_parameters(bias, multiplier, shift, skip_multiplier, zero_byte, fold) -> np.ndarray:
    """The parameter blocks of a convolution, uint8 (groups of 16 channels, PARAMETER_BYTES)."""
    requantize = requantize_blocks(multiplier, shift, zero_byte, fold)
    blocks = np.zeros((len(requantize), PARAMETER_BYTES), np.uint8)
    for start, values in ((BIAS, bias), (SKIP, skip_multiplier)):
        wrapped = pad_lanes(np.asarray(values, np.int64), 1).astype(np.int32)  # bias wraps: accumulators are modulo 2^32
        blocks[:, start:start + 64] = wrapped.reshape(-1, LANES).astype("<i4").view(np.uint8)
    blocks[:, REQUANTIZE:REQUANTIZE + REQUANTIZE_BYTES] = requantize
    return blocks


def pack_weights(weights: np.ndarray, blocks: int) -> np.ndarray:
    """int8 (channels, segments, segment bytes) -> the order of the convolution tile:

    (channel group, segment, step of four bytes, block, channel of the block, byte)."""
    missing = -weights.shape[2] % 4
    weights = np.pad(weights, ((0, 0), (0, 0), (0, missing)))
    weights = pad_lanes(weights, blocks)
    channels, segments, length = weights.shape
    parts = weights.reshape(channels // (LANES * blocks), blocks, LANES, segments, length // 4, 4)
    return np.ascontiguousarray(parts.transpose(0, 3, 4, 1, 2, 5))
