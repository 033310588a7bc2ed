"""Graphs and changed copies of them, for tests."""

from dataclasses import replace

import models
import numpy as np
import pytest

from intsmooth.errors import FormatError
from intsmooth.graph import build_graph
from intsmooth.records import Graph, Node, Tensor

SMALL = models.tiny_conv(np.random.default_rng(3))
EVERY = models.every_operator(np.random.default_rng(0))
RESIDUAL = models.residual(np.random.default_rng(4))


def rebuild(graph: Graph, **changes) -> Graph:
    """build_graph on the parts of a graph, some of them changed."""
    parts = vars(graph) | {"tensors": list(graph.tensors.values())} | changes
    return build_graph(**{name: value for name, value in parts.items() if name != "digest"})


def with_node(graph: Graph, op: str, /, **changes) -> list[Node]:
    """The nodes, with the first one of this operator changed."""
    target = next(node for node in graph.nodes if node.op == op)
    return [replace(node, **changes) if node is target else node for node in graph.nodes]


def with_tensor(graph: Graph, name: str, /, **changes) -> list[Tensor]:
    return [replace(tensor, **changes) if tensor.name == name else tensor for tensor in graph.tensors.values()]


def output_of(graph: Graph, op: str) -> str:
    return next(node.output for node in graph.nodes if node.op == op)


def problems(graph: Graph, error=FormatError, **changes) -> str:
    with pytest.raises(error) as caught:
        rebuild(graph, **changes)
    assert type(caught.value) is error
    return str(caught.value)
