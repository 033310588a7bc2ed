"""Damaged and malicious .onnx files, and models with parts that are not supported: typed errors, all parts listed."""

import sys
import time

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_builder import SCALE, Builder, Quantized, quantized_network, small_network  # noqa: E402

from intsmooth import h5file  # noqa: E402
from intsmooth.convert import onnx as importer  # noqa: E402
from intsmooth.convert import onnx_file  # noqa: E402
from intsmooth.convert.load import convert_model, load_model  # noqa: E402
from intsmooth.errors import FormatError, InputError, MissingExtraError, ModelError, UnsupportedError  # noqa: E402
from intsmooth.reference import engine  # noqa: E402


def edited(edit):
    model = onnx.ModelProto.FromString(quantized_network())
    edit(model)
    return model.SerializeToString()


def test_the_untouched_network_converts():
    graph = importer.load(quantized_network(), input_scale="1/255").graph
    assert graph.input_shape == (6, 6, 2) and len(graph.classes) == 3


def test_every_cut_and_many_changed_bytes_give_a_typed_error_or_a_model():
    content, start = quantized_network(), time.monotonic()
    rng = np.random.default_rng(5)
    damaged = [content[:end] for end in range(0, len(content), 7)]
    for _ in range(250):
        changed = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(len(changed))] = rng.integers(256)
        damaged.append(bytes(changed))
    refused = 0
    for bad in damaged:
        try:
            graph = importer.load(bad, input_scale="1/255").graph
            engine.run(graph, np.zeros((1, *graph.input_shape), np.int16))
        except ModelError:
            refused += 1
    assert refused > len(damaged) // 3
    assert time.monotonic() - start < 120


def set_external(model):
    tensor = model.graph.initializer[2]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def grow(model):
    tensor = next(item for item in model.graph.initializer if len(item.dims) == 4)
    tensor.dims[0] = 2**40


def shrink(model):
    next(item for item in model.graph.initializer if len(item.dims) == 4).dims[0] -= 1


def negative(model):
    next(item for item in model.graph.initializer if len(item.dims) == 4).dims[0] = -1


def twice(model):
    model.graph.node[3].output[0] = model.graph.node[0].output[0]


def cycle(model):
    model.graph.node[0].input[0] = model.graph.output[0].name


def zero_scale(model):
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(0), model.graph.initializer[0].name))


def infinite_scale(model):
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(np.inf), model.graph.initializer[0].name))


@pytest.mark.parametrize("edit", [set_external, grow, shrink, negative, twice, cycle, zero_scale, infinite_scale])
def test_malformed_parts_are_format_errors(edit):
    with pytest.raises(FormatError):
        importer.load(edited(edit), input_scale="1/255")


def test_other_files_are_never_opened(monkeypatch):
    """Not even looked for: with `open` taken away the refusal is the same."""
    content = edited(set_external)
    monkeypatch.setattr("builtins.open", None)
    with pytest.raises(FormatError, match="other files are never opened"):
        importer.load(content)


def test_all_unsupported_parts_are_listed():
    b = Quantized((2, 6, 6))
    x = b.layer("Conv", [b.start(), b.weights(4, 2, 3, 3)], pads=[1, 1, 1, 1])
    x = b.layer("Erf", [x])
    y = b.layer("MaxPool", [b.start()], kernel_shape=[2, 2], dilations=[2, 2])
    z = b.layer("LRN", [x], size=3)
    output = b.real(b.layer("Flatten", [z]))
    b.real(y)
    with pytest.raises(UnsupportedError) as caught:
        importer.load(b.bytes(output))
    assert all(text in str(caught.value) for text in ("Erf", "LRN", "dilations (2, 2)", "3 parts"))


def test_float_networks_are_sent_to_quantize():
    with pytest.raises(UnsupportedError, match="not quantized"):
        importer.load(small_network())


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_activations_of_16_bits_are_refused(dtype):
    b = Quantized((2, 6, 6))
    x = b.node("QuantizeLinear", ["x", SCALE, dtype(0)])
    with pytest.raises(UnsupportedError, match="16"):
        importer.load(b.bytes(b.node("DequantizeLinear", [x, SCALE, dtype(0)])))


