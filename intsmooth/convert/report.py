"""What a conversion did: every number of every layer, and what was folded, dropped or expressed differently.

An auditor can follow each multiplier from the scales of the source file to the integers of the model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from intsmooth.fixedpoint import INT32_MAX, real_multiplier
from intsmooth.ops import OPERATORS
from intsmooth.overflow import accumulator_bounds
from intsmooth.records import Graph


@dataclass(frozen=True)
class Note:
    """One decision. kind: "input", "output", "folded", "dropped" or "re-expressed"; subject: what it is about."""

    kind: str
    subject: str
    text: str


@dataclass(frozen=True)
class Origin:
    """Where a node comes from: the source's operator, and the source's tensor that its output equals (None: helper)."""

    operator: str
    tensor: int | str | None = None


@dataclass(frozen=True)
class Layer:
    """One node of the converted graph.

    inputs, output: shapes without the batch. scales, zero_points: of the inputs, then of the output. multiplier, shift:
    as the engine uses them, and factor the real numbers that they stand for, rounded to floats for reading.
    bound: the largest magnitude any int32 value can reach; constant_bytes, activation_bytes: sizes of both.
    """

    name: str
    operator: str
    origin: Origin
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    scales: tuple[float | None, ...]
    zero_points: tuple[int, ...]
    multiplier: tuple[int, ...]
    shift: tuple[int, ...]
    factor: tuple[float, ...]
    clamp: tuple[int, int] | None
    bound: int
    constant_bytes: int
    activation_bytes: int
    multiply_adds: int


@dataclass(frozen=True)
class Report:
    """source: format and SHA-256 of the converted file; layers in execution order; notes in order of decision."""

    source: str
    layers: tuple[Layer, ...]
    notes: tuple[Note, ...]

    def text(self) -> str:
        """A table of the layers and the list of notes, for reading."""
        head = ("node", "from", "shapes", "scale", "zero", "multiplier", "shift", "bound/2^31", "constants", "madds")
        rows = [head] + [_row(layer) for layer in self.layers]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [self.source, ""]
        for row in rows:
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if self.notes:
            lines += ["", *(f"{note.kind}: {note.subject}: {note.text}" for note in self.notes)]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Conversion:
    """A converted model. origins: node name -> where it comes from."""

    graph: Graph
    report: Report
    origins: Mapping[str, Origin] = field(default_factory=dict)


def describe(graph: Graph, source: str, origins: Mapping[str, Origin], notes: tuple[Note, ...]) -> Report:
    """The report of a graph whose nodes come from `origins`."""
    bounds = accumulator_bounds(graph)
    layers = []
    for node in graph.nodes:
        inputs = tuple(graph.tensors[name] for name in node.inputs)
        output = graph.tensors[node.output]
        multiplier = tuple(int(value) for value in node.constants.get("multiplier", ()))
        shift = tuple(int(value) for value in node.constants.get("shift", ()))
        layers.append(
            Layer(
                name=node.name,
                operator=node.op,
                origin=origins.get(node.name, Origin("added")),
                inputs=tuple(tensor.shape for tensor in inputs),
                output=output.shape,
                scales=tuple(tensor.scale for tensor in (*inputs, output)),
                zero_points=tuple(tensor.zero_point for tensor in (*inputs, output)),
                multiplier=multiplier,
                shift=shift,
                factor=tuple(float(real_multiplier(*pair)) for pair in zip(multiplier, shift, strict=True)),
                clamp=node.attributes.get("clamp"),
                bound=int(bounds[node.name].max()),
                constant_bytes=sum(array.nbytes for array in node.constants.values()),
                activation_bytes=math.prod(output.shape) * np.dtype(output.dtype).itemsize,
                multiply_adds=OPERATORS[node.op].multiply_adds(node, inputs, output.shape),
            )
        )
    return Report(source, tuple(layers), tuple(notes))


def _row(layer: Layer) -> tuple[str, ...]:
    scale = layer.scales[-1]
    origin = layer.origin.operator + ("" if layer.origin.tensor is None else f" -> {layer.origin.tensor}")
    return (
        f"{layer.name} ({layer.operator})",
        origin,
        " -> ".join([", ".join(_shape(shape) for shape in layer.inputs), _shape(layer.output)]),
        "" if scale is None else f"{scale:.7g}",
        f"{layer.zero_points[-1]}",
        _span(layer.multiplier),
        _span(layer.shift),
        f"{layer.bound / (INT32_MAX + 1):.3g}",
        f"{layer.constant_bytes}",
        f"{layer.multiply_adds}",
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _span(values: tuple[int, ...]) -> str:
    """A number, or the range of several."""
    if not values:
        return ""
    return f"{values[0]}" if min(values) == max(values) else f"{min(values)}..{max(values)}"

def needed_nodes(nodes: list, output: str, notes: list) -> list:
    """The nodes that the output depends on, in order; the others are dropped and noted."""
    producers = {node.output: node for node in nodes}
    wanted, stack = set(), [output]
    while stack:
        name = stack.pop()
        if name in producers and name not in wanted:
            wanted.add(name)
            stack.extend(producers[name].inputs)
    for node in nodes:
        if node.output not in wanted:
            notes.append(Note("dropped", node.name, "its result is not used"))
    return [node for node in nodes if node.output in wanted]
