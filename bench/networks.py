"""The published networks whose layers the per-operator benchmark times, as integer graphs with random weights.

Shapes follow the papers: ResNet (He et al., 2016; the CIFAR variant with option A, and ResNet-50 with the stride in the
3x3 convolution, as today's libraries have it), MobileNetV1 and V2 (Howard et al., 2017; Sandler et al., 2018; width 1,
224 x 224), DS-CNN (Zhang et al., 2017, as in MLPerf Tiny). Residual connections are fused (conv2d_add), except in
MobileNetV2, which keeps TFLite's `add` to have it timed. "Odd shapes" is no network but a chain of what else occurs:
channel counts that fill no register, dilation, groups, depth multipliers, other windows. Multipliers fit the spread of
the accumulators, so that activations use their range.
"""

import math

import numpy as np

from intsmooth.fixedpoint import quantize_multiplier
from intsmooth.graph import build_graph
from intsmooth.ops import OPERATORS
from intsmooth.records import Graph, Node, Tensor

RECTIFIED, FULL = -128, 0  # zero points: of an activation after a ReLU, of one without
_SPREAD, _WEIGHT = 40.0, 30.0  # standard deviations aimed at: of x - zero point, of weights


class Network:
    """Adds one node per call and returns its output tensor's name; `last` is the newest."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.tensors = {"levels": Tensor("levels", shape, "int16")}
        self.last = "levels"
        self._node("input_requantize", ["levels"], {}, self._factors(0.5, 1), -64)

    def _node(self, op: str, inputs: list[str], attributes: dict, constants: dict, zero: int) -> str:
        name = f"{len(self.nodes)} {op}"
        node = Node(name, op, tuple(inputs), name, attributes, constants)
        shape, dtype = OPERATORS[op].infer(node, tuple(self.tensors[source] for source in inputs))
        self.nodes.append(node)
        self.tensors[name] = Tensor(name, shape, dtype, zero)
        self.last = name
        return name

    def _factors(self, real: float, count: int) -> dict[str, np.ndarray]:
        pairs = [quantize_multiplier(real * f) for f in (self.rng.uniform(0.7, 1.4, count) if count > 1 else (1.0,))]
        return {"multiplier": np.array([m for m, _ in pairs], np.int32),
                "shift": np.array([s for _, s in pairs], np.int32)}  # fmt: skip

    def _weighted(self, shape: tuple[int, ...], channels: int, terms: int) -> dict[str, np.ndarray]:
        spread = math.sqrt(terms) * _WEIGHT * _SPREAD
        weights = np.clip(np.round(self.rng.normal(0, _WEIGHT, shape)), -127, 127).astype(np.int8)
        bias = np.round(self.rng.normal(0, 0.2 * spread, channels)).astype(np.int32)
        return {"weights": weights, "bias": bias, **self._factors(_SPREAD / spread, channels)}

    def convolution(
        self, channels: int, kernel=(3, 3), stride=1, relu=True, dilation=1, groups=1, skip: str | None = None,
        skip_stride=1, padding: tuple[int, ...] | None = None,
    ) -> str:  # fmt: skip
        """conv2d, or conv2d_add with option A's shortcut where `skip` is given; padded by half the window."""
        depth = self.tensors[self.last].shape[2] // groups
        terms, zero = kernel[0] * kernel[1] * depth, RECTIFIED if relu else FULL
        constants = self._weighted((channels, *kernel, depth), channels, terms)
        attributes = _window(kernel, stride, dilation) | {"groups": groups, "clamp": (-128, 127)}
        attributes["padding"] = padding or attributes["padding"]
        if skip is None:
            return self._node("conv2d", [self.last], attributes, constants, zero)
        missing = channels - self.tensors[skip].shape[2]
        inside = (np.arange(channels) >= missing // 2) & (np.arange(channels) < channels - missing + missing // 2)
        strength = round(math.sqrt(terms) * _WEIGHT)
        constants["skip_multiplier"] = np.where(inside, min(strength, 32767), 0).astype(np.int32)
        attributes |= {"skip_stride": (skip_stride,) * 2, "skip_offset": missing // 2}
        return self._node("conv2d_add", [self.last, skip], attributes, constants, zero)

    def depthwise(self, kernel=(3, 3), stride=1, dilation=1, multiplier=1) -> str:
        channels = multiplier * self.tensors[self.last].shape[2]
        constants = self._weighted((*kernel, channels), channels, kernel[0] * kernel[1])
        attributes = _window(kernel, stride, dilation) | {"clamp": (RECTIFIED, 127)}
        return self._node("depthwise_conv2d", [self.last], attributes, constants, RECTIFIED)

    def dense(self, channels: int) -> str:
        features = math.prod(self.tensors[self.last].shape)
        constants = self._weighted((channels, features), channels, features)
        return self._node("fully_connected", [self.last], {"clamp": (-128, 127)}, constants, FULL)

    def add(self, a: str, b: str) -> str:
        pairs = [quantize_multiplier(factor) for factor in (0.5, 0.5, 2**0.5 / 2**20)]
        constants = {"multiplier": np.array([m for m, _ in pairs], np.int32),
                     "shift": np.array([s for _, s in pairs], np.int32)}  # fmt: skip
        return self._node("add", [a, b], {"left_shift": 20, "clamp": (-128, 127)}, constants, FULL)

    def pool(self, op: str, kernel: int, stride: int, padding: int = 0) -> str:
        attributes = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (padding,) * 4, "clamp": (-128, 127)}
        return self._node(op, [self.last], attributes, {}, self.tensors[self.last].zero_point)

    def mean(self) -> str:
        height, width, _ = self.tensors[self.last].shape
        return self._node("mean", [self.last], {"clamp": (-128, 127)}, self._factors(2 / height / width, 1), RECTIFIED)

    def graph(self) -> Graph:
        classes = [str(i) for i in range(math.prod(self.tensors[self.last].shape))]
        return build_graph(self.nodes, self.tensors.values(), "levels", self.last, (0, 255), 255, classes)


def _window(kernel: tuple[int, int], stride: int, dilation: int) -> dict:
    """stride, dilation, and the padding that keeps an image's size at stride 1."""
    before = [(size - 1) * dilation // 2 for size in kernel]
    after = [(size - 1) * dilation - first for size, first in zip(kernel, before, strict=True)]
    padding = (before[0], after[0], before[1], after[1])
    return {"stride": (stride, stride), "dilation": (dilation, dilation), "padding": padding}


def cifar_resnet(depth: int, size: int = 32) -> Graph:
    """ResNet-20, -56 ...: 6 n + 2 layers on size x size images."""
    net = Network((size, size, 3))
    x, channels = net.convolution(16), 16
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            stride = 1 if width == channels else 2
            net.convolution(width, stride=stride)
            x, channels = net.convolution(width, skip=x, skip_stride=stride), width
    net.mean()
    net.dense(10)
    return net.graph()


def resnet50(size: int = 224) -> Graph:
    """Bottleneck blocks of 1x1, 3x3 and 1x1 convolutions; projections where the shape changes."""
    net = Network((size, size, 3))
    net.convolution(64, kernel=(7, 7), stride=2)
    x = net.pool("max_pool2d", 3, 2, padding=1)
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride, skip = first if block == 0 else 1, x
            if block == 0:
                net.last = x
                skip = net.convolution(4 * width, kernel=(1, 1), stride=stride, relu=False)
            net.last = x
            net.convolution(width, kernel=(1, 1))
            net.convolution(width, stride=stride)
            x = net.convolution(4 * width, kernel=(1, 1), skip=skip)
    net.mean()
    net.dense(1000)
    return net.graph()


def mobilenet_v1(size: int = 224) -> Graph:
    """A convolution, then thirteen pairs of depthwise and pointwise ones."""
    net = Network((size, size, 3))
    net.convolution(32, stride=2)
    for channels, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2),
                             (1024, 1)):  # fmt: skip
        net.depthwise(stride=stride)
        net.convolution(channels, kernel=(1, 1))
    net.pool("average_pool2d", net.tensors[net.last].shape[0], 1)
    net.dense(1000)
    return net.graph()


