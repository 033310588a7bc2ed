"""Graph -> Plan: everything that can be decided before the first sample is decided here.

The overflow proof, the borders and places of all buffers, the constants in the kernels' order, the instruction table. A
Plan is integers only; scales are not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from intsmooth.errors import UnsupportedError
from intsmooth.kernels.isa import ISA
from intsmooth.lowering import LOWERING
from intsmooth.lowering.buffers import GUARD, Buffer, border_for, buffer_of, lifetimes, place
from intsmooth.lowering.constants import ConstantBlob
from intsmooth.lowering.convolution import skip_overhang
from intsmooth.lowering.elementwise import target_fields
from intsmooth.lowering.instructions import Instruction
from intsmooth.lowering.movement import border
from intsmooth.overflow import prove_no_overflow
from intsmooth.records import Graph

LARGEST_ARENA = 2**31 - 1  # bytes; addresses are int32


@dataclass(frozen=True)
class Plan:
    """What the compiled engine runs.

    table:    int32 (instructions, WIDTH), see kernels/instruction.py
    operations: the kernels in use as kernels/table.py knows them; the table's first column indexes this list
    spans:    node name -> (first, one past the last) of its rows in the table
    output:   int32 row whose target columns describe the tensor that argmax reads
    blob:     uint8, weights and parameters; arena: uint8, the initial content of every thread's activations
    scratch:  int32 values that pooling and softmax need; buffers: tensor name -> place in the arena
    bounds:   node name -> largest magnitude of any int32 value, per channel
    """

    graph: Graph
    table: np.ndarray
    operations: tuple[tuple, ...]
    spans: Mapping[str, tuple[int, int]]
    output: np.ndarray
    blob: np.ndarray
    arena: np.ndarray
    scratch: int
    buffers: Mapping[str, Buffer]
    bounds: Mapping[str, np.ndarray]
    isa: str = ISA

    @property
    def memory(self) -> int:
        """Bytes held while running on one thread: constants, instructions, activations, scratch."""
        return self.blob.nbytes + self.table.nbytes + self.arena.nbytes + 4 * self.scratch


def build_plan(graph: Graph) -> Plan:
    """Plan a validated graph. Raises OverflowProofError and UnsupportedError (node and operator named)."""
    bounds = prove_no_overflow(graph)
    nodes = graph.nodes[:-1] if graph.nodes[-1].op == "argmax" else graph.nodes
    decided = graph.nodes[-1].inputs[0] if graph.nodes[-1].op == "argmax" else graph.output
    buffers, arena_size, borders_last = _place_buffers(graph, nodes)

    arena = np.zeros(arena_size, np.uint8)
    for buffer in buffers.values():  # zero points everywhere, so that borders hold them
        start = buffer.offset - buffer.head
        arena[start : start + buffer.size] = buffer.zero_byte
    blob, rows, spans, operations = ConstantBlob(), [], {}, []
    for node in nodes:
        target = buffers[node.output]
        if node.op == "constant":
            _write(arena, target, node.constants["value"])
            instructions = []
        else:
            inputs = [buffers[name] for name in node.inputs if name != graph.input]
            inputs += [buffers[_between(node.output)]] if _between(node.output) in buffers else []
            instructions = LOWERING[node.op](node, inputs, target, blob)
            if not borders_last and not target.dense:
                instructions = [*instructions, border(target)]
        spans[node.name] = (len(rows), len(rows) + len(instructions))
        rows += [instruction.row(operations) for instruction in instructions]
    output = Instruction(("copy",), target_fields(buffers[decided])).row([])
    widest = max(16, *(buffer.channels for buffer in buffers.values()))
    return Plan(graph, np.array(rows), tuple(operations), spans, output, blob.bytes(), arena, widest, buffers, bounds)


def _between(name: str) -> str:
    """Name of the dense temporary of a reshape between two bordered tensors (no tensor name holds a NUL)."""
    return name + "\0dense"


def _place_buffers(graph, nodes):
    """Borders from what every reader touches, then places from lifetimes."""
    spans = lifetimes(graph)
    buffers = {node.output: buffer_of(graph.tensors[node.output]) for node in nodes}
    for node in nodes:
        if node.inputs and node.inputs[0] in buffers:
            source = buffers[node.inputs[0]]
            needed = border_for(node, source, buffers[node.output])
            buffers[node.inputs[0]] = replace(source, border=tuple(map(max, source.border, needed)))
    for node in nodes:
        if node.op == "reshape" and not buffers[node.inputs[0]].dense and not buffers[node.output].dense:
            buffers[_between(node.output)] = replace(buffers[node.output], border=(0, 0, 0, 0))
            spans[_between(node.output)] = spans[node.output][:1] * 2
    overhangs = [
        skip_overhang(node, buffers[node.inputs[1]], buffers[node.output]) for node in nodes if node.op == "conv2d_add"
    ]
    before, after = (max(reach) for reach in zip(*overhangs, strict=True)) if overhangs else (0, 0)
    placed, size, borders_last = place(buffers, spans, before, after)
    if size > LARGEST_ARENA:
        raise UnsupportedError(f"the activations take {size} bytes, the engine's addresses reach {LARGEST_ARENA}")
    return placed, size, borders_last


def _write(arena: np.ndarray, buffer: Buffer, value: np.ndarray) -> None:
    """Put a constant's bytes into the arena's initial content."""
    for row, line in enumerate((value.astype(np.int64) + 128).reshape(buffer.rows, -1)):
        start = buffer.offset + row * buffer.row
        arena[start : start + line.size] = line


def read(arena: np.ndarray, buffer: Buffer) -> np.ndarray:
    """The int8 activation (rows, columns, channels) that a buffer holds."""
    start = buffer.offset
    stop = start + (buffer.rows - 1) * buffer.row + buffer.columns * buffer.channels
    assert start >= GUARD and stop <= arena.size - GUARD
    view = np.lib.stride_tricks.as_strided(
        arena[start:], (buffer.rows, buffer.columns, buffer.channels), (buffer.row, buffer.pixel, 1), writeable=False
    )
    return (view.astype(np.int16) - 128).astype(np.int8)
