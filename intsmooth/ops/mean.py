"""mean: over height and width, the global average pooling whose 1 / (H W) is part of the multiplier."""

import numpy as np

from intsmooth.ops.bounds import reach, rescaling_bound
from intsmooth.ops.geometry import image_shape
from intsmooth.ops.operator import CLAMP, ONE_MULTIPLIER, ONE_SHIFT, Operator, per_input
from intsmooth.records import Node, Tensor


def infer(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """(height, width, channels) -> (channels,)."""
    return (image_shape(inputs[0])[2],), "int8"


def accumulator_bound(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """|sum (x - z)| over the image and its requantization."""
    height, width, _ = inputs[0].shape
    total = np.array([height * width * reach(inputs[0])], np.int64)
    return rescaling_bound(total, node.constants["multiplier"], node.constants["shift"])


MEAN = Operator(
    "mean",
    (1, 1),
    infer,
    accumulator_bound,
    per_input,
    {"clamp": CLAMP},
    {"multiplier": ONE_MULTIPLIER, "shift": ONE_SHIFT},
)
