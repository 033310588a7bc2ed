"""Worst-case magnitudes of int32 values, for the proof that no accumulator overflows.

Exact integer arithmetic, in int64 arrays with one entry per output channel. An input x with zero point z gives
x - z in [-128 - z, 127 - z], an interval that holds 0: so padding (which contributes 0) and any subset of the terms
stay within the extremes of the full sum.
"""

import numpy as np

from intsmooth.ops.operator import INT8
from intsmooth.records import Node, Tensor

LARGEST_ZERO = 255  # the kernels keep q + 128 in a byte, and so add zero points of 0..255
_CAP = 1 << 31  # a magnitude from here on is refused; capping it keeps the 64-bit products below exact


def centred(tensor: Tensor) -> tuple[int, int]:
    """(highest of x - z, highest of z - x) of an int8 tensor with zero point z; both are >= 0."""
    return INT8[1] - tensor.zero_point, tensor.zero_point - INT8[0]


def reach(tensor: Tensor) -> int:
    """The largest |x - z| of an int8 tensor."""
    return max(centred(tensor))


def weighted_extremes(weights: np.ndarray, axes: tuple[int, ...], tensor: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(highest of sum w (x - z), highest of its negative) over all int8 x, summed over `axes` of the int8 weights."""
    up, down = centred(tensor)
    rising = np.maximum(weights, 0).sum(axis=axes, dtype=np.int64)
    falling = -np.minimum(weights, 0).sum(axis=axes, dtype=np.int64)
    return rising * up + falling * down, rising * down + falling * up


def requantized(magnitude: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """An upper bound of |MBQM(x, multiplier, shift)| over |x| <= magnitude, attained by x = magnitude.

    Only meaningful where magnitude * 2^max(shift, 0) < 2^31; rescaling_bound refuses the rest.
    """
    wide = np.minimum(np.asarray(magnitude, np.int64), _CAP) << np.maximum(shift, 0).astype(np.int64)
    high = (np.minimum(wide, _CAP) * multiplier.astype(np.int64) + (1 << 30)) >> 31
    exponent = np.maximum(-shift, 0).astype(np.int64)
    return (high + ((np.int64(1) << exponent) >> 1)) >> exponent


def rescaling_bound(magnitude: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The largest magnitude met in requantizing |x| <= magnitude: x * 2^max(shift, 0), and result plus zero point."""
    wide = np.minimum(np.asarray(magnitude, np.int64), _CAP) << np.maximum(shift, 0).astype(np.int64)
    return np.maximum(wide, requantized(magnitude, multiplier, shift) + LARGEST_ZERO)


def accumulation_bound(
    bias: np.ndarray, rise: np.ndarray, fall: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """The largest magnitude met when terms of sum in [-fall, rise] join a bias, in any order, and are requantized."""
    bias = bias.astype(np.int64)
    partial = np.maximum(np.maximum(bias, 0) + rise, np.maximum(-bias, 0) + fall)
    final = np.maximum(np.abs(bias + rise), np.abs(bias - fall))
    return np.maximum(partial, rescaling_bound(final, multiplier, shift))


def weighted_bound(
    node: Node,
    tensor: Tensor,
    axes: tuple[int, ...],
    extra_rise: np.ndarray | int = 0,
    extra_fall: np.ndarray | int = 0,
) -> np.ndarray:
    """Per output channel of a node with weights: |bias + sum w (x - z)|, any partial sum, and its requantization.

    `axes` of the weights are summed over; a further term with extremes extra_rise and -extra_fall may join.
    """
    constants = node.constants
    rise, fall = weighted_extremes(constants["weights"], axes, tensor)
    return accumulation_bound(
        constants["bias"], rise + extra_rise, fall + extra_fall, constants["multiplier"], constants["shift"]
    )


def int8_only(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """The accumulator bound of an operator that only moves, compares or looks up int8 values."""
    return np.array([-INT8[0]], np.int64)
