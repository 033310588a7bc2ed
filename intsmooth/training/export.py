"""The fake-quantized twin as a graph of integer operators, ready to be saved.

Integers come from the very functions that the twin computes with, so what is stored is what was trained; rescaling
factors become (multiplier, shift) pairs here and nowhere else. After ReLU the zero point is -128: all of int8 is used,
and the clamp of the fused operator is the type's own saturation.
"""

from collections.abc import Mapping

import numpy as np
import torch

from intsmooth.fixedpoint import nearest_result_multiplier, quantize_multipliers
from intsmooth.graph import build_graph
from intsmooth.records import Graph, Node, Tensor
from intsmooth.training.fakequant import WEIGHT_LIMIT, QuantizedNetwork, Rescaling
from intsmooth.training.network import Convolution

_RELU_ZERO = -128
_FULL = (-128, 127)


def export(
    twin: QuantizedNetwork, classes: tuple[str, ...], levels: tuple[int, int], facts: Mapping[str, str]
) -> Graph:
    """The integer graph that computes what the twin does; facts are free text for people."""
    twin = twin.eval().cpu()
    architecture = twin.architecture
    *convolutions, linear = twin.rescaling()
    nodes = [_input_node(twin)]
    tensors = [
        Tensor("levels", architecture.image, "int16", 0, 1.0 / twin.unit),
        Tensor("input", architecture.image, "int8", int(twin.input_zero), float(twin.scale_of("input"))),
    ]
    for i, (layer, scales) in enumerate(zip(architecture.convolutions, convolutions, strict=True)):
        nodes.append(_convolution_node(twin, i, layer, scales))
        tensors.append(Tensor(layer.name, architecture.shape_of(layer.name), "int8", _RELU_ZERO, float(twin.scales[i])))
    head_nodes, head_tensors = _head(twin, linear)
    return build_graph(
        nodes=(*nodes, *head_nodes),
        tensors=tensors + head_tensors,
        input="levels",
        output="logits",
        levels=levels,
        unit=twin.unit,
        classes=classes,
        facts=dict(facts),
    )


def _rescale(factors: torch.Tensor) -> dict[str, np.ndarray]:
    multiplier, shift = quantize_multipliers(factors.flatten().tolist(), nearest_result_multiplier)
    return {"multiplier": multiplier, "shift": shift}


def _int8(values: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().round().to(torch.int8).numpy())


def _int32(values: torch.Tensor) -> np.ndarray:
    return values.detach().round().to(torch.int32).numpy()


def _input_node(twin: QuantizedNetwork) -> Node:
    return Node("input", "input_requantize", ("levels",), "input", {}, _rescale(1.0 / twin.input_scale))


def _convolution_node(twin: QuantizedNetwork, i: int, layer: Convolution, scales: Rescaling) -> Node:
    weights = twin.weights[i] / scales.weight[:, None, None, None]
    attributes = {
        "stride": (layer.stride, layer.stride),
        "dilation": (1, 1),
        "padding": (layer.kernel // 2,) * 4,
        "groups": 1,
        "clamp": _FULL,
    }
    constants = {
        "weights": _int8(weights.permute(0, 2, 3, 1)),
        "bias": _int32(twin.biases[i] / scales.acc),
        **_rescale(scales.factor),
    }
    if layer.skip is None:
        return Node(layer.name, "conv2d", (layer.source,), layer.name, attributes, constants)
    carried = torch.zeros(layer.outputs)
    channels = next(c.outputs for c in twin.architecture.convolutions if c.name == layer.skip)
    carried[layer.skip_offset : layer.skip_offset + channels] = 1
    constants["skip_multiplier"] = _int32(scales.skip * carried)
    attributes |= {"skip_stride": (layer.skip_stride,) * 2, "skip_offset": layer.skip_offset}
    return Node(layer.name, "conv2d_add", (layer.source, layer.skip), layer.name, attributes, constants)


def _features_node(twin: QuantizedNetwork) -> Node:
    last, count = twin.architecture.last, twin.architecture.features
    if not twin.architecture.pooled:
        return Node("features", "reshape", (last,), "features", {"shape": (count,)}, {})
    height, width, _ = twin.architecture.shape_of(last)
    factor = twin.scales[-1] / twin.features_scale / (height * width)
    return Node("features", "mean", (last,), "features", {"clamp": _FULL}, _rescale(factor))


def _head(twin: QuantizedNetwork, scales: Rescaling) -> tuple[list[Node], list[Tensor]]:
    """From the last activation to the logits: coarse ones, their maximum, and those that decide (see decision.py)."""
    classes, count = twin.architecture.classes, twin.architecture.features
    whole = (twin.linear_weight / scales.weight[:, None]).round()
    weights = whole if twin.readings == 1 else torch.cat([torch.floor(whole / 2), torch.ceil(whole / 2)], 1)
    times = int(torch.ceil(scales.skip.max() / WEIGHT_LIMIT))
    peak = torch.floor((scales.skip[:, None] + torch.arange(times)) / times)  # int8 each, whose sum is scales.skip
    bias = {"bias": _int32(twin.linear_bias / scales.acc)}
    coarse = {"weights": _int8(weights), **bias, **_rescale(scales.peak_factor)}
    final = {"weights": _int8(torch.cat([weights, -peak], 1)), **bias, **_rescale(scales.factor)}
    readings = ("features",) * twin.readings
    column = {"kernel": (classes, 1), "stride": (1, 1), "padding": (0,) * 4, "clamp": _FULL}
    nodes = [
        _features_node(twin),
        Node("readings", "concat", readings, "readings", {"axis": 0}, {}),
        Node("coarse", "fully_connected", ("readings",), "coarse", {"clamp": _FULL}, coarse),
        Node("column", "reshape", ("coarse",), "column", {"shape": (classes, 1, 1)}, {}),
        Node("largest", "max_pool2d", ("column",), "largest", column, {}),
        Node("peak", "reshape", ("largest",), "peak", {"shape": (1,)}, {}),
        Node("terms", "concat", ("readings", *("peak",) * times), "terms", {"axis": 0}, {}),
        Node("logits", "fully_connected", ("terms",), "logits", {"clamp": _FULL}, final),
    ]
    features_scale, peak_scale = float(twin.features_scale), float(twin.peak_scale)
    shapes = [
        ("features", (count,), features_scale),
        ("readings", (twin.readings * count,), features_scale),
        ("coarse", (classes,), peak_scale),
        ("column", (classes, 1, 1), peak_scale),
        ("largest", (1, 1, 1), peak_scale),
        ("peak", (1,), peak_scale),
        ("terms", (twin.readings * count + times,), features_scale),
    ]
    tensors = [Tensor(name, shape, "int8", _RELU_ZERO, scale) for name, shape, scale in shapes]
    return nodes, [*tensors, Tensor("logits", (classes,), "int8", int(twin.logits_zero), float(twin.logits_scale))]
