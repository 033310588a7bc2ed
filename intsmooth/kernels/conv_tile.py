"""The convolution tile: `pixels` outputs times `blocks` x 16 channels, accumulated in registers, requantized, stored.

A kernel row (or a single tap, where dilation or groups part the taps) is a *segment*: bytes that lie next to each other
in the padded NHWC buffer, so no im2col is needed. For every segment and every four bytes of it, each pixel's four bytes
are broadcast to 16 lanes and multiplied with `blocks` weight vectors (16 channels x 4 bytes).

Register blocking. A step of four bytes costs pixels * blocks dot instructions, pixels broadcasts and `blocks` weight
loads. A core with two dot units and two load units is kept busy by the dots when pixels + blocks <= pixels * blocks,
which holds for 8 x 2 (10 loads for 16 dots) and nearly for 16 x 1 (17 for 16); and the accumulators, the weights and one
broadcast must fit into the 32 registers: 8 x 2 needs 16 + 2 + 1. The latency of a dot (4 cycles at two a cycle) asks for
at least 8 independent accumulators.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from intsmooth.kernels import vector as v
from intsmooth.kernels.isa import ISA

# One block of parameters, in bytes: bias, requantization, skip multipliers.
BIAS, REQUANTIZE = 0, 64
SKIP = REQUANTIZE + v.REQUANTIZE_BYTES
PARAMETER_BYTES = SKIP + 64


def _column_offsets(builder, pixels, known_step, pixel_step):
    """Bytes from the first pixel to each."""
    if known_step:
        return [ir.Constant(pixel_step.type, pixel * known_step) for pixel in range(pixels)]
    offsets = [ir.Constant(pixel_step.type, 0)]
    for _ in range(pixels - 1):
        offsets.append(builder.add(offsets[-1], pixel_step))
    return offsets


def _accumulate(builder, slots, columns, x, segments, segment_count, steps, weights):
    """slots[pixel][block] += segments of x times weights."""
    intp, blocks = x.type, len(slots[0])
    weight_at = cgutils.alloca_once_value(builder, weights)
    with cgutils.for_range(builder, segment_count, intp=intp) as outer:
        where = builder.add(segments, builder.mul(outer.index, ir.Constant(intp, 4)))
        start = builder.add(x, builder.sext(v.load(builder, where, v.I32, 4), intp))
        with cgutils.for_range(builder, steps, intp=intp) as inner:
            column = builder.add(start, builder.mul(inner.index, ir.Constant(intp, 4)))
            w = builder.load(weight_at)
            rows = [v.load(builder, v.offset(builder, w, 64 * block)) for block in range(blocks)]
            builder.store(builder.add(w, ir.Constant(intp, 64 * blocks)), weight_at)
            for offset, row in zip(columns, slots, strict=True):
                four = v.splat(builder, v.load(builder, builder.add(column, offset), v.I32))
                for slot, weight in zip(row, rows, strict=True):
                    builder.store(v.dot4(builder, ISA, builder.load(slot), four, weight), slot)


def add_skip(builder, slots, skip, skip_step, parameters):
    """Add skip multiplier times skip activation to every accumulator."""
    for block in range(len(slots[0])):
        at = v.offset(builder, skip, 16 * block)
        factors = v.load(builder, v.offset(builder, parameters, block * PARAMETER_BYTES + SKIP))
        for row in slots:
            builder.store(v.multiply_add(builder, ISA, builder.load(row[block]), at, factors), row[block])
            at = builder.add(at, skip_step)


def requantize_and_store(builder, slots, parameters, rectified, zero, low, high, out, out_step, lanes):
    """Accumulators to bytes at `out`, pixels out_step apart; `lanes` channels of the last block exist."""
    for block in range(len(slots[0])):
        block_parameters = v.offset(builder, parameters, block * PARAMETER_BYTES + REQUANTIZE)
        results = []
        for row in slots:
            value = v.requantize(builder, builder.load(row[block]), block_parameters, rectified)
            if not rectified:
                value = builder.add(value, zero)
            results.append(v.clamp(builder, value, low, v.constant(255) if rectified else high))
        exist = lanes if block == len(slots[0]) - 1 else ir.Constant(lanes.type, v.LANES)
        v.store_pixels(builder, results, v.offset(builder, out, 16 * block), out_step, exist)


@intrinsic(prefer_literal=True)
def conv_tile(typing, pixels, blocks, known_step, x, pixel_step, segments, segment_count, steps, weights, parameters, out, out_step,
              out_zero, low, high, lanes, rectified, has_skip, skip, skip_step):
    """See the module's head; pixels, blocks and known_step are literals, all else addresses, counts, flags (intp).

    known_step: the pixel step in bytes, so that the broadcasts' addresses cost no instruction, or 0 for any pixel_step.
    rectified: low is the output's zero point (which the parameters then contain) and high is 255. lanes: channels of the
    last block that exist, 16 when all do. has_skip: skip points to activations that join the accumulators.
    """

    def codegen(context, builder, signature, values):
        (x, pixel_step, segments, segment_count, steps, weights, parameters, out, out_step, out_zero, low, high, lanes,
         rectified, has_skip, skip, skip_step) = values[3:]
        zeros = ir.Constant(x.type, 0)
        biases = [v.load(builder, v.offset(builder, parameters, block * PARAMETER_BYTES + BIAS))
                  for block in range(blocks.literal_value)]
        slots = [[cgutils.alloca_once_value(builder, bias) for bias in biases] for _ in range(pixels.literal_value)]
        columns = _column_offsets(builder, len(slots), known_step.literal_value, pixel_step)
        _accumulate(builder, slots, columns, x, segments, segment_count, steps, weights)
        with builder.if_then(builder.icmp_signed("!=", has_skip, zeros)):
            add_skip(builder, slots, skip, skip_step, parameters)
        bounds = [v.splat(builder, builder.trunc(value, v.I32)) for value in (out_zero, low, high)]
        with builder.if_else(builder.icmp_signed("!=", rectified, zeros)) as (then, otherwise):
            for branch, flag in ((then, True), (otherwise, False)):
                with branch:
                    requantize_and_store(builder, slots, parameters, flag, *bounds, out, out_step, lanes)
        return context.get_dummy_value()

    return types.void(pixels, blocks, known_step, *[types.intp] * 17), codegen
