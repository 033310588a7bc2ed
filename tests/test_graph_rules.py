"""Rules of a well-formed graph, one test per rule: every message names the node and operator, or the tensor."""

from dataclasses import replace

import models
import numpy as np
import pytest
from graphs import EVERY, RESIDUAL, SMALL, output_of, problems, rebuild, with_node, with_tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from intsmooth.errors import FormatError, ModelError, UnsupportedError
from intsmooth.graph import build_graph, content_digest
from intsmooth.records import Node, Tensor


def test_cycles_are_refused():
    nodes = with_node(RESIDUAL, "conv2d_add", inputs=(RESIDUAL.nodes[2].output, RESIDUAL.nodes[-3].output))
    message = problems(RESIDUAL, nodes=nodes)
    assert "cycle" in message and RESIDUAL.nodes[3].name in message
    own = with_node(SMALL, "max_pool2d", inputs=(output_of(SMALL, "max_pool2d"),))
    assert "cycle" in problems(SMALL, nodes=own)


def test_every_tensor_has_one_producer():
    twice = [*SMALL.nodes, replace(SMALL.nodes[1], name="second")]
    assert "produced by 2 nodes" in problems(SMALL, nodes=twice)
    onto_input = with_node(SMALL, "max_pool2d", output=SMALL.input)
    assert "is the input and produced by 1 nodes" in problems(SMALL, nodes=onto_input)
    none = [*SMALL.tensors.values(), Tensor("orphan", (1,))]
    message = problems(SMALL, tensors=none)
    assert "'orphan' is produced by 0 nodes" in message and "'orphan' is neither read nor the output" in message


def test_every_name_is_declared():
    assert "'ghost', which the model does not declare" in problems(
        SMALL, nodes=with_node(SMALL, "max_pool2d", inputs=("ghost",))
    )
    assert "'ghost', which the model does not declare" in problems(
        SMALL, nodes=with_node(SMALL, "conv2d", output="ghost")
    )
    assert "input 'ghost'" in problems(SMALL, input="ghost")
    assert "output 'ghost'" in problems(SMALL, output="ghost")
    assert "both input and output" in problems(SMALL, output=SMALL.input)


def test_nothing_is_computed_in_vain():
    message = problems(SMALL, output=SMALL.nodes[-2].output, classes=["a"] * 48)
    assert f"{SMALL.output!r} is neither read nor the output" in message


def test_the_input_goes_through_one_requantization():
    first = SMALL.nodes[0]
    assert "read by no node" in problems(SMALL, nodes=SMALL.nodes[1:])
    both = [*SMALL.nodes, replace(first, name="again", output="more")]
    message = problems(SMALL, nodes=both, tensors=[*SMALL.tensors.values(), Tensor("more", SMALL.input_shape)])
    assert "exactly one input_requantize" in message
    raw = [replace(node, inputs=(SMALL.input,)) if node.op == "conv2d" else node for node in SMALL.nodes]
    assert "of int16, required: int8" in problems(SMALL, nodes=raw)
    assert "required: int16" in problems(SMALL, tensors=with_tensor(SMALL, SMALL.input, dtype="int8"))


@pytest.mark.parametrize("kind", ["node", "tensor"])
@pytest.mark.parametrize(
    "name",
    ["", "../../etc/passwd", "/etc/passwd", "a/../b", "a//b", "a/", ".", "..", "a\\b", "..\\x", "a\0b", "a\nb",
     "\x1b[31mred", " a", "a ", "\u202egnp.h5", "\ud800", "x" * 256],
)  # fmt: skip
def test_names_with_tricks_are_refused(kind, name):
    if kind == "node":
        message = problems(SMALL, nodes=with_node(SMALL, "conv2d", name=name))
    else:
        message = problems(SMALL, tensors=[*SMALL.tensors.values(), Tensor(name, (1,))])
    assert f"{kind} name" in message and message.isascii() and message.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["conv", "model/conv2d/Relu;model/bn:0", "a.b", "...", "é", "数", "a b", "x" * 255])
def test_ordinary_names_are_accepted(name):
    assert rebuild(SMALL, nodes=with_node(SMALL, "conv2d", name=name)).nodes[1].name == name


def test_names_are_unique():
    assert "2 nodes are named" in problems(SMALL, nodes=with_node(SMALL, "conv2d", name=SMALL.nodes[0].name))
    assert "2 tensors are named" in problems(SMALL, tensors=[*SMALL.tensors.values(), SMALL.tensors[SMALL.output]])


@pytest.mark.parametrize(
    "shape",
    [(), (0,), (-1, 8, 8), (8, 8, 0), (1,) * 5, (2**26 + 1,), (2**13, 2**13, 2), (2**40, 2**40), (2**63, 2), (2**300,)],
)
def test_shapes_are_bounded(shape):
    name = output_of(SMALL, "max_pool2d")
    message = problems(SMALL, tensors=with_tensor(SMALL, name, shape=shape))
    assert repr(name) in message and "required: 1 to 4 positive integers" in message


