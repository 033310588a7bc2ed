"""Element by element: input_requantize (noisy levels to int8), requantize (one int8 scale to another) and clamp."""

import numpy as np

from intsmooth.ops.bounds import int8_only, reach, rescaling_bound
from intsmooth.ops.operator import CLAMP, ONE_MULTIPLIER, ONE_SHIFT, Operator, keep_shape, per_output
from intsmooth.records import Node, Tensor


def bound_levels(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """Every int16 x, requantized."""
    magnitude = np.array([1 << 15], np.int64)
    return rescaling_bound(magnitude, node.constants["multiplier"], node.constants["shift"])


def bound_rescaled(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """|x - z|, requantized."""
    magnitude = np.array([reach(inputs[0])], np.int64)
    return rescaling_bound(magnitude, node.constants["multiplier"], node.constants["shift"])


_CONSTANTS = {"multiplier": ONE_MULTIPLIER, "shift": ONE_SHIFT}
INPUT_REQUANTIZE = Operator(
    "input_requantize", (1, 1), keep_shape, bound_levels, per_output, constants=_CONSTANTS, input_dtype="int16"
)
REQUANTIZE = Operator("requantize", (1, 1), keep_shape, bound_rescaled, per_output, {"clamp": CLAMP}, _CONSTANTS)
CLAMP_OPERATOR = Operator("clamp", (1, 1), keep_shape, int8_only, per_output, {"clamp": CLAMP}, zero_point="same")
