"""The operators' records: schemas against FORMAT.md, shapes against the naive twins, bounds against enumeration."""

import itertools
import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from intsmooth.errors import FormatError
from intsmooth.ops import OPERATORS
from intsmooth.ops.geometry import broadcast_to, window_output
from intsmooth.records import Node, Tensor
from intsmooth.reference import engine as reference

FORMAT = (Path(__file__).parents[1] / "weights" / "FORMAT.md").read_text(encoding="utf-8")
EVERY = models.every_operator(np.random.default_rng(0))
SAMPLE = {node.op: node for node in EVERY.nodes}


def inputs_of(graph, node):
    return tuple(graph.tensors[name] for name in node.inputs)


def test_table_and_format_page_name_the_same_operators():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|.*\|.*\|.*\|$", FORMAT, re.M)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == set(OPERATORS)
    assert all(operator.name == name for name, operator in OPERATORS.items())


@pytest.mark.parametrize("op", ["conv2d", "add", "average_pool2d", "softmax", "lookup", "pad", "concat", "transpose"])
def test_format_page_names_every_attribute_and_constant(op):
    row = next(line for line in FORMAT.splitlines() if re.match(rf"\| .*`{op}`.* \|", line))
    for name in (*OPERATORS[op].attributes, *OPERATORS[op].constants):
        assert re.search(rf"\b{name}\b", row), f"{name!r} is not in FORMAT.md's row of {op}"


def test_sample_uses_every_operator():
    assert set(SAMPLE) == set(OPERATORS)


# Schemas: one change at a time to a valid node, each must be named.


@pytest.mark.parametrize("op", OPERATORS)
def test_valid_node_has_no_schema_problems(op):
    assert OPERATORS[op].schema_problems(SAMPLE[op]) == []


@pytest.mark.parametrize("op,name", [(op, name) for op in OPERATORS for name in OPERATORS[op].attributes])
def test_bad_attributes_are_named(op, name):
    node, schema = SAMPLE[op], OPERATORS[op].attributes[name]
    value = node.attributes[name]
    shaped = (lambda number: number) if schema.count == 1 else (lambda number: (number, *value[1:]))
    bad = [shaped(schema.lowest - 1), shaped(schema.highest + 1), shaped(2**200), (), (1,) * 9]
    bad.append((value,) if schema.count == 1 else value[0])
    if schema.count not in (None, 1):
        bad += [value[1:], (*value, value[0])]
    for wrong in bad:
        problems = OPERATORS[op].schema_problems(replace(node, attributes={**node.attributes, name: wrong}))
        assert len(problems) == 1 and repr(name) in problems[0] and len(problems[0]) < 300, (wrong, problems)
    kept = {key: value for key, value in node.attributes.items() if key != name}
    assert OPERATORS[op].schema_problems(replace(node, attributes=kept)) == [f"attribute {name!r} is missing"]
    (problem,) = OPERATORS[op].schema_problems(replace(node, attributes={**node.attributes, "gamma": 1}))
    assert "'gamma'" in problem


def test_clamp_must_not_be_reversed():
    node = SAMPLE["clamp"]
    (problem,) = OPERATORS["clamp"].schema_problems(replace(node, attributes={"clamp": (3, 2)}))
    assert "lowest <= highest" in problem
    assert OPERATORS["clamp"].schema_problems(replace(node, attributes={"clamp": (3, 3)})) == []


@pytest.mark.parametrize("op,name", [(op, name) for op in OPERATORS for name in OPERATORS[op].constants])
def test_bad_constants_are_named(op, name):
    node, schema = SAMPLE[op], OPERATORS[op].constants[name]
    array = node.constants[name]
    bad = [array.astype(np.int64), array.astype(np.float32), array.astype(object), array[..., None, None, None, None],
           array[:0], np.array(array.flat[0])]  # fmt: skip
    for value in (schema.lowest - 1, schema.highest + 1):
        if np.iinfo(array.dtype).min <= value <= np.iinfo(array.dtype).max:
            bad.append(np.concatenate([array.ravel()[:-1], np.array([value], array.dtype)]).reshape(array.shape))
    if schema.length:
        bad.append(np.repeat(array, 2))
    for wrong in bad:
        problems = OPERATORS[op].schema_problems(replace(node, constants={**node.constants, name: wrong}))
        assert problems and all(repr(name) in problem for problem in problems), (wrong.dtype, wrong.shape, problems)
    kept = {key: value for key, value in node.constants.items() if key != name}
    assert OPERATORS[op].schema_problems(replace(node, constants=kept)) == [f"constant {name!r} is missing"]


