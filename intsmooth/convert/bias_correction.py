"""Bias correction: what rounding shifts on average, the biases take back (Nagel et al., ICCV 2019, appendix D).

From the first layer to the last, the bias of every output channel moves by as much as the channel's mean over
calibration images is off, each layer being measured after those before it were corrected.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from intsmooth.fixedpoint import real_multiplier
from intsmooth.graph import build_graph
from intsmooth.records import Graph, Node, Tensor

_LEAST_MOVABLE = 0.05  # where nearly all outputs are clipped, the mean says little about the bias
_LARGEST_BIAS = 2**27  # far from the end of int32, whatever the accumulators add


def correct_biases(
    graph: Graph, reals: Mapping[str, np.ndarray], trace: Callable[[Graph], Mapping[str, np.ndarray]]
) -> Graph:
    """The graph with other biases.

    reals: what a node's output should be, by the node's name: float [images, *shape of the output], channels last.
    trace: runs a graph on the same images; its integers by tensor name, [images, *shape].
    """
    for position, node in enumerate(graph.nodes):
        if "bias" not in node.constants or node.name not in reals:
            continue
        tensor = graph.tensors[node.output]
        bias = _corrected(node, tensor, reals[node.name], trace(graph)[node.output])
        nodes = list(graph.nodes)
        nodes[position] = replace(node, constants={**node.constants, "bias": bias})
        graph = build_graph(
            nodes,
            graph.tensors.values(),
            graph.input,
            graph.output,
            graph.levels,
            graph.unit,
            graph.classes,
            graph.facts,
        )
    return graph


def _corrected(node: Node, tensor: Tensor, real: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The node's int32 bias [channels], moved where it can be."""
    places = tuple(range(found.ndim - 1))
    low, high = node.attributes["clamp"]
    movable = np.mean((found > low) & (found < high), axis=places)
    missing = np.mean(real / tensor.scale + tensor.zero_point - found, axis=places)  # in steps of the output
    pairs = zip(node.constants["multiplier"], node.constants["shift"], strict=True)
    factors = np.array([float(real_multiplier(int(multiplier), int(shift))) for multiplier, shift in pairs])
    moves = (movable >= _LEAST_MOVABLE) & (factors > 0)
    steps = np.divide(missing, factors * movable, out=np.zeros(len(moves)), where=moves)
    bias = node.constants["bias"] + np.rint(steps)
    return np.where(np.abs(bias) <= _LARGEST_BIAS, bias, node.constants["bias"]).astype(np.int32)
