"""The ends of an imported TensorFlow Lite model, what is refused, and the report."""

from fractions import Fraction

import numpy as np
import pytest
from tflite_builder import ModelBuilder, run_tflm
from tflite_networks import SAME, X_SCALE, X_ZERO, Y_SCALE, Y_ZERO, OneOperator, operators

from intsmooth.convert import tflite
from intsmooth.errors import FormatError, InputError, OverflowProofError, UnsupportedError
from intsmooth.fixedpoint import real_multiplier
from intsmooth.reference import engine


def test_uint8_ends():
    one = OneOperator((1, 6, 5), zero_point=127, dtype="uint8")
    inner = one.model.tensor((1, 6, 5), scale=0.07, zero_point=-3)
    one.model.operator("QUANTIZE", [one.x], [inner], "QuantizeOptions")
    one.y("QUANTIZE", [inner], (1, 6, 5), "QuantizeOptions", scale=0.09, zero_point=100, dtype="uint8")
    conversion = one.check()
    assert conversion.graph.tensors[conversion.graph.output].zero_point == 100 - 128
    assert any(note.kind == "output" for note in conversion.report.notes)


def test_uint8_input_of_the_same_scale_needs_no_operator():
    one = OneOperator((1, 4), zero_point=128, dtype="uint8")
    inner = one.model.tensor((1, 4), scale=X_SCALE, zero_point=0)
    one.model.operator("QUANTIZE", [one.x], [inner], "QuantizeOptions")
    one.y("RELU", [inner], (1, 4), scale=X_SCALE, zero_point=0)
    assert operators(one.check()) == ["input_requantize", "lookup", "clamp"]


def float_ends():
    """float32 input, QUANTIZE, fully connected, DEQUANTIZE, float softmax."""
    model = ModelBuilder()
    source = model.tensor((1, 8), "float32")
    inner = model.tensor((1, 8), scale=0.05, zero_point=-128)
    model.operator("QUANTIZE", [source], [inner], "QuantizeOptions")
    weights = model.constant(np.random.default_rng(6).integers(-127, 128, (3, 8)).astype(np.int8), scale=0.02)
    scores = model.tensor((1, 3), scale=0.06, zero_point=4)
    model.operator("FULLY_CONNECTED", [inner, weights, -1], [scores], "FullyConnectedOptions")
    real = model.tensor((1, 3), "float32")
    model.operator("DEQUANTIZE", [scores], [real], "DequantizeOptions")
    probabilities = model.tensor((1, 3), "float32")
    model.operator("SOFTMAX", [real], [probabilities], "SoftmaxOptions", Beta=1.0)
    return model.build([source], [probabilities])


def test_float_ends_are_dropped_and_the_integers_decide():
    content = float_ends()
    conversion = tflite.load(content)
    assert operators(conversion) == ["input_requantize", "fully_connected"]
    assert [note.kind for note in conversion.report.notes] == ["dropped", "input", "dropped", "dropped"]
    rng = np.random.default_rng(7)
    for _ in range(50):
        levels = rng.integers(0, 256, (1, 8)).astype(np.int16)
        scores = engine.run(conversion.graph, levels)[conversion.graph.output][0]
        probabilities = run_tflm(content, (levels * np.float32(0.05)).astype(np.float32))[0]
        assert np.argmax(scores) == np.argmax(probabilities)


def relu_model():
    one = OneOperator((1, 5), scale=0.02, zero_point=-128)
    one.y("RELU", [one.x], (1, 5), scale=0.02, zero_point=-128)
    return one.build()


def entry(conversion):
    """The first operator's real factor and the tensor it makes."""
    node = conversion.graph.nodes[0]
    factor = real_multiplier(int(node.constants["multiplier"][0]), int(node.constants["shift"][0]))
    return factor, conversion.graph.tensors[node.output]


def test_levels_are_the_source_integers_by_default():
    conversion = tflite.load(relu_model())
    factor, tensor = entry(conversion)
    assert factor == 1 and tensor.zero_point == -128
    assert conversion.graph.levels == (0, 255) and conversion.graph.unit == 255
    assert operators(conversion)[1:] == ["clamp"]
    levels = np.array([[0, 1, 127, 255, 300]], np.int16)
    assert engine.run(conversion.graph, levels)[conversion.graph.output].tolist() == [[-128, -127, -1, 127, 127]]


