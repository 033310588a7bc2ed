"""Instructions for pooling and softmax."""

from intsmooth.kernels import instruction as i
from intsmooth.kernels import pooling as kernel
from intsmooth.lowering.buffers import Buffer
from intsmooth.lowering.constants import ConstantBlob
from intsmooth.lowering.elementwise import source_fields, target_fields
from intsmooth.lowering.instructions import Instruction
from intsmooth.records import Node


def pool(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    source = inputs[0]
    low, high = (bound + 128 for bound in node.attributes["clamp"])
    window, stride, padding = (node.attributes[key] for key in ("kernel", "stride", "padding"))
    return [Instruction((node.op.removesuffix("2d"),), {
        **source_fields(source), **target_fields(target), i.LOW: low, i.HIGH: high, kernel.WINDOW_ROWS: window[0],
        kernel.WINDOW_COLUMNS: window[1], kernel.STEP_ROWS: stride[0], kernel.STEP_COLUMNS: stride[1],
        kernel.ABOVE: padding[0], kernel.LEFT: padding[2], kernel.IMAGE_ROWS: source.rows,
        kernel.IMAGE_COLUMNS: source.columns})]


def softmax(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    return [Instruction(("softmax",), {**source_fields(inputs[0]), **target_fields(target),
                                    i.A0: int(node.constants["multiplier"][0]), i.A1: int(node.constants["shift"][0]),
                                    i.A2: node.attributes["diff_min"]})]
