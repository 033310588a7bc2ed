"""depthwise_conv2d: every output channel reads one input channel."""

import numpy as np

from intsmooth.errors import FormatError
from intsmooth.ops.bounds import weighted_bound
from intsmooth.ops.geometry import image_shape, window_output
from intsmooth.ops.operator import (
    BIAS,
    CLAMP,
    DILATION,
    MULTIPLIER,
    PADDING,
    SHIFT,
    STRIDE,
    Constant,
    Operator,
    per_weight,
    require_length,
)
from intsmooth.records import Node, Tensor


def infer(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """(height, width, O) from weights (KH, KW, O); O is a multiple of the input's channels."""
    height, width, channels = image_shape(inputs[0])
    kernel_height, kernel_width, out = node.constants["weights"].shape
    if out % channels:
        raise FormatError(f"{out} output channels, required: a multiple of the input's {channels} channels")
    require_length(node, out, "bias", "multiplier", "shift")
    kernel = (kernel_height, kernel_width)
    attributes = node.attributes
    rows, columns = window_output(
        (height, width), kernel, attributes["stride"], attributes["padding"], attributes["dilation"]
    )
    return (rows, columns, out), "int8"


def bound(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """Sums over KH and KW."""
    return weighted_bound(node, inputs[0], (0, 1))


DEPTHWISE_CONV2D = Operator(
    "depthwise_conv2d",
    (1, 1),
    infer,
    bound,
    per_weight,
    {"stride": STRIDE, "dilation": DILATION, "padding": PADDING, "clamp": CLAMP},
    {"weights": Constant("int8", 3, -128, 127, learned=True), "bias": BIAS, "multiplier": MULTIPLIER, "shift": SHIFT},
)