def test_levels_may_be_the_signed_integers_themselves():
    conversion = tflite.load(relu_model(), levels=(-128, 127), unit=128)
    factor, tensor = entry(conversion)
    assert factor == 1 and tensor.zero_point == 0
    assert operators(conversion)[1] == "lookup" and conversion.graph.unit == 128
    values = np.array([[-128, -1, 0, 127, 500]], np.int16)
    assert engine.run(conversion.graph, values)[conversion.graph.output].tolist() == [[-128, -1, 0, 127, 127]]


def test_levels_may_have_a_real_scale():
    facts = {"data": "digits"}
    conversion = tflite.load(relu_model(), levels=(0, 16), input_scale="1/16", classes="abcde", facts=facts)
    factor, tensor = entry(conversion)
    assert abs(factor / (Fraction(1, 16) / Fraction(float(np.float32(0.02)))) - 1) < Fraction(1, 2**31)
    assert tensor.zero_point == -128 and tensor.scale == float(np.float32(0.02))
    levels = np.array([[-4, 0, 1, 16, 90]], np.int16)
    assert engine.run(conversion.graph, levels)[conversion.graph.output].tolist() == [[-128, -128, -125, -78, 127]]
    assert conversion.graph.classes == tuple("abcde") and conversion.graph.facts["data"] == "digits"


@pytest.mark.parametrize(
    "arguments",
    [{"levels": (5, 5)}, {"levels": (0, 1, 2)}, {"levels": "x"}, {"levels": (0, 2**15)}, {"input_scale": 0},
     {"input_scale": float("nan")}, {"input_scale": "a"}],
)  # fmt: skip
def test_bad_arguments(arguments):
    with pytest.raises(InputError, match="levels"):
        tflite.load(relu_model(), **arguments)


def test_levels_that_no_int8_can_count():
    with pytest.raises(UnsupportedError, match="lowest level from -255 to 0"):
        tflite.load(relu_model(), levels=(1, 255))


def test_missing_file():
    with pytest.raises(InputError, match="cannot read"):
        tflite.load("/nowhere/model.tflite")


def test_everything_unsupported_is_listed_at_once():
    one = OneOperator((1, 4, 4, 2))
    model = one.model
    a = model.tensor((1, 4, 4, 2), **SAME)
    model.operator("HARD_SWISH", [one.x], [a])
    b = model.tensor((1, 4, 4, 2), scale=Y_SCALE, zero_point=0)
    model.operator("FLOOR_DIV", [a, a], [b])
    one.y("RELU", [b], (1, 4, 4, 2))
    with pytest.raises(UnsupportedError, match="2 parts of the model not supported") as error:
        tflite.load(one.build())
    assert "operator 0: HARD_SWISH" in str(error.value) and "operator 1: FLOOR_DIV" in str(error.value)


def test_unsupported_parts_of_known_operators_are_listed_at_once():
    one = OneOperator((1, 4, 4, 2))
    model = one.model
    weights = one.constant(np.ones((2, 1, 1, 2), np.int8), scale=0.1, zero_point=5)
    a = model.tensor((1, 4, 4, 2), **SAME)
    model.operator("CONV_2D", [one.x, weights], [a], "Conv2DOptions", StrideH=1, StrideW=1)
    b = model.tensor((1, 4, 4, 2), scale=Y_SCALE, zero_point=X_ZERO)
    model.operator("RELU6", [a], [b])
    c = model.tensor((1, 4, 4, 2), scale=Y_SCALE, zero_point=X_ZERO)
    model.operator("ADD", [a, b], [c], "AddOptions", FusedActivationFunction=4)
    axes = one.constant(np.array([3], np.int32))
    one.y("MEAN", [c, axes], (1, 4, 4), "ReducerOptions")
    with pytest.raises(UnsupportedError, match="4 parts") as error:
        tflite.load(one.build())
    for text in ("symmetric weights", "operator 1 (RELU6): different scales", "fused activation 4", "mean over axes"):
        assert text in str(error.value)


@pytest.mark.parametrize("shape", [(2, 4), (0, 4)])
def test_other_batches_are_refused(shape):
    one = OneOperator(shape)
    one.y("RELU", [one.x], shape)
    with pytest.raises(UnsupportedError, match="batch|empty"):
        tflite.load(one.build())


def test_float_models_are_refused():
    model = ModelBuilder()
    x, y = model.tensor((1, 4), "float32"), model.tensor((1, 4), "float32")
    model.operator("RELU", [x], [y])
    with pytest.raises(UnsupportedError, match="float32"):
        tflite.load(model.build([x], [y]))


