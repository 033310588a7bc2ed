"""ONNX Runtime's quantizer on small images, and how far our operators are from what its models compute."""

import numpy as np
import pytest
from places import SHARED

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the package onnxruntime, the witness")

from onnxruntime import quantization  # noqa: E402

from intsmooth.reference.engine import TWINS  # noqa: E402


def images(count, size=16):
    """CIFAR-10 images, every second pixel; smooth random ones where the data are missing."""
    path = SHARED / "data" / "cifar10" / "test_every_20th.npz"
    if path.is_file():
        with np.load(path) as data:
            return data["images"][:count, :: 32 // size, :: 32 // size].astype(np.int16)
    rng = np.random.default_rng(0)
    phases = rng.normal(1, 0.5, (count, 1, size, 3)), rng.normal(0, 2, (count, 1, 1, 3))
    waves = np.sin(np.linspace(0, 7, size)[:, None, None] * phases[0] + phases[1])
    return np.clip(128 + 100 * waves + rng.normal(0, 20, waves.shape), 0, 255).astype(np.int16)


class Reader(quantization.CalibrationDataReader):
    """Batches of reals in [0, 1] for ONNX Runtime's quantizer."""

    def __init__(self, levels):
        reals = (np.moveaxis(levels, -1, 1) / 255).astype(np.float32)
        self.batches = iter([{"x": reals[start : start + 16]} for start in range(0, len(reals), 16)])

    def get_next(self):
        return next(self.batches, None)


def quantized(folder, content, form="QDQ", unsigned=0, per_channel=1, levels=None):
    """The path of a model that ONNX Runtime has quantized.

    Without VNNI its kernels for uint8 activations add pairs of products in 16 bits and saturate, which ONNX does not
    define; its documentation recommends weights of 7 bits (reduce_range) there.
    """
    source, target = folder / "float.onnx", folder / f"{form}-{unsigned}-{per_channel}.onnx"
    source.write_bytes(content)
    kind = quantization.QuantType.QUInt8 if unsigned else quantization.QuantType.QInt8
    quantization.quantize_static(
        str(source), str(target), Reader(images(64) if levels is None else levels), per_channel=bool(per_channel),
        quant_format=quantization.QuantFormat[form], activation_type=kind, weight_type=quantization.QuantType.QInt8,
        reduce_range=bool(unsigned),
    )  # fmt: skip
    return target


def optimize(source, target):
    """Batch normalizations folded into weights, as ONNX Runtime recommends before quantizing."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def layer_steps(conversion, theirs):
    """node -> differences of our operator from their tensor, where all its inputs are theirs too."""
    graph, steps = conversion.graph, {}
    given = dict(theirs)
    for node in graph.nodes:
        if node.op == "input_requantize" or any(name not in given for name in node.inputs):
            continue
        result = TWINS[node.op](graph, node, *(given[name] for name in node.inputs))
        if node.output in theirs:
            steps[node.name] = np.abs(result.astype(int) - theirs[node.output])
        else:
            given[node.output] = result
    return steps
