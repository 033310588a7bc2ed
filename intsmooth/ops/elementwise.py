"""add, sub and mul of two activations, of which the second broadcasts to the first's shape the NumPy way."""

import numpy as np

from intsmooth.errors import FormatError
from intsmooth.ops.bounds import reach, requantized, rescaling_bound
from intsmooth.ops.geometry import broadcast_to
from intsmooth.ops.operator import CLAMP, ONE_MULTIPLIER, ONE_SHIFT, Attribute, Constant, Operator, per_output
from intsmooth.records import Node, Tensor


def infer(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """The first input's shape."""
    a, b = inputs
    if not broadcast_to(a.shape, b.shape):
        raise FormatError(f"the second input's shape {b.shape} does not broadcast to the first's {a.shape}")
    return a.shape, "int8"


def bound_sum(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """(x - z) << left_shift and its requantization for both inputs, then their sum or difference and its own."""
    multiplier, shift = node.constants["multiplier"], node.constants["shift"]
    shifted = np.array([reach(tensor) for tensor in inputs], np.int64) << node.attributes["left_shift"]
    total = requantized(shifted, multiplier[:2], shift[:2]).sum(keepdims=True)
    parts = rescaling_bound(shifted, multiplier[:2], shift[:2]).max(keepdims=True)
    return np.maximum(parts, rescaling_bound(total, multiplier[2:], shift[2:]))


def bound_product(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """(a - za) * (b - zb) and its requantization."""
    product = np.array([reach(inputs[0]) * reach(inputs[1])], np.int64)
    return rescaling_bound(product, node.constants["multiplier"], node.constants["shift"])


_SUM_ATTRIBUTES = {"left_shift": Attribute(1, 0, 23), "clamp": CLAMP}
_SUM_CONSTANTS = {
    "multiplier": Constant("int32", 1, 0, 2**31 - 1, length=3),
    "shift": Constant("int32", 1, -31, 30, length=3),
}
ADD = Operator("add", (2, 2), infer, bound_sum, per_output, _SUM_ATTRIBUTES, _SUM_CONSTANTS)
SUB = Operator("sub", (2, 2), infer, bound_sum, per_output, _SUM_ATTRIBUTES, _SUM_CONSTANTS)
MUL = Operator(
    "mul",
    (2, 2),
    infer,
    bound_product,
    per_output,
    {"clamp": CLAMP},
    {"multiplier": ONE_MULTIPLIER, "shift": ONE_SHIFT},
)
