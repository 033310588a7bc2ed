"""The int32 sums that a network really forms on given inputs, taken from the naive twins' arithmetic."""

import numpy as np

from intsmooth.records import Graph, Node
from intsmooth.reference import convolution
from intsmooth.reference import engine as reference


def largest_seen(graph: Graph, levels: np.ndarray) -> dict[str, np.ndarray]:
    """Node name -> largest |accumulator| per channel, int64, over a batch (int16, (N, *input shape)).

    Only for operators that sum over many inputs: convolutions, fully_connected and mean.
    """
    values = reference.run(graph, levels)
    seen = {}
    for node in graph.nodes:
        if node.op in _SUMS:
            zero_points = [graph.tensors[name].zero_point for name in node.inputs]
            sums = _SUMS[node.op](node, [values[name] for name in node.inputs], zero_points)
            seen[node.name] = np.abs(sums.astype(np.int64)).max(axis=tuple(range(sums.ndim - 1)))
    return seen


def _convolution(node: Node, inputs, zero_points) -> np.ndarray:
    geometry = {name: node.attributes[name] for name in ("stride", "dilation", "padding", "groups")}
    sums = convolution.conv2d_accumulators(
        inputs[0], node.constants["weights"], node.constants["bias"], input_zero_point=zero_points[0], **geometry
    )
    if node.op == "conv2d_add":
        _, height, width, outputs = sums.shape
        centred = inputs[1].astype(np.int32) - np.int32(zero_points[1])
        skip = convolution.tap_window(centred, 0, 0, node.attributes["skip_stride"], (1, 1), height, width)
        channel = np.arange(outputs) - node.attributes["skip_offset"]
        inside = (channel >= 0) & (channel < skip.shape[3])
        sums[..., inside] += node.constants["skip_multiplier"][inside] * skip[..., channel[inside]]
    return sums


def _depthwise(node: Node, inputs, zero_points) -> np.ndarray:
    weights = node.constants["weights"]
    geometry = {name: node.attributes[name] for name in ("stride", "dilation", "padding")}
    grouped = np.ascontiguousarray(np.moveaxis(weights, -1, 0)[..., None])
    return convolution.conv2d_accumulators(
        inputs[0],
        grouped,
        node.constants["bias"],
        input_zero_point=zero_points[0],
        groups=inputs[0].shape[3],
        **geometry,
    )


def _fully_connected(node: Node, inputs, zero_points) -> np.ndarray:
    centred = inputs[0].reshape(len(inputs[0]), -1).astype(np.int32) - np.int32(zero_points[0])
    return node.constants["bias"] + centred @ node.constants["weights"].T.astype(np.int32)


def _mean(node: Node, inputs, zero_points) -> np.ndarray:
    return (inputs[0].astype(np.int32) - np.int32(zero_points[0])).sum(axis=(1, 2))


_SUMS = {
    "conv2d": _convolution,
    "conv2d_add": _convolution,
    "depthwise_conv2d": _depthwise,
    "fully_connected": _fully_connected,
    "mean": _mean,
}
