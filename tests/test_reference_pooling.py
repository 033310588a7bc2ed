"""Pooling and the mean: the twins equal TensorFlow Lite Micro's reference kernels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_builder import ACTIVATIONS, PADDINGS, ModelBuilder, run_tflm

from intsmooth.convert.tflite_parameters import activation_clamp, mean_parameters
from intsmooth.reference import pooling
from intsmooth.reference.convolution import output_extent

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def pool_padding(padding, size, kernel, stride):
    if padding == "valid":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@SETTINGS
@given(st.sampled_from(["AVERAGE_POOL_2D", "MAX_POOL_2D"]), st.tuples(st.integers(1, 5), st.integers(1, 5)),
       st.tuples(st.integers(1, 3), st.integers(1, 3)), st.tuples(st.integers(0, 6), st.integers(0, 6)),
       st.sampled_from(["same", "valid"]), st.sampled_from(sorted(ACTIVATIONS)), st.integers(-128, 127),
       seeds)  # fmt: skip
def test_pools_equal_tflm(code, kernel, stride, extra, padding, activation, zero, seed):
    rng = np.random.default_rng(seed)
    size = tuple(extra[i] + (kernel[i] if padding == "valid" else 1) for i in range(2))
    x = rng.integers(-128, 128, (2, *size, 3)).astype(np.int8)
    scale = np.float32(rng.uniform(0.01, 0.5))
    pads = [pool_padding(padding, size[i], kernel[i], stride[i]) for i in range(2)]
    out = [output_extent(size[i], kernel[i], stride[i], 1, *pads[i]) for i in range(2)]
    model = ModelBuilder()
    source = model.tensor(x.shape, scale=scale, zero_point=zero)
    target = model.tensor((2, *out, 3), scale=scale, zero_point=zero)
    model.operator(code, [source], [target], "Pool2DOptions", Padding=PADDINGS[padding], StrideH=stride[0],
                   StrideW=stride[1], FilterHeight=kernel[0], FilterWidth=kernel[1],
                   FusedActivationFunction=ACTIVATIONS[activation])  # fmt: skip
    expected = run_tflm(model.build([source], [target]), x)
    function = pooling.average_pool2d if code == "AVERAGE_POOL_2D" else pooling.max_pool2d
    result = function(x, kernel=kernel, stride=stride, padding=(*pads[0], *pads[1]),
                      clamp=activation_clamp(activation, scale, zero))  # fmt: skip
    np.testing.assert_array_equal(result, expected, strict=True)


def test_average_pool_rounds_ties_away_from_zero():
    x = np.array([[1, 2], [-1, -2], [127, 126], [-128, -127], [0, 1], [0, -1]], dtype=np.int8).reshape(6, 1, 2, 1)
    result = pooling.average_pool2d(x, kernel=(1, 2), stride=(1, 2), padding=(0, 0, 0, 0), clamp=(-128, 127))
    assert result.ravel().tolist() == [2, -2, 127, -128, 1, -1]


@SETTINGS
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.booleans(), st.integers(-128, 127),
       st.integers(-128, 127), st.floats(2**-3, 2**3, width=32), seeds)  # fmt: skip
def test_mean_equals_tflm(height, width, channels, keep, x_zero, y_zero, ratio, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (2, height, width, channels)).astype(np.int8)
    x[0] = np.clip(x[0], 100, 127)  # means far from 0
    x_scale = np.float32(rng.uniform(0.001, 1))
    y_scale = np.float32(x_scale * np.float32(ratio))
    model = ModelBuilder()
    source = model.tensor(x.shape, scale=x_scale, zero_point=x_zero)
    axes = model.constant(np.array([1, 2], dtype=np.int32))
    shape = (2, 1, 1, channels) if keep else (2, channels)
    target = model.tensor(shape, scale=y_scale, zero_point=y_zero)
    model.operator("MEAN", [source, axes], [target], "ReducerOptions", KeepDims=keep)
    expected = run_tflm(model.build([source], [target]), x)
    result = pooling.mean(x, *mean_parameters(x_scale, y_scale, height * width), input_zero_point=x_zero,
                          output_zero_point=y_zero, clamp=(-128, 127))  # fmt: skip
    np.testing.assert_array_equal(result.reshape(shape), expected, strict=True)


def test_mean_multiplier_is_not_normalized():
    """7 x 7 elements: TFLite shifts the multiplier left by 5 before dividing by 49 and leaves it below 2^30."""
    multiplier, shift = mean_parameters(np.float32(1), np.float32(1), 49)
    assert 0 < multiplier[0] < 2**30 and shift[0] == -4
