"""Convolutions and the fully connected layer: the twins equal TensorFlow Lite Micro's reference kernels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_builder import ACTIVATIONS, PADDINGS, ModelBuilder, run_tflm

from intsmooth.convert.tflite_parameters import activation_clamp, convolution_parameters
from intsmooth.reference import convolution
from intsmooth.reference.arithmetic import requantize

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


def random_scale(rng, low=1e-4, high=1.0):
    return np.float32(np.exp(rng.uniform(np.log(low), np.log(high))))


def int8_array(rng, shape):
    """int8 values, a third of them at the ends of the range."""
    values = rng.integers(-128, 128, shape)
    return np.where(rng.random(shape) < 1 / 3, rng.choice([-128, -127, 0, 127], shape), values).astype(np.int8)


def same_padding(size, kernel, stride, dilation):
    """TensorFlow's SAME: the smaller half of the padding comes first."""
    out = -(-size // stride)
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def weight_scales(rng, channels, per_channel):
    return np.array([random_scale(rng) for _ in range(channels if per_channel else 1)], dtype=np.float32)


def output_quantization(rng, factors, taps):
    """A scale at which a good part of the outputs does not saturate, and a zero point."""
    spread = np.median(factors) * np.sqrt(taps) * 5000
    return np.float32(spread * 2 ** rng.uniform(-9, 4) / 128), int(rng.integers(-128, 128))


def per_output(values, channels):
    return np.broadcast_to(values, channels)


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)]))
    padding = draw(st.sampled_from(["same", "valid"]))
    smallest = [(k - 1) * d + 1 if padding == "valid" else 1 for k, d in zip(kernel, dilation, strict=True)]
    size = smallest[0] + draw(st.integers(0, 6)), smallest[1] + draw(st.integers(0, 6))
    return {
        "groups": groups, "kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding, "size": size,
        "depth": draw(st.integers(1, 5)), "share": draw(st.integers(1, 5)), "batch": draw(st.integers(1, 2)),
        "activation": draw(st.sampled_from(sorted(ACTIVATIONS))), "per_channel": draw(st.booleans()),
        "bias": draw(st.booleans()), "seed": draw(st.integers(0, 2**32 - 1)),
    }  # fmt: skip


def geometry(case):
    """(top, bottom, left, right) and the output's (height, width)."""
    pads, extents = [], []
    for axis in range(2):
        arguments = case["size"][axis], case["kernel"][axis], case["stride"][axis], case["dilation"][axis]
        pad = same_padding(*arguments) if case["padding"] == "same" else (0, 0)
        pads += pad
        extents.append(convolution.output_extent(*arguments, *pad))
    return tuple(pads), tuple(extents)


def convolution_fields(case):
    return {
        "Padding": PADDINGS[case["padding"]], "StrideH": case["stride"][0], "StrideW": case["stride"][1],
        "DilationHFactor": case["dilation"][0], "DilationWFactor": case["dilation"][1],
        "FusedActivationFunction": ACTIVATIONS[case["activation"]],
    }  # fmt: skip


@SETTINGS
@given(convolutions())
def test_conv2d_equals_tflm(case):
    rng = np.random.default_rng(case["seed"])
    depth, groups, out_channels = case["depth"], case["groups"], case["share"] * case["groups"]
    padding, (height, width) = geometry(case)
    x = int8_array(rng, (case["batch"], *case["size"], depth * groups))
    weights = int8_array(rng, (out_channels, *case["kernel"], depth))
    bias = rng.integers(-30000, 30000, out_channels).astype(np.int32) * case["bias"]
    x_scale, x_zero = random_scale(rng), int(rng.integers(-128, 128))
    w_scales = weight_scales(rng, out_channels, case["per_channel"])
    y_scale, y_zero = output_quantization(rng, x_scale * w_scales, depth * case["kernel"][0] * case["kernel"][1])

    model = ModelBuilder()
    source = model.tensor(x.shape, scale=x_scale, zero_point=x_zero)
    target = model.tensor((case["batch"], height, width, out_channels), scale=y_scale, zero_point=y_zero)
    constants = [model.constant(weights, scale=w_scales, dimension=0)]
    if case["bias"]:
        constants.append(model.constant(bias, scale=x_scale * w_scales))
    model.operator("CONV_2D", [source, *constants], [target], "Conv2DOptions", **convolution_fields(case))
    expected = run_tflm(model.build([source], [target]), x)

    multiplier, shift = convolution_parameters(x_scale, w_scales, y_scale)
    result = convolution.conv2d(
        x, weights, bias, per_output(multiplier, out_channels), per_output(shift, out_channels),
        input_zero_point=x_zero, output_zero_point=y_zero, stride=case["stride"], dilation=case["dilation"],
        padding=padding, groups=groups, clamp=activation_clamp(case["activation"], y_scale, y_zero),
    )  # fmt: skip
    np.testing.assert_array_equal(result, expected, strict=True)


