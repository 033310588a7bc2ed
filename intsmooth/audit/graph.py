"""The graph proof: every run-time tensor is a named int8, int16 or int32 with a shape, and no scale is ever read.

The second half is shown by doing: the model is planned and run once more with scales that raise an error when anything
reads them.
"""

from dataclasses import fields, replace

import numpy as np

from intsmooth.audit.finding import Finding
from intsmooth.records import Graph, Tensor

RUN_TIME_TYPES = ("int8", "int16", "int32")


class ScaleWasRead(Exception):
    """A scale was read where only integers may be."""


class _GuardedTensor(Tensor):
    """A Tensor whose scale cannot be read."""

    def __getattribute__(self, name):
        if name == "scale":
            raise ScaleWasRead(f"the scale of tensor {object.__getattribute__(self, 'name')!r} was read")
        return object.__getattribute__(self, name)


def without_scales(graph: Graph) -> Graph:
    """The same graph, where reading any tensor's scale raises ScaleWasRead."""
    values = [field.name for field in fields(Tensor) if field.name != "scale"]
    tensors = {
        name: _GuardedTensor(**{value: getattr(tensor, value) for value in values})
        for name, tensor in graph.tensors.items()
    }
    return replace(graph, tensors=tensors)


def check_graph(graph: Graph, levels: np.ndarray) -> Finding:
    """Check names, types and shapes; plan and run `levels` (int16 batch) with guarded scales and compare the scores."""
    from intsmooth.engine import Engine

    problems = []
    for name, tensor in graph.tensors.items():
        if tensor.dtype not in RUN_TIME_TYPES or not name or not tensor.shape or min(tensor.shape) < 1:
            problems.append(f"tensor {name!r} is {tensor.dtype} of shape {tensor.shape}")
    for node in graph.nodes:
        for name, array in node.constants.items():
            if array.dtype not in (np.int8, np.int32):
                problems.append(f"constant {name!r} of node {node.name!r} is {array.dtype}")
        for name, value in node.attributes.items():
            if not all(isinstance(number, int) for number in (value if isinstance(value, tuple) else (value,))):
                problems.append(f"attribute {name!r} of node {node.name!r} is {value!r}")
    plain, guarded = Engine(graph, threads=1), None
    try:
        guarded = Engine(without_scales(graph), threads=1)
        if not np.array_equal(guarded.forward(levels), plain.forward(levels)):
            problems.append("the scores change when no scale can be read")
    except ScaleWasRead as error:
        problems.append(f"{error} while the model was {'run' if guarded else 'planned'}")
    arrays = {name: getattr(plain.plan, name) for name in ("table", "output", "blob", "arena")}
    work = plain._workspace()
    arrays |= {name: getattr(work, name) for name in ("arena", "scratch", "levels", "words")}
    problems += [
        f"the plan's {name} is {array.dtype}" for name, array in arrays.items() if array.dtype.kind not in "iu"
    ]
    tensors = [(tensor.name, tensor.dtype, tensor.shape) for tensor in graph.tensors.values()]
    return Finding(
        "graph",
        "every run-time tensor is an integer, and no scale is read",
        not problems,
        f"{len(tensors)} tensors, {len(graph.nodes)} nodes, all int8, int16 or int32; planned and run with scales that "
        "cannot be read"
        if not problems
        else f"{len(problems)} problems",
        problems,
        [f" {dtype:<6} {' x '.join(map(str, shape)):<16} {name}" for name, dtype, shape in tensors],
        {
            "tensors": [{"name": name, "dtype": dtype, "shape": list(shape)} for name, dtype, shape in tensors],
            "plan": {name: str(array.dtype) for name, array in arrays.items()},
        },
    )
