"""fully_connected: the input flattened in C order, times a matrix."""

import numpy as np

from intsmooth.errors import FormatError
from intsmooth.ops.bounds import weighted_bound
from intsmooth.ops.geometry import elements
from intsmooth.ops.operator import BIAS, CLAMP, MULTIPLIER, SHIFT, Constant, Operator, per_weight, require_length
from intsmooth.records import Node, Tensor


def infer(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """(O,) from weights (O, I); I is the number of the input's elements."""
    out, features = node.constants["weights"].shape
    if elements(inputs[0].shape) != features:
        raise FormatError(f"weights for {features} features; the input has {elements(inputs[0].shape)} elements")
    require_length(node, out, "bias", "multiplier", "shift")
    return (out,), "int8"


def bound(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """Sums over I."""
    return weighted_bound(node, inputs[0], (1,))


FULLY_CONNECTED = Operator(
    "fully_connected",
    (1, 1),
    infer,
    bound,
    per_weight,
    {"clamp": CLAMP},
    {"weights": Constant("int8", 2, -128, 127, learned=True), "bias": BIAS, "multiplier": MULTIPLIER, "shift": SHIFT},
)