@pytest.mark.parametrize(
    "changes",
    [{"zero_point": -129}, {"zero_point": 128}, {"zero_point": 2**100}, {"dtype": "uint8"}, {"dtype": "float32"},
     {"dtype": ""}, {"scale": 0.0}, {"scale": -1.0}, {"scale": float("nan")}, {"scale": float("inf")}],
)  # fmt: skip
def test_tensor_fields_are_bounded(changes):
    name = output_of(SMALL, "max_pool2d")
    assert f"tensor {name!r}" in problems(SMALL, tensors=with_tensor(SMALL, name, **changes))


def test_zero_point_of_levels_and_indices_is_zero():
    assert "0..0" in problems(SMALL, tensors=with_tensor(SMALL, SMALL.input, zero_point=1))
    assert "0..0" in problems(EVERY, tensors=with_tensor(EVERY, EVERY.output, zero_point=1))


@pytest.mark.parametrize(
    "op", ["average_pool2d", "max_pool2d", "clamp", "concat", "pad", "reshape", "transpose", "softmax"]
)
def test_zero_point_rules_name_the_node(op):
    """These operators keep the zero point (softmax has its own): a changed one is refused with the node's name."""
    node = next(node for node in EVERY.nodes if node.op == op)
    tensors = with_tensor(EVERY, node.output, zero_point=99)
    assert f"node {node.name!r} ({op}) has" in problems(EVERY, tensors=tensors)


def test_declared_shape_and_dtype_are_the_inferred_ones():
    node = next(node for node in SMALL.nodes if node.op == "max_pool2d")
    message = problems(SMALL, tensors=with_tensor(SMALL, node.output, shape=(4, 4, 9)))
    assert f"node {node.name!r} (max_pool2d) produces int8 of shape (4, 4, 8)" in message
    assert "produces int8" in problems(SMALL, tensors=with_tensor(SMALL, node.output, dtype="int16", zero_point=0))
    assert "produces int32" in problems(EVERY, tensors=with_tensor(EVERY, EVERY.output, dtype="int8"))


def test_schema_and_shape_problems_name_node_and_operator():
    node = next(node for node in SMALL.nodes if node.op == "conv2d")
    stride = with_node(SMALL, "conv2d", attributes={**node.attributes, "stride": (0, 1)})
    assert f"node {node.name!r} (conv2d) attribute 'stride' is (0, 1)" in problems(SMALL, nodes=stride)
    half = with_node(SMALL, "conv2d", constants={**node.constants, "weights": node.constants["weights"][:4]})
    assert f"node {node.name!r} (conv2d) does not fit its input: constant 'bias'" in problems(SMALL, nodes=half)


@pytest.mark.parametrize(
    "attribute, value",
    [
        ("stride", (0, 1)),
        ("stride", (1, 0)),
        ("stride", (-1, 1)),
        ("dilation", (0, 1)),
        ("dilation", (1, 0)),
        ("groups", 0),
        ("groups", -1),
    ],
)
def test_stride_dilation_and_groups_of_zero(attribute, value):
    node = next(node for node in SMALL.nodes if node.op == "conv2d")
    nodes = with_node(SMALL, "conv2d", attributes={**node.attributes, attribute: value})
    assert f"attribute {attribute!r} is {value!r}" in problems(SMALL, nodes=nodes)


def test_classes_are_one_per_score():
    assert "9 class names" in problems(SMALL, classes=["x"] * 9)
    assert "8 class names" in problems(EVERY, classes=["x"] * 8)
    assert "0 class names" in problems(SMALL, classes=[])
    assert "65537 class names" in problems(SMALL, classes=["x"] * 65537)
    for name in ("", "\x1b]0;title\x07", "x" * 256, 7, None):
        assert "class name" in problems(SMALL, classes=[name, *SMALL.classes[1:]])
    assert rebuild(SMALL, classes=["crane"] * 10).classes == ("crane",) * 10  # ImageNet has two classes of this name


@pytest.mark.parametrize(
    "levels,unit",
    [((0, 0), 1), ((5, 0), 1), ((0, 2**15), 1), ((-(2**15) - 1, 0), 1), ((0, 16), 0), ((0, 16), 2**16), ((0,), 1),
     ((0, 1, 2), 1), ((0, 1.5), 1), ((0, 16), 1.0), ("ab", 1), (7, 1)],
)  # fmt: skip
def test_levels_and_unit_are_bounded(levels, unit):
    assert "levels" in problems(SMALL, levels=levels, unit=unit)


@pytest.mark.parametrize("facts", [{"a": 1}, {1: "a"}, {"a": "\x1b[2J"}, {"a": "\ud800"}, {"a": "\u202e"}])
def test_facts_are_printable(facts):
    assert "fact" in problems(SMALL, facts=facts)


def test_facts_may_have_lines():
    assert rebuild(SMALL, facts={"licence": "CC BY 4.0\n\tsee below"}).facts == {"licence": "CC BY 4.0\n\tsee below"}
    assert rebuild(SMALL, facts=None).facts == {}


def test_counts_are_bounded():
    assert "required: 1 to 2048 nodes" in problems(SMALL, nodes=[])
    assert "required: 1 to 2048 nodes" in problems(SMALL, nodes=[SMALL.nodes[0]] * 2049)
    assert "required: 1 to 2048 nodes" in problems(SMALL, tensors=[Tensor("x", (1,))] * 2050)


