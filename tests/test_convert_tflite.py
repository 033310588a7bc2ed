"""The TensorFlow Lite importer, one operator at a time: the imported graph equals TensorFlow Lite Micro's kernels."""

import numpy as np
import pytest
from tflite_networks import SAME, X_SCALE, OneOperator, operators

SOFTMAX_OUTPUT = {"scale": 1 / 256, "zero_point": -128}


def test_conv2d_grouped_strided_without_bias():
    one = OneOperator((1, 7, 6, 4))
    rng = np.random.default_rng(1)
    weights = one.constant(rng.integers(-127, 128, (6, 3, 2, 2)).astype(np.int8), scale=rng.uniform(0.001, 0.01, 6))
    one.y("CONV_2D", [one.x, weights], (1, 4, 3, 6), "Conv2DOptions", Padding=0, StrideH=2, StrideW=2,
          FusedActivationFunction=1)  # fmt: skip
    conversion = one.check()
    node = conversion.graph.nodes[-1]
    assert node.attributes["groups"] == 2 and node.attributes["padding"] == (1, 1, 0, 0)
    assert (node.constants["bias"] == 0).all()


def test_depthwise_conv2d_per_tensor_dilated():
    one = OneOperator((1, 9, 8, 3))
    rng = np.random.default_rng(2)
    weights = one.constant(rng.integers(-127, 128, (1, 3, 3, 6)).astype(np.int8), scale=0.01)
    bias = one.constant(rng.integers(-500, 500, 6).astype(np.int32), scale=X_SCALE * np.float32(0.01))
    one.y("DEPTHWISE_CONV_2D", [one.x, weights, bias], (1, 5, 6, 6), "DepthwiseConv2DOptions", Padding=1, StrideH=1,
          StrideW=1, DilationHFactor=2, DilationWFactor=1, DepthMultiplier=2, FusedActivationFunction=3)  # fmt: skip
    one.check()


@pytest.mark.parametrize(("shape", "result"), [((1, 24), (1, 5)), ((1, 2, 3, 4), (1, 5)), ((1, 24), (1, 1, 5))])
def test_fully_connected_flattens(shape, result):
    one = OneOperator(shape)
    weights = one.constant(np.random.default_rng(3).integers(-127, 128, (5, 24)).astype(np.int8), scale=0.02)
    one.y("FULLY_CONNECTED", [one.x, weights, -1], result, "FullyConnectedOptions")
    one.check()


def test_fully_connected_at_every_position_is_a_convolution():
    one = OneOperator((1, 3, 2, 4))
    weights = one.constant(np.random.default_rng(4).integers(-127, 128, (5, 4)).astype(np.int8), scale=0.02)
    bias = one.constant(np.arange(5, dtype=np.int32) * 100, scale=0.001)
    one.y("FULLY_CONNECTED", [one.x, weights, bias], (1, 3, 2, 5), "FullyConnectedOptions", KeepNumDims=True)
    assert "conv2d" in operators(one.check())


@pytest.mark.parametrize("code", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (4,), (1, 1, 1, 1), ()])
@pytest.mark.parametrize("constant_first", [False, True])
def test_constant_operands(code, shape, constant_first):
    one = OneOperator((1, 2, 3, 4))
    values = np.random.default_rng(5).integers(-128, 128, shape).astype(np.int8)
    operand = one.constant(values, scale=0.03, zero_point=9)
    inputs = [operand, one.x] if constant_first else [one.x, operand]
    one.y(code, inputs, (1, 2, 3, 4), f"{code.capitalize()}Options", FusedActivationFunction=3)
    one.check()


def test_sum_of_two_activations_with_the_smaller_first():
    one = OneOperator((1, 2, 3, 4))
    axes = one.constant(np.array([1, 2], np.int32))
    small = one.model.tensor((1, 1, 1, 4), scale=0.02, zero_point=3)
    one.model.operator("MEAN", [one.x, axes], [small], "ReducerOptions", KeepDims=True)
    one.y("ADD", [small, one.x], (1, 2, 3, 4), "AddOptions")
    conversion = one.check()
    assert any(note.kind == "re-expressed" and "exchanged" in note.text for note in conversion.report.notes)


