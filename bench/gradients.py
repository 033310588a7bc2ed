"""Gradients of an integer network: a float twin in NumPy, with the clamps' derivative and without the roundings.

A tensor holds q - zero point as float32, so that weights and multipliers of the model file are used as they are and no
scale is needed. Rounding is ignored in both directions (a straight-through estimator), so scores differ a little from
the integer network's, and so is the saturation of the scores themselves: a class far behind has a gradient too. It serves
to look for perturbations, not to evaluate them.
"""

import numpy as np

from intsmooth.errors import UnsupportedError
from intsmooth.records import Graph, Node


class FloatTwin:
    """Scores and input gradients of a Graph whose operators are in `FORWARD`; a final softmax or argmax is left out."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.nodes = [node for node in graph.nodes if node.op not in ("softmax", "argmax")]
        unknown = sorted({node.op for node in self.nodes} - FORWARD.keys())
        if unknown:
            raise UnsupportedError(f"no gradient for {', '.join(unknown)}; there is one for {', '.join(FORWARD)}")

    def scores(self, levels: np.ndarray) -> np.ndarray:
        """float32 (N, classes) of levels (N, *input shape), integers or floats."""
        return self._run(levels)[0].reshape(len(levels), -1)

    def gradient(self, levels: np.ndarray, loss) -> np.ndarray:
        """d sum loss / d levels, float32 (N, *input shape); loss(scores) gives d loss / d scores, (N, classes)."""
        output, passes = self._run(levels)
        slopes = {self.nodes[-1].output: loss(output.reshape(len(levels), -1)).reshape(output.shape)}
        for node in reversed(self.nodes):
            slope = slopes.pop(node.output, None)
            if slope is None:
                continue
            for name, part in zip(node.inputs, passes[node.name](slope), strict=True):
                slopes[name] = slopes[name] + part if name in slopes else part
        return slopes[self.graph.input]

    def _run(self, levels):
        values, passes = {self.graph.input: np.asarray(levels, np.float32)}, {}
        for node in self.nodes:
            inputs = [values[name] for name in node.inputs]
            raw, back = FORWARD[node.op](self.graph, node, *inputs)
            zero = self.graph.tensors[node.output].zero_point
            low, high = (bound - zero for bound in node.attributes.get("clamp", (-128, 127)))
            if node is self.nodes[-1] and high - low == 255:
                low, high = -np.inf, np.inf
            values[node.output] = np.clip(raw, low, high)
            passes[node.name] = _through_clamp(back, (raw > low) & (raw < high))
        return values[self.nodes[-1].output], passes


def _through_clamp(back, inside):
    return lambda slope: back(slope * inside)


def _factor(node: Node, index=slice(None)) -> np.ndarray:
    """Real factors of a requantization."""
    multiplier, shift = node.constants["multiplier"][index], node.constants["shift"][index]
    return np.ldexp(multiplier.astype(np.float32), shift.astype(np.int32) - 31)


def _rescale(graph, node, x):
    factor = _factor(node)[0]
    return x * factor, lambda slope: (slope * factor,)


def _windows(x, node, kernel, output):
    """(padded input, function that maps a tap to its slices)."""
    top, bottom, left, right = node.attributes["padding"]
    stride, dilation = node.attributes["stride"], node.attributes.get("dilation", (1, 1))
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))

    def tap(ky, kx):
        y, z = ky * dilation[0], kx * dilation[1]
        rows = slice(y, y + (output[0] - 1) * stride[0] + 1, stride[0])
        return slice(None), rows, slice(z, z + (output[1] - 1) * stride[1] + 1, stride[1])

    def crop(gradient):
        return gradient[:, top : top + x.shape[1], left : left + x.shape[2]]

    taps = [(ky, kx) for ky in range(kernel[0]) for kx in range(kernel[1])]
    return padded, tap, crop, taps


def _convolution(graph, node, x, skip=None):
    weights = node.constants["weights"].astype(np.float32)
    outputs, groups = len(weights), node.attributes["groups"]
    height, width, _ = graph.tensors[node.output].shape
    padded, tap, crop, taps = _windows(x, node, weights.shape[1:3], (height, width))
    share, depth = outputs // groups, weights.shape[3]
    parts = [(slice(g * share, (g + 1) * share), slice(g * depth, (g + 1) * depth)) for g in range(groups)]
    factor = _factor(node)
    total = np.zeros((len(x), height, width, outputs), np.float32) + node.constants["bias"].astype(np.float32)
    for ky, kx in taps:
        for out, into in parts:
            total[..., out] += padded[tap(ky, kx)][..., into] @ weights[out, ky, kx].T
    if skip is not None:
        stride, offset = node.attributes["skip_stride"], node.attributes["skip_offset"]
        channel = np.arange(outputs) - offset
        inside = (channel >= 0) & (channel < skip.shape[3])
        step = (slice(None), slice(0, height * stride[0], stride[0]), slice(0, width * stride[1], stride[1]))
        strength = node.constants["skip_multiplier"][inside].astype(np.float32)
        total[..., inside] += skip[step][:, :height, :width][..., channel[inside]] * strength

    def back(slope):
        slope = slope * factor
        gradient = np.zeros_like(padded)
        for ky, kx in taps:
            for out, into in parts:
                gradient[tap(ky, kx)][..., into] += slope[..., out] @ weights[out, ky, kx]
        if skip is None:
            return (crop(gradient),)
        other = np.zeros_like(skip)
        view = other[step][:, :height, :width]
        view[..., channel[inside]] = slope[..., inside] * strength
        return crop(gradient), other

    return total * factor, back


def _depthwise(graph, node, x):
    weights = node.constants["weights"].astype(np.float32)
    height, width, outputs = graph.tensors[node.output].shape
    multiple = outputs // x.shape[3]
    padded, tap, crop, taps = _windows(np.repeat(x, multiple, axis=3), node, weights.shape[:2], (height, width))
    factor = _factor(node)
    total = sum(padded[tap(ky, kx)] * weights[ky, kx] for ky, kx in taps) + node.constants["bias"].astype(np.float32)

    def back(slope):
        slope = slope * factor
        gradient = np.zeros_like(padded)
        for ky, kx in taps:
            gradient[tap(ky, kx)] += slope * weights[ky, kx]
        return (crop(gradient).reshape(*x.shape, multiple).sum(axis=-1),)

    return total * factor, back


def _fully_connected(graph, node, x):
    weights, factor = node.constants["weights"].astype(np.float32), _factor(node)
    total = x.reshape(len(x), -1) @ weights.T + node.constants["bias"].astype(np.float32)
    return total * factor, lambda slope: (((slope * factor) @ weights).reshape(x.shape),)


def _mean(graph, node, x):
    factor = _factor(node)[0]
    return x.sum(axis=(1, 2)) * factor, lambda slope: (np.broadcast_to(slope[:, None, None] * factor, x.shape).copy(),)


def _sum(graph, node, a, b):
    sign = 1 if node.op == "add" else -1
    scale = np.float32(2.0 ** node.attributes["left_shift"])
    factors = [_factor(node, [index])[0] for index in range(3)]
    one, other = factors[0] * factors[2] * scale, sign * factors[1] * factors[2] * scale

    def back(slope):
        second = slope * other
        while second.ndim > b.ndim or second.shape != b.shape:  # undo broadcasting over the image
            axes = tuple(i for i in range(1, second.ndim) if b.shape[i] != second.shape[i])
            second = second.sum(axis=axes, keepdims=True)
        return slope * one, second

    return a * one + b * other, back


def _max_pool(graph, node, x):
    height, width, _ = graph.tensors[node.output].shape
    lowest = np.float32(-1000.0)
    padded, tap, crop, taps = _windows(x - lowest, node, node.attributes["kernel"], (height, width))
    seen = np.stack([padded[tap(ky, kx)] for ky, kx in taps])
    winner = seen.argmax(axis=0)

    def back(slope):
        gradient = np.zeros_like(padded)
        for index, (ky, kx) in enumerate(taps):
            gradient[tap(ky, kx)] += slope * (winner == index)
        return (crop(gradient),)

    return seen.max(axis=0) + lowest, back


def _reshape(graph, node, x):
    shape = (len(x), *graph.tensors[node.output].shape)
    return x.reshape(shape), lambda slope: (slope.reshape(x.shape),)


def _concat(graph, node, *parts):
    axis = node.attributes["axis"] + 1
    ends = np.cumsum([part.shape[axis] for part in parts])[:-1]
    return np.concatenate(parts, axis), lambda slope: np.split(slope, ends, axis)


FORWARD = {
    "input_requantize": _rescale,
    "requantize": _rescale,
    "clamp": lambda graph, node, x: (x, lambda slope: (slope,)),
    "conv2d": _convolution,
    "conv2d_add": _convolution,
    "depthwise_conv2d": _depthwise,
    "fully_connected": _fully_connected,
    "mean": _mean,
    "add": _sum,
    "sub": _sum,
    "max_pool2d": _max_pool,
    "reshape": _reshape,
    "concat": _concat,
}
