"""Small ONNX models against ONNX's own reference implementation, where the standard has a default or an order of its own."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from intsmooth.convert import onnx as importer  # noqa: E402
from intsmooth.convert.onnx_values import Pending  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402
from intsmooth.errors import UnsupportedError  # noqa: E402

X = np.array([[8, -16, 24, -32, 0, 100]], np.int16)  # levels; the real number is a sixteenth
SCALE = np.float32(1 / 16)


def model(nodes, shape=(6,), opset=21, constants=()):
    """x, float, through `nodes` (operator, inputs, attributes) one after the other; "" stands for the last output."""
    made, last = [], "x"
    arrays = {"s": SCALE, "i": np.int8(0), "u": np.uint8(0), **dict(constants)}
    for number, (op, inputs, attributes) in enumerate(nodes):
        made.append(helper.make_node(op, [name or last for name in inputs], [f"y{number}"], **attributes))
        last = f"y{number}"
    graph = helper.make_graph(
        made, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def both(made, levels=X):
    """(our scores as reals, those of ONNX's reference implementation)."""
    graph = importer.load(made.SerializeToString(), levels=(-128, 127), unit=16, input_scale="1/16").graph
    ours = Engine(graph, backend="numpy").forward(levels).astype(float)
    tensor = graph.tensors[graph.output]
    theirs = ReferenceEvaluator(made).run(None, {"x": (levels / 16).astype(np.float32)})[0]
    return (ours - tensor.zero_point) * tensor.scale, theirs.reshape(len(levels), -1)


def pair(zero, **attributes):
    """QuantizeLinear and DequantizeLinear, the first with the zero point `zero` or none, the second with none."""
    return [("QuantizeLinear", ["", "s", zero] if zero else ["", "s"], attributes), ("DequantizeLinear", ["", "s"], {})]


@pytest.mark.parametrize(
    "nodes",
    [pair("i"), pair("u"), pair("", output_dtype=TensorProto.INT8), pair("", output_dtype=TensorProto.UINT8), pair("")],
    ids=["int8", "uint8", "output_dtype int8", "output_dtype uint8", "neither"],
)
def test_a_zero_point_that_is_left_out_is_0_of_the_type_stated(nodes):
    ours, theirs = both(model(nodes))
    np.testing.assert_allclose(ours, theirs)
    assert (theirs < 0).any() == any("i" in inputs or 3 in attributes.values() for _, inputs, attributes in nodes)


def test_other_output_types_are_refused():
    with pytest.raises(UnsupportedError, match="quantizes to type 4"):
        both(model(pair("", output_dtype=TensorProto.UINT16)))


CLIPS = {"low": np.float32(-5), "top": np.float32(-1), "one": np.float32(1), "two": np.float32(2)}


@pytest.mark.parametrize(
    "clips",
    [[("Relu", [""], {}), ("Clip", ["", "low", "top"], {})], [("Clip", ["", "low", "top"], {}), ("Relu", [""], {})],
     [("Clip", ["", "two", "one"], {})], [("Clip", ["", "one", "two"], {}), ("Clip", ["", "low", "one"], {})],
     [("Relu", [""], {}), ("Clip", ["", "", "two"], {})]],
)  # fmt: skip
def test_clips_apply_one_after_the_other(clips):
    if clips[-1][1][1:2] == [""]:  # an input that is left out, which `model` would take for the last output
        clips = [clips[0], ("Clip", ["", "floor", "two"], {})]
    nodes = [*pair("i"), *clips, *pair("i")]
    ours, theirs = both(model(nodes, constants={**CLIPS, "floor": np.float32(-1e30)}.items()))
    np.testing.assert_allclose(ours, theirs)


@pytest.mark.parametrize("bounds", [[(0, None), (-5, -1)], [(-5, -1), (0, None)], [(None, 3), (1, None)], [(2, 1)], [(1, 2), (None, 0)]])
def test_bounds_of_clips_on_clips(bounds):
    values, pending = np.linspace(-8, 8, 65), Pending((1,), None)
    expected = values
    for low, high in bounds:
        pending = pending.clipped(low, high)
        expected = np.minimum(np.maximum(expected, -np.inf if low is None else low), np.inf if high is None else high)
    low, high = (-np.inf if pending.low is None else pending.low), (np.inf if pending.high is None else pending.high)
    np.testing.assert_array_equal(np.minimum(np.maximum(values, low), high), expected)


WEIGHTS = {"w": np.eye(6, 3).astype(np.int8), "ws": np.float32(0.5), "wz": np.int8(0)}


def test_a_softmax_inside_the_network_is_refused_wherever_it_is_read():
    inner = [*pair("i"), ("Softmax", [""], {"axis": -1}), *pair("i")]
    weights = [("DequantizeLinear", ["w", "ws", "wz"], {})]
    product = [*weights, ("MatMul", ["y4", ""], {}), *pair("i")]
    with pytest.raises(UnsupportedError, match="reads what a softmax gives"):
        both(model([*inner, *product], constants=WEIGHTS.items()))
    with pytest.raises(UnsupportedError, match="reads what a softmax gives"):
        both(model([*inner, ("Relu", [""], {}), *pair("i")]))
    ours, theirs = both(model(inner))
    assert (ours.argmax(1) == theirs.argmax(1)).all()


@pytest.mark.parametrize(("shape", "axis", "opset", "fine"), [((6,), 1, 21, True), ((6,), -1, 21, True), ((2, 3), 2, 21, False),
                                                                ((2, 3), 1, 21, False), ((2, 3), 1, 11, True), ((2, 3), 2, 11, False),
                                                                ((1, 6), 2, 21, True), ((6, 1, 1), 1, 21, True), ((6,), 0, 21, False)])  # fmt: skip
def test_a_softmax_of_one_vector_keeps_the_order_of_the_scores(shape, axis, opset, fine):
    # Before operator set 13 all axes from this one on were one vector.
    made = model([*pair("i"), ("Softmax", [""], {"axis": axis})], shape, opset)
    if fine:
        graph = importer.load(made.SerializeToString(), levels=(-128, 127), unit=16, input_scale="1/16").graph
        assert {node.op for node in graph.nodes} <= {"input_requantize", "reshape"}
    else:
        with pytest.raises(UnsupportedError, match="softmax along axis"):
            importer.load(made.SerializeToString(), levels=(-128, 127), unit=16, input_scale="1/16")


@pytest.mark.parametrize(("scale", "noted"), [(1 / 16, False), (1 / 64, True)])
def test_an_average_that_is_rounded_too_early_is_noted(scale, noted):
    pool = ("AveragePool", [""], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
    ends = [("QuantizeLinear", ["", "fine", "i"], {}), ("DequantizeLinear", ["", "fine", "i"], {})]
    made = model([*pair("i"), pool, *ends], (1, 4, 4), constants=[("fine", np.float32(scale))])
    conversion = importer.load(made.SerializeToString(), levels=(-128, 127), unit=16, input_scale="1/16")
    assert any(note.kind == "approximated" for note in conversion.report.notes) == noted
