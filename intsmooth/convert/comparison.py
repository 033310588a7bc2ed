"""Where two runs differ: tensor by tensor, the first difference being the one to look at."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from intsmooth.records import Graph


@dataclass(frozen=True)
class Difference:
    """Two tensors: name in A and in B, number of elements that were compared and that differ, largest difference."""

    name: str
    other: str
    elements: int
    differing: int
    largest: int


def pairs(a: Graph, b: Graph) -> list[tuple[str, str]]:
    """Tensors of two graphs that belong together, in order of execution: equal names, else equal operators and shapes.

    Every tensor is in one pair at most. The last pair is that of the outputs, where their shapes are equal.
    """
    named = [[(node.output, graph.tensors[node.output].shape) for node in graph.nodes] for graph in (a, b)]
    if named[0] == named[1]:
        return [(node.output, node.output) for node in a.nodes]
    keys = [[(node.op, graph.tensors[node.output].shape) for node in graph.nodes] for graph in (a, b)]
    blocks = difflib.SequenceMatcher(a=keys[0], b=keys[1], autojunk=False).get_matching_blocks()
    found = [
        (a.nodes[block.a + i].output, b.nodes[block.b + i].output) for block in blocks for i in range(block.size)
    ]
    found = [pair for pair in found if a.output not in pair and b.output not in pair]
    if a.tensors[a.output].shape == b.tensors[b.output].shape:
        found.append((a.output, b.output))
    return found


def differences(
    names: Sequence[tuple[str, str]], a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]
) -> list[Difference]:
    """A Difference for every pair of names that both traces hold, in the order given."""
    rows = []
    for name, other in names:
        if name in a and other in b:
            gap = np.abs(a[name].astype(np.int64) - b[other].astype(np.int64))
            rows.append(Difference(name, other, gap.size, int(np.count_nonzero(gap)), int(gap.max(initial=0))))
    return rows


def decisions(scores: np.ndarray) -> np.ndarray:
    """Class indices of int8 scores (N, ...), or of an int32 class index (N, 1)."""
    flat = scores.reshape(len(scores), -1)
    return flat[:, 0] if scores.dtype == np.int32 else np.argmax(flat, axis=1)