def test_several_inputs_and_outputs_are_refused():
    model = ModelBuilder()
    x, z, y = (model.tensor((1, 4), scale=0.1) for _ in range(3))
    model.operator("ADD", [x, z], [y], "AddOptions")
    with pytest.raises(UnsupportedError, match="2 inputs, supported: 1\n- 2 outputs, supported: 1"):
        tflite.load(model.build([x, z], [y, x]))


def test_names_are_made_unique_and_clean():
    model = ModelBuilder()
    tensors = [model.tensor((1, 4), scale=0.1, zero_point=-128, name=name) for name in ("a", "a", "../b\n/./c", "")]
    for source, target in zip(tensors, tensors[1:], strict=False):
        model.operator("RELU", [source], [target])
    graph = tflite.load(model.build([tensors[0]], [tensors[-1]])).graph
    assert list(graph.tensors) == ["levels", "a", "a #2", "b_/c", "tensor"]


def test_operators_that_the_output_does_not_need_are_dropped():
    one = OneOperator((1, 4), zero_point=-128)
    unused = one.model.tensor((1, 4), scale=0.3, zero_point=0)
    one.model.operator("QUANTIZE", [one.x], [unused], "QuantizeOptions")
    one.y("RELU", [one.x], (1, 4))
    conversion = one.check()
    assert operators(conversion) == ["input_requantize", "requantize"]
    assert any(note.kind == "dropped" and note.subject == "0 QUANTIZE" for note in conversion.report.notes)


def test_overflowing_model_is_refused_by_name():
    one = OneOperator((1, 4))
    weights = one.constant(np.full((2, 4), 127, np.int8), scale=0.02)
    bias = one.constant(np.full(2, 2**31 - 1, np.int32), scale=0.001)
    one.y("FULLY_CONNECTED", [one.x, weights, bias], (1, 2), "FullyConnectedOptions", scale=1e5)
    with pytest.raises(OverflowProofError, match="0 FULLY_CONNECTED"):
        tflite.load(one.build())


def test_report_holds_every_number():
    one = OneOperator((1, 2, 3, 4))
    weights = one.constant(np.arange(-24, 24, dtype=np.int8).reshape(2, 24), scale=[0.02, 0.04])
    bias = one.constant(np.array([1000, -2000], np.int32), scale=[0.001, 0.002])
    one.y("FULLY_CONNECTED", [one.x, weights, bias], (1, 2), "FullyConnectedOptions", FusedActivationFunction=1)
    conversion = tflite.load(one.build())
    layer = conversion.report.layers[-1]
    assert (layer.origin.operator, layer.origin.tensor) == ("0 FULLY_CONNECTED", one.result)
    assert layer.operator == "fully_connected"
    assert layer.inputs == ((2, 3, 4),) and layer.output == (2,)
    assert layer.scales == (float(X_SCALE), float(Y_SCALE)) and layer.zero_points == (X_ZERO, Y_ZERO)
    factors = [float(X_SCALE) * float(np.float32(w)) / float(Y_SCALE) for w in (0.02, 0.04)]
    np.testing.assert_allclose(layer.factor, factors, rtol=2**-30)
    assert layer.clamp == (Y_ZERO, 127) and layer.multiply_adds == 48 and layer.activation_bytes == 2
    assert layer.constant_bytes == 48 + 2 * 4 * 3
    weights = np.arange(-24, 24).reshape(2, 24)
    reach = [np.where(w > 0, w * (127 - X_ZERO), w * (-128 - X_ZERO)).sum() for w in weights]
    drop = [-np.where(w > 0, w * (-128 - X_ZERO), w * (127 - X_ZERO)).sum() for w in weights]
    assert layer.bound == max(max(1000 + reach[0], drop[0]), max(reach[1], 2000 + drop[1]))
    text = conversion.report.text()
    assert "0 FULLY_CONNECTED" in text and "re-expressed: input: an identity table" in text


def test_truncated_reshape_target_is_malformed():
    one = OneOperator((1, 2, 3))
    wrong = one.constant(np.array([1, 5], np.int32))
    one.y("RESHAPE", [one.x, wrong], (1, 6), "ReshapeOptions", **SAME)
    with pytest.raises(FormatError, match="reshapes to"):
        tflite.load(one.build())
