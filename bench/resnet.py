"""A CIFAR-style residual network with random weights, once in floats and once in integers, for all engines to run.

The architecture is ResNet-20 of He et al. (2016) with parameter-free shortcuts (option A) and batch normalization.
Weights are random; the statistics of each batch normalization, the ranges of all activations and the last bias come
from a calibration batch, so that activations use their ranges and classes differ between images. All is NumPy.

The input's real value is level / 255, then divided by 1/4 as a normalization layer would do (its mean is 0, so that the
padded value, black, is 0 in every engine). `quantize` gives int8 weights per output channel, int8 activations, and the
graph that intsmooth runs; other engines get the same integers.
"""

from dataclasses import dataclass, field

import numpy as np

from intsmooth.fixedpoint import quantize_multiplier, quantize_multipliers
from intsmooth.graph import build_graph
from intsmooth.records import Graph, Node, Tensor

CLASSES = 10
SIGMA = 0.25
LEVEL_STEP = 2.25  # levels per int8 step of the input: 255 steps reach from -2.5 sigma to 255 + 2.5 sigma
INPUT_ZERO = -57
DEVIATION = 0.25  # of the normalization layer
EPSILON = 1e-5
RELU = (-128, 127)  # with the zero point at -128


@dataclass
class Convolution:
    """3x3, padded by 1, then batch normalization. weights float32 (O, 3, 3, I); statistics float32 (O,)."""

    name: str
    weights: np.ndarray
    stride: int
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray = None
    variance: np.ndarray = None

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """(weights, bias) with the batch normalization in them."""
        factor = self.gamma / np.sqrt(self.variance + EPSILON)
        return self.weights * factor[:, None, None, None], self.beta - self.mean * factor


@dataclass
class Block:
    """relu(second(relu(first(x))) + shortcut(x)); the shortcut puts `offset` channels of zeros before x."""

    first: Convolution
    second: Convolution
    offset: int

    @property
    def stride(self) -> int:
        return self.first.stride


@dataclass
class ResNet:
    """size: of the square image. ranges: name of an activation -> (lowest, highest) seen in calibration."""

    size: int
    stem: Convolution
    blocks: list[Block]
    weights: np.ndarray = None
    bias: np.ndarray = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def convolutions(self) -> list[Convolution]:
        return [self.stem, *(layer for block in self.blocks for layer in (block.first, block.second))]


