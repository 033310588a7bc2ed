"""Damaged and malicious .tflite files: one typed error, in little time, whatever the bytes."""

import contextlib
import math
import pathlib
import time

import numpy as np
import pytest
from tflite_builder import ModelBuilder
from tflite_networks import OneOperator, moving_network, relu_network, small_network

from intsmooth.convert import tflite, tflite_file
from intsmooth.errors import FormatError, InputError, MissingExtraError, ModelError, UnsupportedError
from intsmooth.reference import engine

MUTATIONS = 150  # per kind and model


def attempt(content):
    """Load, and run where that is cheap. Anything but a typed error is a failure, and so is a long wait."""
    begin = time.monotonic()
    try:
        graph = tflite.load(content).graph
    except ModelError:
        return False
    finally:
        assert time.monotonic() - begin < 5
    sizes = [math.prod(tensor.shape) for tensor in graph.tensors.values()]
    if sum(sizes) < 100_000:
        with np.errstate(all="raise"):
            engine.run(graph, np.full((1, *graph.input_shape), 99, np.int16))
    return True


@pytest.mark.parametrize("build", [small_network, moving_network])
def test_undamaged_networks_load(build):
    assert attempt(build())


@pytest.mark.parametrize("build", [small_network, moving_network])
def test_flipped_bytes(build):
    content, rng = build(), np.random.default_rng(31)
    for _ in range(MUTATIONS):
        damaged = bytearray(content)
        for at in rng.integers(8, len(content), rng.integers(1, 6)):
            damaged[at] = rng.integers(0, 256)
        attempt(bytes(damaged))


