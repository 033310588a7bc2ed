"""The operators' records: schemas against FORMAT.md, shapes against the naive twins, costs."""

import re
from dataclasses import replace

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from places import ROOT

from intsmooth.errors import FormatError
from intsmooth.ops import OPERATORS
from intsmooth.ops.geometry import broadcast_to, window_output
from intsmooth.records import Tensor
from intsmooth.reference import engine as reference

FORMAT = (ROOT / "weights" / "FORMAT.md").read_text(encoding="utf-8")
EVERY = models.every_operator(np.random.default_rng(0))
SAMPLE = {node.op: node for node in EVERY.nodes}


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


# Costs.


def test_multiply_adds_and_parameters():
    conv, shape = SAMPLE["conv2d"], EVERY.tensors[SAMPLE["conv2d"].output].shape
    assert shape == (4, 4, 16)
    assert OPERATORS["conv2d"].multiply_adds(conv, models.inputs_of(EVERY, conv), shape) == 4 * 4 * 16 * 3 * 3 * 2
    assert OPERATORS["conv2d"].parameters(conv) == 16 * 3 * 3 * 2 + 16
    dense = SAMPLE["fully_connected"]
    assert OPERATORS["fully_connected"].multiply_adds(dense, models.inputs_of(EVERY, dense), (7,)) == 7 * 480
    deep = SAMPLE["depthwise_conv2d"]
    assert OPERATORS["depthwise_conv2d"].multiply_adds(deep, models.inputs_of(EVERY, deep), (4, 4, 16)) == 4 * 4 * 2 * 3 * 16
    pool = SAMPLE["max_pool2d"]
    assert OPERATORS["max_pool2d"].multiply_adds(pool, models.inputs_of(EVERY, pool), (4, 2, 16)) == 0
    assert OPERATORS["max_pool2d"].work(pool, models.inputs_of(EVERY, pool), (4, 2, 16)) == 4 * 2 * 16 * 6
    assert OPERATORS["lookup"].parameters(SAMPLE["lookup"]) == 0
