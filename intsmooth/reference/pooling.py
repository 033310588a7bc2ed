"""Pooling: windows that are cut off at the image's border, and the mean over height and width.

`padding` is (top, bottom, left, right), each smaller than the kernel, so that no window lies wholly outside the image.
"""

import numpy as np

from intsmooth.reference.arithmetic import requantize, truncating_divide
from intsmooth.reference.convolution import output_extent, tap_window


def pad_with(x, padding, value):
    """(N, H, W, C) with a constant border of the same dtype."""
    top, bottom, left, right = padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def average_pool2d(x, *, kernel, stride, padding, clamp):
    """int8 -> int8: sum of the elements inside the image / their number, to nearest, ties away from zero."""
    height = output_extent(x.shape[1], kernel[0], stride[0], 1, padding[0], padding[1])
    width = output_extent(x.shape[2], kernel[1], stride[1], 1, padding[2], padding[3])
    values = pad_with(x.astype(np.int32), padding, 0)
    inside = pad_with(np.ones((1, *x.shape[1:3], 1), dtype=np.int32), padding, 0)
    total = np.zeros((x.shape[0], height, width, x.shape[3]), dtype=np.int32)
    count = np.zeros((1, height, width, 1), dtype=np.int32)
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            total += tap_window(values, ky, kx, stride, (1, 1), height, width)
            count += tap_window(inside, ky, kx, stride, (1, 1), height, width)
    half = np.where(total > 0, count // 2, -(count // 2))
    lowest, highest = clamp
    return np.clip(truncating_divide(total + half, count), lowest, highest).astype(np.int8)


def max_pool2d(x, *, kernel, stride, padding, clamp):
    """int8 -> int8: the largest of the elements inside the image; -128 stands for what lies outside and never wins."""
    height = output_extent(x.shape[1], kernel[0], stride[0], 1, padding[0], padding[1])
    width = output_extent(x.shape[2], kernel[1], stride[1], 1, padding[2], padding[3])
    values = pad_with(x, padding, -128)
    largest = np.full((x.shape[0], height, width, x.shape[3]), -128, dtype=np.int8)
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            largest = np.maximum(largest, tap_window(values, ky, kx, stride, (1, 1), height, width))
    lowest, highest = clamp
    return np.clip(largest, lowest, highest).astype(np.int8)


def mean(x, multiplier, shift, *, input_zero_point, output_zero_point, clamp):
    """int8 (N, H, W, C) -> int8 (N, C): the sum over height and width, requantized; 1 / (H W) is in the multiplier."""
    total = (x.astype(np.int32) - np.int32(input_zero_point)).sum(axis=(1, 2), dtype=np.int32)
    return requantize(total, multiplier, shift, output_zero_point, clamp)