@pytest.mark.parametrize("build", [small_network, moving_network])
def test_extreme_words(build):
    """Offsets, counts and indices are 32-bit words: replaced by the values that hurt most."""
    content, rng = build(), np.random.default_rng(32)
    length = len(content)
    extremes = [0, 1, 2, 0x7F, 0xFF, 0xFFFF, length - 4, length, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2]
    for _ in range(MUTATIONS):
        damaged = bytearray(content)
        at = int(rng.integers(0, len(content) // 4)) * 4
        damaged[at : at + 4] = int(rng.choice(extremes)).to_bytes(4, "little")
        attempt(bytes(damaged))


@pytest.mark.parametrize("build", [small_network, moving_network])
def test_truncation(build):
    content, rng = build(), np.random.default_rng(33)
    for length in [*range(0, 64, 4), *rng.integers(0, len(content), MUTATIONS)]:
        with contextlib.suppress(FormatError, UnsupportedError):
            tflite.load(content[:length])


@pytest.mark.parametrize(
    "content",
    [b"", b"TFL3", b"\0" * 100, b"PK\x03\x04" * 50, b"\x1c\0\0\0TFL3", b"\xff\xff\xff\xffTFL3" + b"\0" * 64],
)
def test_other_files(content):
    with pytest.raises(FormatError, match="TensorFlow Lite model"):
        tflite.load(content)


@pytest.mark.parametrize(
    ("inputs", "output"),
    [([-1], 1), ([2], 1), ([-2], 1), ([0], -1), ([0], 2), ([0, 0], 1), ([], 1), ([1], 1), ([0], 0)],
)
def test_indices_of_operators(inputs, output):
    model, x, y = relu_network(inputs, output)
    with pytest.raises(FormatError):
        tflite.load(model.build([x], [y]))


@pytest.mark.parametrize("ends", [([-1], [1]), ([0], [-1]), ([2], [1]), ([0], [2**31 - 1])])
def test_indices_of_the_ends(ends):
    model, _, _ = relu_network()
    with pytest.raises(FormatError, match="name tensor"):
        tflite.load(model.build(*ends))


@pytest.mark.parametrize(("tensor", "message"), [
    ({"scale": float("nan")}, "scale"), ({"scale": 0.0}, "scale"), ({"scale": -1.0}, "scale"),
    ({"scale": float("inf")}, "scale"), ({"scale": [0.1, 0.2]}, "2 scales"), ({"scale": None}, "0 scales"),
    ({"zero_point": 128}, "zero point"), ({"zero_point": -(2**40)}, "zero point"),
])  # fmt: skip
def test_quantization(tensor, message):
    model, x, y = relu_network(**tensor)
    with pytest.raises(ModelError, match=message):
        tflite.load(model.build([x], [y]))


def test_scales_so_far_apart_that_no_multiplier_exists():
    model, x, y = relu_network(scale=1e30)
    with pytest.raises(UnsupportedError, match="factor must be below"):
        tflite.load(model.build([x], [y]))


def test_data_of_another_size():
    one = OneOperator((1, 4))
    weights = one.model.tensor((3, 4), scale=0.1, data=np.ones((3, 5), np.int8))
    one.y("FULLY_CONNECTED", [one.x, weights, -1], (1, 3), "FullyConnectedOptions")
    with pytest.raises(FormatError, match="its shape .* needs another number"):
        tflite.load(one.build())


def test_options_of_another_operator():
    one = OneOperator((1, 4))
    one.y("ADD", [one.x, one.x], (1, 4), "MulOptions")
    with pytest.raises(FormatError, match="AddOptions"):
        tflite.load(one.build())


def test_one_buffer_used_so_often_that_its_copies_would_not_fit(monkeypatch):
    from intsmooth.convert import tflite_translation

    monkeypatch.setattr(tflite_translation, "MAX_CONSTANT_BYTES", 10_000)
    one = OneOperator((1, 64), zero_point=0)
    weights = one.constant(np.ones((64, 64), np.int8), scale=0.1)
    last = one.x
    for _ in range(3):
        last = one.y("FULLY_CONNECTED", [last, weights, -1], (1, 64), "FullyConnectedOptions")
    with pytest.raises(FormatError, match="over 10000 bytes"):
        tflite.load(one.build())


def test_an_operand_broadcast_to_a_gigantic_shape():
    model = ModelBuilder()
    huge = (1, 2**15, 2**15, 64)
    x, y = model.tensor(huge, scale=0.1), model.tensor(huge, scale=0.1)
    model.operator("SUB", [model.constant(np.ones((1,), np.int8), scale=0.1), x], [y], "SubOptions")
    with pytest.raises(ModelError):
        tflite.load(model.build([x], [y]))


def test_an_output_of_billions_of_scores():
    model = ModelBuilder()
    x, y = (model.tensor((1, 2**15, 2**15), scale=0.1, zero_point=-128) for _ in range(2))
    model.operator("RELU", [x], [y])
    with pytest.raises(ModelError, match="at most 65536"):
        tflite.load(model.build([x], [y]))


def test_duplicate_names_take_no_quadratic_time():
    model = ModelBuilder()
    tensors = [model.tensor((1, 2), scale=0.1, zero_point=-128, name="same") for _ in range(1500)]
    for source, target in zip(tensors, tensors[1:], strict=False):
        model.operator("RELU", [source], [target])
    content = model.build([tensors[0]], [tensors[-1]])
    begin = time.monotonic()
    assert len(tflite.load(content).graph.nodes) == 1500
    assert time.monotonic() - begin < 10


def test_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(tflite_file, "MAX_FILE_BYTES", 100)
    path = tmp_path / "model.tflite"
    path.write_bytes(small_network())
    for source in (path, path.read_bytes()):
        with pytest.raises(FormatError, match="larger than 100 bytes"):
            tflite.load(source)


@pytest.mark.parametrize("source", [pathlib.Path("/"), 5, None, 1.5])
def test_sources_that_are_no_files(source):
    with pytest.raises((InputError, FormatError), match="cannot read"):
        tflite.load(source)


def test_missing_packages(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(MissingExtraError, match=r"intsmooth\[tflite\]"):
        tflite.load(small_network())


@pytest.mark.parametrize("code", ["LOGISTIC", "TANH"])
def test_scales_that_tflite_cannot_shift_are_refused(code):
    scale, zero_point = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}[code]
    one = OneOperator((1, 4), scale=1e-9)
    one.y(code, [one.x], (1, 4), scale=scale, zero_point=zero_point)
    with pytest.raises(UnsupportedError, match="too small for the shift"):
        tflite.load(one.build())
