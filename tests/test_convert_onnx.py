"""Quantized ONNX models as ONNX Runtime's quantizer writes them: layers within 1 step, classes equal."""

import itertools

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the package onnxruntime, the witness")

from onnx_builder import resnet20, small_network  # noqa: E402
from onnx_quantizer import images, layer_steps, optimize, quantized  # noqa: E402
from places import SHARED

from intsmooth.convert import onnx as importer  # noqa: E402
from intsmooth.convert.peers import trace  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402

FORMS = list(itertools.product(("QDQ", "QOperator"), (0, 1), (0, 1)))


@pytest.mark.parametrize("form, unsigned, per_channel", FORMS)
def test_every_layer_is_within_one_step_of_onnx_runtime(tmp_path, form, unsigned, per_channel):
    path = quantized(tmp_path, small_network(normalization=False), form, unsigned, per_channel)
    conversion = importer.load(path, input_scale="1/255")
    levels = images(100)
    theirs = trace("onnxruntime", path, conversion, levels)
    steps = layer_steps(conversion, theirs)
    assert len(steps) >= 12 and {node.op for node in conversion.graph.nodes if node.name in steps} >= {
        "conv2d", "depthwise_conv2d", "add", "mul", "max_pool2d", "lookup", "fully_connected"
    }  # fmt: skip
    # A quarter of the sums of four integers is a tie, which they round to even and we away from zero.
    averages = {name for name, origin in conversion.origins.items() if "AveragePool" in origin.operator}
    averages |= {node.name for node in conversion.graph.nodes if node.op == "average_pool2d"}
    for name, gaps in steps.items():
        assert gaps.max() <= 1, name
        assert np.mean(gaps > 0) <= (0.2 if name in averages else 5e-4), name
    ours = Engine(conversion.graph, backend="numpy").trace(levels)[conversion.graph.output]
    scores = theirs[conversion.graph.output]
    best = np.sort(scores.astype(int), axis=1)
    clear = best[:, -1] - best[:, -2] > 2  # weights are random, so that some images lie between two classes
    assert clear.mean() > 0.5 and (ours.argmax(1) == scores.argmax(1))[clear].all()
    assert len(np.unique(scores.argmax(1))) > 1  # the network does decide between classes


@pytest.mark.parametrize("pool, agreement", [("MaxPool", 0.998), ("AveragePool", 0.98)])
def test_classes_of_a_fitted_network_are_those_of_onnx_runtime(tmp_path, pool, agreement):
    """The head is fitted to real images by least squares. Averages of four integers are ties in one of four cases."""
    data = SHARED / "data" / "cifar10" / "test_every_20th.npz"
    if not data.is_file():
        pytest.skip(f"no images at {data} (set INTSMOOTH_SHARED)")  # of drawn ones, many more averages are ties
    levels = images(500)
    reals = (np.moveaxis(levels, -1, 1) / 255).astype(np.float32)
    session = onnxruntime.InferenceSession(small_network(normalization=False, head=False, pool=pool))
    features = session.run(None, {"x": reals})[0]
    labels = np.load(data)["labels"]
    wanted = np.eye(10)[labels]
    extended = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    penalty = 1e-3 * len(features) * np.eye(extended.shape[1])
    fitted = np.linalg.solve(extended.T @ extended + penalty, extended.T @ wanted).astype(np.float32)
    content = small_network(normalization=False, head=(fitted[:-1].T, fitted[-1]), pool=pool)
    path = quantized(tmp_path, content, levels=levels[:100])
    conversion = importer.load(path, input_scale="1/255")
    scores = trace("onnxruntime", path, conversion, levels)[conversion.graph.output].astype(int)
    ours, theirs = Engine(conversion.graph, threads=1).classify(levels), scores.argmax(1)
    rows = np.arange(len(levels))
    assert (scores[rows, theirs] - scores[rows, ours]).max() <= 2  # steps, where the classes differ
    assert np.mean(theirs == labels) > 0.4  # far from chance, 0.1
    assert np.mean(ours == theirs) >= agreement


