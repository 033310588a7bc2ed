"""Small valid random models for everybody's tests: a builder, and a few networks made with it.

Every function takes a numpy Generator, so a seed names a model. Weights are about normal, and each multiplier is chosen
from the estimated spread of the accumulator, so that activations use the int8 range without all sitting at its ends.
"""

import math

import numpy as np

from intsmooth.graph import build_graph
from intsmooth.ops import OPERATORS
from intsmooth.records import Graph, Node, Tensor

SPREAD = 40.0  # standard deviation of x - zero_point that every layer aims at
FULL = (-128, 127)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """(multiplier, shift) with multiplier / 2^31 * 2^shift nearest to a real number >= 0."""
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = round(fraction * 2**31)
    return (2**30, shift + 1) if multiplier == 2**31 else (multiplier, shift)


def int32(*values) -> np.ndarray:
    return np.array(values, np.int32)


class NetworkBuilder:
    """Adds one node per call and returns the name of its output tensor; shapes come from the operators' own rules."""

    def __init__(
        self, rng: np.random.Generator, shape: tuple[int, ...] = (8, 8, 3), levels: tuple[int, int] = (0, 255)
    ):
        self.rng, self.levels = rng, levels
        self.nodes: list[Node] = []
        self.tensors = {"levels": Tensor("levels", shape, "int16", 0, 1.0)}
        factor = 255 / (2 * (levels[1] - levels[0]))  # half of the int8 range for the image, the rest for noise
        multiplier, shift = quantize_multiplier(factor)
        middle = round(factor * sum(levels) / 2)
        constants = {"multiplier": int32(multiplier), "shift": int32(shift)}
        self.start = self.node("input_requantize", ["levels"], {}, constants, zero_point=max(-128, -middle))

    def node(self, op, inputs, attributes=None, constants=None, zero_point=0) -> str:
        """Any operator; its output tensor is named after the node."""
        name = f"{op}_{len(self.nodes)}"
        node = Node(name, op, tuple(inputs), f"{name}:0", attributes or {}, constants or {})
        shape, dtype = OPERATORS[op].infer(node, tuple(self.tensors[name] for name in inputs))
        self.nodes.append(node)
        self.tensors[node.output] = Tensor(node.output, shape, dtype, zero_point, 0.05 if dtype == "int8" else None)
        return node.output

    def graph(self, output: str, facts=None) -> Graph:
        """The finished model; classes are named after their index."""
        last = self.nodes[-1]
        scores = self.tensors[last.inputs[0] if last.op == "argmax" else output]
        classes = [f"class {i}" for i in range(math.prod(scores.shape))]
        unit = self.levels[1] - self.levels[0]
        return build_graph(
            self.nodes, self.tensors.values(), "levels", output, self.levels, unit, classes, facts or {"made": "random"}
        )

    def _weighted(self, shape, terms, channels, relu=False) -> dict[str, np.ndarray]:
        """weights, bias, multiplier and shift for accumulators that sum `terms` products."""
        wanted = SPREAD * (1.7 if relu else 1)  # relu leaves about half of it
        weights = np.clip(np.round(self.rng.normal(0, 30, shape)), -127, 127).astype(np.int8)
        spread = math.sqrt(terms) * 30 * SPREAD
        bias = np.round(self.rng.normal(0, 0.3 * spread, channels)).astype(np.int32)
        pairs = [quantize_multiplier(wanted / spread * self.rng.uniform(0.7, 1.4)) for _ in range(channels)]
        return {"weights": weights, "bias": bias, "multiplier": int32(*(m for m, _ in pairs)),
                "shift": int32(*(s for _, s in pairs))}  # fmt: skip

    def _activation(self, relu: bool) -> tuple[int, tuple[int, int]]:
        """(zero point, clamp): relu either at the end of the range, as TFLite does, or in its middle."""
        zero_point = int(self.rng.integers(-20, 21))
        if relu and self.rng.integers(2):
            zero_point = -128
        return zero_point, (zero_point, 127) if relu else FULL

    def conv(
        self, x, channels, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1), groups=1, relu=True,
        skip=None, skip_stride=(1, 1), skip_offset=0,
    ) -> str:  # fmt: skip
        """conv2d, or conv2d_add where `skip` names the tensor to add."""
        zero_point, clamp = self._activation(relu)
        per_group = self.tensors[x].shape[2] // groups
        attributes = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups, "clamp": clamp}
        terms = kernel[0] * kernel[1] * per_group
        constants = self._weighted((channels, *kernel, per_group), terms, channels, relu)
        if skip is None:
            return self.node("conv2d", [x], attributes, constants, zero_point)
        source = np.arange(channels) - skip_offset
        inside = (source >= 0) & (source < self.tensors[skip].shape[2])
        strength = round(math.sqrt(terms) * 30)  # the skip connection weighs as much as the convolution
        constants["skip_multiplier"] = np.where(inside, strength, 0).astype(np.int32)
        attributes |= {"skip_stride": skip_stride, "skip_offset": skip_offset}
        return self.node("conv2d_add", [x, skip], attributes, constants, zero_point)

    def depthwise(
        self, x, depth=1, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1), relu=True
    ) -> str:
        zero_point, clamp = self._activation(relu)
        channels = depth * self.tensors[x].shape[2]
        attributes = {"stride": stride, "dilation": dilation, "padding": padding, "clamp": clamp}
        constants = self._weighted((*kernel, channels), kernel[0] * kernel[1], channels, relu)
        return self.node("depthwise_conv2d", [x], attributes, constants, zero_point)

    def dense(self, x, channels) -> str:
        features = math.prod(self.tensors[x].shape)
        zero_point, clamp = self._activation(relu=False)
        constants = self._weighted((channels, features), features, channels)
        return self.node("fully_connected", [x], {"clamp": clamp}, constants, zero_point)

    def sum(self, op, a, b) -> str:
        """add or sub with TFLite's left shift of 20, both inputs of the same scale."""
        pairs = [quantize_multiplier(0.5), quantize_multiplier(0.5), quantize_multiplier(2 / math.sqrt(2) / 2**20)]
        constants = {"multiplier": int32(*(m for m, _ in pairs)), "shift": int32(*(s for _, s in pairs))}
        zero_point, clamp = self._activation(relu=False)
        return self.node(op, [a, b], {"left_shift": 20, "clamp": clamp}, constants, zero_point)

    def scaled(self, op, inputs, factor) -> str:
        """mul, mean or requantize: one multiplier for all."""
        multiplier, shift = quantize_multiplier(factor)
        zero_point, clamp = self._activation(relu=False)
        constants = {"multiplier": int32(multiplier), "shift": int32(shift)}
        return self.node(op, inputs, {"clamp": clamp}, constants, zero_point)

    def mean(self, x) -> str:
        height, width, _ = self.tensors[x].shape
        return self.scaled("mean", [x], 2 / (height * width))

    def same(self, op, inputs, **attributes) -> str:
        """Operators that keep the zero point of their inputs."""
        return self.node(op, inputs, attributes, zero_point=self.tensors[inputs[0]].zero_point)

    def pool(self, op, x, kernel=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0)) -> str:
        return self.same(op, [x], kernel=kernel, stride=stride, padding=padding, clamp=FULL)

    def constant(self, shape, zero_point=0) -> str:
        value = self.rng.integers(-100, 101, shape).astype(np.int8)
        return self.node("constant", [], {}, {"value": value}, zero_point)

    def lookup(self, x) -> str:
        table = np.round(100 * np.tanh((np.arange(-128, 128) - self.tensors[x].zero_point) / 50)).astype(np.int8)
        return self.node("lookup", [x], {}, {"table": table}, zero_point=0)

    def softmax(self, x, scale=0.05) -> str:
        multiplier, shift = quantize_multiplier(scale * 2**26)
        constants = {"multiplier": int32(multiplier), "shift": int32(shift)}
        return self.node("softmax", [x], {"diff_min": -math.floor(31 * 2**26 / 2**shift)}, constants, zero_point=-128)


