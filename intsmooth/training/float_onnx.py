"""The float network of a training run as an ONNX file, batch norm folded: for `intsmooth quantize` and other programs.

    python -m intsmooth.training.float_onnx RECIPE WORK/float.pt model.onnx
    intsmooth quantize model.onnx --calibrate DATA --split train --sigma SIGMA -o model.h5

is post-training quantization of a trained float model, with a report of what every layer loses. The network's input is
levels / unit, (N, C, H, W), without any other normalisation; where it is bounded, bounds are Clip nodes.
"""

import argparse
import math
import pathlib

import numpy as np

from intsmooth.errors import MissingExtraError, ResourceError
from intsmooth.outcome import exit_code
from intsmooth.training.float_twin import load_float_network
from intsmooth.training.network import Convolution, FloatNetwork
from intsmooth.training.recipe import load_recipe

_OPSET = 17
_END = np.iinfo(np.int64).max


class _Writer:
    """Collects nodes and constants; every method returns the name of a tensor."""

    def __init__(self, onnx):
        self.onnx, self.nodes, self.constants = onnx, [], []

    def constant(self, array) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op: str, *inputs: str, name: str = "", **attributes) -> str:
        name = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def bounded(self, source: str, lowest: float, highest: float, name: str = "") -> str:
        """Clipped to a range that may be open above: ReLU, where it begins at 0."""
        if math.isinf(highest):
            return self.node("Relu", source, name=name)
        return self.node("Clip", source, *(self.constant(np.float32(bound)) for bound in (lowest, highest)), name=name)

    def skip(self, source: str, inputs: int, layer: Convolution) -> str:
        """The shortcut of option A: every skip_stride-th pixel, channels moved to skip_offset, zeros around them."""
        if layer.skip_stride > 1:
            slices = ([0, 0], [_END, _END], [2, 3], [layer.skip_stride] * 2)
            source = self.node("Slice", source, *(self.constant(np.array(part, np.int64)) for part in slices))
        after = layer.outputs - inputs - layer.skip_offset
        if layer.skip_offset or after:
            pads = np.array([0, layer.skip_offset, 0, 0, 0, after, 0, 0], np.int64)
            source = self.node("Pad", source, self.constant(pads))
        return source


def float_onnx(network: FloatNetwork) -> bytes:
    """The serialized ONNX model of a network whose batch norms are folded (load_float_network), one open batch axis."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "writing an ONNX file") from None
    architecture = network.architecture
    height, width, channels = architecture.image
    writer = _Writer(onnx)
    lowest, highest = (network.reach / network.unit).tolist()
    names, widths = {"input": "input"}, {"input": channels}
    if math.isfinite(highest):
        names["input"] = writer.bounded("input", lowest, highest)
    ceilings = network.ceilings.tolist()
    for layer, convolution, ceiling in zip(architecture.convolutions, network.convolutions, ceilings, strict=True):
        parameters = (convolution.weight, convolution.bias)
        constants = [writer.constant(parameter.detach().numpy()) for parameter in parameters]
        edges = {"pads": [layer.kernel // 2] * 4, "strides": [layer.stride] * 2}
        value = writer.node("Conv", names[layer.source], *constants, **edges)
        if layer.skip is not None:
            value = writer.node("Add", value, writer.skip(names[layer.skip], widths[layer.skip], layer))
        names[layer.name], widths[layer.name] = writer.bounded(value, 0.0, ceiling, layer.name), layer.outputs
    value = names[architecture.last]
    if architecture.pooled:
        value = writer.node("GlobalAveragePool", value)
    else:
        value = writer.node("Transpose", value, perm=[0, 2, 3, 1])  # the linear layer reads (H, W, C)
    value = writer.node("Flatten", value)
    linear = [writer.constant(p.detach().numpy()) for p in (network.linear.weight, network.linear.bias)]
    writer.node("Gemm", value, *linear, name="logits", transB=1)
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        writer.nodes,
        architecture.name,
        [tensor("input", onnx.TensorProto.FLOAT, ["batch", channels, height, width])],
        [tensor("logits", onnx.TensorProto.FLOAT, ["batch", architecture.classes])],
        writer.constants,
    )
    opset = [onnx.helper.make_opsetid("", _OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="intsmooth")
    onnx.checker.check_model(model)
    return model.SerializeToString()


def main(argv: list[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe of the model")
    parser.add_argument("checkpoint", help="float.pt in the work folder of its training")
    parser.add_argument("out", help="the .onnx file to write")
    arguments = parser.parse_args(argv)
    content = float_onnx(load_float_network(load_recipe(arguments.recipe), arguments.checkpoint))
    try:
        pathlib.Path(arguments.out).write_bytes(content)
    except OSError as error:
        raise ResourceError(f"{arguments.out} cannot be written ({error.strerror}); choose another file") from error
    print(f"{arguments.out}: {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
