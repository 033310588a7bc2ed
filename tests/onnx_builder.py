"""Small ONNX models for tests: a float network of the usual parts, and ResNet-20 from published weights."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

OPSET = 17
SCALE, ZERO = np.float32(0.02), np.int8(-3)  # of every activation of a Quantized model


class Builder:
    """Adds one node per call and returns the name of its output."""

    def __init__(self, shape, batch=None, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants = [], []
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch or "N", *shape])]
        self.opsets = [helper.make_opsetid("", OPSET)]

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, domain="", **attributes):
        """inputs: names, or arrays that become constants."""
        names = [name if isinstance(name, str) else self.constant(name) for name in inputs]
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], domain=domain, **attributes))
        return output

    def conv(self, x, inputs, outputs, kernel=3, groups=1, stride=1, pad=None, bias=True):
        shape = (outputs, inputs // groups, kernel, kernel)
        weights = self.rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        constants = [weights.astype(np.float32)] + [self.rng.normal(0, 0.1, outputs).astype(np.float32)] * bias
        pad = kernel // 2 if pad is None else pad
        return self.node("Conv", [x, *constants], group=groups, strides=[stride] * 2, pads=[pad] * 4)

    def batch_norm(self, x, channels):
        parameters = [self.rng.uniform(0.5, 1.5, channels), self.rng.normal(0, 0.2, channels),
                      self.rng.normal(0, 0.2, channels), self.rng.uniform(0.5, 2, channels)]  # fmt: skip
        return self.node("BatchNormalization", [x, *(array.astype(np.float32) for array in parameters)])

    def dense(self, x, inputs, outputs):
        weights = self.rng.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        return self.node("Gemm", [x, weights, self.rng.normal(0, 0.1, outputs).astype(np.float32)], transB=1)

    def model(self, output):
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "network", self.inputs, [result], self.constants)
        return helper.make_model(graph, opset_imports=self.opsets, ir_version=8)

    def bytes(self, output):
        return self.model(output).SerializeToString()


def small_network(shape=(3, 16, 16), normalization=True, softmax=False, head=None, pool="AveragePool"):
    """Convolutions plain, grouped and depthwise, a residual sum, a gate, both poolings, concatenation, and a head.

    head: False leaves it out, (weights, bias) replaces it.
    """
    b = Builder(shape)
    norm = b.batch_norm if normalization else lambda x, channels: x
    stem = b.node("Relu", [norm(b.conv("x", shape[0], 8), 8)])
    x = b.node("Relu", [norm(b.conv(stem, 8, 8), 8)])
    x = b.node("Relu", [b.node("Add", [norm(b.conv(x, 8, 8), 8), stem])])
    x = b.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("Clip", [b.conv(x, 8, 16, groups=8), np.float32(0), np.float32(6)])
    left = b.node("Relu", [b.conv(x, 16, 8, kernel=1)])
    right = b.node("Relu", [b.conv(x, 16, 8, groups=2)])
    x = b.node("Concat", [left, right], axis=1)
    x = b.node("Mul", [x, b.node("Sigmoid", [b.conv(x, 16, 16, kernel=1)])])
    x = b.node(pool, [x], kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("Flatten", [x])
    if head is False:
        return b.bytes(x)
    if head is not None:
        return b.bytes(b.node("Gemm", [x, *head], transB=1))
    x = b.dense(x, shape[1] * shape[2], 10)
    return b.bytes(b.node("Softmax", [x]) if softmax else x)


def resnet20(weights, classes=10):
    """He et al.'s ResNet-20 for CIFAR-10 with shortcuts of option A, from akamaster's state dict."""
    b = Builder((3, 32, 32))

    def norm(x, name):
        parts = [weights[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
        return b.node("BatchNormalization", [x, *(np.asarray(part, np.float32) for part in parts)])

    def conv(x, name, stride=1):
        kernel = np.asarray(weights[f"{name}.weight"], np.float32)
        return b.node("Conv", [x, kernel], pads=[1] * 4, strides=[stride] * 2)

    x = b.node("Relu", [norm(conv("x", "conv1"), "bn1")])
    for stage, channels in enumerate((16, 32, 64), 1):
        for block in range(3):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = b.node("Relu", [norm(conv(x, f"{name}.conv1", stride), f"{name}.bn1")])
            y = norm(conv(y, f"{name}.conv2"), f"{name}.bn2")
            if stride == 2:
                ends = np.iinfo(np.int64).max
                x = b.node("Slice", [x, np.array([0, 0]), np.array([ends, ends]), np.array([2, 3]), np.array([2, 2])])
                quarter = channels // 4
                x = b.node("Pad", [x, np.array([0, quarter, 0, 0, 0, quarter, 0, 0])])
            x = b.node("Relu", [b.node("Add", [y, x])])
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x])])
    head = [np.asarray(weights[f"linear.{part}"], np.float32) for part in ("weight", "bias")]
    return b.bytes(b.node("Gemm", [x, *head], transB=1))


class Quantized(Builder):
    """A model that starts with QuantizeLinear; activations all have one scale and zero point."""

    def start(self):
        return self.node("QuantizeLinear", ["x", SCALE, ZERO])

    def real(self, x):
        return self.node("DequantizeLinear", [x, SCALE, ZERO])

    def integer(self, x, scale=SCALE, zero=ZERO):
        return self.node("QuantizeLinear", [x, scale, zero])

    def weights(self, *shape):
        values = self.rng.integers(-127, 128, shape).astype(np.int8)
        return self.node("DequantizeLinear", [values, np.float32(0.01), np.int8(0)])

    def layer(self, op, inputs, **attributes):
        """Float operator on views of integer tensors, quantized again."""
        return self.integer(self.node(op, [self.real(inputs[0]), *inputs[1:]], **attributes))


def quantized_network():
    b = Quantized((2, 6, 6))
    x = b.layer("Conv", [b.start(), b.weights(4, 2, 3, 3)], pads=[1, 1, 1, 1])
    x = b.layer("Relu", [x])
    x = b.layer("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = b.layer("Flatten", [x])
    return b.bytes(b.real(b.layer("Gemm", [x, b.weights(3, 36)], transB=1)))