@pytest.mark.parametrize("code", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize("padding", [0, 1])
def test_pools(code, padding):
    one = OneOperator((1, 7, 6, 3))
    shape = (1, 4, 3, 3) if padding == 0 else (1, 3, 2, 3)
    one.y(code, [one.x], shape, "Pool2DOptions", **SAME, Padding=padding, StrideH=2, StrideW=2, FilterHeight=3,
          FilterWidth=3, FusedActivationFunction=1)  # fmt: skip
    one.check()


@pytest.mark.parametrize(
    ("shape", "axes", "result"),
    [((1, 7, 7, 3), [1, 2], (1, 3)), ((1, 5, 3, 3), [-2, 1], (1, 1, 1, 3)), ((1, 6, 4), [1], (1, 4))],
)
def test_mean(shape, axes, result):
    one = OneOperator(shape)
    one.y("MEAN", [one.x, one.constant(np.array(axes, np.int32))], result, "ReducerOptions", scale=0.04,
          KeepDims=len(result) == len(shape))  # fmt: skip
    one.check()


def test_requantization_and_activations():
    one = OneOperator((1, 256))
    half = one.model.tensor((1, 256), scale=0.1, zero_point=-20)
    one.model.operator("QUANTIZE", [one.x], [half], "QuantizeOptions")
    same = one.model.tensor((1, 256), scale=0.1, zero_point=-20)
    one.model.operator("RELU6", [half], [same])
    one.y("RELU", [same], (1, 256), scale=0.03, zero_point=-128)
    assert operators(one.check()) == ["input_requantize", "lookup", "requantize", "clamp", "requantize"]


@pytest.mark.parametrize(("code", "scale", "zero_point"), [("LOGISTIC", 1 / 256, -128), ("TANH", 1 / 128, 0)])
def test_tables(code, scale, zero_point):
    one = OneOperator((1, 16, 16))
    one.y(code, [one.x], (1, 16, 16), scale=scale, zero_point=zero_point)
    assert operators(one.check())[-1] == "lookup"


def test_softmax():
    one = OneOperator((1, 12))
    one.y("SOFTMAX", [one.x], (1, 12), "SoftmaxOptions", Beta=1.0, **SOFTMAX_OUTPUT)
    one.check()


def test_moving_operators():
    one = OneOperator((1, 2, 3, 4))
    model = one.model
    padded = model.tensor((1, 4, 3, 5), **SAME)
    borders = one.constant(np.array([[0, 0], [1, 1], [0, 0], [1, 0]], np.int32))
    model.operator("PAD", [one.x, borders], [padded], "PadOptions")
    turned = model.tensor((1, 5, 4, 3), **SAME)
    model.operator("TRANSPOSE", [padded, one.constant(np.array([0, 3, 1, 2], np.int32))], [turned], "TransposeOptions")
    filled = model.tensor((1, 5, 5, 3), **SAME)
    extra = one.constant(np.arange(15, dtype=np.int8).reshape(1, 5, 1, 3), **SAME)
    model.operator("CONCATENATION", [turned, extra], [filled], "ConcatenationOptions", Axis=-2)
    split = model.tensor((1, 1, 25, 3), **SAME)
    model.operator("RESHAPE", [filled, one.constant(np.array([1, -1, 25, 3], np.int32))], [split], "ReshapeOptions")
    squeezed = model.tensor((1, 25, 3), **SAME)
    model.operator("SQUEEZE", [split], [squeezed], "SqueezeOptions", SqueezeDims=[1])
    one.y("EXPAND_DIMS", [squeezed, one.constant(np.array(2, np.int32))], (1, 25, 1, 3), "ExpandDimsOptions", **SAME)
    expected = ["constant", "pad", "transpose", "concat", "reshape", "reshape", "reshape"]
    assert sorted(operators(one.check())[2:]) == sorted(expected)


def test_padv2_fills_with_its_own_value():
    one = OneOperator((1, 3, 2))
    borders = one.constant(np.array([[0, 0], [1, 2], [0, 1]], np.int32))
    value = one.constant(np.array(-100, np.int8), **SAME)
    one.y("PADV2", [one.x, borders, value], (1, 6, 3), "PadV2Options", **SAME)
    one.check()


def test_flatten_computed_from_the_shape_is_folded():
    """Keras writes SHAPE, STRIDED_SLICE and PACK in front of a flatten."""
    one = OneOperator((1, 2, 3, 4))
    model = one.model
    shape = model.tensor((4,), "int32")
    model.operator("SHAPE", [one.x], [shape], "ShapeOptions", OutType=2)
    first = model.tensor((), "int32")
    bounds = [one.constant(np.array([value], np.int32)) for value in (0, 1, 1)]
    model.operator("STRIDED_SLICE", [shape, *bounds], [first], "StridedSliceOptions", ShrinkAxisMask=1)
    target = model.tensor((2,), "int32")
    size = one.constant(np.array(24, np.int32))
    model.operator("PACK", [first, size], [target], "PackOptions", ValuesCount=2, Axis=0)
    one.y("RESHAPE", [one.x, target], (1, 24), "ReshapeOptions", **SAME)
    conversion = one.check()
    assert operators(conversion) == ["input_requantize", "lookup", "reshape"]
    assert sum(note.kind == "folded" for note in conversion.report.notes) == 3


def test_argmax_ends_the_network():
    one = OneOperator((1, 9))
    one.y("ARG_MAX", [one.x, one.constant(np.array(-1, np.int32))], (1,), "ArgMaxOptions", dtype="int32", OutputType=2)
    conversion = one.check()
    assert operators(conversion)[-1] == "argmax" and len(conversion.graph.classes) == 9
