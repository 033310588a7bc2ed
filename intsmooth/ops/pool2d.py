"""average_pool2d and max_pool2d: over those elements of a window that lie inside the image."""

import numpy as np

from intsmooth.errors import FormatError
from intsmooth.ops.bounds import int8_only
from intsmooth.ops.geometry import elements, image_shape, window_output
from intsmooth.ops.operator import CLAMP, INT8, PADDING, STRIDE, Attribute, Operator
from intsmooth.records import Node, Tensor


def infer(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """(height, width, channels); padding is smaller than the window, so that every window holds an element."""
    height, width, channels = image_shape(inputs[0])
    kernel, padding = node.attributes["kernel"], node.attributes["padding"]
    if max(padding[:2]) >= kernel[0] or max(padding[2:]) >= kernel[1]:
        raise FormatError(f"padding {padding} is not smaller than the window {kernel}: some windows would be empty")
    rows, columns = window_output((height, width), kernel, node.attributes["stride"], padding)
    return (rows, columns, channels), "int8"


def bound_average(node: Node, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """The sum of a whole window of -128, and half the count that rounding adds."""
    kernel = node.attributes["kernel"]
    count = min(kernel[0], inputs[0].shape[0]) * min(kernel[1], inputs[0].shape[1])
    return np.array([-INT8[0] * count + count // 2], np.int64)


def work(node: Node, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> int:
    """Output elements times the window's."""
    return elements(shape) * elements(node.attributes["kernel"])


_ATTRIBUTES = {"kernel": Attribute(2, 1, 65536), "stride": STRIDE, "padding": PADDING, "clamp": CLAMP}
AVERAGE_POOL2D = Operator("average_pool2d", (1, 1), infer, bound_average, work, _ATTRIBUTES, zero_point="same")
MAX_POOL2D = Operator("max_pool2d", (1, 1), infer, int8_only, work, _ATTRIBUTES, zero_point="same")