def test_constants_are_bounded_before_they_are_copied():
    """A broadcast view claims 2^60 bytes and holds one."""
    node = next(node for node in SMALL.nodes if node.op == "fully_connected")
    weights = np.broadcast_to(np.int8(1), (2**30, 2**30))
    nodes = with_node(SMALL, "fully_connected", constants={**node.constants, "weights": weights})
    with pytest.raises(FormatError) as caught:
        rebuild(SMALL, nodes=nodes)
    assert "required: at most 268435456" in str(caught.value)


def test_work_is_bounded():
    tensors = [Tensor("in", (8192, 8192, 1), "int16"), Tensor("x", (8192, 8192, 1)), Tensor("y", (4097, 4097, 1)),
               Tensor("z", (1,))]  # fmt: skip
    one = {"multiplier": models.int32(0), "shift": models.int32(0)}
    attributes = {"kernel": (4096, 4096), "stride": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    nodes = [Node("a", "input_requantize", ("in",), "x", {}, one), Node("b", "max_pool2d", ("x",), "y", attributes),
             Node("c", "mean", ("y",), "z", {"clamp": (-128, 127)}, one)]  # fmt: skip
    with pytest.raises(FormatError, match="steps per image"):
        build_graph(nodes, tensors, "in", "z", (0, 255), 255, ["only"])


def test_unknown_operators_are_all_listed_with_everything_else():
    nodes = [replace(node, op={"max_pool2d": "lstm", "conv2d": "einsum"}.get(node.op, node.op)) for node in SMALL.nodes]
    tensors = with_tensor(SMALL, SMALL.output, zero_point=999)
    message = problems(SMALL, UnsupportedError, nodes=nodes, tensors=tensors, unit=0)
    assert "'einsum'" in message and "'lstm'" in message and "999" in message and "unit 0" in message


def test_everything_wrong_is_reported_at_once():
    node = next(node for node in SMALL.nodes if node.op == "conv2d")
    nodes = with_node(SMALL, "conv2d", attributes={**node.attributes, "stride": (0, 0), "groups": 0})
    nodes[2] = replace(nodes[2], name="../x")
    tensors = [*with_tensor(SMALL, output_of(SMALL, "fully_connected"), shape=(0,)), Tensor("orphan", (3,), "float64")]
    message = problems(SMALL, nodes=nodes, tensors=tensors, levels=(3, 3), classes=[])
    for part in (
        "'stride'",
        "'groups'",
        "'../x'",
        "(0,)",
        "'orphan' is produced by 0",
        "float64",
        "levels",
        "0 class names",
    ):
        assert part in message
    assert message.splitlines()[0].endswith(f"{len(message.splitlines()) - 1} problems:")


def test_long_lists_of_problems_are_cut():
    message = problems(SMALL, classes=[""] * 1000)
    assert len(message.splitlines()) == 52 and "... and 950 more" in message


@pytest.mark.parametrize(
    "changes",
    [{"name": 1}, {"op": None}, {"output": b"x"}, {"inputs": (3,)}, {"attributes": {"clamp": 1.5}},
     {"attributes": {"clamp": "ab"}}, {"attributes": {"clamp": ((1,), 2)}}, {"attributes": {3: 1}},
     {"constants": {4: np.zeros(1)}}],
)  # fmt: skip
def test_wrong_python_types_are_format_errors(changes):
    problems(SMALL, nodes=with_node(SMALL, "conv2d", **changes))


@pytest.mark.parametrize("changes", [{"name": 1}, {"shape": (1.5,)}, {"shape": 3}, {"zero_point": 0.0}, {"scale": "x"},
                                     {"dtype": np.int8}, {"shape": None}])  # fmt: skip
def test_wrong_python_types_of_tensors_are_format_errors(changes):
    problems(SMALL, tensors=with_tensor(SMALL, SMALL.output, **changes))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_a_number_gives_a_graph_or_a_model_error(data):
    """No attribute, shape or zero point, however wild, ends in anything but a model error."""
    wild = st.one_of(st.integers(-3, 3), st.sampled_from([s * 2**e + d for s in (1, -1) for e in (7, 15, 31, 63, 200)
                                                          for d in (-1, 0, 1)]))  # fmt: skip
    values = st.one_of(wild, st.lists(wild, max_size=9).map(tuple))
    nodes, tensors = list(EVERY.nodes), list(EVERY.tensors.values())
    i = data.draw(st.integers(0, len(nodes) - 1))
    if nodes[i].attributes and data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(nodes[i].attributes)))
        nodes[i] = replace(nodes[i], attributes={**nodes[i].attributes, name: data.draw(values)})
    else:
        shape = data.draw(st.lists(wild, max_size=5).map(tuple))
        tensors[i] = replace(tensors[i], shape=shape, zero_point=data.draw(wild))
    try:
        graph = rebuild(EVERY, nodes=nodes, tensors=tensors)
    except ModelError as error:
        assert len(str(error)) < 20_000
    else:
        assert graph.digest == content_digest(graph)
