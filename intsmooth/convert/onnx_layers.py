"""Layers with weights: how ONNX's are expressed in the operators of weights/FORMAT.md.

A translator takes the Translation, whose current node it handles, and sets the value of its output. Weights are turned
from (O, I, KH, KW) to (O, KH, KW, I) here, once.
"""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from intsmooth.convert.onnx_layout import as_image
from intsmooth.convert.onnx_translation import Translation
from intsmooth.convert.onnx_values import Integer, Known, Pending, Shortcut, Source, Target, Weighted
from intsmooth.convert.tflite_layers import same_padding
from intsmooth.errors import FormatError, UnsupportedError

MAX_SKIP = 32767  # of conv2d_add's skip_multiplier


def weighted(layer: Weighted, shape) -> Pending:
    """A layer that others can still be folded into."""
    return Pending(tuple(shape), lambda t, target: emit_weighted(t, layer, target, tuple(shape)), weighted=layer)


def emit_weighted(t: Translation, layer: Weighted, target: Target, shape) -> Integer:
    """The node of a layer; float weights are quantized here, symmetrically and per output channel."""
    x = layer.source
    integers, scales, skips = _integer_weights(layer, x.scale, target.scale)
    bias = np.rint(layer.bias / (x.scale * scales))
    if np.abs(bias).max(initial=0) >= 2**31:
        raise UnsupportedError("a bias beyond 32 bits at the scale of its accumulators")
    factors = [Fraction(x.scale) * Fraction(float(scale)) / Fraction(target.scale) for scale in scales]
    constants = {"weights": integers, "bias": bias.astype(np.int32), **t.rescale(factors)}
    attributes = {"clamp": target.clamp}
    if layer.geometry is None:
        name, constants["weights"] = _flat_input(t, x, integers)
        place = dict(shape=shape, image=None, ours=(layer.channels,))
        return t.emit("fully_connected", [name], x, target, attributes, constants, **place)
    place = dict(shape=shape, image=shape, ours=(*shape[1:], shape[0]))
    attributes |= layer.geometry
    names = [as_image(t, x)]
    if layer.shortcut is not None:
        names.append(as_image(t, layer.shortcut.source))
        attributes |= {"skip_stride": layer.shortcut.stride, "skip_offset": layer.shortcut.offset}
        constants["skip_multiplier"] = skips
        return t.emit("conv2d_add", names, x, target, attributes, constants, **place)
    if attributes["groups"] == x.shape[0] > 1 and integers.shape[3] == 1:
        del attributes["groups"]
        constants["weights"] = integers[..., 0].transpose(1, 2, 0)
        return t.emit("depthwise_conv2d", names, x, target, attributes, constants, **place)
    return t.emit("conv2d", names, x, target, attributes, constants, **place)


def _integer_weights(layer: Weighted, input_scale: float, output_scale: float):
    """(int8 weights, scale per channel, skip multiplier per channel).

    A skip connection joins the accumulators through an integer multiplier, so the weights' scale is made a little
    coarser until skip scale / (input scale * weight scale) is that integer exactly.
    """
    channels = layer.channels
    skips = np.zeros(channels, np.int32)
    if layer.scales is not None:
        return np.ascontiguousarray(layer.weights), layer.scales, skips
    flat = np.abs(layer.weights.reshape(channels, -1)).max(axis=1)
    scales = np.maximum(flat / 127, np.abs(layer.bias) / (input_scale * 2**26))
    scales[scales == 0] = output_scale / input_scale  # a channel without weights: any scale serves
    if layer.shortcut is not None:
        skip = layer.shortcut.source
        ratio = skip.scale / (input_scale * scales)
        if (ratio < 1).any():
            raise UnsupportedError("a skip connection of far finer scale than the convolution it joins")
        whole = np.clip(np.floor(ratio), 1, MAX_SKIP)
        scales = skip.scale / (input_scale * whole)
        carried = np.arange(channels) - layer.shortcut.offset
        carried = (carried >= 0) & (carried < skip.shape[0])
        skips[carried] = whole[carried]
    integers = np.rint(layer.weights / scales.reshape(-1, *(1,) * (layer.weights.ndim - 1)))
    return np.clip(integers, -127, 127).astype(np.int8), scales, skips


