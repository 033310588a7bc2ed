"""Sums, products, requantization and activations: the twins equal TensorFlow Lite Micro's reference kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_builder import ACTIVATIONS, ModelBuilder, run_tflm

from intsmooth.convert import tflite_parameters as parameters
from intsmooth.reference import elementwise

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
ALL_INT8 = np.arange(-128, 128, dtype=np.int8)
zero_points = st.integers(-128, 127)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def scales(draw, low=-12, high=2):
    """A float32 scale; powers of two, where ties abound, are common."""
    exponent = draw(st.integers(low, high))
    return np.float32(draw(st.sampled_from([1.0, 1.5]) | st.floats(1, 2, width=32)) * 2.0**exponent)


BROADCASTS = [((3, 4, 5), (3, 4, 5)), ((3, 4, 5), (5,)), ((3, 4, 5), (1, 1, 5)), ((3, 4, 5), (3, 1, 1)), ((6,), (1,)),
              ((2, 3), (2, 3)), ((3, 4, 5), (4, 1))]  # fmt: skip


def binary_model(code, options, a, b, quantization, activation):
    """Two inputs, one operator; shapes are given without the batch, which is 2 for the first input and the output."""
    model = ModelBuilder()
    pairs = zip((a, b), quantization, strict=False)
    sources = [model.tensor(x.shape, scale=scale, zero_point=zero) for x, (scale, zero) in pairs]
    target = model.tensor(a.shape, scale=quantization[2][0], zero_point=quantization[2][1])
    model.operator(code, sources, [target], options, FusedActivationFunction=ACTIVATIONS[activation])
    return run_tflm(model.build(sources, [target]), a, b)


@pytest.mark.parametrize("code", ["ADD", "SUB", "MUL"])
@SETTINGS
@given(scales(), scales(), scales(-8, 6), zero_points, zero_points, zero_points, st.sampled_from(BROADCASTS),
       st.sampled_from(sorted(ACTIVATIONS)), seeds)  # fmt: skip
def test_binary_operators_equal_tflm(code, a_scale, b_scale, y_scale, a_zero, b_zero, y_zero, shapes, activation, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-128, 128, (2, *shape)).astype(np.int8) for shape in shapes)
    b[1:] = b[0]  # the smaller operand is one for the whole batch
    quantization = (a_scale, a_zero), (b_scale, b_zero), (y_scale, y_zero)
    clamp = parameters.activation_clamp(activation, y_scale, y_zero)
    arguments = {"a_zero_point": a_zero, "b_zero_point": b_zero, "output_zero_point": y_zero, "clamp": clamp}
    expected = np.concatenate([
        binary_model(code, f"{code.capitalize()}Options", a[n : n + 1], b[:1] if len(shapes[1]) == 3 else b[0],
                     quantization, activation) for n in range(2)
    ])  # fmt: skip
    if code == "MUL":
        result = elementwise.mul(a, b, *parameters.product_parameters(a_scale, b_scale, y_scale), **arguments)
    else:
        function = elementwise.add if code == "ADD" else elementwise.sub
        result = function(a, b, *parameters.sum_parameters(a_scale, b_scale, y_scale), left_shift=20, **arguments)
    np.testing.assert_array_equal(result, expected, strict=True)


@pytest.mark.parametrize("code", ["ADD", "SUB", "MUL"])
def test_binary_operators_on_all_pairs(code):
    a, b = (x.reshape(1, -1) for x in np.meshgrid(ALL_INT8, ALL_INT8))
    quantization = (np.float32(0.07), -13), (np.float32(0.031), 101), (np.float32(0.05), 7)
    expected = binary_model(code, f"{code.capitalize()}Options", a, b, quantization, "relu6")
    (a_scale, a_zero), (b_scale, b_zero), (y_scale, y_zero) = quantization
    arguments = {"a_zero_point": a_zero, "b_zero_point": b_zero, "output_zero_point": y_zero,
                 "clamp": parameters.activation_clamp("relu6", y_scale, y_zero)}  # fmt: skip
    if code == "MUL":
        result = elementwise.mul(a, b, *parameters.product_parameters(a_scale, b_scale, y_scale), **arguments)
    else:
        function = elementwise.add if code == "ADD" else elementwise.sub
        result = function(a, b, *parameters.sum_parameters(a_scale, b_scale, y_scale), left_shift=20, **arguments)
    np.testing.assert_array_equal(result, expected, strict=True)


def unary_model(code, x, x_scale, x_zero, y_scale, y_zero, y_dtype="int8", options=None):
    model = ModelBuilder()
    source = model.tensor(x.shape, x.dtype.name, scale=x_scale, zero_point=x_zero)
    target = model.tensor(x.shape, y_dtype, scale=y_scale, zero_point=y_zero)
    model.operator(code, [source], [target], options)
    return run_tflm(model.build([source], [target]), x)


@SETTINGS
@given(scales(), scales(), zero_points, zero_points)
def test_quantize_int8_equals_tflm(x_scale, y_scale, x_zero, y_zero):
    x = ALL_INT8[np.newaxis]
    expected = unary_model("QUANTIZE", x, x_scale, x_zero, y_scale, y_zero, options="QuantizeOptions")
    result = elementwise.requantize_int8(
        x, *parameters.requantize_parameters(x_scale, y_scale), input_zero_point=x_zero, output_zero_point=y_zero,
        clamp=(-128, 127),
    )  # fmt: skip
    np.testing.assert_array_equal(result, expected, strict=True)


@SETTINGS
@given(scales(-14, 0), scales(-4, 4), zero_points)
def test_input_requantize_equals_tflm_quantize_of_int16(x_scale, y_scale, y_zero):
    levels = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)[np.newaxis]
    expected = unary_model("QUANTIZE", levels, x_scale, 0, y_scale, y_zero, options="QuantizeOptions")
    result = elementwise.input_requantize(
        levels, *parameters.requantize_parameters(x_scale, y_scale), output_zero_point=y_zero
    )
    np.testing.assert_array_equal(result, expected, strict=True)


@SETTINGS
@given(scales(), scales(), st.integers(0, 255), zero_points)
def test_quantize_uint8_table_equals_tflm(x_scale, y_scale, x_zero, y_zero):
    x = np.arange(256, dtype=np.uint8)[np.newaxis]
    expected = unary_model("QUANTIZE", x, x_scale, x_zero, y_scale, y_zero, options="QuantizeOptions")
    table = parameters.quantize_table(x_scale, x_zero - 128, y_scale, y_zero)
    result = elementwise.lookup((x.astype(np.int16) - 128).astype(np.int8), table)
    np.testing.assert_array_equal(result, expected, strict=True)


@SETTINGS
@given(scales(), scales(), zero_points, zero_points)
def test_relu_equals_tflm(x_scale, y_scale, x_zero, y_zero):
    x = ALL_INT8[np.newaxis]
    expected = unary_model("RELU", x, x_scale, x_zero, y_scale, y_zero)
    result = elementwise.requantize_int8(
        x, *parameters.requantize_parameters(x_scale, y_scale), input_zero_point=x_zero, output_zero_point=y_zero,
        clamp=parameters.activation_clamp("relu", y_scale, y_zero),
    )  # fmt: skip
    np.testing.assert_array_equal(result, expected, strict=True)


@SETTINGS
@given(scales(-6, 0), zero_points)
def test_relu6_equals_tflm(scale, zero):
    x = ALL_INT8[np.newaxis]
    expected = unary_model("RELU6", x, scale, zero, scale, zero)
    result = elementwise.clamp_int8(x, clamp=parameters.activation_clamp("relu6", scale, zero))
    np.testing.assert_array_equal(result, expected, strict=True)


@pytest.mark.parametrize("code", ["LOGISTIC", "TANH"])
@SETTINGS
@given(scales(-12, 3), zero_points)
def test_tables_equal_tflm(code, scale, zero):
    x = ALL_INT8[np.newaxis]
    y_scale, y_zero = (1 / 256, -128) if code == "LOGISTIC" else (1 / 128, 0)
    expected = unary_model(code, x, scale, zero, y_scale, y_zero)
    derive = parameters.logistic_table if code == "LOGISTIC" else parameters.tanh_table
    np.testing.assert_array_equal(elementwise.lookup(x, derive(scale, zero)), expected, strict=True)
