"""Functions of a whole vector or by table: lookup, softmax and argmax."""

import numpy as np

from intsmooth.ops.bounds import int8_only
from intsmooth.ops.geometry import elements
from intsmooth.ops.operator import INT8, ONE_MULTIPLIER, Attribute, Constant, Operator, keep_shape, per_input
from intsmooth.records import Node, Tensor


def infer_argmax(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """One index."""
    return (1,), "int32"


def bound_softmax(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """The largest scaled difference to the maximum that counts, and the sum of exponentials, each at most 2^19."""
    furthest = -node.attributes["diff_min"] << int(node.constants["shift"][0])
    return np.array([max(furthest, inputs[0].shape[-1] << 19)], np.int64)


def bound_argmax(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """The highest index."""
    return np.array([max(-INT8[0], elements(inputs[0].shape) - 1)], np.int64)


LOOKUP = Operator(
    "lookup", (1, 1), keep_shape, int8_only, per_input, constants={"table": Constant("int8", 1, *INT8, length=256)}
)
SOFTMAX = Operator(
    "softmax",
    (1, 1),
    keep_shape,
    bound_softmax,
    per_input,
    {"diff_min": Attribute(1, -(2**31) + 1, 0)},
    {"multiplier": ONE_MULTIPLIER, "shift": Constant("int32", 1, 0, 30, length=1)},
    zero_point=INT8[0],
)
ARGMAX = Operator("argmax", (1, 1), infer_argmax, bound_argmax, per_input, zero_point=0)
