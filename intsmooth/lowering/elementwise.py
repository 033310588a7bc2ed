"""Instructions for the input's requantization, add, sub, mul and every unary operator (one table of 256 bytes)."""

import numpy as np

from intsmooth.errors import UnsupportedError
from intsmooth.fixedpoint import multiply_by_quantized_multiplier, saturate
from intsmooth.kernels import elementwise as kernel
from intsmooth.kernels import instruction as i
from intsmooth.lowering.buffers import Buffer
from intsmooth.lowering.constants import ConstantBlob, requantize_blocks
from intsmooth.lowering.instructions import Instruction
from intsmooth.lowering.linear_sum import linear_sum
from intsmooth.records import Node

_BINARY = {"add": kernel.ADD, "sub": kernel.SUBTRACT, "mul": kernel.MULTIPLY}


def target_fields(target: Buffer) -> dict[int, int]:
    """The columns that say where the output goes and how large it is."""
    return {i.TARGET: target.offset, i.TARGET_ROW: target.row, i.TARGET_PIXEL: target.pixel, i.ROWS: target.rows,
            i.COLUMNS: target.columns, i.CHANNELS: target.channels}


def source_fields(source: Buffer) -> dict[int, int]:
    return {i.SOURCE: source.offset, i.SOURCE_ROW: source.row, i.SOURCE_PIXEL: source.pixel}


def _as_one_pixel(target: Buffer) -> dict[int, int]:
    """A row's pixels lie next to each other: an element-wise kernel may take the row as one pixel of many channels."""
    return {i.COLUMNS: 1, i.CHANNELS: target.columns * target.channels}


def _same_for_all(node: Node, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.repeat(node.constants[name][index], 16) for name in ("multiplier", "shift"))


def input_requantize(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    parameters = requantize_blocks(*_same_for_all(node), target.zero_byte, fold=False)
    return [Instruction(("input",), {**target_fields(target), i.TARGET_ZERO: target.zero_byte, i.LOW: 0, i.HIGH: 255,
                                  i.CONSTANTS: blob.add(parameters)})]


def binary(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    first, second = inputs
    extents = tuple(zip((second.rows, second.columns, second.channels), (target.rows, target.columns, target.channels),
                        strict=True))
    whole_input = (first.rows, first.columns, first.channels) == (target.rows, target.columns, target.channels)
    if not whole_input or second.channels != target.channels or any(b not in (1, a) for b, a in extents):
        raise UnsupportedError(f"node {node.name!r} ({node.op}) broadcasts its inputs in a way that the compiled engine does not "
                               "handle (the first input must have the output's shape, the second its channels)")
    count = 1 if node.op == "mul" else 3
    linear = None if node.op == "mul" else linear_sum(node, first.zero_byte, second.zero_byte, target.zero_byte)
    parameters = linear
    if linear is None:
        blocks = [requantize_blocks(*_same_for_all(node, index), target.zero_byte, fold=False) for index in range(count)]
        parameters = np.concatenate(blocks)
    low, high = (bound + 128 for bound in node.attributes["clamp"])
    rows_match = (second.columns, second.channels) == (target.columns, target.channels)
    return [Instruction(("binary",), {
        **source_fields(first), **target_fields(target), i.SECOND: second.offset,
        i.SECOND_ROW: second.row if second.rows > 1 else 0, i.SECOND_PIXEL: second.pixel if second.columns > 1 else 0,
        i.SOURCE_ZERO: first.zero_byte, i.SECOND_ZERO: second.zero_byte, i.TARGET_ZERO: target.zero_byte, i.LOW: low,
        i.HIGH: high, i.CONSTANTS: blob.add(parameters), i.A0: _BINARY[node.op] if linear is None else kernel.LINEAR,
        i.A1: node.attributes.get("left_shift", 0),
        **(_as_one_pixel(target) if rows_match else {})})]


def unary(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    """requantize, clamp and lookup: all 256 answers are known when the plan is made."""
    activations = np.arange(-128, 128)
    if node.op == "lookup":
        answers = node.constants["table"].astype(np.int64)
    else:
        answers = activations
        if node.op == "requantize":
            zero_in, zero_out = inputs[0].zero_byte - 128, target.zero_byte - 128
            answers = zero_out + multiply_by_quantized_multiplier(
                activations - zero_in, int(node.constants["multiplier"][0]), int(node.constants["shift"][0])).astype(np.int64)
        answers = saturate(answers, *node.attributes["clamp"])
    return [Instruction(("lookup",), {**source_fields(inputs[0]), **target_fields(target),
                                   i.CONSTANTS: blob.add((answers + 128).astype(np.uint8)), **_as_one_pixel(target)})]
