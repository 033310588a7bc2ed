"""Layers with weights or windows: how TensorFlow Lite's are expressed in the operators of weights/FORMAT.md.

A translator takes the Translation, whose current operator it handles, and emits nodes or raises UnsupportedError.
"""

import math

import numpy as np

from intsmooth.convert import tflite_parameters as parameters
from intsmooth.convert.tflite_translation import Translation
from intsmooth.errors import FormatError, UnsupportedError

SAME, VALID = 0, 1
INT8_RANGE = (-128, 127)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME: as many outputs as ceil(size / stride); the smaller half of the padding comes first."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _image(t: Translation, index: int) -> tuple[int, int, int]:
    shape = t.shape(index)
    if len(shape) != 3:
        found = t.source(index).shape
        raise UnsupportedError(f"tensor {index} has shape {found}, supported: (1, height, width, channels)")
    return shape


def _window(t: Translation, image, kernel, dilation) -> tuple[tuple[int, int], tuple[int, ...]]:
    """(stride, padding) of the current operator."""
    options = t.operator.options
    stride = options["StrideH"], options["StrideW"]
    if min(*stride, *dilation, *kernel) < 1:
        found = f"stride {stride}, dilation {dilation}, kernel {tuple(kernel)}"
        raise FormatError(f"{t.subject()} has {found}; all must be positive")
    if options["Padding"] not in (SAME, VALID):
        raise FormatError(f"{t.subject()} has padding {options['Padding']}, required: 0 (SAME) or 1 (VALID)")
    if options["Padding"] == VALID:
        return stride, (0, 0, 0, 0)
    pads = [same_padding(*sizes) for sizes in zip(image[:2], kernel, stride, dilation, strict=True)]
    return stride, (*pads[0], *pads[1])


