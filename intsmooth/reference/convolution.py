"""Convolutions and the fully connected layer: int8 data and weights, int32 sums, one requantization per channel.

A convolution is a loop over the kernel's taps; each tap adds, for all pixels at once, what one kernel position sees.
The padded value is the input's zero point, so it contributes nothing: the input is centred first and padded with 0.
`padding` is (top, bottom, left, right), `stride` and `dilation` are (vertical, horizontal).
"""

import numpy as np

from intsmooth.reference.arithmetic import requantize
from intsmooth.reference.shape import flatten


def output_extent(size, kernel, stride, dilation, before, after):
    """Number of output rows or columns of a sliding window over `size` elements padded by `before` and `after`."""
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def centre_and_pad(x, zero_point, padding):
    """int8 (N, H, W, C) -> int32 (N, top + H + bottom, left + W + right, C) of x - zero_point, 0 in the padding."""
    top, bottom, left, right = padding
    centred = x.astype(np.int32) - np.int32(zero_point)
    return np.pad(centred, ((0, 0), (top, bottom), (left, right), (0, 0)))


def tap_window(padded, ky, kx, stride, dilation, height, width):
    """What kernel position (ky, kx) sees for each of height x width output pixels: a view (N, height, width, C)."""
    y, x = ky * dilation[0], kx * dilation[1]
    rows = slice(y, y + (height - 1) * stride[0] + 1, stride[0])
    columns = slice(x, x + (width - 1) * stride[1] + 1, stride[1])
    return padded[:, rows, columns, :]


def conv2d_accumulators(x, weights, bias, *, input_zero_point, stride, dilation, padding, groups):
    """acc[n, y, x, o] = bias[o] + sum over taps and the group's channels of w * (x - z), int32 (N, OH, OW, O).

    weights int8 (O, KH, KW, I / groups); output channels are split evenly over the groups, as are the input channels.
    """
    out_channels, kernel_height, kernel_width, depth = weights.shape
    height = output_extent(x.shape[1], kernel_height, stride[0], dilation[0], padding[0], padding[1])
    width = output_extent(x.shape[2], kernel_width, stride[1], dilation[1], padding[2], padding[3])
    padded = centre_and_pad(x, input_zero_point, padding)
    share = out_channels // groups
    accumulators = np.empty((x.shape[0], height, width, out_channels), dtype=np.int32)
    accumulators[...] = bias
    for group in range(groups):
        outputs = slice(group * share, (group + 1) * share)
        inputs = slice(group * depth, (group + 1) * depth)
        for ky in range(kernel_height):
            for kx in range(kernel_width):
                window = tap_window(padded[..., inputs], ky, kx, stride, dilation, height, width)
                tap = np.ascontiguousarray(weights[outputs, ky, kx, :].T, dtype=np.int32)
                accumulators[..., outputs] += np.einsum("nyxi,io->nyxo", window, tap)
    return accumulators


def conv2d(x, weights, bias, multiplier, shift, *, output_zero_point, clamp, **geometry):
    """int8 (N, H, W, I) -> int8 (N, OH, OW, O). bias, multiplier and shift are int32 of length O.

    geometry: input_zero_point, stride, dilation, padding and groups, as conv2d_accumulators takes them.
    """
    accumulators = conv2d_accumulators(x, weights, bias, **geometry)
    return requantize(accumulators, multiplier, shift, output_zero_point, clamp)


def conv2d_add(
    x, skip, weights, bias, multiplier, shift, skip_multiplier, *,
    skip_zero_point, skip_stride, skip_offset, output_zero_point, clamp, **geometry,
):  # fmt: skip
    """A convolution that adds a skip connection to its accumulators before the one requantization.

    Adds skip_multiplier[o] * (skip[n, y * sy, x * sx, o - skip_offset] - zk), nothing where that channel does not
    exist: the parameter-free shortcut of ResNets on small images (He et al. 2016, option A) is a stride and an offset.
    """
    accumulators = conv2d_accumulators(x, weights, bias, **geometry)
    _, height, width, out_channels = accumulators.shape
    centred = skip.astype(np.int32) - np.int32(skip_zero_point)
    for o in range(out_channels):
        channel = o - skip_offset
        if 0 <= channel < skip.shape[3]:
            seen = tap_window(centred, 0, 0, skip_stride, (1, 1), height, width)[..., channel]
            accumulators[..., o] += np.int32(skip_multiplier[o]) * seen
    return requantize(accumulators, multiplier, shift, output_zero_point, clamp)


def depthwise_conv2d(
    x, weights, bias, multiplier, shift, *,
    input_zero_point, output_zero_point, stride, dilation, padding, clamp,
):  # fmt: skip
    """int8 (N, H, W, I) -> int8 (N, OH, OW, O): output channel o reads input channel o // (O / I) only.

    weights int8 (KH, KW, O); bias, multiplier and shift int32 of length O.
    """
    kernel_height, kernel_width, out_channels = weights.shape
    height = output_extent(x.shape[1], kernel_height, stride[0], dilation[0], padding[0], padding[1])
    width = output_extent(x.shape[2], kernel_width, stride[1], dilation[1], padding[2], padding[3])
    repeated = np.repeat(centre_and_pad(x, input_zero_point, padding), out_channels // x.shape[3], axis=3)
    accumulators = np.empty((x.shape[0], height, width, out_channels), dtype=np.int32)
    accumulators[...] = bias
    for ky in range(kernel_height):
        for kx in range(kernel_width):
            window = tap_window(repeated, ky, kx, stride, dilation, height, width)
            accumulators += window * weights[ky, kx, :].astype(np.int32)
    return requantize(accumulators, multiplier, shift, output_zero_point, clamp)


def fully_connected(x, weights, bias, multiplier, shift, *, input_zero_point, output_zero_point, clamp):
    """int8 (N, ...) flattened in C order to (N, I) -> int8 (N, O); weights int8 (O, I), bias int32 (O)."""
    centred = flatten(x).astype(np.int32) - np.int32(input_zero_point)
    accumulators = bias + np.einsum("ni,io->no", centred, np.ascontiguousarray(weights.T, dtype=np.int32))
    return requantize(accumulators, multiplier, shift, output_zero_point, clamp)
