"""One case per malformation that an importer can meet, .tflite and .onnx alike: what is refused, and in which words."""

import struct

import numpy as np
import pytest

pytest.importorskip("tflite", reason="needs the packages of the test extra")
onnx = pytest.importorskip("onnx", reason="needs the package onnx")
from onnx import TensorProto, helper  # noqa: E402
from onnx_builder import Quantized, quantized_network  # noqa: E402
from tflite_builder import ModelBuilder  # noqa: E402
from tflite_networks import OneOperator, relu_network, small_network  # noqa: E402

from intsmooth.convert import onnx as onnx_importer  # noqa: E402
from intsmooth.convert import tflite as tflite_importer  # noqa: E402
from intsmooth.errors import FormatError, ModelError, UnsupportedError  # noqa: E402

# .tflite


def windowed(code, options, weights, output, **fields):
    """A network of one convolution or pooling; the fields of its options are the case."""
    one = OneOperator((1, 6, 6, 2))
    inputs = [one.x]
    if weights:
        inputs += [one.constant(np.ones(weights, np.int8), scale=0.02), -1]
    one.y(code, inputs, output, options, **fields)
    return one.build()


def convolution(weights=(3, 3, 3, 2), output=(1, 6, 6, 3), **fields):
    return windowed("CONV_2D", "Conv2DOptions", weights, output, **({"StrideH": 1, "StrideW": 1} | fields))


def depthwise(**fields):
    defaults = {"StrideH": 1, "StrideW": 1, "DepthMultiplier": 1}
    return windowed("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", (1, 3, 3, 2), (1, 6, 6, 2), **(defaults | fields))


def pool(**fields):
    defaults = {"StrideH": 1, "StrideW": 1, "FilterHeight": 2, "FilterWidth": 2}
    return windowed("MAX_POOL_2D", "Pool2DOptions", None, (1, 6, 6, 2), **(defaults | fields))


def chain(edit):
    """Three RELUs in a row, their (inputs, outputs) edited."""
    model = ModelBuilder()
    tensors = [model.tensor((1, 4), scale=0.1, zero_point=-128) for _ in range(4)]
    edges = [([tensors[i]], [tensors[i + 1]]) for i in range(3)]
    edit(edges)
    for inputs, outputs in edges:
        model.operator("RELU", inputs, outputs)
    return model.build([tensors[0]], [tensors[3]])


def shaped(*shape):
    model = ModelBuilder()
    x, y = (model.tensor(shape, scale=0.1, zero_point=-128) for _ in range(2))
    model.operator("RELU", [x], [y])
    return model.build([x], [y])


def patched(content, at, value):
    return content[:at] + struct.pack("<I", value) + content[at + 4 :]


TFLITE = {
    "empty": (lambda: b"", FormatError, "not a TensorFlow Lite model"),
    "eight bytes": (lambda: small_network()[:8], FormatError, "well-formed"),
    "wrong magic": (lambda: b"\x1c\0\0\0TFL9" + small_network()[8:], FormatError, "TFL3"),
    "root beyond the end": (lambda: patched(small_network(), 0, 2**31 - 1), FormatError, "well-formed"),
    "root before the start": (lambda: patched(small_network(), 0, 2**32 - 8), FormatError, "well-formed"),
    "stride 0": (lambda: convolution(StrideH=0), ModelError, "stride"),
    "negative stride": (lambda: convolution(StrideW=-1), ModelError, "stride"),
    "dilation 0": (lambda: convolution(DilationHFactor=0), ModelError, "dilation"),
    "huge stride": (lambda: convolution(StrideH=2**31 - 1), ModelError, "stride|shape"),
    "depthwise stride 0": (lambda: depthwise(StrideH=0), ModelError, "stride"),
    "depth multiplier 0": (lambda: depthwise(DepthMultiplier=0), ModelError, "multipl"),
    "window of 0": (lambda: pool(FilterHeight=0), ModelError, "kernel|filter|window"),
    "pool stride 0": (lambda: pool(StrideW=0), ModelError, "stride"),
    "wrong channels": (lambda: convolution((3, 3, 3, 5)), ModelError, "channels"),
    "groups that do not divide": (lambda: convolution((3, 3, 3, 1)), ModelError, "group|channels"),
    "wrong output shape": (lambda: convolution(output=(1, 5, 6, 3)), ModelError, "shape"),
    "weights of rank 3": (lambda: convolution((3, 3, 6)), ModelError, "rank|shape|dimension"),
    "zero dimension": (lambda: shaped(1, 0), ModelError, "shape"),
    "negative dimension": (lambda: shaped(1, -4), ModelError, "shape"),
    "product that overflows": (lambda: shaped(1, 2**31 - 1, 2**31 - 1, 2**31 - 1), ModelError, "shape|scores"),
    "nine dimensions": (lambda: shaped(*(1,) * 9), ModelError, "dimensions|rank"),
    "batch of two": (lambda: shaped(2, 4), ModelError, "batch"),
    "cycle": (lambda: chain(lambda e: e.__setitem__(0, ([2], [1]))), FormatError, "tensor 2"),
    "missing producer": (lambda: chain(lambda e: e.pop(1)), FormatError, "tensor 2"),
    "two producers": (lambda: chain(lambda e: e.append(([0], [2]))), FormatError, "tensor 2"),
    "output without producer": (lambda: chain(lambda e: e.pop()), FormatError, "produces the output"),
    "index -1": (lambda: relu_network([-1])[0].build([0], [1]), FormatError, "-1"),
    "index beyond the end": (lambda: relu_network([99])[0].build([0], [1]), FormatError, "99"),
    "unknown operator": (lambda: windowed("RFFT2D", None, None, (1, 6, 6, 2)), UnsupportedError, "RFFT2D"),
}  # fmt: skip