def _flat_input(t: Translation, x: Integer, integers: np.ndarray):
    """(name, weights) of a fully connected layer: its columns are turned where the image's order is ours."""
    if x.image is None or math.prod(x.image[1:]) == 1 or x.image[0] == 1:
        return x.name, integers
    channels, height, width = x.image
    turned = integers.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(integers), -1)
    t.note("folded", "the columns of its weights are turned to our order of elements")
    return x.name, np.ascontiguousarray(turned)


# Weights and biases of the source

def weights_of(t: Translation, name: str, what: str, scales=None, zero_points=None, axis=0):
    """(weights, scales or None): float64 reals, or int8 with one float64 scale per slice along `axis`.

    Integers come with scales and zero points of their own (QLinear operators), or from a DequantizeLinear.
    """
    value = t.value(name)
    if isinstance(value, Known) and value.integers is not None:
        if value.scales.size > 1 and value.axis % value.integers.ndim != axis:
            raise UnsupportedError(f"{what} with scales along axis {value.axis}, supported: along output channels")
        integers, scales, zero_points = value.integers, value.scales, value.zero_points
    elif scales is None:
        return t.known(name, what).astype(np.float64), None
    else:
        integers = t.known(name, what, "iu")
    if integers.dtype not in (np.int8, np.uint8):
        raise UnsupportedError(f"{what} of {integers.dtype}, supported: int8 and uint8")
    t.charge(2 * integers.nbytes)
    channels = integers.shape[axis]
    if scales.size not in (1, channels) or zero_points.size not in (1, channels):
        found = f"{scales.size} scales and {zero_points.size} zero points"
        raise UnsupportedError(f"{what} with {found} for {channels} output channels")
    shape = tuple(channels if i == axis else 1 for i in range(integers.ndim))
    zero = np.broadcast_to(zero_points.ravel().astype(np.int16), channels).reshape(shape)
    centred = integers.astype(np.int16) - zero
    if centred.min(initial=0) < -128 or centred.max(initial=0) > 127:
        raise UnsupportedError(f"{what} that are not symmetric: less their zero point they leave int8")
    return centred.astype(np.int8), np.broadcast_to(scales.ravel().astype(np.float64), channels)


def bias_of(t: Translation, name: str, channels: int, unit=None) -> np.ndarray:
    """float64 reals (channels); int32 with `unit`, the real value of a step."""
    if not name:
        return np.zeros(channels)
    bias = t.known(name, "bias", "f" if unit is None else "i").astype(np.float64)
    if bias.size not in (1, channels):
        raise FormatError(f"{t.subject()} has {bias.size} biases for {channels} output channels")
    return np.broadcast_to(bias.ravel() * (1 if unit is None else unit), channels)


# Convolutions

def window(t: Translation, image, kernel):
    """(stride, dilation, padding) of the current node; padding is ours: top, bottom, left, right."""
    stride, dilation = t.attribute("strides", (1, 1)), t.attribute("dilations", (1, 1))
    pads, automatic = t.attribute("pads", (0, 0, 0, 0)), t.attribute("auto_pad", "NOTSET")
    if not len(kernel) == len(stride) == len(dilation) == 2 or len(pads) != 4:
        raise UnsupportedError(f"a window of {len(kernel)} dimensions, supported: height and width")
    if min(*kernel, *stride, *dilation) < 1 or max(*kernel, *stride, *dilation, *pads) > 2**16 or min(pads) < 0:
        raise FormatError(f"{t.subject()} has kernel {kernel}, strides {stride}, dilations {dilation}, pads {pads}")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        both = [same_padding(*sizes) for sizes in zip(image[1:], kernel, stride, dilation, strict=True)]
        flip = -1 if automatic == "SAME_LOWER" else 1
        padding = (*both[0][::flip], *both[1][::flip])
    elif automatic in ("NOTSET", "VALID"):
        padding = (pads[0], pads[2], pads[1], pads[3]) if automatic == "NOTSET" else (0, 0, 0, 0)
    else:
        raise FormatError(f"{t.subject()} has auto_pad {automatic!r}")
    return tuple(stride), tuple(dilation), tuple(padding)


