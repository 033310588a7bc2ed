"""Graphs: order, normal form, and the digest that the format page describes."""

import hashlib
import json
import pickle
from dataclasses import replace

import models
import numpy as np
from graphs import EVERY, RESIDUAL, SMALL, rebuild, with_node, with_tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from intsmooth.graph import build_graph, content_digest
from intsmooth.records import Node, Tensor


def test_rebuilding_changes_nothing():
    for graph in (SMALL, EVERY, RESIDUAL):
        again = rebuild(graph)
        assert again.digest == graph.digest == content_digest(graph) and again.facts == graph.facts
        assert [node.name for node in again.nodes] == [node.name for node in graph.nodes]


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_order_of_nodes_and_tensors_is_sorted(random):
    nodes, tensors = list(EVERY.nodes), list(EVERY.tensors.values())
    random.shuffle(nodes)
    random.shuffle(tensors)
    graph = rebuild(EVERY, nodes=nodes, tensors=tensors)
    ready = {graph.input}
    for node in graph.nodes:
        assert set(node.inputs) <= ready
        ready.add(node.output)
    assert list(graph.tensors) == [graph.input, *(node.output for node in graph.nodes)]
    assert sorted(node.name for node in graph.nodes) == sorted(node.name for node in nodes)


def test_a_chain_has_one_order_and_so_one_digest():
    assert rebuild(SMALL, nodes=SMALL.nodes[::-1]).digest == SMALL.digest


def test_constants_are_own_read_only_little_endian_and_contiguous():
    nodes, sources = [], []
    for node in EVERY.nodes:
        swapped = {}
        for name, array in node.constants.items():
            odd = np.asfortranarray(array.astype(array.dtype.newbyteorder(">")))
            swapped[name] = np.repeat(odd, 2, axis=0)[::2]  # big-endian, strided, writable
            sources.append(swapped[name])
        nodes.append(replace(node, constants=swapped))
    graph = rebuild(EVERY, nodes=nodes)
    assert graph.digest == EVERY.digest
    for source in sources:
        source[...] = 0
    assert content_digest(graph) == EVERY.digest
    for node in graph.nodes:
        for array in node.constants.values():
            assert array.dtype in (np.dtype("<i1"), np.dtype("<i4"))
            assert array.flags.c_contiguous and array.flags.aligned and not array.flags.writeable


def test_numpy_integers_and_lists_become_plain():
    attributes = {name: [np.int64(v) for v in value] if isinstance(value, tuple) else np.uint8(value)
                  for name, value in RESIDUAL.nodes[1].attributes.items()}  # fmt: skip
    nodes = [replace(node, attributes=attributes) if i == 1 else node for i, node in enumerate(RESIDUAL.nodes)]
    tensors = [replace(tensor, shape=np.array(tensor.shape), zero_point=np.int8(tensor.zero_point))
               for tensor in RESIDUAL.tensors.values()]  # fmt: skip
    graph = rebuild(RESIDUAL, nodes=nodes, tensors=tensors, levels=[np.int16(0), np.int16(255)], unit=np.int32(255))
    assert graph.digest == RESIDUAL.digest
    assert all(type(v) is int for v in graph.nodes[1].attributes["stride"])
    assert graph.tensors == RESIDUAL.tensors and graph.levels == (0, 255)


def test_graphs_can_be_pickled():
    copy = pickle.loads(pickle.dumps(EVERY))
    assert content_digest(copy) == EVERY.digest == copy.digest


def test_digest_is_the_one_that_the_format_page_describes():
    """Written out by hand, with no helper of the package: every byte that is hashed."""
    tensors = [Tensor("in", (2,), "int16"), Tensor("x", (2,), "int8", -3, 0.5), Tensor("out", (1,), "int8", 7)]
    one, two = models.int32(2**30), models.int32(-2)
    weights = np.array([[1, -1]], np.int8)
    nodes = [
        Node("start", "input_requantize", ("in",), "x", {}, {"shift": two, "multiplier": one}),
        Node("dense", "fully_connected", ("x",), "out", {"clamp": (-128, 100)},
             {"weights": weights, "bias": models.int32(-2), "multiplier": one, "shift": two}),
    ]  # fmt: skip
    graph = build_graph(nodes, tensors, "in", "out", (0, 16), 16, ["fünf"], {"any": "thing"})
    text = (
        r'{"classes":["f\u00fcnf"],"input":"in","levels":[0,16],"nodes":[["start","input_requantize",["in"],"x",{},'
        r'[["multiplier","int32",[1]],["shift","int32",[1]]]],["dense","fully_connected",["x"],"out",'
        r'{"clamp":[-128,100]},[["bias","int32",[1]],["multiplier","int32",[1]],["shift","int32",[1]],'
        r'["weights","int8",[1,2]]]]],"output":"out","tensors":[["in",[2],"int16",0],["x",[2],"int8",-3],'
        r'["out",[1],"int8",7]],"unit":16,"version":1}'
    )
    json.loads(text)
    data = bytes.fromhex("00000040 feffffff  feffffff 00000040 feffffff 01ff")
    expected = b"intsmooth model\n" + str(len(text)).encode() + b"\n" + text.encode() + data
    assert graph.digest == hashlib.sha256(expected).hexdigest()


def test_digest_covers_everything_but_facts_and_scales():
    def changed(**changes):
        return rebuild(RESIDUAL, **changes).digest != RESIDUAL.digest

    name = RESIDUAL.nodes[1].output
    assert not changed(facts={"other": "facts"})
    assert not changed(tensors=with_tensor(RESIDUAL, name, scale=3.0))
    assert changed(levels=(0, 254)) and changed(unit=254) and changed(classes=[str(i) for i in range(10)])
    assert changed(tensors=with_tensor(RESIDUAL, name, zero_point=5))
    assert changed(nodes=with_node(RESIDUAL, "conv2d", name="renamed"))
    assert changed(nodes=with_node(RESIDUAL, "mean", attributes={"clamp": (-128, 126)}))
    for node in RESIDUAL.nodes:
        for constant, array in node.constants.items():
            flipped = array.copy()
            flipped.flat[-1] ^= 1
            constants = {**node.constants, constant: flipped}
            nodes = [replace(node, constants=constants) if other is node else other for other in RESIDUAL.nodes]
            assert content_digest(replace(RESIDUAL, nodes=tuple(nodes))) != RESIDUAL.digest


def test_digest_separates_shapes_of_the_same_bytes():
    """Weights of 8 x 6 and of 6 x 8 hold the same bytes; only the described shape tells them apart."""
    node = RESIDUAL.nodes[-1]
    weights = node.constants["weights"]
    reshaped = replace(node, constants={**node.constants, "weights": weights.reshape(weights.shape[::-1])})
    assert content_digest(replace(RESIDUAL, nodes=(*RESIDUAL.nodes[:-1], reshaped))) != RESIDUAL.digest
