"""Integer softmax: the twin equals TensorFlow Lite Micro's reference kernel, and is a softmax."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_builder import ModelBuilder, run_tflm

from intsmooth.convert.tflite_parameters import softmax_parameters
from intsmooth.reference import softmax

SETTINGS = settings(max_examples=80, deadline=None, derandomize=True)


def both(x, scale, zero_point, beta=1.0):
    """(twin's result, TFLM's result)."""
    model = ModelBuilder()
    source = model.tensor(x.shape, scale=scale, zero_point=zero_point)
    target = model.tensor(x.shape, scale=1 / 256, zero_point=-128)
    model.operator("SOFTMAX", [source], [target], "SoftmaxOptions", Beta=beta)
    multiplier, shift, diff_min = softmax_parameters(scale, beta)
    return softmax.softmax(x, multiplier, shift, diff_min=diff_min), run_tflm(model.build([source], [target]), x)


@SETTINGS
@given(st.integers(1, 20), st.integers(1, 4), st.integers(-16, 5), st.floats(1, 2, width=32),
       st.floats(2**-3, 8, width=32), st.integers(-128, 127), st.integers(1, 255),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_softmax_equals_tflm(features, rows, exponent, mantissa, beta, zero_point, spread, seed):
    rng = np.random.default_rng(seed)
    low = int(rng.integers(-128, 128 - spread))
    x = rng.integers(low, low + spread + 1, (rows, features)).astype(np.int8)
    result, expected = both(x, np.float32(mantissa * 2.0**exponent), zero_point, beta)
    np.testing.assert_array_equal(result, expected, strict=True)


@pytest.mark.parametrize("scale", [2.0**-10, 0.0123, 0.1, 0.5, 1.0, 15.9, 16.0, 40.0])
def test_softmax_of_all_differences_equals_tflm(scale):
    pairs = np.stack([np.full(256, 127), np.arange(-128, 128)], axis=1).astype(np.int8)
    result, expected = both(pairs, np.float32(scale), 0)
    np.testing.assert_array_equal(result, expected, strict=True)


@pytest.mark.parametrize("features", [255, 256, 500])
def test_softmax_of_many_equal_scores_equals_tflm(features):
    result, expected = both(np.full((1, features), 5, dtype=np.int8), np.float32(0.1), 0)
    np.testing.assert_array_equal(result, expected, strict=True)


def test_constants_are_their_definitions():
    for k, value in softmax.EXP_OF_MINUS_POWER_OF_TWO.items():
        assert value == round(math.exp(-(2.0**k)) * 2**31)
    assert softmax.EXP_OF_MINUS_ONE_EIGHTH == round(math.exp(-1 / 8) * 2**31)
    assert softmax.ONE_THIRD == round(Fraction(2**31, 3))
    assert softmax.FORTY_EIGHT_SEVENTEENTHS == round(Fraction(48 * 2**29, 17))
    assert softmax.MINUS_THIRTY_TWO_SEVENTEENTHS == round(Fraction(-32 * 2**29, 17))


def test_exponential_stays_close_to_the_real_function():
    """Q5.26 in, Q0.31 out: all of [-32, 0] in steps that are no round numbers, within 1e-7."""
    raw = -np.arange(0, 2**31, 12_345_677, dtype=np.int64).astype(np.int32)
    result = softmax.exp_on_negative_values(raw, 5) / 2**31
    assert np.abs(result - np.exp(raw / 2**26)).max() < 1e-7


def test_reciprocal_stays_close_to_the_real_function():
    raw = np.arange(0, 2**31, 12_345_677, dtype=np.int64).astype(np.int32)
    assert np.abs(softmax.one_over_one_plus_x(raw) / 2**31 - 1 / (1 + raw / 2**31)).max() < 1e-8
    ratio = (1 - raw / 2**31) / (1 + raw / 2**31)
    assert np.abs(softmax.one_minus_x_over_one_plus_x(raw) / 2**31 - ratio).max() < 1e-8


def test_softmax_stays_close_to_the_real_function():
    rng = np.random.default_rng(7)
    x = rng.integers(-128, 128, (500, 10)).astype(np.int8)
    multiplier, shift, diff_min = softmax_parameters(np.float32(0.05), 1.0)
    result = (softmax.softmax(x, multiplier, shift, diff_min=diff_min).astype(int) + 128) / 256
    exact = np.exp(0.05 * (x - x.max(axis=1, keepdims=True).astype(float)))
    exact /= exact.sum(axis=1, keepdims=True)
    assert np.abs(result - np.minimum(exact, 255 / 256)).max() <= 0.5 / 256 + 1e-4


def test_softmax_of_thousands_of_equal_scores_is_zero_everywhere():
    """More than 511 equal scores need a shift by 32 bits, where C++ leaves the result undefined; here it is 0."""
    multiplier, shift, diff_min = softmax_parameters(np.float32(0.1), 1.0)
    result = softmax.softmax(np.zeros((1, 1001), dtype=np.int8), multiplier, shift, diff_min=diff_min)
    assert (result == -128).all()