@pytest.mark.parametrize(
    "multiplier,good",
    [(0, True), (1, True), (2**30 - 1, True), (2**30, True), (2**31 - 1, True), (-1, False), (-(2**31), False)],
)
def test_multiplier_range(multiplier, good):
    node = SAMPLE["requantize"]
    changed = replace(node, constants={**node.constants, "multiplier": models.int32(multiplier)})
    assert (OPERATORS["requantize"].schema_problems(changed) == []) == good


@pytest.mark.parametrize("shift,good", [(-32, False), (-31, True), (30, True), (31, False)])
def test_shift_range(shift, good):
    node = SAMPLE["requantize"]
    changed = replace(node, constants={**node.constants, "shift": models.int32(shift)})
    assert (OPERATORS["requantize"].schema_problems(changed) == []) == good


@pytest.mark.parametrize("op", OPERATORS)
def test_wrong_number_of_inputs(op):
    lowest, highest = OPERATORS[op].inputs
    for count in {lowest - 1, highest + 1} - {-1}:
        (problem,) = OPERATORS[op].schema_problems(replace(SAMPLE[op], inputs=("x",) * count))
        assert f"{count} inputs" in problem


# Shape rules.


def test_the_largest_zero_point_of_a_byte_is_in_the_bound():
    """The kernels add it to q + 128's result in 32 bits: 255 where the model's own is 127."""
    constants = {"weights": np.zeros((1, 1), np.int8), "multiplier": models.int32(2**31 - 1), "shift": models.int32(0)}
    x = (Tensor("x", (1,), "int8", -128),)

    def bound(bias):
        node = Node("n", "fully_connected", (), "y", {}, {**constants, "bias": models.int32(bias)})
        return int(OPERATORS[node.op].accumulator_bound(node, x)[0])

    assert bound(2**31 - 256) <= 2**31 - 1 < bound(2**31 - 128)


@pytest.mark.parametrize("name", models.ALL)
def test_declared_shapes_are_those_of_the_naive_twins(name):
    graph = models.ALL[name](np.random.default_rng(5))
    levels = np.random.default_rng(6).integers(*graph.levels, (2, *graph.input_shape), endpoint=True).astype(np.int16)
    for tensor, values in reference.run(graph, levels).items():
        assert values.shape[1:] == graph.tensors[tensor].shape and values.dtype == graph.tensors[tensor].dtype


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_shapes_of_random_networks_are_those_of_the_naive_twins(seed):
    graph = models.random_graph(np.random.default_rng(seed))
    values = reference.run(graph, np.zeros((1, *graph.input_shape), np.int16))
    assert {name: array.shape[1:] for name, array in values.items()} == {
        name: tensor.shape for name, tensor in graph.tensors.items()
    }


@given(*[st.integers(1, 12)] * 2, *[st.integers(0, 5)] * 2, *[st.integers(1, 4)] * 2)
def test_window_output_counts_whole_windows(size, kernel, before, after, stride, dilation):
    last = (kernel - 1) * dilation
    starts = [i for i in range(0, before + size + after, stride) if i + last < before + size + after]
    arguments = ((size, 1), (kernel, 1), (stride, 1), (before, after, 0, 0), (dilation, 1))
    if starts:
        assert window_output(*arguments) == (len(starts), 1)
    else:
        with pytest.raises(FormatError, match="does not fit"):
            window_output(*arguments)


@given(array_shapes(max_dims=4, max_side=3), array_shapes(max_dims=4, max_side=3))
def test_broadcast_is_numpys(large, small):
    try:
        expected = np.broadcast_shapes(large, small) == large
    except ValueError:
        expected = False
    assert broadcast_to(large, small) == expected


def refused(op, inputs, attributes=None, **constants):
    """The message with which the shape rule refuses a change to the sample node."""
    node = SAMPLE[op]
    arrays = {name: np.asarray(array) for name, array in constants.items()}
    changed = replace(
        node, attributes={**node.attributes, **(attributes or {})}, constants={**node.constants, **arrays}
    )
    with pytest.raises(FormatError) as caught:
        OPERATORS[op].infer(changed, tuple(Tensor(f"t{i}", shape) for i, shape in enumerate(inputs)))
    return str(caught.value)