@SETTINGS
@given(convolutions())
def test_depthwise_conv2d_equals_tflm(case):
    rng = np.random.default_rng(case["seed"])
    channels, repeat = case["depth"], case["share"]
    out_channels = channels * repeat
    padding, (height, width) = geometry(case)
    x = int8_array(rng, (case["batch"], *case["size"], channels))
    weights = int8_array(rng, (*case["kernel"], out_channels))
    bias = rng.integers(-30000, 30000, out_channels).astype(np.int32)
    x_scale, x_zero = random_scale(rng), int(rng.integers(-128, 128))
    w_scales = weight_scales(rng, out_channels, case["per_channel"])
    y_scale, y_zero = output_quantization(rng, x_scale * w_scales, case["kernel"][0] * case["kernel"][1])

    model = ModelBuilder()
    source = model.tensor(x.shape, scale=x_scale, zero_point=x_zero)
    target = model.tensor((case["batch"], height, width, out_channels), scale=y_scale, zero_point=y_zero)
    constants = [model.constant(weights[np.newaxis], scale=w_scales, dimension=3),
                 model.constant(bias, scale=x_scale * w_scales)]  # fmt: skip
    model.operator("DEPTHWISE_CONV_2D", [source, *constants], [target], "DepthwiseConv2DOptions",
                   DepthMultiplier=repeat, **convolution_fields(case))  # fmt: skip
    expected = run_tflm(model.build([source], [target]), x)

    multiplier, shift = convolution_parameters(x_scale, w_scales, y_scale)
    result = convolution.depthwise_conv2d(
        x, weights, bias, per_output(multiplier, out_channels), per_output(shift, out_channels),
        input_zero_point=x_zero, output_zero_point=y_zero, stride=case["stride"], dilation=case["dilation"],
        padding=padding, clamp=activation_clamp(case["activation"], y_scale, y_zero),
    )  # fmt: skip
    np.testing.assert_array_equal(result, expected, strict=True)


def fully_connected_case(rng, features, outputs, batch, activation, per_channel):
    """(twin's result, TFLM's result) on one random layer."""
    x, weights = int8_array(rng, (batch, features)), int8_array(rng, (outputs, features))
    bias = rng.integers(-30000, 30000, outputs).astype(np.int32)
    x_scale, x_zero = random_scale(rng), int(rng.integers(-128, 128))
    w_scales = weight_scales(rng, outputs, per_channel)
    y_scale, y_zero = output_quantization(rng, x_scale * w_scales, features)
    model = ModelBuilder()
    source = model.tensor(x.shape, scale=x_scale, zero_point=x_zero)
    target = model.tensor((batch, outputs), scale=y_scale, zero_point=y_zero)
    constants = [model.constant(weights, scale=w_scales), model.constant(bias, scale=x_scale * w_scales)]
    model.operator("FULLY_CONNECTED", [source, *constants], [target], "FullyConnectedOptions",
                   FusedActivationFunction=ACTIVATIONS[activation])  # fmt: skip
    expected = run_tflm(model.build([source], [target]), x)
    multiplier, shift = convolution_parameters(x_scale, w_scales, y_scale)
    result = convolution.fully_connected(
        x, weights, bias, per_output(multiplier, outputs), per_output(shift, outputs),
        input_zero_point=x_zero, output_zero_point=y_zero, clamp=activation_clamp(activation, y_scale, y_zero),
    )  # fmt: skip
    return result, expected


@SETTINGS
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 3), st.sampled_from(sorted(ACTIVATIONS)), st.booleans(),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_fully_connected_equals_tflm(features, outputs, batch, activation, per_channel, seed):
    result, expected = fully_connected_case(
        np.random.default_rng(seed), features, outputs, batch, activation, per_channel
    )
    np.testing.assert_array_equal(result, expected, strict=True)