def mobilenet_v2(size: int = 224) -> Graph:
    """Inverted residuals: expansion, depthwise, linear projection, and an addition where shapes allow it."""
    net = Network((size, size, 3))
    x = net.convolution(32, stride=2)
    for expansion, channels, repeats, first in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                                (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):  # fmt: skip
        for repeat in range(repeats):
            stride, depth = first if repeat == 0 else 1, net.tensors[x].shape[2]
            if expansion > 1:
                net.convolution(expansion * depth, kernel=(1, 1))
            net.depthwise(stride=stride)
            y = net.convolution(channels, kernel=(1, 1), relu=False)
            x = net.add(x, y) if stride == 1 and depth == channels else y
    net.convolution(1280, kernel=(1, 1))
    net.mean()
    net.dense(1000)
    return net.graph()


def ds_cnn() -> Graph:
    """Keyword spotting: 49 x 10 spectrogram, one channel; the first window is 10 x 4 with stride 2."""
    net = Network((49, 10, 1))
    net.convolution(64, kernel=(10, 4), stride=2, padding=(4, 5, 1, 1))
    for _ in range(4):
        net.depthwise()
        net.convolution(64, kernel=(1, 1))
    net.mean()
    net.dense(12)
    return net.graph()


def odd_shapes(size: int = 16) -> Graph:
    """Channel counts beside the multiples of 16 and 32, and the windows that the networks above do not have."""
    net = Network((size, size, 1))
    for channels in (4, 8, 12, 17, 20, 24, 31, 33, 40, 48, 96, 100):
        net.convolution(channels)
    net.convolution(64, dilation=2)
    net.convolution(64, kernel=(5, 5))
    net.convolution(64, groups=4)
    net.convolution(64, groups=32)
    net.convolution(48, kernel=(1, 7))
    net.convolution(48, kernel=(7, 1))
    net.depthwise(kernel=(5, 5))
    net.depthwise(dilation=2)
    net.depthwise(multiplier=2)
    net.convolution(24, kernel=(1, 1), stride=2)
    net.depthwise(kernel=(7, 7))
    net.pool("max_pool2d", 2, 2)
    net.pool("average_pool2d", 3, 1, padding=1)
    net.dense(100)
    return net.graph()


NETWORKS = {
    "ResNet-20": lambda: cifar_resnet(20),
    "ResNet-56": lambda: cifar_resnet(56),
    "DS-CNN": ds_cnn,
    "MobileNetV1": mobilenet_v1,
    "MobileNetV2": mobilenet_v2,
    "ResNet-50": resnet50,
    "Odd shapes": odd_shapes,
}
