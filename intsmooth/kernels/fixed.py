"""The rounding rules of fixed-point arithmetic as compiled scalars, for kernels that are not worth vectors.

The vector kernels use the closed form explained in `vector.py`; both must equal `intsmooth.reference`, and tests hold it.
"""

import numpy as np

from intsmooth.kernels.jit import jit


@jit
def saturating_rounding_doubling_high_mul(a, b):
    """round(a * b / 2^31), ties upward, saturated for a = b = -2^31; int32 in and out."""
    if a == b and a == np.int32(-2147483648):
        return np.int32(2147483647)
    return np.int32((np.int64(a) * np.int64(b) + np.int64(1 << 30)) >> np.int64(31))


@jit
def rounding_divide_by_power_of_two(x, exponent):
    """x / 2^exponent to nearest, ties away from zero; int32, 0 <= exponent <= 31."""
    mask = np.int32((np.int64(1) << np.int64(exponent)) - np.int64(1))
    threshold = np.int32((mask >> np.int32(1)) + np.int32(x < 0))
    return np.int32((x >> np.int32(exponent)) + np.int32(np.int32(x & mask) > threshold))

