"""build_graph: loose nodes and tensors become a Graph that obeys weights/FORMAT.md, or one error lists what does not.

Files, importers and training all end here, so nothing behind this function checks a model's structure again.
"""

import hashlib
import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import index

import numpy as np

from intsmooth.errors import FormatError, UnsupportedError
from intsmooth.ops import OPERATORS
from intsmooth.ops.operator import brief
from intsmooth.records import Graph, Node, Tensor
from intsmooth.wellformed import (
    MAX_CONSTANT_BYTES,
    MAX_NODES,
    edge_problems,
    end_problems,
    head_problems,
    name_problems,
    node_problems,
    tensor_problems,
)

VERSION = 1  # of the model format
_MAX_SHOWN = 50  # problems in one message


def build_graph(
    nodes: Iterable[Node],
    tensors: Iterable[Tensor],
    input: str,
    output: str,
    levels: Sequence[int],
    unit: int,
    classes: Sequence[str],
    facts: Mapping[str, str] | None = None,
) -> Graph:
    """A checked Graph: nodes in execution order, constants read-only, little-endian and contiguous, digest computed.

    Args:
        nodes: in any order; the order given is kept wherever the data flow permits.
        tensors: the network's input and the output of every node, each once.
        input, output: names of the input (int16) and the output (int8 scores, or the int32 index of an argmax).
        levels: lowest and highest integer of a stored image.
        unit: how many levels make 1.0.
        classes: a name for every score.
        facts: free text for people.

    Raises:
        UnsupportedError: operators that are not in the table: all of them, and every other problem found.
        FormatError: everything else that is wrong, all at once, each problem with the names of its node and operator.
    """
    nodes, tensors = [_typed_node(node) for node in nodes], [_typed_tensor(tensor) for tensor in tensors]
    classes, facts = tuple(classes), dict(facts or {})
    if not 1 <= len(nodes) <= MAX_NODES or len(tensors) > MAX_NODES + 1:
        raise FormatError(f"{len(nodes)} nodes and {len(tensors)} tensors, required: 1 to {MAX_NODES} nodes")
    stored = sum(array.nbytes for node in nodes for array in node.constants.values())
    if stored > MAX_CONSTANT_BYTES:
        raise FormatError(f"the constants take {stored} bytes, required: at most {MAX_CONSTANT_BYTES}")
    known = [node for node in nodes if node.op in OPERATORS]
    unknown = sorted({brief(node.op) for node in nodes if node.op not in OPERATORS})

    problems = head_problems(levels, unit, classes, facts)
    problems += name_problems("node", [node.name for node in nodes])
    problems += name_problems("tensor", [tensor.name for tensor in tensors])
    found = {tensor.name: tensor_problems(tensor) for tensor in tensors}
    problems += [problem for listed in found.values() for problem in listed]
    table = {tensor.name: tensor for tensor in tensors}
    problems += edge_problems(nodes, table, input, output)
    order, waiting = _execution_order(nodes)
    if waiting:
        names = ", ".join(brief(nodes[i].name) for i in waiting[:10])
        problems.append(f"{len(waiting)} nodes are on a cycle or behind one: {names}; required: no cycles")
    sound = {name: tensor for name, tensor in table.items() if not found[name]}
    problems += [problem for node in known for problem in node_problems(node, sound)]
    if not problems and not unknown:
        problems += end_problems(nodes, table, input, output, classes)
    if unknown:
        raise UnsupportedError(_message(f"operators that are not implemented: {', '.join(unknown)}", problems))
    if problems:
        raise FormatError(_message("the model breaks the format", problems))

    nodes = tuple(_frozen(nodes[i]) for i in order)
    tensors = {name: table[name] for name in (input, *(node.output for node in nodes))}
    graph = Graph(nodes, tensors, input, output, (int(levels[0]), int(levels[1])), int(unit), classes, facts)
    return replace(graph, digest=content_digest(graph))


