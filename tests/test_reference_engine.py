"""The naive engine: dispatch, zero points, batches and its two errors."""

import numpy as np
import pytest

from intsmooth.errors import InputError, UnsupportedError
from intsmooth.records import Graph, Node, Tensor
from intsmooth.reference import convolution, elementwise, engine, shape, softmax

ONE = {"multiplier": np.array([2**30], np.int32), "shift": np.array([1], np.int32)}


def small_graph():
    """Levels (4, 5, 2) -> conv -> + constant -> softmax -> argmax, each tensor with a zero point of its own."""
    rng = np.random.default_rng(11)
    tensors = [
        Tensor("levels", (4, 5, 2), "int16"), Tensor("image", (4, 5, 2), zero_point=-128),
        Tensor("features", (3, 2, 6), zero_point=7), Tensor("offset", (6,), zero_point=-3),
        Tensor("shifted", (3, 2, 6), zero_point=11), Tensor("flat", (36,), zero_point=11),
        Tensor("probabilities", (36,), zero_point=-128), Tensor("class", (1,), "int32"),
    ]  # fmt: skip
    convolution_constants = {
        "weights": rng.integers(-128, 128, (6, 3, 2, 1)).astype(np.int8),
        "bias": rng.integers(-900, 900, 6).astype(np.int32),
        "multiplier": rng.integers(2**30, 2**31, 6).astype(np.int32), "shift": np.full(6, -7, np.int32),
    }  # fmt: skip
    geometry = {"stride": (1, 2), "dilation": (1, 1), "padding": (1, 0, 0, 0), "groups": 2, "clamp": (-120, 127)}
    sum_constants = {"multiplier": np.array([2**30, 2**30 + 9, 2**30 + 5], np.int32),
                     "shift": np.array([0, -1, -17], np.int32)}  # fmt: skip
    nodes = [
        Node("a", "input_requantize", ("levels",), "image", {}, ONE),
        Node("b", "conv2d", ("image",), "features", geometry, convolution_constants),
        Node("c", "constant", (), "offset", {}, {"value": rng.integers(-128, 128, 6).astype(np.int8)}),
        Node("d", "add", ("features", "offset"), "shifted", {"left_shift": 20, "clamp": (-128, 127)}, sum_constants),
        Node("e", "reshape", ("shifted",), "flat", {"shape": (36,)}),
        Node("f", "softmax", ("flat",), "probabilities", {"diff_min": -255}, {"multiplier": ONE["multiplier"] + 77,
                                                                            "shift": np.array([22], np.int32)}),
        Node("g", "argmax", ("probabilities",), "class"),
    ]  # fmt: skip
    table = {tensor.name: tensor for tensor in tensors}
    return Graph(tuple(nodes), table, "levels", "class", (0, 255), 255, tuple(map(str, range(36))))


def levels(count, seed=0):
    return np.random.default_rng(seed).integers(-300, 600, (count, 4, 5, 2)).astype(np.int16)


def test_run_chains_the_twins():
    graph, x = small_graph(), levels(3)
    values = engine.run(graph, x)
    assert list(values) == ["levels", *(node.output for node in graph.nodes)]
    nodes = {node.output: node for node in graph.nodes}
    image = np.clip(x - 128, -128, 127).astype(np.int8)  # the multiplier is 1
    np.testing.assert_array_equal(values["image"], image, strict=True)
    features = convolution.conv2d(image, **nodes["features"].constants, input_zero_point=-128, output_zero_point=7,
                                  **nodes["features"].attributes)  # fmt: skip
    np.testing.assert_array_equal(values["features"], features, strict=True)
    offset = np.stack([nodes["offset"].constants["value"]] * 3)
    shifted = elementwise.add(features, offset, **nodes["shifted"].constants, a_zero_point=7, b_zero_point=-3,
                              output_zero_point=11, **nodes["shifted"].attributes)  # fmt: skip
    np.testing.assert_array_equal(values["shifted"], shifted, strict=True)
    probabilities = softmax.softmax(shifted.reshape(3, 36), **nodes["probabilities"].constants, diff_min=-255)
    np.testing.assert_array_equal(values["probabilities"], probabilities, strict=True)
    np.testing.assert_array_equal(values["class"], shape.argmax(probabilities), strict=True)


def test_results_do_not_depend_on_the_batch():
    graph, x = small_graph(), levels(7, seed=1)
    together = engine.run(graph, x)
    for n in range(7):
        for name, value in engine.run(graph, x[n : n + 1]).items():
            np.testing.assert_array_equal(value, together[name][n : n + 1], strict=True)


def test_empty_batch():
    values = engine.run(small_graph(), levels(0))
    assert values["features"].shape == (0, 3, 2, 6) and values["class"].shape == (0, 1)


@pytest.mark.parametrize("wrong", [levels(2).astype(np.int32), levels(2).astype(float), levels(2)[0], levels(2)[:, :3],
                                   np.int16(3)])  # fmt: skip
def test_wrong_input_is_refused(wrong):
    with pytest.raises(InputError, match=r"int16 levels of shape \(N, 4, 5, 2\)"):
        engine.run(small_graph(), wrong)


def test_unknown_operators_are_all_listed():
    tensors = {"levels": Tensor("levels", (4,), "int16"), "a": Tensor("a", (4,)), "b": Tensor("b", (4,))}
    nodes = Node("n", "wavelet", ("levels",), "a"), Node("m", "fourier", ("a",), "b")
    graph = Graph(nodes, tensors, "levels", "b", (0, 255), 255, ("x",) * 4)
    with pytest.raises(UnsupportedError, match="fourier, wavelet"):
        engine.run(graph, np.zeros((1, 4), np.int16))


def test_every_operator_of_the_format_has_a_twin():
    from intsmooth.ops import OPERATORS

    assert set(OPERATORS) == engine.TWINS.keys() | {"constant"}
