"""Where every activation lies in the arena: borders, lifetimes, reuse.

An activation of shape (rows, columns, channels) is stored row by row, one byte per element (q + 128), with a border of its
zero point wide enough for every convolution that reads it: padding then costs nothing in the kernels. Vectors are
(1, 1, channels).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from intsmooth.errors import UnsupportedError
from intsmooth.records import Graph, Node, Tensor

GUARD = 64  # bytes before the first and after the last buffer: vector loads may reach over the edge
ALIGNMENT = 64
ROOMY = 512 * 1024  # arenas up to this size give each geometry its own place, so that borders are written only once


@dataclass(frozen=True)
class Buffer:
    """A tensor's place: `offset` is the byte of element (0, 0, 0); border is (top, bottom, left, right) in pixels.

    rank is the number of dimensions of the tensor, before it was written as (rows, columns, channels).
    """

    rows: int
    columns: int
    channels: int
    zero_byte: int
    rank: int
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    offset: int = 0

    @property
    def pixel(self) -> int:
        return self.channels

    @property
    def row(self) -> int:
        return (self.border[2] + self.columns + self.border[3]) * self.channels

    @property
    def size(self) -> int:
        return (self.border[0] + self.rows + self.border[1]) * self.row

    @property
    def head(self) -> int:
        """Bytes from the buffer's first byte to element (0, 0, 0)."""
        return self.border[0] * self.row + self.border[2] * self.channels

    @property
    def dense(self) -> bool:
        return not any(self.border)


def buffer_of(tensor: Tensor) -> Buffer:
    """The unplaced, borderless buffer of a tensor."""
    if len(tensor.shape) > 3:
        raise UnsupportedError(f"tensor {tensor.name!r} has shape {tensor.shape}: the compiled engine handles up to three "
                               "dimensions beside the batch; use backend='numpy'")
    rows, columns, channels = (1,) * (3 - len(tensor.shape)) + tuple(tensor.shape)
    return Buffer(rows, columns, channels, tensor.zero_point + 128, len(tensor.shape))


def lifetimes(graph: Graph) -> dict[str, tuple[int, int]]:
    """First and last node index at which each activation must exist; constants live for the whole run."""
    spans, end = {}, len(graph.nodes)
    for index, node in enumerate(graph.nodes):
        spans[node.output] = (0, end) if node.op == "constant" else (index, index)
        for name in node.inputs:
            if name in spans:
                spans[name] = (spans[name][0], max(spans[name][1], index))
    spans[graph.output] = (spans[graph.output][0], end)
    return spans


def _share_slots(names: Sequence[str], spans: Mapping[str, tuple[int, int]]) -> list[list[str]]:
    """Greedy colouring of intervals: tensors of one list never live at the same time."""
    slots: list[list[str]] = []
    for name in sorted(names, key=lambda name: spans[name]):
        for slot in slots:
            if spans[slot[-1]][1] < spans[name][0]:
                slot.append(name)
                break
        else:
            slots.append([name])
    return slots


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def place(
    buffers: Mapping[str, Buffer], spans: Mapping[str, tuple[int, int]], before: int = 0, after: int = 0
) -> tuple[dict[str, Buffer], int, bool]:
    """Assign offsets. Returns the placed buffers, the arena's size in bytes, and whether borders are never overwritten.

    before, after: bytes that some instruction reads beyond the first and the last buffer, more than the guards' own.

    Small networks: tensors of one geometry share slots, slots never overlap. Large ones: first fit by size among the
    tensors alive at the same time, borders written again for every sample.
    """
    geometries: dict[Buffer, list[str]] = {}
    for name, buffer in buffers.items():
        geometries.setdefault(buffer, []).append(name)
    slots = [slot for names in geometries.values() for slot in _share_slots(names, spans)]
    total = sum(_aligned(buffers[slot[0]].size) for slot in slots)
    first = GUARD + _aligned(before)
    last = GUARD + _aligned(after)
    placed, start = {}, first
    if total <= ROOMY:
        for slot in slots:
            for name in slot:
                placed[name] = replace(buffers[name], offset=start + buffers[name].head)
            start += _aligned(buffers[slot[0]].size)
        return placed, start + last, True
    taken: list[tuple[int, int, str]] = []  # start, stop, tensor
    for name in sorted(buffers, key=lambda name: (-buffers[name].size, name)):
        size, at = _aligned(buffers[name].size), first
        for begin, stop, other in sorted(taken):
            alive_together = spans[other][0] <= spans[name][1] and spans[name][0] <= spans[other][1]
            if alive_together and begin < at + size and at < stop:
                at = stop
        taken.append((at, at + size, name))
        placed[name] = replace(buffers[name], offset=at + buffers[name].head)
    return placed, max(stop for _, stop, _ in taken) + last, False


def border_for(node: Node, source: Buffer, output: Buffer) -> tuple[int, int, int, int]:
    """The border that `node` reads around its first input: what its windows touch outside the image."""
    if node.op not in ("conv2d", "conv2d_add", "depthwise_conv2d"):
        return (0, 0, 0, 0)
    kernel = node.constants["weights"].shape[1:3] if node.op != "depthwise_conv2d" else node.constants["weights"].shape[:2]
    stride, dilation, padding = (node.attributes[key] for key in ("stride", "dilation", "padding"))
    below, after = ((out - 1) * step + (extent - 1) * gap + 1 - pad - size for out, step, extent, gap, pad, size in zip(
        (output.rows, output.columns), stride, kernel, dilation, (padding[0], padding[2]), (source.rows, source.columns),
        strict=True))
    return (padding[0], max(below, 0), padding[2], max(after, 0))
