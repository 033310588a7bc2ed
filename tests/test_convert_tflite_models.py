"""Whole models of other people: every tensor of the imported graph equals TensorFlow Lite Micro's, on all at hand."""


import numpy as np
import pytest

pytest.importorskip("tflite", reason="needs the packages of the test extra")

from places import SHARED

from intsmooth.convert import tflite  # noqa: E402
from intsmooth.reference import arithmetic, engine  # noqa: E402

MODELS = SHARED / "models"
# Random images per model in the default run; the large networks take seconds per image in the naive twin.
SAMPLES = {
    "hello_world_int8": 256, "micro_speech_quantized": 8, "mlperf_tiny_autoencoder_int8": 16,
    "mlperf_tiny_kws_dscnn_int8": 8, "mlperf_tiny_resnet8_int8": 4, "mlperf_tiny_vww_mobilenet_v1_int8": 2,
    "mlperf_tiny_wakeword_int8": 8,
    "person_detect": 2, "tinymaix_cifar10_int8": 8, "tinymaix_mnist_resnet_int8": 8,
}  # fmt: skip
LARGE = ["coral_mobilenet_v2_224_int8", "mobilenet_v2_224_nchw_int8"]

pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason=f"no models at {MODELS} (set INTSMOOTH_SHARED)")


class Peer:
    """TensorFlow Lite Micro on one model, with all tensors kept."""

    def __init__(self, path):
        runtime = pytest.importorskip("tflite_micro", reason="tflite_micro has wheels for Linux on x86-64 only").runtime
        keep = runtime.InterpreterConfig.kPreserveAllTensors
        self.interpreter = runtime.Interpreter.from_file(str(path), arena_size=60_000_000, intrepreter_config=keep)
        self.dtype = self.interpreter.get_input_details(0)["dtype"]

    def run(self, levels):
        """Run one image of levels 0..255 and leave the tensors to be read."""
        values = levels if self.dtype == np.uint8 else levels - 128
        self.interpreter.set_input(values.astype(self.dtype)[np.newaxis], 0)
        self.interpreter.invoke()

    def tensor(self, index):
        """Source tensor `index` as int8."""
        values = self.interpreter.GetTensor(index, 0)["tensor_data"]
        return (values.astype(np.int16) - 128).astype(np.int8) if values.dtype == np.uint8 else values


def assert_every_tensor_equal(name, images):
    path = MODELS / f"{name}.tflite"
    conversion, peer = tflite.load(path), Peer(path)
    compared = 0
    values = engine.run(conversion.graph, images)
    for number, image in enumerate(images):
        peer.run(np.clip(image, 0, 255))
        for node in conversion.graph.nodes:
            index = conversion.origins[node.name].tensor
            if index is not None:
                result, expected = values[node.output][number].ravel(), peer.tensor(index).ravel()
                np.testing.assert_array_equal(result, expected, err_msg=f"{name}: {node.name}", strict=True)
                compared += 1
    assert compared >= len(images) * (len(conversion.graph.nodes) - 2)
    return conversion, values[conversion.graph.output]