def test_weights_that_are_not_symmetric_are_refused():
    b = Quantized((2, 6, 6))
    weights = b.node("DequantizeLinear", [np.full((4, 2, 1, 1), 250, np.uint8), np.float32(0.01), np.uint8(3)])
    with pytest.raises(UnsupportedError, match="not symmetric"):
        importer.load(b.bytes(b.real(b.layer("Conv", [b.start(), weights]))))


def test_elements_are_turned_where_a_model_asks_for_it():
    """A reshape across height and width needs ONNX's order; the result is the source's to the last bit."""
    b = Quantized((2, 4, 3))
    x = b.layer("Reshape", [b.start(), np.array([0, 4, 6])])
    x = b.layer("Transpose", [x], perm=[0, 2, 1])
    conversion = importer.load(b.bytes(b.real(b.layer("Flatten", [x]))))
    assert {"transpose", "reshape"} <= {node.op for node in conversion.graph.nodes}
    assert any("turned" in note.text for note in conversion.report.notes)
    levels = np.random.default_rng(1).integers(0, 256, (3, 4, 3, 2)).astype(np.int16)
    found = engine.run(conversion.graph, levels)[conversion.graph.output]
    expected = (np.moveaxis(levels, -1, 1) - 128).reshape(3, 4, 6).transpose(0, 2, 1).reshape(3, 24)
    np.testing.assert_array_equal(found, expected)


def test_channels_last_graphs_need_no_transposition():
    b = Quantized((4, 3, 2))
    x = b.layer("Transpose", [b.start()], perm=[0, 3, 1, 2])
    b.layer("Conv", [x, b.weights(5, 2, 3, 3)], pads=[1, 1, 1, 1])
    # The input is (height, width, channels) already: only the transposition says that it is an image.
    output = b.real(b.layer("Flatten", [b.nodes[-1].output[0]]))
    graph = importer.load(b.bytes(output)).graph
    assert len(graph.classes) == 4 * 3 * 5


@pytest.mark.parametrize("dtype, offset", [(np.uint8, 0), (np.int8, 128)])
def test_an_integer_input_takes_the_levels(dtype, offset):
    """Its first DequantizeLinear says what the integers mean; uint8 integers are the levels, int8 ones less 128."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    b = Builder((2, 4, 4))
    b.inputs = [helper.make_tensor_value_info("x", kind, [1, 2, 4, 4])]
    real = b.node("DequantizeLinear", ["x", np.float32(0.5), dtype(7)])
    total = b.node("QuantizeLinear", [b.node("Relu", [real]), np.float32(0.5), dtype(7)])
    scores = b.node("Flatten", [b.node("DequantizeLinear", [total, np.float32(0.5), dtype(7)])])
    graph = importer.load(b.bytes(scores)).graph
    levels = np.random.default_rng(2).integers(0, 256, (5, 4, 4, 2)).astype(np.int16)
    result = engine.run(graph, levels)[graph.output]
    expected = np.maximum(np.moveaxis(levels, -1, 1) - offset, 7).reshape(5, -1)
    np.testing.assert_array_equal(result.astype(int) + (128 if dtype == np.uint8 else 0), expected)


def test_bad_arguments():
    for arguments in ({"levels": (5, 5)}, {"input_scale": 0}, {"unit": 0}, {"std": (0.0,)}, {"mean": (np.nan,)},
                      {"mean": (0.1, 0.2, 0.3)}, {"levels": "x"}):  # fmt: skip
        with pytest.raises(InputError):
            importer.load(quantized_network(), **arguments)
    with pytest.raises(InputError):
        importer.load("missing.onnx")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"intsmooth\[onnx\]"):
        onnx_file.read_model(b"")


def test_models_are_loaded_by_their_suffix(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(quantized_network())
    graph = load_model(path, input_scale="1/255")
    assert graph.digest == convert_model(path, input_scale="1/255").graph.digest
    h5file.save(graph, tmp_path / "model.h5")
    assert load_model(tmp_path / "model.h5").digest == graph.digest
    with pytest.raises(InputError, match="says itself"):
        load_model(tmp_path / "model.h5", input_scale="1/255")


def test_an_input_without_a_shape_is_refused():
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    model = onnx.ModelProto.FromString(quantized_network())
    model.graph.input[0].CopyFrom(info)
    with pytest.raises(UnsupportedError, match="shape"):
        importer.load(model.SerializeToString())