def _weights(t: Translation, index: int, rank: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(int8 weights, float32 scale per output channel along `axis`)."""
    weights = t.constant(index, "int8", "weights")
    tensor = t.source(index)
    if weights.ndim != rank:
        raise FormatError(f"{t.subject()} has weights of shape {weights.shape}, required: {rank} dimensions")
    channels = weights.shape[axis]
    if tensor.zero_points.any():
        raise UnsupportedError("weights with a zero point, supported: symmetric weights")
    if len(tensor.scales) not in (1, channels) or (len(tensor.scales) > 1 and tensor.dimension != axis):
        raise UnsupportedError(
            f"weights of shape {weights.shape} with {len(tensor.scales)} scales along dimension {tensor.dimension}; "
            f"supported: one scale, or one per output channel (dimension {axis})"
        )
    return weights, np.broadcast_to(tensor.scales, channels)


def _bias(t: Translation, index: int, channels: int) -> np.ndarray:
    if index == -1:
        return np.zeros(channels, np.int32)
    bias = t.constant(index, "int32", "bias")
    if bias.size != channels:
        raise FormatError(f"{t.subject()} has {bias.size} biases for {channels} output channels")
    return bias.reshape(channels)


def _weighted(t: Translation, weights, scales, bias, source: int, target: int) -> dict[str, np.ndarray]:
    """Constants of a layer with weights."""
    input_scale, output_scale = t.quantization(source)[0], t.quantization(target)[0]
    multiplier, shift = parameters.convolution_parameters(input_scale, scales, output_scale)
    return {"weights": np.ascontiguousarray(weights), "bias": bias, "multiplier": multiplier, "shift": shift}


def conv2d(t: Translation) -> None:
    source, weight_index, bias_index = t.inputs(2, 3)
    target = t.output()
    height, width, depth = _image(t, source)
    weights, scales = _weights(t, weight_index, 4, 0)
    channels, *kernel, group_depth = weights.shape
    if depth % group_depth:
        raise FormatError(f"{t.subject()} has weights for {group_depth} channels, its input has {depth}")
    dilation = t.operator.options["DilationHFactor"], t.operator.options["DilationWFactor"]
    stride, padding = _window(t, (height, width), kernel, dilation)
    attributes = {"stride": stride, "dilation": dilation, "padding": padding, "groups": depth // group_depth,
                  "clamp": t.clamp(target)}  # fmt: skip
    constants = _weighted(t, weights, scales, _bias(t, bias_index, channels), source, target)
    t.emit("conv2d", [t.read(source)], target, attributes, constants)


def depthwise_conv2d(t: Translation) -> None:
    source, weight_index, bias_index = t.inputs(2, 3)
    target = t.output()
    height, width, depth = _image(t, source)
    weights, scales = _weights(t, weight_index, 4, 3)
    one, *kernel, channels = weights.shape
    repeat = t.operator.options["DepthMultiplier"]
    if one != 1 or repeat * depth != channels:
        raise FormatError(
            f"{t.subject()} has weights of shape {weights.shape} and depth multiplier {repeat} for {depth} channels"
        )
    dilation = t.operator.options["DilationHFactor"], t.operator.options["DilationWFactor"]
    stride, padding = _window(t, (height, width), kernel, dilation)
    attributes = {"stride": stride, "dilation": dilation, "padding": padding, "clamp": t.clamp(target)}
    constants = _weighted(t, weights[0], scales, _bias(t, bias_index, channels), source, target)
    t.emit("depthwise_conv2d", [t.read(source)], target, attributes, constants)


def fully_connected(t: Translation) -> None:
    source, weight_index, bias_index = t.inputs(2, 3)
    target = t.output()
    if t.operator.options["WeightsFormat"] != 0:
        raise UnsupportedError("shuffled weights, supported: the default format")
    weights, scales = _weights(t, weight_index, 2, 0)
    channels, features = weights.shape
    shape, result = t.shape(source), t.shape(target)
    constants = _weighted(t, weights, scales, _bias(t, bias_index, channels), source, target)
    if math.prod(shape) == features:
        if math.prod(result) != channels:
            raise FormatError(f"{t.subject()} has {channels} outputs, its output tensor has shape {result}")
        attributes = {"clamp": t.clamp(target)}
        with_shape(t, "fully_connected", [t.read(source)], target, (channels,), attributes, constants)
    elif shape[-1] == features:  # applied at every position: a 1 x 1 convolution
        positions = math.prod(shape[:-1])
        scale, zero_point = t.quantization(source)
        image = t.declare(source, zero_point, float(scale), suffix=" as image", shape=(positions, 1, features))
        t.node("reshape", [t.read(source)], image, {"shape": (positions, 1, features)}, suffix=" reshape")
        constants["weights"] = constants["weights"].reshape(channels, 1, 1, features)
        attributes = {"stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "groups": 1,
                      "clamp": t.clamp(target)}  # fmt: skip
        t.note("re-expressed", f"a fully connected layer at {positions} positions is a 1 x 1 convolution")
        with_shape(t, "conv2d", [image], target, (positions, 1, channels), attributes, constants)
    else:
        raise FormatError(f"{t.subject()} has weights for {features} features, its input has shape {shape}")


def with_shape(t: Translation, op, inputs, target: int, shape, attributes, constants) -> None:
    """A node that produces `shape`, followed by a reshape where the source's output tensor has another one."""
    if t.shape(target) == tuple(shape):
        t.emit(op, inputs, target, attributes, constants)
        return
    scale, zero_point = t.quantization(target)
    plain = t.declare(target, zero_point, float(scale), suffix=" before reshape", shape=tuple(shape))
    t.node(op, inputs, plain, attributes, constants, suffix=" itself")
    t.emit("reshape", [plain], target, {"shape": t.shape(target)})


def _pool(t: Translation, op: str) -> None:
    (source,) = t.inputs(1)
    target = t.output()
    height, width, _ = _image(t, source)
    kernel = t.operator.options["FilterHeight"], t.operator.options["FilterWidth"]
    stride, padding = _window(t, (height, width), kernel, (1, 1))
    (x_scale, x_zero), (y_scale, y_zero) = t.quantization(source), t.quantization(target)
    if x_zero != y_zero or abs(float(x_scale) - float(y_scale)) > 1e-6:  # the kernels' own condition
        raise UnsupportedError("pooling with different scales or zero points of input and output")
    attributes = {"kernel": kernel, "stride": stride, "padding": padding, "clamp": t.clamp(target)}
    t.emit(op, [t.read(source)], target, attributes)


def average_pool2d(t: Translation) -> None:
    _pool(t, "average_pool2d")


def max_pool2d(t: Translation) -> None:
    _pool(t, "max_pool2d")


def mean(t: Translation) -> None:
    """Over all dimensions but the batch and the last one."""
    source, axis_index = t.inputs(2)
    target = t.output()
    shape = t.shape(source)
    rank = len(t.source(source).shape)
    axes = {axis + rank * (axis < 0) for axis in t.integers(axis_index, "axes")}
    if rank < 3 or axes != set(range(1, rank - 1)):
        raise UnsupportedError(f"mean over axes {sorted(axes)} of {rank}, supported: all between batch and channels")
    (x_scale, x_zero), (y_scale, _) = t.quantization(source), t.quantization(target)
    count, channels = math.prod(shape[:-1]), shape[-1]
    multiplier, shift = parameters.mean_parameters(x_scale, y_scale, count)
    name = t.read(source)
    if len(shape) != 3:
        name = t.declare(source, x_zero, float(x_scale), suffix=" as image", shape=(count, 1, channels))
        t.node("reshape", [t.read(source)], name, {"shape": (count, 1, channels)}, suffix=" reshape")
    constants = {"multiplier": multiplier, "shift": shift}
    with_shape(t, "mean", [name], target, (channels,), {"clamp": INT8_RANGE}, constants)


TRANSLATORS = {
    "CONV_2D": conv2d,
    "DEPTHWISE_CONV_2D": depthwise_conv2d,
    "FULLY_CONNECTED": fully_connected,
    "AVERAGE_POOL_2D": average_pool2d,
    "MAX_POOL_2D": max_pool2d,
    "MEAN": mean,
}
