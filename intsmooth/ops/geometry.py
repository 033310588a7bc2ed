"""Shapes of windows, images and broadcasts: the integer geometry that operators share."""

import math

from intsmooth.errors import FormatError
from intsmooth.records import Tensor


def elements(shape: tuple[int, ...]) -> int:
    """Number of elements, exact whatever the dimensions."""
    return math.prod(shape)


def image_shape(tensor: Tensor) -> tuple[int, int, int]:
    """(height, width, channels) of an activation, or FormatError where it has not three dimensions."""
    if len(tensor.shape) != 3:
        raise FormatError(f"input {tensor.name!r} has shape {tensor.shape}, required: (height, width, channels)")
    return tensor.shape


def window_output(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """(height, width) of the result of sliding a window over an image padded by (top, bottom, left, right).

    Only whole windows count: floor((size + padding - ((kernel - 1) * dilation + 1)) / stride) + 1.
    """
    sizes = []
    for axis in (0, 1):
        padded = image[axis] + padding[2 * axis] + padding[2 * axis + 1]
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        if extent > padded:
            raise FormatError(f"a window of {extent} does not fit into {padded} padded {('rows', 'columns')[axis]}")
        sizes.append((padded - extent) // stride[axis] + 1)
    return sizes[0], sizes[1]


def broadcast_to(large: tuple[int, ...], small: tuple[int, ...]) -> bool:
    """Whether an array of shape `small` broadcasts to shape `large` the NumPy way."""
    tail = large[len(large) - len(small) :] if len(small) <= len(large) else ()
    return len(tail) == len(small) and all(b in (1, a) for a, b in zip(tail, small, strict=True))