def noisy_levels(count: int, size: int, seed: int = 1) -> np.ndarray:
    """int16 (count, size, size, 3): smooth random images with Gaussian noise of SIGMA added, not clipped."""
    rng = np.random.default_rng(seed)
    cells = -(-size // 8)
    coarse = rng.integers(0, 256, (count, 8, 8, 3)).repeat(cells, axis=1).repeat(cells, axis=2)[:, :size, :size]
    return np.round(coarse + rng.normal(0, 255 * SIGMA, coarse.shape)).astype(np.int16)


def real_values(levels: np.ndarray) -> np.ndarray:
    """int16 (N, H, W, 3) -> contiguous float32 (N, 3, H, W) in [0, 1] units, as other engines want it."""
    return np.ascontiguousarray((levels.astype(np.float32) / np.float32(255)).transpose(0, 3, 1, 2))


def random_resnet(depth: int = 20, size: int = 32, widths=(16, 32, 64), seed: int = 0, batch: int = 48) -> ResNet:
    """A calibrated network of depth 6 n + 2."""
    rng = np.random.default_rng(seed)

    def convolution(name: str, inputs: int, outputs: int, stride: int) -> Convolution:
        weights = rng.normal(0, np.sqrt(2 / (9 * inputs)), (outputs, 3, 3, inputs)).astype(np.float32)
        gamma, beta = rng.uniform(0.5, 1.5, outputs), rng.normal(0, 0.2, outputs)
        return Convolution(name, weights, stride, gamma.astype(np.float32), beta.astype(np.float32))

    net = ResNet(size, convolution("stem", 3, widths[0], 1), [])
    channels = widths[0]
    for stage, width in enumerate(widths):
        for index in range((depth - 2) // 6):
            name, stride = f"stage{stage + 1}.{index}", 2 if stage and not index else 1
            first, second = convolution(name + ".a", channels, width, stride), convolution(name + ".b", width, width, 1)
            net.blocks.append(Block(first, second, (width - channels) // 2))
            channels = width
    net.weights = rng.normal(0, channels**-0.5, (CLASSES, channels)).astype(np.float32)
    net.bias = np.zeros(CLASSES, np.float32)
    _calibrate(net, noisy_levels(batch, size, seed + 1))
    return net


def _convolve(x: np.ndarray, weights: np.ndarray, stride: int) -> np.ndarray:
    """float32 (N, H, W, I) with (O, 3, 3, I), padded by 1."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
    columns = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, weights[0].size)
    return (columns @ weights.reshape(len(weights), -1).T).reshape(*windows.shape[:3], len(weights))


def _calibrate(net: ResNet, levels: np.ndarray) -> None:
    """Batch statistics, ranges, and a last bias that makes the classes equally likely."""

    def normalized(layer: Convolution, x: np.ndarray, part: str) -> np.ndarray:
        y = _convolve(x, layer.weights, layer.stride)
        layer.mean, layer.variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
        y = (y - layer.mean) * (layer.gamma / np.sqrt(layer.variance + EPSILON)) + layer.beta
        net.ranges[layer.name + part] = (float(y.min()), float(y.max()))
        return y

    x = np.maximum(normalized(net.stem, levels.astype(np.float32) / np.float32(255 * DEVIATION), ""), 0)
    for block in net.blocks:
        y = np.maximum(normalized(block.first, x, ""), 0)
        y = normalized(block.second, y, ":before")
        skip = x[:, :: block.stride, :: block.stride]
        y[..., block.offset : block.offset + skip.shape[3]] += skip
        x = np.maximum(y, 0)
        net.ranges[block.second.name] = (0.0, float(x.max()))
    mean = x.mean((1, 2))
    net.ranges["mean"] = (0.0, float(mean.max()))
    net.bias = -(mean @ net.weights.T).mean(0)
    scores = mean @ net.weights.T + net.bias
    net.ranges["scores"] = (float(scores.min()), float(scores.max()))


@dataclass(frozen=True)
class Quantized:
    """The integers of a network. weights: layer -> (int8 (O, ...), scales (O,), int32 bias (O,)); places: activation ->
    (scale, int8 zero point); "input" is in level / 255, "x:before" is what another engine adds to the shortcut."""

    graph: Graph
    weights: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    places: dict[str, tuple[float, int]]


def _place(low: float, high: float) -> tuple[float, int]:
    """(scale, zero point) of an activation; a rectified one starts at -128."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    return scale, int(round(-128 - low / scale))


def quantize(net: ResNet, largest: int = 127) -> Quantized:
    """int8 activations, weights in [-largest, largest]; residual connections join the accumulators (conv2d_add)."""
    rectified = {layer.name for layer in net.convolutions}
    places = {"input": (LEVEL_STEP / 255, INPUT_ZERO)}
    for name, (low, high) in net.ranges.items():
        places[name] = _place(0.0 if name in rectified else low, high)
    weights, nodes, tensors = {}, [], {"levels": Tensor("levels", (net.size, net.size, 3), "int16", 0, 1 / 255)}

    def emit(name, op, inputs, shape, attributes, constants):
        scale, zero = places[name]
        nodes.append(Node(name, op, inputs, name, attributes, constants))
        tensors[name] = Tensor(name, shape, "int8", zero, scale)

    def integers(name, source, values, bias):
        step = np.abs(values.reshape(len(values), -1)).max(1) / largest
        shaped = step.reshape(-1, *[1] * (values.ndim - 1))
        whole = np.clip(np.round(values / shaped), -largest, largest).astype(np.int8)
        weights[name] = whole, step, np.round(bias / (places[source][0] * step)).astype(np.int32)
        multiplier, shift = quantize_multipliers([float(s) for s in places[source][0] * step / places[name][0]])
        return {"weights": whole, "bias": weights[name][2], "multiplier": multiplier, "shift": shift}

    def one(factor: float) -> dict[str, np.ndarray]:
        multiplier, shift = quantize_multiplier(factor)
        return {"multiplier": np.array([multiplier], np.int32), "shift": np.array([shift], np.int32)}

    def convolution(layer: Convolution, source: str, size: int, skip: str | None = None, stride=1, offset=0):
        values, bias = layer.folded()
        values = values / DEVIATION if layer is net.stem else values
        constants = integers(layer.name, source, values, bias)
        attributes = {"stride": (layer.stride,) * 2, "dilation": (1, 1), "padding": (1, 1, 1, 1), "groups": 1,
                      "clamp": RELU}  # fmt: skip
        inputs = (source,)
        if skip is not None:
            inputs, channels = (source, skip), np.arange(len(values)) - offset
            inside = (channels >= 0) & (channels < tensors[skip].shape[2])
            factor = places[skip][0] / (places[source][0] * weights[layer.name][1])
            constants["skip_multiplier"] = np.where(inside, np.round(factor), 0).astype(np.int32)
            attributes |= {"skip_stride": (stride,) * 2, "skip_offset": offset}
        op = "conv2d" if skip is None else "conv2d_add"
        emit(layer.name, op, inputs, (size, size, len(values)), attributes, constants)

    size = net.size
    emit("input", "input_requantize", ("levels",), (size, size, 3), {}, one(1 / LEVEL_STEP))
    convolution(net.stem, "input", size)
    x = "stem"
    for block in net.blocks:
        size = -(-size // block.stride)
        convolution(block.first, x, size)
        convolution(block.second, block.first.name, size, x, block.stride, block.offset)
        x = block.second.name
    channels = tensors[x].shape[2]
    emit("mean", "mean", (x,), (channels,), {"clamp": RELU}, one(places[x][0] / places["mean"][0] / size**2))
    emit("scores", "fully_connected", ("mean",), (CLASSES,), {"clamp": (-128, 127)},
         integers("scores", "mean", net.weights, net.bias))  # fmt: skip
    graph = build_graph(nodes, tensors.values(), "levels", "scores", (0, 255), 255, [str(i) for i in range(CLASSES)],
                        {"made": "random weights, for measuring speed", "sigma": str(SIGMA)})  # fmt: skip
    return Quantized(graph, weights, places)


def float_scores(net: ResNet, levels: np.ndarray) -> np.ndarray:
    """Scores float32 (N, CLASSES) in floats, with NumPy alone: what the other engines' floats are compared with."""

    def convolution(layer: Convolution, x: np.ndarray) -> np.ndarray:
        values, bias = layer.folded()
        return _convolve(x, values.astype(np.float32), layer.stride) + bias

    x = np.maximum(convolution(net.stem, levels.astype(np.float32) / np.float32(255 * DEVIATION)), 0)
    for block in net.blocks:
        y = convolution(block.second, np.maximum(convolution(block.first, x), 0))
        skip = x[:, :: block.stride, :: block.stride]
        y[..., block.offset : block.offset + skip.shape[3]] += skip
        x = np.maximum(y, 0)
    return x.mean((1, 2)) @ net.weights.T + net.bias
