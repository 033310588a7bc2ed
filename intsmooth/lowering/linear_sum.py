"""TFLite's ADD with one rounding instead of three, where that is proved to give the same bytes.

ADD requantizes both operands to a fine common scale, adds, and requantizes the sum. There are only 65,536 pairs of
operands, so one can ask whether a plain linear form clamp((a A + b B + C) >> S) gives the same answer for every one of
them, and compute the set of all C for which it does. Where that set is empty for all factors tried (exact ties that
must round away from zero on both sides of it are the usual reason), the kernel with three roundings is used.
"""

from fractions import Fraction
from itertools import product

import numpy as np

from intsmooth.fixedpoint import multiply_by_quantized_multiplier, real_multiplier
from intsmooth.kernels import elementwise as kernel
from intsmooth.records import Node

FACTOR_BITS = 30
NEIGHBOURS = (0, 1, -1, 2, -2)


def answers(node: Node, zeros: tuple[int, int, int]) -> np.ndarray:
    """The output byte of add or sub for all pairs of input bytes, int64 (256, 256); zeros are bytes: a, b, output."""
    multiplier, shift = node.constants["multiplier"], node.constants["shift"]
    a, b = (multiply_by_quantized_multiplier((np.arange(256) - zero) << node.attributes["left_shift"], int(multiplier[k]),
                                             int(shift[k])).astype(np.int64) for k, zero in enumerate(zeros[:2]))
    total = a[:, None] + (b if node.op == "add" else -b)[None, :]
    result = multiply_by_quantized_multiplier(total, int(multiplier[2]), int(shift[2])).astype(np.int64) + zeros[2]
    low, high = (bound + 128 for bound in node.attributes["clamp"])
    return np.clip(result, low, high)


def linear_sum(node: Node, *zeros: int) -> np.ndarray | None:
    """Parameters of the linear kernel (uint8, LINEAR_BYTES), or None where no linear form was found that is always equal."""
    wanted = answers(node, zeros)
    low, high = (bound + 128 for bound in node.attributes["clamp"])
    multiplier, shift = node.constants["multiplier"], node.constants["shift"]
    scale = [real_multiplier(multiplier[k], shift[k]) * real_multiplier(multiplier[2], shift[2]) for k in (0, 1)]
    scale = [factor * 2 ** node.attributes["left_shift"] for factor in scale]
    if not 0 < max(scale) < 64:
        return None
    exponent = FACTOR_BITS
    while max(scale) * 2**exponent >= 2**FACTOR_BITS:
        exponent -= 1
    while max(scale) * 2 ** (exponent + 1) < 2**FACTOR_BITS and exponent < 45:
        exponent += 1
    if exponent < kernel.SPLIT:
        return None
    nearest = [round(Fraction(factor) * 2**exponent) for factor in scale]
    for step_a, step_b in product(NEIGHBOURS, NEIGHBOURS):
        a, b = nearest[0] + step_a, (nearest[1] + step_b) * (1 if node.op == "add" else -1)
        linear = np.arange(256)[:, None] * a + np.arange(256)[None, :] * b
        at_least = (wanted << exponent) - linear           # the rounding constants that give `wanted` exactly are an interval
        at_most = ((wanted + 1) << exponent) - 1 - linear
        lowest = at_least[wanted > low].max(initial=-(2**50))   # below, the clamp forgives
        highest = at_most[wanted < high].min(initial=2**50)
        if lowest <= highest and max(abs(a), abs(b)) < 2**FACTOR_BITS:
            rounding = int(np.clip((lowest + highest) // 2, -(2**45), 2**45))
            if (np.clip((linear + rounding) >> exponent, low, high) == wanted).all():
                return _parameters(a, b, rounding, exponent)
    return None


def _parameters(a: int, b: int, rounding: int, exponent: int) -> np.ndarray:
    upper, lower = (np.array([[part(a), part(b)]] * 16, "<i2") for part in (lambda x: x >> kernel.SPLIT, _lower))
    lanes = [np.full(16, value, "<i4") for value in (rounding >> kernel.SPLIT, _lower(rounding), exponent - kernel.SPLIT)]
    return np.concatenate([array.ravel().view(np.uint8) for array in (upper, lower, *lanes)])


def _lower(value: int) -> int:
    return value & ((1 << kernel.SPLIT) - 1)