def test_parts_that_do_not_fit_are_refused():
    weights = SAMPLE["conv2d"].constants["weights"]  # 16 x 3 x 3 x 2 in 4 groups
    assert weights.shape == (16, 3, 3, 2)
    assert "groups" in refused("conv2d", [(8, 8, 6)])
    assert "groups" in refused("conv2d", [(8, 8, 8)], {"groups": 3})
    assert "groups" in refused("conv2d", [(8, 8, 6)], {"groups": 3})  # divides the input's channels, not the output's
    assert "(height, width, channels)" in refused("conv2d", [(8, 8)])
    assert "'bias' holds 15" in refused("conv2d", [(8, 8, 8)], bias=np.zeros(15, np.int32))
    assert "'shift' holds 1 " in refused("conv2d", [(8, 8, 8)], shift=np.zeros(1, np.int32))
    assert "does not fit" in refused("conv2d", [(1, 1, 8)], {"padding": (0, 0, 2, 2)})
    assert "multiple of the input's 3" in refused("depthwise_conv2d", [(8, 8, 3)])
    assert "too small" in refused("conv2d_add", [(4, 4, 16), (6, 8, 8)])
    assert "too small" in refused("conv2d_add", [(4, 4, 16), (7, 6, 8)])
    assert "skip_multiplier" in refused("conv2d_add", [(4, 4, 16), (7, 7, 7)])
    assert "skip_multiplier" in refused("conv2d_add", [(4, 4, 16), (7, 7, 8)], {"skip_offset": 3})
    assert "skip_multiplier" in refused("conv2d_add", [(4, 4, 16), (7, 7, 8)], {"skip_offset": 60000})
    assert "elements" in refused("fully_connected", [(3, 3)])
    assert "broadcast" in refused("add", [(4, 4, 16), (4, 4, 15)])
    assert "broadcast" in refused("mul", [(16,), (4, 4, 16)])
    assert "empty" in refused("average_pool2d", [(4, 4, 16)], {"padding": (3, 0, 0, 0)})
    assert "empty" in refused("max_pool2d", [(4, 4, 16)], {"padding": (0, 0, 0, 2)})
    assert "(height, width, channels)" in refused("mean", [(16,)])
    assert "axis" in refused("concat", [(4, 2, 16), (4, 3, 16)])
    assert "axis" in refused("concat", [(4, 2), (4, 2)])
    assert "axis" in refused("concat", [(4, 2, 1), (4, 2)])
    assert "each dimension" in refused("pad", [(4, 2)])
    assert "as many elements" in refused("reshape", [(479,)])
    assert "at most 4 dimensions" in refused("reshape", [(1,)], {"shape": (1, 1, 1, 1, 1)})
    assert "each axis once" in refused("transpose", [(1, 2, 3)], {"permutation": (0, 1, 1)})
    assert "each axis once" in refused("transpose", [(1, 2)])


# Accumulator bounds, against enumeration in exact integers.


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
        bound = OPERATORS[node.op].accumulator_bound(node, inputs_of(graph, node))
        assert bound.dtype == np.int64 and bound.shape in ((1,), graph.tensors[node.output].shape[-1:])
        assert 0 < bound.max() <= 2**31 - 1


# Costs.


def test_multiply_adds_and_parameters():
    conv, shape = SAMPLE["conv2d"], EVERY.tensors[SAMPLE["conv2d"].output].shape
    assert shape == (4, 4, 16)
    assert OPERATORS["conv2d"].multiply_adds(conv, inputs_of(EVERY, conv), shape) == 4 * 4 * 16 * 3 * 3 * 2
    assert OPERATORS["conv2d"].parameters(conv) == 16 * 3 * 3 * 2 + 16
    dense = SAMPLE["fully_connected"]
    assert OPERATORS["fully_connected"].multiply_adds(dense, inputs_of(EVERY, dense), (7,)) == 7 * 480
    deep = SAMPLE["depthwise_conv2d"]
    assert OPERATORS["depthwise_conv2d"].multiply_adds(deep, inputs_of(EVERY, deep), (4, 4, 16)) == 4 * 4 * 2 * 3 * 16
    pool = SAMPLE["max_pool2d"]
    assert OPERATORS["max_pool2d"].multiply_adds(pool, inputs_of(EVERY, pool), (4, 2, 16)) == 0
    assert OPERATORS["max_pool2d"].work(pool, inputs_of(EVERY, pool), (4, 2, 16)) == 4 * 2 * 16 * 6
    assert OPERATORS["lookup"].parameters(SAMPLE["lookup"]) == 0