def test_fully_connected_per_tensor_multiplies_scales_in_double():
    """Published versions of TFLite differ here: the product of input and weight scale in float32, or in double.

    Accumulators are set by the biases, chosen where the two rules give different int8 outputs.
    """
    x_scale, w_scale, y_scale = np.float32(0.36234716), np.float32(0.023056353), np.float32(482.90097)
    in_double = convolution_parameters(x_scale, [w_scale], y_scale)
    in_float = convolution_parameters(np.float32(1), [x_scale * w_scale], y_scale)
    assert in_double[0] != in_float[0]
    step = float(y_scale) / (float(x_scale) * float(w_scale))
    ties = np.round((np.arange(-128, 127) + 0.5) * step)
    candidates = (ties[:, np.newaxis] + np.arange(-3, 4)).astype(np.int32).ravel()
    doubles, floats = (requantize(candidates, *rule, 0, (-128, 127)) for rule in (in_double, in_float))
    differs = doubles != floats
    assert differs.any()

    bias = candidates[differs]
    model = ModelBuilder()
    source = model.tensor((1, 1), scale=x_scale)
    target = model.tensor((1, len(bias)), scale=y_scale)
    weights = model.constant(np.zeros((len(bias), 1), np.int8), scale=w_scale)
    biases = model.constant(bias, scale=x_scale * w_scale)
    model.operator("FULLY_CONNECTED", [source, weights, biases], [target], "FullyConnectedOptions")
    output = run_tflm(model.build([source], [target]), np.zeros((1, 1), np.int8))
    np.testing.assert_array_equal(output[0], doubles[differs])


def exact_rescale(accumulator, multiplier, shift):
    """MBQM in Python integers, by FORMAT.md: high multiply with ties up, division with ties away from zero."""
    high = (accumulator * 2 ** max(shift, 0) * multiplier + 2**30) >> 31
    divisor = 2 ** max(-shift, 0)
    magnitude = (2 * abs(high) + divisor) // (2 * divisor)
    return -magnitude if high < 0 else magnitude


def conv2d_add_scalar(x, skip, weights, bias, multiplier, shift, skip_multiplier, case, n, y, u, o):
    """One output of conv2d_add, term by term, in Python integers."""
    group_depth = weights.shape[3]
    group = o // (weights.shape[0] // case["groups"])
    accumulator = int(bias[o])
    for ky in range(weights.shape[1]):
        for kx in range(weights.shape[2]):
            row = y * case["stride"][0] + ky * case["dilation"][0] - case["padding"][0]
            column = u * case["stride"][1] + kx * case["dilation"][1] - case["padding"][2]
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                for i in range(group_depth):
                    value = int(x[n, row, column, group * group_depth + i]) - case["input_zero_point"]
                    accumulator += int(weights[o, ky, kx, i]) * value
    channel = o - case["skip_offset"]
    if 0 <= channel < skip.shape[3]:
        value = skip[n, y * case["skip_stride"][0], u * case["skip_stride"][1], channel]
        accumulator += int(skip_multiplier[o]) * (int(value) - case["skip_zero_point"])
    rescaled = exact_rescale(accumulator, int(multiplier[o]), int(shift[o])) + case["output_zero_point"]
    return min(max(rescaled, case["clamp"][0]), case["clamp"][1])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_conv2d_add_equals_its_formula(groups, depth, share, stride, padding, dilation, seed):
    """No other software has this operator, so it is compared with its definition, one output at a time."""
    rng = np.random.default_rng(seed)
    kernel, size, out_channels = (2, 3), (5, 6), groups * share
    skip_channels = int(rng.integers(1, out_channels + 1))
    case = {
        "stride": (stride, 1), "dilation": (1, dilation), "padding": (padding, 1, 2, padding), "groups": groups,
        "input_zero_point": int(rng.integers(-128, 128)), "skip_zero_point": int(rng.integers(-128, 128)),
        "output_zero_point": int(rng.integers(-128, 128)), "clamp": (-100, 110),
        "skip_stride": (int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        "skip_offset": int(rng.integers(0, out_channels - skip_channels + 1)),
    }  # fmt: skip
    x = int8_array(rng, (2, *size, depth * groups))
    weights = int8_array(rng, (out_channels, *kernel, depth))
    bias = rng.integers(-5000, 5000, out_channels).astype(np.int32)
    multiplier = rng.integers(2**30, 2**31, out_channels).astype(np.int32)
    shift = rng.integers(-11, -5, out_channels).astype(np.int32)
    existing = np.arange(out_channels) - case["skip_offset"]
    skip_multiplier = rng.integers(0, 200, out_channels).astype(np.int32)
    skip_multiplier[(existing < 0) | (existing >= skip_channels)] = 0
    height = convolution.output_extent(size[0], kernel[0], stride, 1, padding, 1)
    width = convolution.output_extent(size[1], kernel[1], 1, dilation, 2, padding)
    skip_shape = (height - 1) * case["skip_stride"][0] + 1, (width - 1) * case["skip_stride"][1] + 1
    skip = int8_array(rng, (2, *skip_shape, skip_channels))
    constants = x, skip, weights, bias, multiplier, shift, skip_multiplier
    result = convolution.conv2d_add(*constants, **case)
    assert result.shape == (2, height, width, out_channels) and result.dtype == np.int8
    expected = [conv2d_add_scalar(*constants, case, *where) for where in np.ndindex(result.shape)]
    np.testing.assert_array_equal(result.ravel(), expected)