@pytest.mark.slow
def test_a_trained_resnet_decides_as_onnx_runtime_but_for_near_ties(tmp_path):
    """ResNet-20 on 500 real images: where the classes differ, two scores are within two steps of each other."""
    weights = SHARED / "models" / "cifar10_resnet20_float.npz"
    data = SHARED / "data" / "cifar10" / "test_every_20th.npz"
    if not weights.is_file() or not data.is_file():
        pytest.skip(f"no weights at {weights} or no images at {data} (set INTSMOOTH_SHARED)")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    levels, labels = images(500, 32), np.load(data)["labels"]
    with np.load(weights) as state:
        content = resnet20({name.removeprefix("module."): array for name, array in state.items()})
    (tmp_path / "plain.onnx").write_bytes(content)
    optimize(tmp_path / "plain.onnx", tmp_path / "folded.onnx")
    path = quantized(tmp_path, (tmp_path / "folded.onnx").read_bytes(), levels=(levels[:100] / 255 - mean) / std * 255)
    conversion = importer.load(path, mean=mean, std=std)
    scores = trace("onnxruntime", path, conversion, levels)[conversion.graph.output].astype(int)
    ours, theirs = Engine(conversion.graph, threads=1).classify(levels), scores.argmax(1)
    rows = np.arange(len(levels))
    assert (scores[rows, theirs] - scores[rows, ours]).max() <= 3
    assert np.mean(ours == theirs) >= 0.996  # two of 500
    assert abs(np.mean(ours == labels) - np.mean(theirs == labels)) <= 0.005
    assert np.mean(theirs == labels) > 0.88  # so that the comparison is about a network that works


def test_no_node_turns_the_elements_of_an_ordinary_network(tmp_path):
    graph = importer.load(quantized(tmp_path, small_network(normalization=False)), input_scale="1/255").graph
    assert not {node.op for node in graph.nodes} & {"transpose", "reshape", "pad"}
    assert graph.input_shape == (16, 16, 3) and len(graph.classes) == 10


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_softmax_at_the_end_is_dropped_and_said_so(tmp_path, form):
    path = quantized(tmp_path, small_network(normalization=False, softmax=True), form)
    conversion = importer.load(path, input_scale="1/255")
    levels = images(50)
    assert any(note.kind == "dropped" and "softmax" in note.text for note in conversion.report.notes)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    probabilities = session.run(None, {"x": (np.moveaxis(levels, -1, 1) / 255).astype(np.float32)})[0]
    ours = Engine(conversion.graph, backend="numpy").forward(levels)
    best = np.take_along_axis(probabilities, ours.argmax(1)[:, None], axis=1)[:, 0]
    step = 2.01 / 255  # their probabilities are quantized, and the largest may be held by several classes
    assert (best >= probabilities.max(1) - step).all()


def test_levels_are_the_models_own_integers_by_default(tmp_path):
    path = quantized(tmp_path, small_network(normalization=False), unsigned=1)
    conversion = importer.load(path)
    levels = images(8)
    trace = Engine(conversion.graph, backend="numpy").trace(levels)
    entry = next(node for node in conversion.graph.nodes if conversion.origins[node.name].tensor is not None)
    np.testing.assert_array_equal(trace[entry.output], levels - 128)


def test_mean_and_deviation_reach_the_models_own_integers(tmp_path):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    levels = images(64)
    reals = (levels / 255 - mean) / std
    path = quantized(tmp_path, small_network(normalization=False), levels=reals * 255)
    conversion = importer.load(path, mean=mean, std=std)
    entry = next(node for node in conversion.graph.nodes if conversion.origins[node.name].tensor is not None)
    tensor = conversion.graph.tensors[entry.output]
    expected = np.clip(np.rint(reals / tensor.scale) + tensor.zero_point, -128, 127)
    found = Engine(conversion.graph, backend="numpy").trace(levels)[entry.output]
    assert np.abs(found - expected).max() <= 1 and np.mean(found != expected) < 0.02


def test_compiled_engine_equals_the_twin(tmp_path):
    graph = importer.load(quantized(tmp_path, small_network(normalization=False)), input_scale="1/255").graph
    levels = images(4)
    compiled, naive = (Engine(graph, backend=backend).trace(levels) for backend in ("numba", "numpy"))
    for node in graph.nodes:
        np.testing.assert_array_equal(compiled[node.output], naive[node.output], err_msg=node.name)


def test_the_report_says_every_number(tmp_path):
    path = quantized(tmp_path, small_network(normalization=False))
    conversion = importer.load(path, input_scale="1/255")
    layers = {layer.name: layer for layer in conversion.report.layers}
    assert set(layers) == {node.name for node in conversion.graph.nodes}
    source = {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
    node = next(node for node in conversion.graph.nodes if node.op == "conv2d")
    layer = layers[node.name]
    output = conversion.origins[node.name].tensor
    assert layer.scales[-1] == float(source[f"{output.removesuffix('_QuantizeLinear_Output')}_scale"])
    weight_scales = next(array for name, array in source.items() if name.startswith("c0") and name.endswith("_scale"))
    expected = layer.scales[0] * weight_scales.astype(float) / layer.scales[-1]
    np.testing.assert_allclose(layer.factor, expected, rtol=1e-6)  # multipliers of 22 bits: one rounding