@pytest.mark.parametrize("case", TFLITE)
def test_tflite(case):
    make, error, words = TFLITE[case]
    with pytest.raises(error, match=words):
        tflite_importer.load(make())


@pytest.mark.parametrize(
    "name", ["../../etc/cron.d/x", "/etc/passwd", "..", "a\\..\\b", "C:", "x\0y", "\x1b[2J", "x" * 3000]
)
def test_names_with_tricks_in_a_tflite_model_become_plain_ones(name):
    model = ModelBuilder()
    x = model.tensor((1, 4), scale=0.1, zero_point=-128)
    y = model.tensor((1, 4), scale=0.1, zero_point=-128, name=name)
    model.operator("RELU", [x], [y])
    check_names(tflite_importer.load(model.build([x], [y])))


def check_names(conversion):
    for node in conversion.graph.nodes:
        for text in (node.name, node.output):
            assert text.isprintable() and len(text) <= 255 and not text.startswith("/")
            assert ".." not in text.replace("\\", "/").split("/")
    assert conversion.report.text().replace("\n", "").isprintable()


# .onnx


def onnx_one(layer, shape=(2, 6, 6)):
    b = Quantized(shape)
    return b.bytes(b.real(b.layer("Flatten", [layer(b, b.start())])))


def conv(weights=(4, 2, 3, 3), **attributes):
    return onnx_one(lambda b, x: b.layer("Conv", [x, b.weights(*weights)], **attributes))


def max_pool(**attributes):
    return onnx_one(lambda b, x: b.layer("MaxPool", [x], **({"kernel_shape": [2, 2], "strides": [1, 1]} | attributes)))


def edited(edit):
    model = onnx.ModelProto.FromString(quantized_network())
    edit(model)
    return model.SerializeToString()


def input_of(*shape):
    def edit(model):
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))

    return edited(edit)


def external(location):
    def edit(model):
        tensor = next(item for item in model.graph.initializer if len(item.dims) == 4)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return edited(edit)


ONNX = {
    "empty": (lambda: b"", FormatError, "no graph"),
    "eight bytes": (lambda: quantized_network()[:8], FormatError, "ONNX model"),
    "another kind of file": (lambda: b"\x89HDF\r\n\x1a\n" * 9, FormatError, "ONNX model"),
    "stride 0": (lambda: conv(strides=[0, 1]), ModelError, "stride"),
    "negative stride": (lambda: conv(strides=[-1, 1]), ModelError, "stride"),
    "dilation 0": (lambda: conv(dilations=[0, 1]), ModelError, "dilation"),
    "groups 0": (lambda: conv(group=0), ModelError, "group"),
    "negative groups": (lambda: conv(group=-2), ModelError, "group"),
    "groups that do not divide": (lambda: conv(group=3), ModelError, "group|channels"),
    "wrong channels": (lambda: conv((4, 5, 3, 3)), ModelError, "channels"),
    "negative padding": (lambda: conv(pads=[-9, 0, 0, 0]), ModelError, "pad"),
    "huge padding": (lambda: conv(pads=[2**40, 0, 0, 0]), ModelError, "pad|shape|size"),
    "three strides": (lambda: conv(strides=[1, 1, 1]), ModelError, "stride|window"),
    "window of 0": (lambda: max_pool(kernel_shape=[0, 2]), ModelError, "kernel|window"),
    "window larger than the image": (lambda: max_pool(kernel_shape=[9, 9]), ModelError, "kernel|window|shape"),
    "pool stride 0": (lambda: max_pool(strides=[0, 0]), ModelError, "stride"),
    "zero dimension": (lambda: input_of(1, 2, 0, 6), ModelError, "shape|size"),
    "negative dimension": (lambda: input_of(1, 2, -6, 6), ModelError, "shape|size"),
    "product that overflows": (lambda: input_of(1, 2**27, 2**27, 2**27), ModelError, "shape|size|elements"),
    "nine dimensions": (lambda: input_of(*(1,) * 9), ModelError, "dimensions"),
    "missing producer": (lambda: edited(lambda m: m.graph.node[4].input.__setitem__(0, "ghost")), FormatError, "ghost"),
    "no operator set": (lambda: edited(lambda m: m.ClearField("opset_import")), ModelError, "operator set"),
    "newer operator set": (lambda: edited(lambda m: m.opset_import[0].__setattr__("version", 10**6)), ModelError,
                           "operator set 1000000, supported"),
    "external data with ..": (lambda: external("../../etc/passwd"), FormatError, "other files are never opened"),
    "external data, absolute": (lambda: external("/etc/passwd"), FormatError, "other files are never opened"),
    "external data, URL": (lambda: external("https://example.org/x"), FormatError, "other files are never opened"),
}  # fmt: skip


@pytest.mark.parametrize("case", ONNX)
def test_onnx(case):
    make, error, words = ONNX[case]
    with pytest.raises(error, match=words):
        onnx_importer.load(make(), input_scale="1/255")


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "/etc/passwd", "..", "a\\..\\b", "C:", "\x1b[2J", "x" * 3000])
def test_names_with_tricks_in_an_onnx_model_become_plain_ones(name):
    def rename(model):
        old = model.graph.node[3].output[0]
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [name if other == old else other for other in names]

    check_names(onnx_importer.load(edited(rename), input_scale="1/255"))
