"""The commands around importers: convert, compare, certify on other formats, and what comparisons count."""

import json

import models
import numpy as np
import pytest
from places import SHARED

from intsmooth import cli, h5file
from intsmooth.convert.comparison import Difference, decisions, differences, pairs
from intsmooth.graph import build_graph

RESNET8 = SHARED / "models" / "mlperf_tiny_resnet8_int8.tflite"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder with two models that differ in one bias, and images."""
    monkeypatch.chdir(tmp_path)
    graph = models.tiny_conv(np.random.default_rng(1))
    h5file.save(graph, "a.h5")
    h5file.save(changed(graph), "b.h5")
    images = np.random.default_rng(2).integers(0, 17, (8, 8, 8), dtype=np.uint8)
    np.savez("data.npz", images=images, labels=np.zeros(8, int))
    return tmp_path


def parts(graph):
    return {name: getattr(graph, name) for name in ("input", "output", "levels", "unit", "classes")}


def changed(graph):
    """The same network with a far larger bias in its last layer with weights."""
    nodes = list(graph.nodes)
    place = max(i for i, node in enumerate(nodes) if "bias" in node.constants)
    constants = dict(nodes[place].constants)
    constants["bias"] = constants["bias"] + np.int32(5000)
    nodes[place] = nodes[place].__class__(**{**nodes[place].__dict__, "constants": constants})
    return build_graph(nodes=nodes, tensors=graph.tensors.values(), **parts(graph))


def run(capsys, line):
    code = cli.main(line.split())
    out, err = capsys.readouterr()
    return code, out, err


def test_a_model_equals_itself_in_both_engines(capsys):
    code, out, _ = run(capsys, "compare a.h5 numpy --data data.npz")
    assert code == 0 and "no difference" in out and "same class: 8 of 8" in out


def test_the_first_difference_is_named(capsys):
    graph = h5file.load("a.h5")
    place = max(i for i, node in enumerate(graph.nodes) if "bias" in node.constants)
    code, out, _ = run(capsys, "compare a.h5 b.h5 --data data.npz --max 4")
    assert code == 1 and f"first difference: {graph.nodes[place].output}\n" in out and "4 images" in out


def test_engines_that_cannot_run_a_model_say_so(capsys):
    for engine in ("tflite_micro", "onnxruntime"):
        code, _, err = run(capsys, f"compare a.h5 {engine} --data data.npz")
        assert code == 2 and engine in err
    code, _, err = run(capsys, "compare a.h5 missing.h5 --data data.npz")
    assert code == 2 and "missing.h5" in err


def test_tensors_of_different_graphs_are_paired_by_operator_and_shape():
    a = h5file.load("a.h5")
    renamed = {name: f"{name} b" for name in a.tensors}
    nodes = [node.__class__(node.name, node.op, tuple(renamed[i] for i in node.inputs), renamed[node.output],
                            node.attributes, node.constants) for node in a.nodes]  # fmt: skip
    tensors = [tensor.__class__(**{**tensor.__dict__, "name": renamed[name]}) for name, tensor in a.tensors.items()]
    ends = parts(a) | {"input": renamed[a.input], "output": renamed[a.output]}
    b = build_graph(nodes=nodes, tensors=tensors, **ends)
    assert pairs(a, b) == [(node.output, renamed[node.output]) for node in a.nodes]
    assert pairs(a, a) == [(node.output, node.output) for node in a.nodes]


def test_outputs_of_other_shapes_are_no_agreement(folder, capsys):
    """The same names or others: what could not be compared is said, and is a difference."""
    a = h5file.load("a.h5")
    last = a.nodes[-1]
    fewer = {name: array[:2] for name, array in last.constants.items()}
    nodes = [*a.nodes[:-1], last.__class__(last.name, last.op, last.inputs, last.output, last.attributes, fewer)]
    tensors = [t.__class__(**{**t.__dict__, "shape": (2,)}) if name == a.output else t for name, t in a.tensors.items()]
    b = build_graph(nodes=nodes, tensors=tensors, **parts(a) | {"classes": ("0", "1")})
    h5file.save(b, folder / "fewer.h5")
    code, out, _ = run(capsys, "compare a.h5 fewer.h5 --data data.npz")
    assert code == 1 and "the outputs could not be compared: they have shapes (10,) and (2,)" in out
    assert "no difference" not in out and "same class" not in out


def test_differences_are_counted_without_wrapping():
    a, b = {"x": np.array([[-128, 127, 5]], np.int8)}, {"y": np.array([[127, 127, 4]], np.int8)}
    assert differences([("x", "y"), ("x", "z")], a, b) == [Difference("x", "y", 3, 2, 255)]
    np.testing.assert_array_equal(decisions(np.array([[1, 3, 3], [2, 0, 1]], np.int8)), [1, 0])
    np.testing.assert_array_equal(decisions(np.array([[4], [2]], np.int32)), [4, 2])


def test_tflite_models_are_converted_compared_and_certified(folder, capsys):
    pytest.importorskip("tflite", reason="needs the packages of the extra tflite")
    if not RESNET8.is_file():
        pytest.skip(f"no model at {RESNET8} (set INTSMOOTH_SHARED)")
    images = np.random.default_rng(3).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    np.savez("colour.npz", images=images, labels=np.zeros(3, int))
    (folder / "names.txt").write_text("\n".join(f"class {i}" for i in range(10)) + "\n")
    code, out, _ = run(capsys, f"convert {RESNET8} -o model.h5 --classes names.txt")
    assert code == 0 and "CONV_2D" in out and "model file:" in out
    assert h5file.load("model.h5").classes[9] == "class 9"
    code, out, _ = run(capsys, f"convert {RESNET8} -o again.h5 --json")
    assert code == 0 and json.loads(out)["digest"] == h5file.load("again.h5").digest
    code, out, _ = run(capsys, f"compare {RESNET8} model.h5 --data colour.npz")
    assert code == 0 and "no difference" in out
    code, out, _ = run(capsys, f"info {RESNET8}")
    assert code == 0 and "12,501,632 per sample" in out and "proved impossible" in out
    code, out, _ = run(capsys, f"predict {RESNET8} --data colour.npz --sigma 0.1 --n 20 --max 2 --seed 1")
    assert code == 0 and len(out.splitlines()) == 3
    code, out, _ = run(capsys, f"certify {RESNET8} --data colour.npz --sigma 0.1 --n 20 --n0 10 --max 1 --seed 1")
    assert code == 0 and "abstained" in out
    pytest.importorskip("tflite_micro", reason="tflite_micro has wheels for Linux on x86-64 only")
    code, out, _ = run(capsys, f"compare {RESNET8} tflite_micro --data colour.npz")
    assert code == 0 and "no difference" in out and "same class: 3 of 3" in out


def test_onnx_models_are_converted_and_compared_with_onnx_runtime(folder, capsys):
    pytest.importorskip("onnx", reason="needs the package onnx")
    pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
    from onnx_builder import quantized_network

    (folder / "model.onnx").write_bytes(quantized_network())
    np.savez("two.npz", images=np.random.default_rng(4).integers(0, 256, (5, 6, 6, 2), dtype=np.uint8))
    code, out, _ = run(capsys, "convert model.onnx -o model.h5 --input-scale 1/255")
    assert code == 0 and "QuantizeLinear" in out and h5file.load("model.h5").input_shape == (6, 6, 2)
    code, out, _ = run(capsys, "compare model.onnx onnxruntime --data two.npz --input-scale 1/255")
    assert code in (0, 1) and "same class" in out
    largest = [int(line.split()[-1]) for line in out.splitlines() if line.startswith("quantizelinear")]
    assert len(largest) >= 3 and max(largest) <= 2
    options = "--input-scale 1/255 --sigma 0.1"
    code, out, _ = run(capsys, "info model.onnx --input-scale 1/255")
    assert code == 0 and h5file.load("model.h5").digest in out
    code, out, _ = run(capsys, f"predict model.onnx --data two.npz --n 20 --seed 1 {options}")
    assert code == 0 and len(out.splitlines()) == 6
    for command in ("info model.h5", "predict a.h5 --data data.npz --sigma 0.1"):
        code, _, err = run(capsys, f"{command} --input-scale 1/255")
        assert code == 2 and "leave out input_scale" in err
    code, _, err = run(capsys, "convert model.h5 -o b.h5")
    assert code == 2 and ".tflite and .onnx" in err
    code, _, err = run(capsys, "convert model.onnx --classes missing.txt")
    assert code == 2 and "missing.txt" in err


@pytest.mark.slow
def test_an_onnx_model_is_audited_without_a_file_in_between(folder, capsys):
    pytest.importorskip("onnx", reason="needs the package onnx")
    from onnx_builder import quantized_network

    (folder / "model.onnx").write_bytes(quantized_network())
    code, out, _ = run(capsys, "audit model.onnx --input-scale 1/255 --sigma 0.1 --seed 1")
    assert code == 0 and "equality: pass" in out