def tiny_conv(rng, shape=(8, 8, 1), classes=10, levels=(0, 16)) -> Graph:
    """Two convolutions, a max pooling and a classifier: the shape of the bundled digits model."""
    b = NetworkBuilder(rng, shape, levels)
    x = b.pool("max_pool2d", b.conv(b.start, 8))
    x = b.conv(x, 12, padding=(0, 1, 0, 1), stride=(2, 2))
    return b.graph(b.dense(x, classes))


def residual(rng, shape=(8, 8, 3), channels=8, classes=10) -> Graph:
    """A CIFAR-style residual net: an identity block and one with stride 2 and zero-padded channels (option A)."""
    b = NetworkBuilder(rng, shape)
    x = b.conv(b.start, channels)
    x = b.conv(b.conv(x, channels), channels, skip=x)
    y = b.conv(x, 2 * channels, stride=(2, 2))
    x = b.conv(y, 2 * channels, skip=x, skip_stride=(2, 2), skip_offset=channels // 2)
    return b.graph(b.dense(b.mean(x), classes))


def depthwise(rng, shape=(9, 7, 3), classes=5) -> Graph:
    """MobileNet's parts: depthwise with stride and depth multiplier, pointwise, global average pooling."""
    b = NetworkBuilder(rng, shape)
    x = b.conv(b.start, 4, stride=(2, 2))
    x = b.conv(b.depthwise(x), 6, kernel=(1, 1), padding=(0, 0, 0, 0))
    x = b.conv(b.depthwise(x, depth=2, stride=(2, 2), padding=(0, 1, 0, 1)), 8, kernel=(1, 1), padding=(0, 0, 0, 0))
    rows, columns, _ = b.tensors[x].shape
    x = b.pool("average_pool2d", x, kernel=(rows, columns), stride=(1, 1))
    return b.graph(b.softmax(b.dense(x, classes)))


def every_operator(rng, shape=(8, 8, 3)) -> Graph:
    """Each operator of the table at least once, unusual geometry included; ends in argmax over 7 scores."""
    b = NetworkBuilder(rng, shape)
    x = b.conv(b.start, 8, kernel=(3, 2), padding=(2, 0, 1, 0), dilation=(1, 1))
    grouped = b.conv(x, 16, kernel=(3, 3), stride=(2, 2), dilation=(2, 2), padding=(2, 2, 2, 2), groups=4)
    wide = b.depthwise(x, depth=2, kernel=(2, 3), stride=(2, 2), padding=(0, 0, 1, 1))
    joined = b.conv(wide, 16, skip=x, skip_stride=(2, 2), skip_offset=4, relu=False)
    x = b.sum("add", joined, grouped)
    x = b.sum("sub", x, b.constant((16,), zero_point=3))
    x = b.scaled("mul", [x, b.mean(x)], 1 / 50)
    largest = b.pool("max_pool2d", x, kernel=(3, 2), stride=(1, 2), padding=(1, 1, 0, 0))
    average = b.pool("average_pool2d", x, kernel=(3, 3), stride=(1, 2), padding=(1, 1, 1, 1))
    x = b.same("concat", [largest, average], axis=2)
    x = b.same("pad", [x], padding=(0, 1, 1, 0, 0, 0), value=b.tensors[x].zero_point)
    x = b.same("transpose", [x], permutation=(2, 0, 1))
    x = b.same("clamp", [b.scaled("requantize", [x], 0.8)], clamp=(-100, 90))
    x = b.lookup(x)
    x = b.same("reshape", [x], shape=(math.prod(b.tensors[x].shape),))
    return b.graph(b.node("argmax", [b.softmax(b.dense(x, 7))]))


def random_graph(rng) -> Graph:
    """A random chain of up to six layers with random geometry, ending in a classifier."""
    sizes = [int(rng.integers(3, 11)) for _ in range(2)]
    b = NetworkBuilder(rng, (*sizes, int(rng.integers(1, 6))))
    x = b.start
    for _ in range(int(rng.integers(1, 7))):
        rows, columns, channels = b.tensors[x].shape
        kernel = tuple(int(rng.integers(1, min(4, size) + 1)) for size in (rows, columns))
        padding = tuple(int(rng.integers(0, size)) for size in kernel for _ in range(2))
        window = {"kernel": kernel, "stride": tuple(map(int, rng.integers(1, 3, 2))), "padding": padding}
        relu = bool(rng.integers(2))
        match rng.integers(6):
            case 0 | 1:
                x = b.conv(x, int(rng.integers(1, 20)), relu=relu, **window)
            case 2:
                x = b.depthwise(x, depth=int(rng.integers(1, 4)), relu=relu, **window)
            case 3:
                y = b.conv(x, channels, relu=relu)
                x = b.conv(y, channels, relu=relu, skip=x)
            case 4:
                x = b.pool(("average_pool2d", "max_pool2d")[rng.integers(2)], x, **window)
            case 5:
                x = b.sum(("add", "sub")[rng.integers(2)], x, b.conv(x, channels, relu=relu))
    x = b.mean(x) if rng.integers(2) else x
    return b.graph(b.dense(x, int(rng.integers(2, 12))))


ALL = {"tiny_conv": tiny_conv, "residual": residual, "depthwise": depthwise, "every_operator": every_operator}


def large_model(size):
    """A model of size x size images that shrinks them by pooling at once."""
    b = NetworkBuilder(np.random.default_rng(1), (size, size, 1))
    kernel = (size // 16, size // 16)
    return b.graph(b.dense(b.pool("max_pool2d", b.start, kernel=kernel, stride=kernel), 3))


def inputs_of(graph, node):
    return tuple(graph.tensors[name] for name in node.inputs)