def random_images(name, count, seed=0):
    """Half of them uniform, half smooth; a few levels lie beyond 0..255 and saturate."""
    shape = tflite.load(MODELS / f"{name}.tflite").graph.input_shape
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape))
    ramp = np.linspace(-20, 280, images[0].size).reshape(shape)
    images[::2] = ramp + rng.normal(0, 10, images[::2].shape)
    return images.astype(np.int16)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_tensor_equals_tflm_on_random_input(name):
    assert_every_tensor_equal(name, random_images(name, SAMPLES[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_every_tensor_of_a_large_model_equals_tflm(name):
    assert_every_tensor_equal(name, random_images(name, 1)[:1])


def slow_but_for(quickest):
    return [pytest.param(name, marks=() if name == quickest else pytest.mark.slow) for name in [*SAMPLES, *LARGE]]


@pytest.mark.parametrize("name", slow_but_for("tinymaix_mnist_resnet_int8"))
def test_compiled_engine_equals_the_twin(name):
    from intsmooth.engine import Engine

    graph = tflite.load(MODELS / f"{name}.tflite").graph
    images = random_images(name, 2, seed=5)
    compiled, naive = Engine(graph, threads=1).trace(images), engine.run(graph, images)
    for node in graph.nodes:
        np.testing.assert_array_equal(compiled[node.output], naive[node.output], err_msg=node.name)


def rounded_once(x, multiplier, shift):
    """x * multiplier / 2^31 * 2^shift with one rounding, ties up: the rule that is not TensorFlow Lite Micro's."""
    total = 31 - np.asarray(shift, np.int64)
    product = np.asarray(x, np.int64) * np.asarray(multiplier, np.int64)
    return ((product + (np.int64(1) << (total - 1))) >> total).astype(np.int32)


def test_fully_connected_layers_are_rounded_twice_as_tflm_and_once_by_litert(monkeypatch):
    """ad01, where the reference builds differ: all its layers are fully connected, with one scale per tensor."""
    name = "mlperf_tiny_autoencoder_int8"
    images = random_images(name, 8)
    conversion, twice = assert_every_tensor_equal(name, images)
    monkeypatch.setattr(arithmetic, "multiply_by_quantized_multiplier", rounded_once)
    once = engine.run(conversion.graph, images)[conversion.graph.output]
    assert 0.1 < np.mean(once != twice) < 0.5
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the package ai-edge-litert")
    reference = interpreter.OpResolverType.BUILTIN_REF
    litert = interpreter.Interpreter(str(MODELS / f"{name}.tflite"), experimental_op_resolver_type=reference)
    litert.allocate_tensors()
    for image, expected in zip(images, once, strict=True):
        litert.set_tensor(litert.get_input_details()[0]["index"], (np.clip(image, 0, 255) - 128).astype(np.int8)[None])
        litert.invoke()
        found = litert.get_tensor(litert.get_output_details()[0]["index"]).ravel()
        np.testing.assert_array_equal(found, expected.ravel())


def cifar10(count):
    path = SHARED / "data" / "cifar10" / "test_every_20th.npz"
    if not path.is_file():
        pytest.skip(f"no images at {path} (set INTSMOOTH_SHARED)")
    with np.load(path) as data:
        return data["images"][:count].astype(np.int16), data["labels"][:count]


@pytest.mark.parametrize("name", ["mlperf_tiny_resnet8_int8", "tinymaix_cifar10_int8"])
def test_every_tensor_equals_tflm_on_cifar10(name):
    assert_every_tensor_equal(name, cifar10(8)[0])


@pytest.mark.slow
def test_resnet8_recognises_cifar10():
    images, labels = cifar10(500)
    conversion = tflite.load(MODELS / "mlperf_tiny_resnet8_int8.tflite")
    decisions = []
    for start in range(0, 500, 50):
        scores = engine.run(conversion.graph, images[start : start + 50])[conversion.graph.output]
        decisions += scores.argmax(axis=1).tolist()
    assert np.mean(np.array(decisions) == labels) > 0.84


def bitmap(name):
    """An uncompressed 24-bit .bmp of the model folder: uint8 (height, width, 3), RGB."""
    content = (MODELS / name).read_bytes()
    start, width, height = (int.from_bytes(content[at : at + 4], "little", signed=True) for at in (10, 18, 22))
    bits = int.from_bytes(content[28:30], "little")
    row = -(-width * bits // 32) * 4
    rows = np.frombuffer(content[start : start + row * abs(height)], np.uint8).reshape(abs(height), row)
    rows = rows[:, : width * bits // 8].reshape(abs(height), width, bits // 8)
    rows = rows[::-1] if height > 0 else rows
    return rows[..., ::-1] if bits == 24 else rows


@pytest.mark.parametrize(("name", "person"), [("person.bmp", True), ("no_person.bmp", False)])
def test_person_detection_on_its_own_images(name, person):
    image = bitmap(name).view(np.int8).astype(np.int16) + 128  # these files hold the network's int8 values
    assert image.shape == (96, 96, 1)
    _, scores = assert_every_tensor_equal("person_detect", image[np.newaxis])
    assert (scores[0, 1] > scores[0, 0]) == person


@pytest.mark.slow
def test_mobilenet_recognises_its_own_image():
    image = bitmap("grace_hopper.bmp")
    rows, columns = (np.arange(224) * size // 224 for size in image.shape[:2])
    image = image[rows[:, np.newaxis], columns]
    _, scores = assert_every_tensor_equal("coral_mobilenet_v2_224_int8", image.astype(np.int16)[np.newaxis])
    names = (MODELS / "imagenet_labels.txt").read_text().splitlines()
    assert "military uniform" in [names[index] for index in np.argsort(scores[0])[-5:]]
