"""Instructions that only move bytes: concat, pad, transpose, reshape."""

from dataclasses import replace

from intsmooth.kernels import instruction as i
from intsmooth.lowering.buffers import Buffer
from intsmooth.lowering.constants import ConstantBlob
from intsmooth.lowering.elementwise import target_fields
from intsmooth.lowering.instructions import Instruction
from intsmooth.records import Node


def copy(source: Buffer, target: Buffer, source_steps=None) -> Instruction:
    """Copy an array of the target's extent; source_steps: bytes per (row, pixel, channel), the source's own by default."""
    row, pixel, channel = source_steps or (source.row, source.pixel, 1)
    return Instruction(("copy",), {**target_fields(target), i.SOURCE: source.offset, i.SOURCE_ROW: row, i.SOURCE_PIXEL: pixel,
                                i.A0: channel, i.A1: 1})


def part(buffer: Buffer, row: int, column: int, channel: int, extent: Buffer) -> dict[int, int]:
    """Target columns of a part of `buffer` that begins at (row, column, channel) and has `extent`'s shape."""
    return {**target_fields(buffer), i.TARGET: buffer.offset + row * buffer.row + column * buffer.pixel + channel,
            i.ROWS: extent.rows, i.COLUMNS: extent.columns, i.CHANNELS: extent.channels}


def concat(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    axis = node.attributes["axis"] + 3 - target.rank
    result, start = [], [0, 0, 0]
    for source in inputs:
        result.append(Instruction(("copy",), {**copy(source, source).fields, **part(target, *start, source)}))
        start[axis] += (source.rows, source.columns, source.channels)[axis]
    return result


def pad(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    source, amounts = inputs[0], node.attributes["padding"]
    before = [0] * (3 - len(amounts) // 2) + list(amounts[::2])
    everything = {i.ROWS: 0, i.COLUMNS: 0, i.A1: target.rows, i.A3: target.columns, i.A4: node.attributes["value"] + 128}
    fill = Instruction(("fill_border",), {**target_fields(target), **everything})
    return [fill, Instruction(("copy",), {**copy(source, source).fields, **part(target, *before, source)})]


def transpose(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    source, order = inputs[0], node.attributes["permutation"]
    skipped = 3 - len(order)
    steps = (source.row, source.pixel, 1)
    return [copy(source, target, steps[:skipped] + tuple(steps[skipped + axis] for axis in order))]


def reshape(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    """The same elements in the same order: through `between`, a dense copy, where both sides have borders."""
    source, no_border = inputs[0], (0, 0, 0, 0)
    if source.dense:
        return [copy(replace(target, border=no_border, offset=source.offset), target)]
    if target.dense:
        return [copy(source, replace(source, border=no_border, offset=target.offset))]
    between = replace(source, border=no_border, offset=inputs[1].offset)
    return [copy(source, between), copy(replace(target, border=no_border, offset=between.offset), target)]


def border(buffer: Buffer) -> Instruction:
    """Write the zero point around a freshly written activation."""
    above, below, left, right = buffer.border
    return Instruction(("fill_border",), {**target_fields(buffer), i.A0: above, i.A1: below, i.A2: left, i.A3: right,
                                       i.A4: buffer.zero_byte})
