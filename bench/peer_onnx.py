"""The network of resnet.py as ONNX models: float32, and the same int8 weights and activation scales as intsmooth's.

The integer model names ONNX Runtime's integer kernels itself (its quantization tool calls this the QOperator format),
so that nothing depends on what Runtime fuses: uint8 activations, int8 weights per output channel, int32 biases. No ReLU
is needed, for quantization saturates at zero. A residual connection is an integer addition there, with a rounding of
its own. Of two ways to write the shortcut (a strided slice padded with channels, a 1x1 convolution with stride) the
callers take the faster one.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from resnet import CLASSES, DEVIATION, Block, Convolution, Quantized, ResNet

OPSET, IR = 17, 8
MICROSOFT = "com.microsoft"
SHORTCUTS = ("slice", "convolution")


class _Model:
    """Nodes and constants in the making."""

    def __init__(self):
        self.nodes, self.constants = [], {}

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], output + "/" + op, **attributes))
        return output

    def finish(self, x: str, kind, size: int, scores: str, scores_kind) -> bytes:
        inputs = [helper.make_tensor_value_info(x, kind, ["batch", 3, size, size])]
        outputs = [helper.make_tensor_value_info(scores, scores_kind, ["batch", CLASSES])]
        graph = helper.make_graph(self.nodes, "resnet", inputs, outputs, list(self.constants.values()))
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=IR)
        onnx.checker.check_model(model)
        return model.SerializeToString()


def _subsample(model: _Model, x: str, name: str, block: Block, fill: np.ndarray) -> str:
    """Every second pixel, with channels of `fill` around those that exist; x of any type."""
    missing = len(block.second.weights) - block.first.weights.shape[3]
    ranges = {"starts": [0, 0], "ends": [2**31 - 1] * 2, "axes": [2, 3], "steps": [block.stride] * 2}
    starts, ends, axes, steps = (model.constant(f"{name}/{key}", np.array(ranges[key], np.int64)) for key in ranges)
    sliced = model.node("Slice", [x, starts, ends, axes, steps], f"{name}/sliced")
    pads = np.array([0, block.offset, 0, 0, 0, missing - block.offset, 0, 0], np.int64)
    inputs = [sliced, model.constant(f"{name}/pads", pads), model.constant(f"{name}/fill", fill)]
    return model.node("Pad", inputs, f"{name}/padded")


def _selection(block: Block) -> np.ndarray:
    """The shortcut as a 1x1 convolution: (O, I, 1, 1) of zeros and ones."""
    outputs, inputs = len(block.second.weights), block.first.weights.shape[3]
    weights = np.zeros((outputs, inputs, 1, 1), np.float32)
    weights[np.arange(inputs) + block.offset, np.arange(inputs)] = 1
    return weights


def float_model(net: ResNet) -> bytes:
    """float32 (N, 3, H, W) in [0, 1] units -> float32 scores; batch normalization folded."""
    model = _Model()

    def convolution(layer: Convolution, x: str) -> str:
        weights, bias = layer.folded()
        weights = weights / DEVIATION if layer is net.stem else weights
        inputs = [x, model.constant(layer.name + "/w", np.float32(weights).transpose(0, 3, 1, 2)),
                  model.constant(layer.name + "/b", np.float32(bias))]  # fmt: skip
        return model.node("Conv", inputs, layer.name + "/y", strides=[layer.stride] * 2, pads=[1] * 4)

    x = model.node("Relu", [convolution(net.stem, "x")], "stem")
    for block in net.blocks:
        y = model.node("Relu", [convolution(block.first, x)], block.first.name)
        y = convolution(block.second, y)
        skip = x if block.stride == 1 else _subsample(model, x, block.second.name, block, np.float32(0))
        x = model.node("Relu", [model.node("Add", [y, skip], block.second.name + "/sum")], block.second.name)
    mean = model.node("Flatten", [model.node("GlobalAveragePool", [x], "pooled")], "mean")
    last = [mean, model.constant("last/w", np.float32(net.weights)), model.constant("last/b", np.float32(net.bias))]
    model.node("Gemm", last, "scores", transB=1)
    return model.finish("x", TensorProto.FLOAT, net.size, "scores", TensorProto.FLOAT)


def integer_model(net: ResNet, quantized: Quantized, shortcut: str = "slice") -> bytes:
    """uint8 (N, 3, H, W), intsmooth's quantized input + 128 -> uint8 scores, intsmooth's + 128."""
    model = _Model()

    def place(name: str) -> list[str]:
        scale, zero = quantized.places[name]
        return [model.constant(name + "/scale", np.float32(scale)),
                model.constant(name + "/zero", np.uint8(zero + 128))]  # fmt: skip

    def weighted(name: str, whole: np.ndarray, step: np.ndarray) -> list[str]:
        """Integers, scales and zero points per output channel."""
        parts = {"w": whole, "w/scale": np.float32(step), "w/zero": np.zeros(len(step), np.int8)}
        return [model.constant(f"{name}/{part}", value) for part, value in parts.items()]

    def convolution(layer: Convolution, x: str, source: str, output: str) -> str:
        whole, step, bias = quantized.weights[layer.name]
        inputs = [x, *place(source), *weighted(layer.name, whole.transpose(0, 3, 1, 2), step), *place(output)]
        inputs.append(model.constant(layer.name + "/b", bias))
        return model.node("QLinearConv", inputs, output, strides=[layer.stride] * 2, pads=[1] * 4)

    def shortcut_of(block: Block, x: str) -> str:
        """What joins the second convolution of a block; it keeps the scale and zero point of x."""
        name = block.second.name
        if block.stride == 1:
            return x
        if shortcut == "slice":
            return _subsample(model, x, name, block, np.uint8(quantized.places[x][1] + 128))
        selection = _selection(block)
        inputs = [x, *place(x), *weighted(name + "/one", np.int8(selection), np.ones(len(selection))), *place(x)]
        return model.node("QLinearConv", inputs, name + "/skip", strides=[block.stride] * 2)

    x = convolution(net.stem, "x", "input", "stem")
    for block in net.blocks:
        first, second = block.first.name, block.second.name
        before = convolution(block.second, convolution(block.first, x, x, first), first, second + ":before")
        inputs = [before, *place(second + ":before"), shortcut_of(block, x), *place(x), *place(second)]
        x = model.node("QLinearAdd", inputs, second, domain=MICROSOFT)
    pooled = model.node("QLinearGlobalAveragePool", [x, *place(x), *place("mean")], "pooled", domain=MICROSOFT)
    whole, step, bias = quantized.weights["scores"]
    inputs = [model.node("Flatten", [pooled], "mean"), *place("mean"), *weighted("scores", whole, step)]
    inputs += [model.constant("scores/b", bias), *place("scores")]
    model.node("QGemm", inputs, "scores", transB=1, domain=MICROSOFT)
    return model.finish("x", TensorProto.UINT8, net.size, "scores", TensorProto.UINT8)


def session(model: bytes, threads: int):
    """A session on the CPU with all optimizations and `threads` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
