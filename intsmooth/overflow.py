"""The overflow proof: no int32 value can leave its range, or the model is refused with the layer's name."""

from collections.abc import Mapping

import numpy as np

from intsmooth.errors import OverflowProofError
from intsmooth.ops import OPERATORS
from intsmooth.records import Graph

INT32_MAX = 2**31 - 1


def accumulator_bounds(graph: Graph) -> dict[str, np.ndarray]:
    """Largest magnitude of any int32 value, by node name: int64[channels], or [1] where all channels share it."""
    return {
        node.name: OPERATORS[node.op].accumulator_bound(node, tuple(graph.tensors[name] for name in node.inputs))
        for node in graph.nodes
    }


def prove_no_overflow(graph: Graph) -> Mapping[str, np.ndarray]:
    """The bounds of `accumulator_bounds`; raises OverflowProofError where one of them exceeds 2^31 - 1."""
    bounds = accumulator_bounds(graph)
    problems = []
    for node in graph.nodes:
        worst = int(np.argmax(bounds[node.name]))
        if bounds[node.name][worst] > INT32_MAX:
            problems.append(
                f"node {node.name!r} ({node.op}), channel {worst}: |accumulator| can reach "
                f"{int(bounds[node.name][worst])}"
            )
    if problems:
        raise OverflowProofError(
            "an int32 accumulator could overflow: "
            + "; ".join(problems)
            + f". Required: at most {INT32_MAX}. Smaller weights, biases or left shifts are needed."
        )
    return bounds
