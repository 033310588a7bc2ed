"""Pooling: windows, and means over the whole image. A mean of another scale than its input's sums with weights of 1."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from intsmooth.convert.onnx_layers import window, window_shape
from intsmooth.convert.onnx_layout import as_image
from intsmooth.convert.onnx_translation import FULL, Translation
from intsmooth.convert.onnx_values import Integer, Pending, Target, View
from intsmooth.errors import FormatError, UnsupportedError


def _geometry(t: Translation, x: Integer | Pending):
    """(kernel, stride, padding, output's height and width); a ceil mode is expressed by padding at the end."""
    if len(x.shape) != 3:
        raise UnsupportedError(f"pooling of shape {x.shape} without the batch, supported: channels, height, width")
    kernel = t.attribute("kernel_shape", (), tuple)
    if len(kernel) != 2:
        raise UnsupportedError(f"a window of {len(kernel)} dimensions, supported: height and width")
    stride, dilation, padding = window(t, x.shape, kernel)
    if dilation != (1, 1):
        raise UnsupportedError(f"pooling with dilations {dilation}")
    ceil = bool(t.attribute("ceil_mode", 0))
    size = list(window_shape(t, x.shape, kernel, stride, dilation, padding, ceil))
    extended = list(padding)
    for i in range(2):
        if ceil and (size[i] - 1) * stride[i] >= x.shape[1 + i] + padding[2 * i]:
            size[i] -= 1  # a window that would start behind the image is left out
        needed = (size[i] - 1) * stride[i] + kernel[i] - x.shape[1 + i] - padding[2 * i]
        extended[2 * i + 1] = max(needed, padding[2 * i + 1])
    if any(extended[i] >= kernel[i // 2] for i in range(4)):
        raise UnsupportedError(f"padding {padding} that is not smaller than the window {kernel}")
    return kernel, stride, padding, tuple(extended), tuple(size)


def max_pool(t: Translation) -> None:
    """On integers as on reals; of a float tensor's view the result is a view.

    Rounding keeps the order, so the largest of reals that are yet to be quantized is the largest of their integers.
    """
    (source,) = t.inputs(1)
    value = t.value(source)
    later = isinstance(value, Pending) and t.chooser is None
    x = value if later or isinstance(value, Integer) else t.real(source)
    kernel, stride, _, padding, size = _geometry(t, x)
    shape = (x.shape[0], *size)
    attributes = {"kernel": tuple(kernel), "stride": stride, "padding": padding, "clamp": FULL}

    def largest(t, x: Integer) -> Integer:
        target = Target(x.scale, x.zero_point, FULL, x.unsigned)
        place = dict(shape=shape, image=shape, ours=(*size, x.shape[0]))
        return t.emit("max_pool2d", [as_image(t, x)], x, target, attributes, {}, **place)

    if later:
        t.values[t.output()] = Pending(shape, lambda t, target: largest(t, t.quantized(value, target, None)))
        return
    result = largest(t, x)
    t.claim(result, t.output())
    t.values[t.output()] = result if isinstance(value, Integer) else View(result)


def average(t: Translation, x: Integer) -> Pending:
    """AveragePool with the current node's attributes."""
    kernel, stride, plain, padding, size = _geometry(t, x)
    shape, whole = (x.shape[0], *size), bool(t.attribute("count_include_pad", 0))
    if not any(padding) and tuple(kernel) == x.shape[1:]:
        return mean(t, x, shape)
    if padding != plain and any(plain) and whole:
        raise UnsupportedError("an average that counts padding and rounds its size up")
    whole = whole and any(plain)

    def emit(t, target):
        place = dict(shape=shape, image=shape, ours=(*size, x.shape[0]))
        attributes = {"stride": stride, "padding": padding, "clamp": target.clamp}
        same = (x.scale, x.zero_point) == (target.scale, target.zero_point)
        if any(padding) and not whole:
            kept = target if same else Target(x.scale, x.zero_point)
            attributes |= {"kernel": tuple(kernel), "clamp": kept.clamp}
            pooled = t.emit("average_pool2d", [as_image(t, x)], x, kept, attributes, {}, **place)
            if x.scale > 2 * target.scale:
                t.note("approximated", f"an average is rounded at its input's scale, {x.scale / target.scale:.1f} steps here")
            return pooled if same else t.requantized(pooled, target)
        if same and not whole:
            attributes["kernel"] = tuple(kernel)
            return t.emit("average_pool2d", [as_image(t, x)], x, target, attributes, {}, **place)
        channels = x.shape[0]
        t.charge(math.prod(kernel) * channels)
        factor = Fraction(x.scale) / Fraction(target.scale) / math.prod(kernel)
        constants = {"weights": np.ones((*kernel, channels), np.int8), "bias": np.zeros(channels, np.int32),
                     **t.rescale([factor] * channels)}  # fmt: skip
        t.note("re-expressed", "an average to another scale is a depthwise convolution with weights of 1")
        attributes["dilation"] = (1, 1)
        return t.emit("depthwise_conv2d", [as_image(t, x)], x, target, attributes, constants, **place)

    return Pending(shape, emit)


def mean(t: Translation, x: Integer, shape) -> Pending:
    """Over height and width, to `shape`: (channels,) or (channels, 1, 1)."""
    if len(x.shape) != 3:
        raise UnsupportedError(f"a mean of shape {x.shape} without the batch, supported: channels, height, width")

    def emit(t, target):
        count = x.shape[1] * x.shape[2]
        constants = t.rescale([Fraction(x.scale) / Fraction(target.scale) / count])
        place = dict(shape=shape, image=None, ours=(x.shape[0],))
        return t.emit("mean", [as_image(t, x)], x, target, {"clamp": target.clamp}, constants, **place)

    return Pending(tuple(shape), emit)


def _pooled(t: Translation, source: str, pending: Pending, x: Integer) -> None:
    """An average stays within its input's range: where we choose, it keeps the input's scale."""
    if t.chooser is not None and math.prod(pending.shape) > x.shape[0]:
        integer = pending.emit(t, Target(x.scale, x.zero_point))
        t.claim(integer, t.output())
        t.values[t.output()] = View(replace(integer, unsigned=x.unsigned))
    else:
        t.values[t.output()] = pending


def average_pool(t: Translation) -> None:
    (source,) = t.inputs(1)
    x = t.real(source)
    _pooled(t, source, average(t, x), x)


def global_average_pool(t: Translation) -> None:
    (source,) = t.inputs(1)
    x = t.real(source)
    t.values[t.output()] = mean(t, x, (x.shape[0], 1, 1))


def reduce_mean(t: Translation) -> None:
    source, axes_name = t.inputs(1, 2)
    axes = t.integers(axes_name, "axes") if axes_name else list(t.attribute("axes", ()))
    x = t.real(source)
    if {axis + 4 * (axis < 0) for axis in axes} != {2, 3} or len(x.shape) != 3:
        raise UnsupportedError(f"a mean over axes {axes}, supported: height and width, 2 and 3")
    keep = t.attribute("keepdims", 1)
    if keep not in (0, 1):
        raise FormatError(f"{t.subject()} has keepdims {keep}")
    t.values[t.output()] = mean(t, x, (x.shape[0], 1, 1) if keep else (x.shape[0],))


TRANSLATORS = {
    "MaxPool": max_pool, "AveragePool": average_pool, "GlobalAveragePool": global_average_pool,
    "ReduceMean": reduce_mean,
}  # fmt: skip
