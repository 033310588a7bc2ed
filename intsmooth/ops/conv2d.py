"""conv2d, and conv2d_add: a convolution whose accumulator a residual connection joins before requantization."""

import numpy as np

from intsmooth.errors import FormatError
from intsmooth.ops.bounds import centred, weighted_bound
from intsmooth.ops.geometry import image_shape, window_output
from intsmooth.ops.operator import (
    BIAS,
    CLAMP,
    DILATION,
    GROUPS,
    MULTIPLIER,
    PADDING,
    SHIFT,
    STRIDE,
    Attribute,
    Constant,
    Operator,
    per_weight,
    require_length,
)
from intsmooth.records import Node, Tensor

ATTRIBUTES = {"stride": STRIDE, "dilation": DILATION, "padding": PADDING, "groups": GROUPS, "clamp": CLAMP}
CONSTANTS = {
    "weights": Constant("int8", 4, -128, 127, learned=True),
    "bias": BIAS,
    "multiplier": MULTIPLIER,
    "shift": SHIFT,
}


def infer(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """(height, width, O) from weights (O, KH, KW, I / groups)."""
    height, width, channels = image_shape(inputs[0])
    out, kernel_height, kernel_width, per_group = node.constants["weights"].shape
    groups = node.attributes["groups"]
    if channels != per_group * groups or out % groups:
        raise FormatError(
            f"{channels} input, {out} output channels in {groups} groups, weights for {per_group} channels per group; "
            "required: groups divides both, and groups * the weights' last dimension is the input's channels"
        )
    require_length(node, out, "bias", "multiplier", "shift")
    kernel = (kernel_height, kernel_width)
    attributes = node.attributes
    rows, columns = window_output(
        (height, width), kernel, attributes["stride"], attributes["padding"], attributes["dilation"]
    )
    return (rows, columns, out), "int8"


def bound(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """Sums over KH, KW and I / groups."""
    return weighted_bound(node, inputs[0], (1, 2, 3))


def infer_add(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """As conv2d; every skip pixel that is read exists, and channels without a skip channel have skip_multiplier 0."""
    shape, dtype = infer(node, inputs)
    rows, columns, channels = image_shape(inputs[1])
    stride, offset = node.attributes["skip_stride"], node.attributes["skip_offset"]
    if (shape[0] - 1) * stride[0] >= rows or (shape[1] - 1) * stride[1] >= columns:
        raise FormatError(
            f"the skip input of {rows} x {columns} is too small for an output of {shape[0]} x {shape[1]} "
            f"at skip_stride {stride}"
        )
    require_length(node, shape[2], "skip_multiplier")
    source = np.arange(shape[2]) - offset
    outside = (source < 0) | (source >= channels)
    if node.constants["skip_multiplier"][outside].any():
        raise FormatError(
            f"skip_multiplier is not 0 for an output channel without a skip channel (the skip input has {channels} "
            f"channels, skip_offset is {offset})"
        )
    return shape, dtype


def bound_add(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """As conv2d, with the term skip_multiplier * (k - zk)."""
    up, down = centred(inputs[1])
    skip = node.constants["skip_multiplier"].astype(np.int64)
    return weighted_bound(node, inputs[0], (1, 2, 3), skip * up, skip * down)


CONV2D = Operator("conv2d", (1, 1), infer, bound, per_weight, ATTRIBUTES, CONSTANTS)

CONV2D_ADD = Operator(
    "conv2d_add",
    (2, 2),
    infer_add,
    bound_add,
    per_weight,
    ATTRIBUTES | {"skip_stride": STRIDE, "skip_offset": Attribute(1, 0, 65535)},
    CONSTANTS | {"skip_multiplier": Constant("int32", 1, 0, 32767)},
)
