"""Post-training quantization: what is fused, how far from the float model, and the path from PyTorch."""

import io
import json
import math
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx")

from onnx_builder import Builder, resnet20, small_network  # noqa: E402
from places import SHARED

from intsmooth import cli, h5file  # noqa: E402
from intsmooth.convert.onnx_float import convolve  # noqa: E402
from intsmooth.convert.quantize import METHODS, quantize  # noqa: E402
from intsmooth.datasets.arrays import open_arrays  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402
from intsmooth.errors import FormatError, InputError, UnsupportedError  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def smooth_images(count, size=16, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, size // 4, size // 4, channels))
    images = np.kron(coarse, np.ones((1, 4, 4, 1))) + rng.normal(0, 15, (count, size, size, channels))
    return np.clip(images, 0, 255).astype(int)


@pytest.mark.parametrize("method", METHODS)
def test_layers_lose_little_and_are_fused(method):
    result = quantize(small_network(), smooth_images(48), method=method)
    operators = [node.op for node in result.graph.nodes]
    assert operators.count("conv2d_add") == 1 and "add" not in operators and "depthwise_conv2d" in operators
    assert not {"transpose", "requantize", "clamp"} & set(operators)  # clips and batch normalizations cost nothing
    assert len(result.losses) >= 12 and min(loss.signal_to_noise for loss in result.losses) > 25
    assert max(loss.clipped for loss in result.losses) < 0.01 and result.agreement >= 0.9
    assert "signal/noise" in result.text()


def test_losses_are_what_a_comparison_by_hand_finds():
    images = smooth_images(20)
    content = small_network()
    result = quantize(content, images)
    runtime = pytest.importorskip("onnxruntime", reason="needs the package onnxruntime, the witness")
    reals = (np.moveaxis(images, -1, 1) / 255).astype(np.float32)
    expected = runtime.InferenceSession(content).run(None, {"x": reals})[0]
    tensor = result.graph.tensors[result.graph.output]
    found = tensor.scale * (Engine(result.graph, "numpy").forward(images).astype(float) - tensor.zero_point)
    ratio = 10 * math.log10(np.square(expected).sum() / np.square(found - expected).sum())
    assert result.losses[-1].signal_to_noise == pytest.approx(ratio, abs=0.01)
    assert result.agreement == np.mean(found.argmax(1) == expected.argmax(1))


def test_corrected_biases_bring_every_layers_mean_nearer():
    images = smooth_images(48)
    plain, corrected = (quantize(small_network(), images, correct=correct) for correct in (False, True))
    text = "hold what rounding shifts on average"
    assert text in corrected.text() and text not in plain.text()
    for one, other in zip(plain.graph.nodes, corrected.graph.nodes, strict=True):
        assert one.constants.keys() == other.constants.keys()
        for name, array in one.constants.items():
            assert name == "bias" or np.array_equal(array, other.constants[name])
    assert plain.graph.digest != corrected.graph.digest
    gained = [new.signal_to_noise - old.signal_to_noise
              for old, new in zip(plain.losses, corrected.losses, strict=True)]  # fmt: skip
    assert np.mean(gained) > 0 and gained[-1] > 0


def test_the_range_covers_the_noise_that_is_announced():
    images = smooth_images(16)
    plain, noisy = quantize(small_network(), images), quantize(small_network(), images, sigma="0.25")
    first = [result.graph.tensors[result.graph.nodes[0].output] for result in (plain, noisy)]
    ends = [[tensor.scale * (q - tensor.zero_point) for q in (-128, 127)] for tensor in first]
    np.testing.assert_allclose(ends[0], [0, 1], atol=0.01)
    np.testing.assert_allclose(ends[1], [-0.625, 1.625], atol=0.02)  # 2.5 standard deviations on both sides


def test_both_engines_agree_on_a_quantized_model():
    images = smooth_images(4)
    graph = quantize(small_network(), images, mean=MEAN, std=STD).graph
    compiled, naive = (Engine(graph, backend).trace(images) for backend in ("numba", "numpy"))
    for node in graph.nodes:
        np.testing.assert_array_equal(compiled[node.output], naive[node.output], err_msg=node.name)


def test_the_fast_convolution_is_onnx_references_own():
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(3)
    for groups, stride, dilation, pads in ((1, 1, 1, (1, 1, 1, 1)), (2, 2, 1, (0, 1, 2, 0)), (4, 1, 2, (2, 2, 2, 2))):
        x = rng.normal(size=(2, 4, 9, 8)).astype(np.float32)
        w, bias = rng.normal(size=(8, 4 // groups, 3, 3)).astype(np.float32), rng.normal(size=8).astype(np.float32)
        node = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=groups, strides=[stride] * 2,
                                dilations=[dilation] * 2, pads=pads)  # fmt: skip
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xwby"]
        graph = helper.make_graph([node], "g", infos[:3], infos[3:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        expected = ReferenceEvaluator(model).run(None, {"x": x, "w": w, "b": bias})[0]
        found = convolve(x, w, bias, "NOTSET", (dilation,) * 2, groups, pads, (stride,) * 2)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_arguments_and_models_that_do_not_fit():
    images = smooth_images(4)
    with pytest.raises(InputError, match="method"):
        quantize(small_network(), images, method="guess")
    with pytest.raises(InputError, match="shape"):
        quantize(small_network(), images[:, :8])
    with pytest.raises(InputError, match="integers"):
        quantize(small_network(), images / 255)
    with pytest.raises(InputError, match="levels"):
        quantize(small_network(), images, levels=(0, 16))
    with pytest.raises(InputError, match="mean has 2"):
        quantize(small_network(), images, mean=(0.1, 0.2))
    with pytest.raises(FormatError):
        quantize(small_network()[:1000], images)
    b = Builder((3, 16, 16))
    x = b.node("Erf", [b.node("Conv", ["x", np.zeros((4, 3, 3, 3), np.float32)])])
    with pytest.raises(UnsupportedError, match="Erf"):
        quantize(b.bytes(x), images)


def test_a_channel_without_weights_keeps_its_bias():
    b = Builder((3, 16, 16))
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[0] = 1 / 3
    b.node("Conv", ["x", weights, np.array([0, 0.5], np.float32)])
    x = b.node("Flatten", [b.node("GlobalAveragePool", [b.nodes[-1].output[0]])])
    images = smooth_images(8)
    graph = quantize(b.bytes(x), images).graph
    tensor = graph.tensors[graph.output]
    found = tensor.scale * (Engine(graph, "numpy").forward(images).astype(float) - tensor.zero_point)
    np.testing.assert_allclose(found[:, 1], 0.5, atol=0.01)
    np.testing.assert_allclose(found[:, 0], images.mean(axis=(1, 2, 3)) / 255, atol=0.01)


def test_gates_differences_and_paddings():
    """A squeeze-and-excitation gate, a difference, padding, an average with counted padding, a residual projection."""
    b = Builder((3, 16, 16))
    x = b.node("Relu", [b.conv("x", 3, 8)])
    gate = b.node("Relu", [b.conv(b.node("GlobalAveragePool", [x]), 8, 4, kernel=1)])
    gate = b.node("HardSigmoid", [b.conv(gate, 4, 8, kernel=1)])
    y = b.node("Mul", [x, gate])
    y = b.node("Sub", [y, b.node("LeakyRelu", [b.conv(x, 8, 8)], alpha=0.1)])
    y = b.node("AveragePool", [y], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2], count_include_pad=1)
    y = b.node("Pad", [y, np.array([0, 0, 1, 1, 0, 0, 1, 1])])
    y = b.node("Relu", [b.node("Add", [b.conv(y, 8, 12, pad=0), b.conv(x, 8, 12, kernel=1, stride=2)])])
    y = b.node("Mul", [b.node("Tanh", [y]), np.float32(1.7)])
    y = b.node("ReduceMean", [y], axes=[2, 3], keepdims=0)
    y = b.node("Add", [b.node("MatMul", [y, b.rng.normal(size=(12, 5)).astype(np.float32)]), np.ones(5, np.float32)])
    result = quantize(b.bytes(y), smooth_images(32))
    operators = {node.op for node in result.graph.nodes}
    assert operators >= {"mul", "sub", "pad", "mean", "lookup", "conv2d_add", "fully_connected"}
    assert min(loss.signal_to_noise for loss in result.losses) > 22, result.text()


def test_the_command_writes_a_model_that_certify_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(small_network())
    np.savez(tmp_path / "images.npz", images=smooth_images(8).astype(np.uint8), labels=np.zeros(8, int))
    assert cli.main("quantize model.onnx --calibrate images.npz -o model.h5 --sigma 0.1 --json".split()) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["digest"] == h5file.load("model.h5").digest and len(report["losses"]) >= 12
    assert cli.main("certify model.h5 --data images.npz --sigma 0.1 --n 50 --max 2 --seed 1".split()) == 0


def test_the_command_leaves_its_input_alone_and_images_of_training_parts_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = small_network()
    (tmp_path / "model.onnx").write_bytes(content)
    np.savez(tmp_path / "images.npz", images=smooth_images(8).astype(np.uint8), labels=np.zeros(8, int))
    for line in ("-o model.onnx", "-o images.npz", "-o m.h5 --seed -1", "-o m.h5 --input-scale 1/0"):
        assert cli.main(f"quantize model.onnx --calibrate images.npz {line}".split()) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert cli.main("convert model.onnx -o model.onnx".split()) == 2 and "overwritten" in capsys.readouterr().err
    assert (tmp_path / "model.onnx").read_bytes() == content and not (tmp_path / "m.h5").exists()
    (tmp_path / "garbage.onnx").write_bytes(b"\xff" * 50)
    assert cli.main(["info", "garbage.onnx"]) == 3 and "garbage.onnx: " in capsys.readouterr().err
    opened = []
    monkeypatch.setattr("intsmooth.datasets.open_dataset", lambda *_, **options: opened.append(options) or open_arrays("images.npz"))
    for options, split in (("", "train"), ("--split test", "test")):
        assert cli.main(f"quantize model.onnx --calibrate cifar10 -o m.h5 {options}".split()) == 0
        assert opened.pop() == {"split": split, "shape": smooth_images(1).shape[1:]}


def trained_resnet():
    weights = SHARED / "models" / "cifar10_resnet20_float.npz"
    data = SHARED / "data" / "cifar10" / "test_every_20th.npz"
    if not weights.is_file() or not data.is_file():
        pytest.skip(f"no weights at {weights} or no images at {data} (set INTSMOOTH_SHARED)")
    with np.load(weights) as state, np.load(data) as images:
        content = resnet20({name.removeprefix("module."): array for name, array in state.items()})
        return content, images["images"], images["labels"]


@pytest.mark.slow
def test_a_trained_resnet_keeps_its_accuracy():
    """ResNet-20, 90.0 % of these 500 test images in float; calibrated on the first 300 training images.

    Other calibration images move the result by one or two test images: bench/quantization.py has the spread.
    """
    content, images, labels = trained_resnet()
    pillow = pytest.importorskip("PIL.Image", reason="needs pillow to read the training images")
    sheet = SHARED / "data" / "cifar10" / "train_1.webp"
    if not sheet.is_file():
        pytest.skip(f"no training images at {sheet} (set INTSMOOTH_SHARED)")
    rows = np.asarray(pillow.open(sheet).convert("RGB"))[: 3 * 32]
    training = rows.reshape(3, 32, 100, 32, 3).swapaxes(1, 2).reshape(300, 32, 32, 3)
    result = quantize(content, training, mean=MEAN, std=STD)
    assert [node.op for node in result.graph.nodes].count("conv2d_add") == 9
    runtime = pytest.importorskip("onnxruntime", reason="needs the package onnxruntime, the witness")
    reals = np.moveaxis((images / 255 - MEAN) / STD, -1, 1).astype(np.float32)
    exact = runtime.InferenceSession(content).run(None, {"x": reals})[0].argmax(1)
    found = Engine(result.graph, threads=1).classify(images)
    assert np.mean(found == labels) >= np.mean(exact == labels) - 0.005
    assert np.mean(found == exact) >= 0.98


def test_from_pytorch_to_a_model_file(tmp_path):
    """The documented path: a torch.nn.Module, exported to ONNX, quantized, saved, loaded, run."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.ReLU6(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(16, 4),
    ).eval()  # fmt: skip
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(network, torch.zeros(1, 3, 16, 16), file, dynamo=False)
    images = smooth_images(32)
    result = quantize(file.getvalue(), images)
    h5file.save(result.graph, tmp_path / "model.h5")
    graph = h5file.load(tmp_path / "model.h5")
    with torch.no_grad():
        expected = network(torch.from_numpy(np.moveaxis(images, -1, 1) / 255).float()).numpy()
    tensor = graph.tensors[graph.output]
    found = tensor.scale * (Engine(graph, "numpy").forward(images).astype(float) - tensor.zero_point)
    assert np.abs(found - expected).max() <= 0.05 * np.ptp(expected) + 2 * tensor.scale