def window_shape(t: Translation, image, kernel, stride, dilation, padding, ceil=False):
    sizes = []
    for i in range(2):
        room = image[1 + i] + padding[2 * i] + padding[2 * i + 1] - (kernel[i] - 1) * dilation[i] - 1
        sizes.append((-(-room // stride[i]) if ceil else room // stride[i]) + 1)
    if min(sizes) < 1:
        raise FormatError(f"{t.subject()} has a window larger than its input of shape {image}")
    return tuple(sizes)


def convolution(t: Translation, x: Integer, weights, scales, bias) -> Pending:
    if len(x.shape) != 3 or weights.ndim != 4:
        raise UnsupportedError(f"a convolution of an input of shape {x.shape}, supported: channels, height, width")
    groups, kernel = t.attribute("group", 1), weights.shape[2:]
    if tuple(t.attribute("kernel_shape", kernel)) != kernel:
        raise FormatError(f"{t.subject()} has a kernel_shape that is not its weights' {kernel}")
    if groups < 1 or weights.shape[1] * groups != x.shape[0] or weights.shape[0] % groups:
        raise FormatError(f"{t.subject()} has weights {weights.shape} in {groups} groups for {x.shape[0]} channels")
    stride, dilation, padding = window(t, x.shape, kernel)
    size = window_shape(t, x.shape, kernel, stride, dilation, padding)
    geometry = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}
    layer = Weighted(x, weights.transpose(0, 2, 3, 1), scales, bias, geometry)
    return weighted(layer, (weights.shape[0], *size))


def conv(t: Translation) -> None:
    source, weight, bias = t.inputs(2, 3)
    x = t.real(source)
    weights, scales = weights_of(t, weight, "weights")
    t.values[t.output()] = convolution(t, x, weights, scales, bias_of(t, bias, weights.shape[0]))


def dense(t: Translation, x: Integer, weights, scales, bias) -> Pending:
    """weights (O, I)."""
    if math.prod(x.shape) != weights.shape[1]:
        raise UnsupportedError(f"a product of shape {x.shape} with weights for {weights.shape[1]} features")
    if len(x.shape) != 1:
        raise UnsupportedError(f"a product of an input of shape {x.shape} without the batch, supported: a vector")
    return weighted(Weighted(x, weights, scales, bias, None), (weights.shape[0],))


def gemm(t: Translation) -> None:
    source, weight, bias = t.inputs(2, 3)
    if t.attribute("transA", 0) or t.attribute("alpha", 1.0) != 1 or t.attribute("beta", 1.0) != 1:
        raise UnsupportedError("transA, or alpha or beta other than 1")
    turned = t.attribute("transB", 0)
    x = t.real(source)
    weights, scales = _matrix(t, *weights_of(t, weight, "weights", axis=0 if turned else 1), turned)
    t.values[t.output()] = dense(t, x, weights, scales, bias_of(t, bias, len(weights)))


def matmul(t: Translation) -> None:
    source, weight = t.inputs(2)
    x = t.real(source)
    weights, scales = _matrix(t, *weights_of(t, weight, "weights", axis=1), False)
    t.values[t.output()] = dense(t, x, weights, scales, np.zeros(len(weights)))


def _matrix(t: Translation, weights, scales, turned):
    if weights.ndim != 2:
        raise UnsupportedError(f"a product with weights of shape {weights.shape}, supported: two dimensions")
    return (weights if turned else np.ascontiguousarray(weights.T)), scales


# Factors and offsets per channel

def normalized(t: Translation, x: Integer, factor, offset) -> Pending:
    """factor * x + offset per channel, as a depthwise convolution of one pixel, or a fully connected diagonal."""
    channels = x.shape[0]
    factor, offset = np.broadcast_to(factor, channels), np.broadcast_to(offset, channels)
    if len(x.shape) == 1:
        if channels > 4096:
            raise UnsupportedError(f"a factor for each of {channels} features, supported: at most 4096")
        return weighted(Weighted(x, np.diag(factor), None, offset, None), x.shape)
    geometry = {"stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "groups": channels}
    return weighted(Weighted(x, factor.reshape(-1, 1, 1, 1).astype(np.float64), None, offset, geometry), x.shape)


def affine(t: Translation, name: str, factor, offset) -> None:
    """Sets the output to factor * value + offset, folded into the layer before it where that is possible."""
    value = t.settle(name)
    if isinstance(value, Pending) and value.weighted is not None and value.low is None and value.high is None:
        layer = value.weighted
        folded = layer.affine(np.broadcast_to(factor, layer.channels), np.broadcast_to(offset, layer.channels))
        if folded is not None:
            t.note("folded", "a factor and an offset per channel became part of the weights and bias before it")
            t.values[t.output()] = replace(weighted(folded, value.shape), node=value.node)
            return
    t.note("re-expressed", "a factor and an offset per channel are a convolution of one pixel")
    t.values[t.output()] = normalized(t, t.real(name), factor, offset)


def batch_normalization(t: Translation) -> None:
    source, *parameters = t.inputs(5)
    names = ("scale", "bias", "mean", "variance")
    gamma, beta, mean, variance = (
        t.known(name, what).astype(np.float64).ravel() for name, what in zip(parameters, names, strict=True)
    )
    channels = t.shape(source)[0]
    if any(array.size != channels for array in (gamma, beta, mean, variance)):
        raise FormatError(f"{t.subject()} has parameters that do not fit its {channels} channels")
    variance = variance + t.attribute("epsilon", 1e-5)
    if (variance <= 0).any() or t.attribute("training_mode", 0):
        raise UnsupportedError("a variance that is not positive, or training mode")
    factor = gamma / np.sqrt(variance)
    affine(t, source, factor, beta - mean * factor)


def joined(t: Translation, value, other_name: str) -> Pending | None:
    """The sum of a convolution that is not quantized yet and a skip connection, or None where they cannot be fused."""
    if not isinstance(value, Pending) or value.weighted is None or value.low is not None or value.high is not None:
        return None
    layer, other = value.weighted, t.settle(other_name)
    if layer.geometry is None or layer.scales is not None or layer.shortcut is not None:
        return None
    moved = other.moved if isinstance(other, Pending) and other.moved is not None else None
    if t.shape(other_name) != value.shape:
        return None
    shortcut = moved or Shortcut(t.real(other_name))
    if isinstance(shortcut.source, Source) or len(shortcut.source.shape) != 3:
        return None
    sizes = zip(layer_scales(layer), (shortcut.source.scale,) * layer.channels, strict=True)
    if any(skip < layer.source.scale * scale for scale, skip in sizes):
        return None  # too fine to be an integer multiple of the accumulators' scale
    t.note("folded", "a convolution and the skip connection share their accumulators and one rounding")
    return replace(weighted(replace(layer, shortcut=shortcut), value.shape), node=value.node)


def layer_scales(layer: Weighted) -> np.ndarray:
    """Weight scales that quantization would choose, before a shortcut's condition."""
    flat = np.abs(layer.weights.reshape(layer.channels, -1)).max(axis=1)
    return np.maximum(flat / 127, np.abs(layer.bias) / (layer.source.scale * 2**26))


TRANSLATORS = {"Conv": conv, "Gemm": gemm, "MatMul": matmul, "BatchNormalization": batch_normalization}
