"""Bounds of accumulators, by which overflow is proved impossible, against enumeration in exact integers."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intsmooth.ops import OPERATORS
from intsmooth.records import Node, Tensor

SAMPLE = {node.op: node for node in models.every_operator(np.random.default_rng(0)).nodes}


def test_the_largest_zero_point_of_a_byte_is_in_the_bound():
    """The kernels add it to q + 128's result in 32 bits: 255 where the model's own is 127."""
    constants = {"weights": np.zeros((1, 1), np.int8), "multiplier": models.int32(2**31 - 1), "shift": models.int32(0)}
    x = (Tensor("x", (1,), "int8", -128),)

    def bound(bias):
        node = Node("n", "fully_connected", (), "y", {}, {**constants, "bias": models.int32(bias)})
        return int(OPERATORS[node.op].accumulator_bound(node, x)[0])

    assert bound(2**31 - 256) <= 2**31 - 1 < bound(2**31 - 128)


def mbqm(x, multiplier, shift):
    """MultiplyByQuantizedMultiplier from its definition in real numbers, exact and without any overflow."""
    high = math.floor(Fraction(x * 2 ** max(shift, 0) * multiplier, 2**31) + Fraction(1, 2))
    exact = Fraction(high, 2 ** max(-shift, 0))
    return int(math.copysign(math.floor(abs(exact) + Fraction(1, 2)), exact))


def int32_values(terms, multiplier, shift):
    """Every int32 value met when some of the terms (each a list of what it can be) are summed and requantized."""
    for chosen in itertools.product(*[(0, *term) for term in terms]):
        yield sum(chosen)
    for chosen in itertools.product(*terms):
        yield sum(chosen) << max(shift, 0)
        yield mbqm(sum(chosen), multiplier, shift) - 255  # the sides are not told apart
        yield mbqm(sum(chosen), multiplier, shift) + 255  # the largest zero point of a byte


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_bound_of_weighted_sums_is_the_worst_case(data):
    """One output channel of the operators with weights: equal to enumeration over the extremes of every term."""
    weights = data.draw(st.lists(st.integers(-128, 127), min_size=3, max_size=3))
    zero_point, skip_point = data.draw(st.integers(-128, 127)), data.draw(st.integers(-128, 127))
    bias = data.draw(st.one_of(st.integers(-300, 300), st.integers(-(2**31), 2**31 - 1)))
    multiplier = data.draw(st.one_of(st.integers(0, 2**31 - 1), st.integers(2**30, 2**31 - 1)))
    shift, skip = data.draw(st.integers(-8, 6)), data.draw(st.integers(0, 300))
    x, k = Tensor("x", (1, 1, 3), "int8", zero_point), Tensor("k", (1, 1, 1), "int8", skip_point)
    ends = (-128 - zero_point, 127 - zero_point)
    terms = [[w * d for d in ends] for w in weights] + [[bias]]
    flat = np.array(weights, np.int8)
    constants = {"bias": models.int32(bias), "multiplier": models.int32(multiplier), "shift": models.int32(shift)}

    def bound(op, shaped, inputs, **more):
        node = Node("n", op, (), "y", {}, {"weights": flat.reshape(shaped), **constants, **more})
        (value,) = OPERATORS[op].accumulator_bound(node, inputs)
        return value

    def worst(terms):
        found = max(map(abs, int32_values(terms, multiplier, shift)))
        return found if found <= 2**31 - 1 else "refused"

    def stated(value):
        return value if value <= 2**31 - 1 else "refused"

    # Where the larger magnitude is attained on one side only, ties and the zero point may cost 1 each.
    exact = [worst(terms), worst([*terms, [skip * (-128 - skip_point), skip * (127 - skip_point)]])]
    found = [
        stated(bound("conv2d", (1, 1, 3, 1), (x,))),
        stated(bound("conv2d_add", (1, 3, 1, 1), (x, k), skip_multiplier=models.int32(skip))),
    ]
    assert stated(bound("depthwise_conv2d", (1, 3, 1), (x,))) == found[0]
    assert stated(bound("fully_connected", (1, 3), (x,))) == found[0]
    for a, b in zip(exact, found, strict=True):
        if "refused" in (a, b):
            assert a == b or max(value for value in (a, b) if value != "refused") > 2**31 - 4
        else:
            assert a <= b <= a + 2


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["add", "sub", "mul", "requantize"]), st.integers(-128, 127), st.integers(-128, 127), st.data())
def test_bound_of_elementwise_operators_holds_for_all_pairs_of_inputs(op, za, zb, data):
    multiplier = data.draw(st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=3))
    shift = data.draw(st.lists(st.integers(-12, 3), min_size=3, max_size=3))
    left = data.draw(st.integers(0, 20))
    tensors = (Tensor("a", (1,), "int8", za), Tensor("b", (1,), "int8", zb))
    count = 3 if op in ("add", "sub") else 1
    constants = {"multiplier": models.int32(*multiplier[:count]), "shift": models.int32(*shift[:count])}
    node = Node("n", op, (), "y", {"left_shift": left, "clamp": (-128, 127)}, constants)
    (bound,) = OPERATORS[op].accumulator_bound(node, tensors)
    a, b = ((-128 - z, 127 - z, 0) for z in (za, zb))
    met = []
    for x, y in itertools.product(a, b):
        if count == 3:
            parts = [x << left, y << left]
            met += [part << max(s, 0) for part, s in zip(parts, shift, strict=False)]
            x, y = (mbqm(part, m, s) for part, m, s in zip(parts, multiplier, shift, strict=False))
            met += [x, y]
            value, last = (x + y if op == "add" else x - y), 2
        else:
            value, last = (x * y if op == "mul" else x), 0
        result = mbqm(value, multiplier[last], shift[last])
        met += [value, value << max(shift[last], 0), result + 255, result - 255]
    assert max(map(abs, met)) <= bound
    if op in ("mul", "requantize"):
        assert bound <= max(map(abs, met)) + 2


def test_bounds_of_the_other_operators():
    def bound(op, tensor, attributes=None, **constants):
        node = replace(SAMPLE[op], attributes=attributes or {}, constants=constants)
        return OPERATORS[op].accumulator_bound(node, (tensor,)).tolist()

    image = Tensor("x", (5, 4, 3), "int8", -128)
    small = {"multiplier": models.int32(2**30), "shift": models.int32(-10)}
    assert bound("average_pool2d", image, {"kernel": (3, 2)}) == [128 * 6 + 3]
    assert bound("average_pool2d", image, {"kernel": (9, 9)}) == [128 * 20 + 10]  # elements inside the image only
    assert bound("mean", image, **small) == [20 * 255]
    assert bound("input_requantize", image, **small | {"shift": models.int32(3)}) == [2**15 << 3]
    assert bound("softmax", Tensor("x", (4095,)), {"diff_min": -248}, **small | {"shift": models.int32(4)}) == [
        4095 << 19
    ]
    assert bound("softmax", Tensor("x", (4096,)), {"diff_min": -248}, **small | {"shift": models.int32(4)}) == [2**31]
    assert bound("softmax", Tensor("x", (2,)), {"diff_min": -248}, **small | {"shift": models.int32(23)}) == [248 << 23]
    for op in ("max_pool2d", "clamp", "concat", "pad", "reshape", "transpose", "lookup", "constant"):
        assert bound(op, image) == [128]
    assert bound("argmax", Tensor("x", (1000,))) == [999]


@pytest.mark.parametrize(
    "weight,bias,bound",
    [
        (1, 2**31 - 256, 2**31 - 1),
        (1, 2**31 - 255, 2**31),
        (-1, -(2**31) + 256, 2**31 - 1),
        (-1, -(2**31) + 255, 2**31),
    ],
)
def test_bound_at_the_edge_of_int32(weight, bias, bound):
    constants = {"weights": np.array([[weight]], np.int8), "bias": models.int32(bias)}
    constants |= {"multiplier": models.int32(2**30), "shift": models.int32(0)}
    node = Node("n", "fully_connected", (), "y", {}, constants)
    assert OPERATORS[node.op].accumulator_bound(node, (Tensor("x", (1,), "int8", -128),)).tolist() == [bound]


@pytest.mark.parametrize("name", models.ALL)
def test_bounds_have_one_entry_or_one_per_channel_and_prove_the_test_models(name):
    graph = models.ALL[name](np.random.default_rng(11))
    for node in graph.nodes:
        bound = OPERATORS[node.op].accumulator_bound(node, models.inputs_of(graph, node))
        assert bound.dtype == np.int64 and bound.shape in ((1,), graph.tensors[node.output].shape[-1:])
        assert 0 < bound.max() <= 2**31 - 1