def content_digest(graph: Graph) -> str:
    """Hex SHA-256 of all that decides the network's outputs; facts and scales are left out. See weights/FORMAT.md."""
    constants = [[(name, node.constants[name]) for name in sorted(node.constants)] for node in graph.nodes]
    head = {
        "version": VERSION,
        "input": graph.input,
        "output": graph.output,
        "levels": graph.levels,
        "unit": graph.unit,
        "classes": graph.classes,
        "tensors": [(tensor.name, tensor.shape, tensor.dtype, tensor.zero_point) for tensor in graph.tensors.values()],
        "nodes": [
            (node.name, node.op, node.inputs, node.output, node.attributes,
             [(name, array.dtype.name, array.shape) for name, array in arrays])
            for node, arrays in zip(graph.nodes, constants, strict=True)
        ],
    }  # fmt: skip
    text = json.dumps(head, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    digest = hashlib.sha256(b"intsmooth model\n%d\n" % len(text) + text)
    for arrays in constants:
        for _, array in arrays:
            digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def _execution_order(nodes: Sequence[Node]) -> tuple[list[int], list[int]]:
    """Indices of the nodes, each behind those whose outputs it reads, in the given order where that is free (Kahn).

    The second list holds the nodes that can never run because they wait for each other. Tensors that no node produces
    count as there.
    """
    producer = {node.output: i for i, node in enumerate(nodes)}
    waits = [{producer[name] for name in node.inputs if name in producer} for node in nodes]
    readers = [[] for _ in nodes]
    for i, sources in enumerate(waits):
        for source in sources:
            readers[source].append(i)
    missing = [len(sources) for sources in waits]
    ready = [i for i, count in enumerate(missing) if count == 0]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, reader)
    return order, [i for i, count in enumerate(missing) if count]


def _typed_node(node: Node) -> Node:
    """The node with plain Python integers and NumPy arrays, so that the rules can rely on types."""
    for name in (node.name, node.op, node.output, *node.inputs, *node.attributes, *node.constants):
        if not isinstance(name, str):
            raise FormatError(f"node {brief(node.name)} has {brief(name)} where a name is required: use a string")
    try:
        attributes = {
            name: _integers(value) if isinstance(value, tuple | list) else int(index(value))
            for name, value in node.attributes.items()
        }
    except TypeError as error:
        raise FormatError(f"node {brief(node.name)}: attributes must be integers or lists of them ({error})") from None
    constants = {name: np.asarray(array) for name, array in node.constants.items()}
    return Node(node.name, node.op, tuple(node.inputs), node.output, attributes, constants)


def _typed_tensor(tensor: Tensor) -> Tensor:
    """The tensor with plain Python numbers."""
    try:
        shape, zero_point = _integers(tensor.shape), int(index(tensor.zero_point))
        scale = None if tensor.scale is None else float(tensor.scale)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(
            f"tensor {brief(tensor.name)}: shape and zero point must be integers, scale a number ({error})"
        ) from None
    if not isinstance(tensor.name, str) or not isinstance(tensor.dtype, str):
        raise FormatError(f"tensor {brief(tensor.name)} of {brief(tensor.dtype)}: name and dtype must be strings")
    return Tensor(tensor.name, shape, tensor.dtype, zero_point, scale)


def _integers(values: Iterable) -> tuple[int, ...]:
    return tuple(int(index(value)) for value in values)


def _frozen(node: Node) -> Node:
    """The node with constants of its own that nobody can write to."""
    constants = {}
    for name, array in node.constants.items():
        constants[name] = np.array(array, dtype=array.dtype.newbyteorder("<"), order="C")
        constants[name].setflags(write=False)
    return replace(node, constants=constants)


def _message(summary: str, problems: list[str]) -> str:
    """A line that says what and how many, then a line per problem."""
    if not problems:
        return summary
    more = [f"... and {len(problems) - _MAX_SHOWN} more"] if len(problems) > _MAX_SHOWN else []
    lines = "".join(f"\n- {problem}" for problem in problems[:_MAX_SHOWN] + more)
    return f"{summary}; {len(problems)} problem{'s' * (len(problems) > 1)}:{lines}"
