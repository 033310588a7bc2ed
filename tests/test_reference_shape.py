"""Operators that move values: the twins equal TensorFlow Lite Micro's reference kernels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_builder import ModelBuilder, run_tflm

from intsmooth.reference import shape as twins

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


def int8(seed, *shape):
    return np.random.default_rng(seed).integers(-128, 128, (1, *shape)).astype(np.int8)


def run(code, arrays, extra, result_shape, options, dtype="int8", **fields):
    """One operator on int8 arrays and constant inputs `extra`."""
    model = ModelBuilder()
    sources = [model.tensor(array.shape, scale=0.5, zero_point=3) for array in arrays]
    constants = [model.constant(array) for array in extra]
    quantization = {"scale": 0.5, "zero_point": 3} if dtype == "int8" else {}
    target = model.tensor(result_shape, dtype, **quantization)
    model.operator(code, sources + constants, [target], options, **fields)
    return run_tflm(model.build(sources, [target]), *arrays)


@SETTINGS
@given(shapes, st.data(), seeds)
def test_concat_equals_tflm(shape, data, seed):
    axis = data.draw(st.integers(0, len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    arrays = [int8(seed + i, *shape[:axis], n, *shape[axis + 1 :]) for i, n in enumerate(lengths)]
    result = twins.concat(arrays, axis=axis)
    expected = run("CONCATENATION", arrays, [], result.shape, "ConcatenationOptions", Axis=axis + 1)
    np.testing.assert_array_equal(result, expected, strict=True)


@SETTINGS
@given(shapes, st.data(), seeds)
def test_pad_equals_tflm(shape, data, seed):
    padding = data.draw(st.lists(st.integers(0, 3), min_size=2 * len(shape), max_size=2 * len(shape)))
    x = int8(seed, *shape)
    result = twins.pad(x, padding=padding, value=3)
    pairs = np.array([0, 0, *padding], dtype=np.int32).reshape(-1, 2)
    expected = run("PAD", [x], [pairs], result.shape, "PadOptions")
    np.testing.assert_array_equal(result, expected, strict=True)


@SETTINGS
@given(shapes, st.data(), seeds)
def test_transpose_equals_tflm(shape, data, seed):
    permutation = data.draw(st.permutations(range(len(shape))))
    x = int8(seed, *shape)
    result = twins.transpose(x, permutation=permutation)
    order = np.array([0, *(axis + 1 for axis in permutation)], dtype=np.int32)
    expected = run("TRANSPOSE", [x], [order], result.shape, "TransposeOptions")
    np.testing.assert_array_equal(result, expected, strict=True)


@SETTINGS
@given(shapes, seeds)
def test_reshape_equals_tflm(shape, seed):
    x = int8(seed, *shape)
    wanted = (int(np.prod(shape)),)
    expected = run("RESHAPE", [x], [np.array([1, *wanted], dtype=np.int32)], (1, *wanted), "ReshapeOptions")
    np.testing.assert_array_equal(twins.reshape(x, shape=wanted), expected, strict=True)


@SETTINGS
@given(st.integers(1, 300), st.integers(1, 256), seeds)
def test_argmax_equals_tflm(features, values, seed):
    x = (np.random.default_rng(seed).integers(0, values, (1, features)) - 128).astype(np.int8)
    expected = run("ARG_MAX", [x], [np.array(1, dtype=np.int32)], (1,), "ArgMaxOptions", "int32", OutputType=2)
    np.testing.assert_array_equal(twins.argmax(x)[:, 0], expected, strict=True)


def test_argmax_takes_the_lowest_of_equals():
    x = np.array([[1, 5, 5], [5, 5, 1], [-128, -128, -128]], dtype=np.int8)
    assert twins.argmax(x).tolist() == [[1], [0], [0]]
    assert twins.argmax(x).dtype == np.int32
