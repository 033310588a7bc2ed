"""Instructions for conv2d, conv2d_add, depthwise_conv2d and fully_connected."""

import numpy as np

from intsmooth.kernels import conv_rows
from intsmooth.kernels import convolution as kernel
from intsmooth.kernels import depthwise as depthwise_kernel
from intsmooth.kernels import instruction as i
from intsmooth.kernels.isa import ISA
from intsmooth.lowering.buffers import Buffer
from intsmooth.lowering.constants import LANES, ConstantBlob, can_fold_zero, channel_parameters, pack_weights, pad_lanes
from intsmooth.lowering.instructions import Instruction
from intsmooth.records import Node

# Relative time per dot instruction of a register block by its pixels, roughly as measured with AVX512-VNNI: few
# accumulators cannot hide the latency of a dot, and one block of channels needs a broadcast for every dot.
_COST = {1: {1: 6.0, 2: 3.2, 3: 2.2, 4: 1.75, 5: 1.5, 6: 1.35, 7: 1.25, 8: 1.2, 16: 1.07},
         2: {1: 3.6, 2: 1.9, 3: 1.35, 4: 1.15, 5: 1.1, 6: 1.05, 7: 1.02, 8: 1.0}}


def choose_tile(columns: int, blocks: int) -> tuple[int, int]:
    """The register block (pixels, blocks) that covers `columns` pixels in the least time."""
    choices = [(-(-columns // pixels) * pixels * _COST[width][pixels], (pixels, width))
               for pixels, width in kernel.TILES if width == blocks and pixels <= columns]
    return min(choices)[1]


def channel_spans(channels: int) -> list[tuple[int, int, int]]:
    """(first channel, one past the last, blocks of 16 per tile): pairs of blocks first, a single block for what is left."""
    widest = max(width for _, width in kernel.TILES)
    paired = channels if widest == 1 or channels % 32 > 16 else channels // 32 * 32
    spans = [(0, paired, widest)] if paired else []
    return spans + ([(paired, channels, 1)] if paired < channels else [])


def _segments(source: Buffer, kernel_shape, dilation, whole_pixels: bool) -> np.ndarray:
    """Byte offsets of the runs of adjacent bytes in a window: its rows, or its taps where they lie apart."""
    rows, columns = kernel_shape
    taps = range(1) if dilation[1] == 1 and whole_pixels else range(columns)
    return np.array([row * dilation[0] * source.row + tap * dilation[1] * source.pixel for row in range(rows) for tap in taps],
                    np.int32)


def _emit(node, blob, source, target, weights, segments, bias, skip_multiplier, skip, place, extent, steps):
    """Instructions for output channels that read the same input channels; weights are (O, segments, segment bytes).

    place: first and one past the last output channel; extent: output rows and columns; steps: first byte read, and the
    bytes from there to the next output row and the next output column."""
    multiplier, shift = node.constants["multiplier"], node.constants["shift"]
    first, last = place
    known_step = steps[2] if steps[2] in kernel.KNOWN_STEPS else 0
    rows, columns = extent
    low, high = (bound + 128 for bound in node.attributes["clamp"])
    fold = low == target.zero_byte and high == 255 and can_fold_zero(shift)
    result = []
    for begin, end, blocks in channel_spans(last - first):
        channels = slice(first + begin, first + end)
        packed = pack_weights(weights[begin:end], blocks)
        fields = {
            i.CHANNELS: end - begin, i.ROWS: rows, i.COLUMNS: columns, i.TARGET_ZERO: target.zero_byte, i.LOW: low, i.HIGH: high,
            i.TARGET: target.offset + first + begin, i.TARGET_ROW: target.row, i.TARGET_PIXEL: target.pixel,
            i.WEIGHTS: blob.add(packed),
            i.CONSTANTS: blob.add(channel_parameters(bias[channels], multiplier[channels], shift[channels],
                                                     skip_multiplier[channels], target.zero_byte, fold)),
            kernel.SEGMENTS: blob.add(segments), kernel.SEGMENT_COUNT: len(segments), kernel.SEGMENT_STEPS: packed.shape[2],
            kernel.RECTIFIED: int(fold), kernel.HAS_SKIP: int(skip is not None),
            i.SOURCE: steps[0], i.SOURCE_ROW: steps[1], i.SOURCE_PIXEL: steps[2],
        }
        if skip is not None:
            fields.update({i.SECOND: skip[0] + first + begin, i.SECOND_ROW: skip[1], i.SECOND_PIXEL: skip[2]})
        two_rows = blocks == 1 and end - begin <= 16 and known_step and _pairs_rows(extent, segments, steps)
        operation = ("conv_rows", known_step) if two_rows else ("conv", *choose_tile(columns, blocks), known_step)
        result.append(Instruction(operation, fields))
    return result


def _pairs_rows(extent, segments, steps) -> bool:
    """Whether two output rows share input rows as kernels/conv_rows.py wants it, and its tiles waste little."""
    rows, columns = extent
    whole_rows = len(segments) == conv_rows.KERNEL_ROWS and (np.diff(segments) == steps[1]).all()
    waste = -(-columns // conv_rows.PIXELS) * conv_rows.PIXELS / columns
    return ISA == "vnni512" and whole_rows and rows >= conv_rows.OUTPUT_ROWS and columns >= conv_rows.PIXELS and waste < 1.2


def _folded_bias(node: Node, source: Buffer, weights_by_channel, skip: Buffer | None):
    """The bias from which accumulators over bytes (q + 128) start: zero points are constants per channel."""
    bias = node.constants["bias"].astype(np.int64) - source.zero_byte * weights_by_channel.astype(np.int64).sum(axis=1)
    if skip is not None:
        bias -= node.constants["skip_multiplier"].astype(np.int64) * skip.zero_byte
    return bias


def merge_groups(weights: np.ndarray, groups: int) -> tuple[np.ndarray, int]:
    """Fewer, wider groups with zeros between the old ones, so that the 16 channels of a tile are used.

    weights: int8 (O, KH, KW, depth). Two outputs per group fill two lanes of 16; eight such groups together fill all of
    them, for the dots of a group eight times as deep.
    """
    outputs, height, width, depth = weights.shape
    per_group = outputs // groups
    factor = max((f for f in range(1, groups + 1) if groups % f == 0 and f * per_group <= LANES), default=1)
    merged = np.zeros((outputs, height, width, factor, depth), np.int8)
    place = np.arange(outputs) // per_group % factor
    merged[np.arange(outputs), :, :, place] = weights
    return merged.reshape(outputs, height, width, factor * depth), groups // factor


def conv2d(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    return _grouped(node, inputs, target, blob, *merge_groups(node.constants["weights"], node.attributes["groups"]))


def _grouped(node, inputs, target, blob, weights, groups) -> list[Instruction]:
    """A convolution, group by group; weights are int8 (O, KH, KW, channels of a group)."""
    source = inputs[0]
    outputs, height, width, depth = weights.shape
    stride, dilation, padding = (node.attributes[key] for key in ("stride", "dilation", "padding"))
    segments = _segments(source, (height, width), dilation, whole_pixels=groups == 1)
    shaped = weights.reshape(outputs, len(segments), -1)
    skip, skip_multiplier = None, np.zeros(outputs, np.int64)
    if node.op == "conv2d_add":
        second, step = inputs[1], node.attributes["skip_stride"]
        skip = (second.offset - node.attributes["skip_offset"], second.row * step[0], second.pixel * step[1])
        skip_multiplier = node.constants["skip_multiplier"]
    bias = _folded_bias(node, source, weights.reshape(outputs, -1), inputs[1] if skip else None)
    extent, row_step = (target.rows, target.columns), source.row * stride[0]
    pointwise = (height, width) == (1, 1) and tuple(stride) == (1, 1) and source.dense and target.dense
    if pointwise and (skip is None or _same_pixels(node, inputs[1], target)):
        extent = (1, target.rows * target.columns)  # one long row of pixels: fewer, fuller tiles
    start = source.offset - padding[0] * source.row - padding[2] * source.pixel
    result, per_group = [], outputs // groups
    for group in range(groups):
        first, last = group * per_group, (group + 1) * per_group
        steps = (start + group * depth, row_step, source.pixel * stride[1])
        result += _emit(node, blob, source, target, shaped[first:last], segments, bias, skip_multiplier, skip, (first, last),
                        extent, steps)
    return result


def _same_pixels(node: Node, skip: Buffer, target: Buffer) -> bool:
    """Whether the skip's pixels lie one behind the other like the target's, so that both can be read as one row."""
    step_by_step = tuple(node.attributes["skip_stride"]) == (1, 1)
    return step_by_step and skip.dense and (skip.rows, skip.columns) == (target.rows, target.columns)


def skip_overhang(node: Node, skip: Buffer, target: Buffer) -> tuple[int, int]:
    """Bytes before and after the skip's buffer that conv2d_add reads, for channels to which it adds nothing."""
    offset, lanes = node.attributes["skip_offset"], -(-target.channels // (2 * LANES)) * 2 * LANES
    return offset, max(lanes - offset - skip.channels, 0)


def fully_connected(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    """One pixel; every row of the input is a segment, so that a border does not matter."""
    source, weights = inputs[0], node.constants["weights"]
    segments = np.arange(source.rows, dtype=np.int32) * source.row
    shaped = weights.reshape(len(weights), source.rows, -1)
    bias = _folded_bias(node, source, weights, None)
    return _emit(node, blob, source, target, shaped, segments.astype(np.int32), bias, np.zeros(len(weights), np.int64), None,
                 (0, len(weights)), (1, 1), (source.offset, 0, 0))


def depthwise_conv2d(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    source, weights = inputs[0], node.constants["weights"]
    height, width, outputs = weights.shape
    if outputs != source.channels:  # several outputs for one input channel: a convolution with groups
        by_output = weights.transpose(2, 0, 1)[..., None]
        return _grouped(node, inputs, target, blob, *merge_groups(by_output, source.channels))
    stride, dilation, padding = (node.attributes[key] for key in ("stride", "dilation", "padding"))
    bias = _folded_bias(node, source, weights.reshape(-1, outputs).T, None)
    start = source.offset - padding[0] * source.row - padding[2] * source.pixel
    steps = (source.row * stride[0], source.pixel * stride[1])
    taps = _segments(source, (height, width), dilation, whole_pixels=False)
    low, high = (bound + 128 for bound in node.attributes["clamp"])
    parameters = channel_parameters(bias, node.constants["multiplier"], node.constants["shift"], np.zeros(outputs, np.int64),
                                    target.zero_byte, False)
    return [depthwise_instruction(target, start, steps, taps, weights.reshape(-1, outputs), parameters, (low, high), blob)]


def depthwise_instruction(target: Buffer, start, steps, taps, weights, parameters, clamp, blob) -> Instruction:
    """One weight per tap and channel, weights int8 (taps, channels); steps to the next output row and column."""
    channels, columns = target.channels, target.columns
    lanes = pad_lanes(weights.T.astype("<i4"), 1)                # (channels, taps)
    packed = lanes.reshape(-1, 16, len(taps)).transpose(0, 2, 1)  # (channel group, tap, channel of the group)
    pixels = min((-(-columns // pixels) * pixels * (1 + 1 / pixels), pixels) for pixels in depthwise_kernel.TILES
                 if pixels <= columns)[1]
    return Instruction(("depthwise", pixels), {
        i.SOURCE: start, i.SOURCE_ROW: steps[0], i.SOURCE_PIXEL: steps[1], i.TARGET: target.offset, i.TARGET_ROW: target.row,
        i.TARGET_PIXEL: target.pixel, i.ROWS: target.rows, i.COLUMNS: columns, i.CHANNELS: channels,
        i.TARGET_ZERO: target.zero_byte, i.LOW: clamp[0], i.HIGH: clamp[1], i.CONSTANTS: blob.add(parameters),
        i.WEIGHTS: blob.add(packed), depthwise_kernel.TAPS: blob.add(taps), depthwise_kernel.TAP_COUNT: len(taps)})


def mean(node: Node, inputs: list[Buffer], target: Buffer, blob: ConstantBlob) -> list[Instruction]:
    """The mean over an image is a depthwise convolution whose one window is the image and whose weights are 1."""
    source, channels = inputs[0], target.channels
    taps = (np.arange(source.rows)[:, None] * source.row + np.arange(source.columns) * source.pixel).ravel().astype(np.int32)
    multiplier, shift = (np.repeat(node.constants[name], channels) for name in ("multiplier", "shift"))
    bias = np.full(channels, -len(taps) * source.zero_byte)
    parameters = channel_parameters(bias, multiplier, shift, np.zeros(channels, np.int64), target.zero_byte, False)
    low, high = (bound + 128 for bound in node.attributes["clamp"])
    ones = np.ones((len(taps), channels), np.int8)
    return [depthwise_instruction(target, source.offset, (0, 0), taps, ones, parameters, (low, high), blob)]
