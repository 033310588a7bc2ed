"""How many multiply-adds of bytes can this machine do? A loop of nothing but dot products, which no network can outrun.

The loop is the convolution's inner one without its surroundings: `pixels` x `blocks` accumulators of 16 lanes, one dot
of four bytes per lane and step. With VNNI its operands stay in registers, so that the dot units are the only limit.
Without it a dot is several instructions on its operands, which LLVM would move out of the loop if they did not change:
there the operands come from the first-level cache, and what is measured is the best that `vector.dot4` can do.
"""

import threading
import time
from functools import cache

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from intsmooth.kernels import vector as v
from intsmooth.kernels.isa import ISA
from intsmooth.kernels.jit import jit

STEPS = 96  # dots per accumulator in one pass; 16 KiB of operands at most, less than any first-level cache

# (pixels, blocks, operands in registers). The dot's latency times its rate asks for at least 8 accumulators of one
# instruction each; 24 + 3 fit into AVX-512's 32 registers, 12 + 3 into AVX2's 16 (a block of 16 lanes takes two there).
LOOPS = {
    "vnni512": ((12, 2, True),),
    "vnni256": ((6, 1, True), (12, 1, True)),
    "avx2": ((4, 1, False), (8, 1, False), (8, 2, False)),
    "portable": ((4, 1, False), (8, 1, False), (8, 2, False)),
}


@intrinsic(prefer_literal=True)
def _dots(typing, pixels, blocks, in_registers, x, pixel_step, weights, steps, out):
    """Add dots to the accumulators at `out`, which start apart, so that LLVM cannot take two of them for one.

    x, weights and out are addresses, pixel_step (bytes) and steps integers, all intp.
    """

    def codegen(context, builder, signature, values):
        count, width, fixed = (literal.literal_value for literal in signature.args[:3])
        x, pixel_step, weights, steps, out = values[3:]
        intp = x.type
        places = [
            [v.offset(builder, out, 64 * (row * width + block)) for block in range(width)] for row in range(count)
        ]
        slots = [[cgutils.alloca_once_value(builder, v.load(builder, place)) for place in row] for row in places]

        def load(at, weights_at):
            rows = [v.load(builder, v.offset(builder, weights_at, 64 * block)) for block in range(width)]
            fours = [v.splat(builder, v.load(builder, at, v.I32))]
            for _ in range(0 if fixed else count - 1):
                at = builder.add(at, pixel_step)
                fours.append(v.splat(builder, v.load(builder, at, v.I32)))
            return rows, fours * count if fixed else fours

        loaded = load(x, weights)
        with cgutils.for_range(builder, steps, intp=intp) as loop:
            if not fixed:
                loaded = load(
                    builder.add(x, builder.mul(loop.index, ir.Constant(intp, 4))),
                    builder.add(weights, builder.mul(loop.index, ir.Constant(intp, 64 * width))),
                )
            rows, fours = loaded
            for row, four in zip(slots, fours, strict=True):
                for slot, weight in zip(row, rows, strict=True):
                    builder.store(v.dot4(builder, ISA, builder.load(slot), four, weight), slot)
        for slot_row, place_row in zip(slots, places, strict=True):
            for slot, place in zip(slot_row, place_row, strict=True):
                v.store(builder, builder.load(slot), place)
        return context.get_dummy_value()

    return types.void(pixels, blocks, in_registers, *[types.intp] * 5), codegen


@cache
def dot_loop(pixels: int, blocks: int, in_registers: bool):
    """The compiled loop for one register block: loop(x, weights, steps, passes, out).

    x: uint8 (pixels, 4 * steps); weights: int8 (steps, blocks, 64); out: int32 (pixels, blocks, 16), the accumulators,
    which wrap. Where the operands stay in registers only the first pixel's first four bytes and weights[0] are read.
    """

    @jit
    def loop(x, weights, steps, passes, out):
        for _ in range(passes):
            _dots(pixels, blocks, in_registers, x.ctypes.data, x.shape[1], weights.ctypes.data, steps, out.ctypes.data)

    return loop


@cache
def operands(pixels: int, blocks: int, steps: int, thread: int = 0):
    """Random (x, weights, out) for a loop that runs on one thread."""
    rng = np.random.default_rng(thread)
    x = rng.integers(0, 256, (pixels, 4 * steps), np.uint8)
    weights = rng.integers(-128, 128, (steps, blocks, 64), np.int8)
    return x, weights, np.zeros((pixels, blocks, 16), np.int32)


def run_dots(passes: int, threads: int = 1, shape: tuple | None = None) -> int:
    """Run a loop of LOOPS (by default the fastest) `passes` times on each of `threads` threads at once.

    Returns the multiply-adds done by all of them; time it to know the rate.
    """
    pixels, blocks, in_registers = shape = shape or fastest_loop()
    loop = dot_loop(*shape)
    prepared = [operands(pixels, blocks, STEPS, thread) for thread in range(threads)]

    def work(x, weights, out):
        loop(x, weights, STEPS, passes, out)

    others = [threading.Thread(target=work, args=arrays) for arrays in prepared[1:]]
    for thread in others:
        thread.start()
    work(*prepared[0])
    for thread in others:
        thread.join()
    return threads * passes * STEPS * pixels * blocks * 64


@cache
def fastest_loop() -> tuple[int, int, bool]:
    """The register block of LOOPS that does most multiply-adds per second here."""
    rates = {}
    for shape in LOOPS[ISA]:
        run_dots(1, 1, shape)  # compiles
        trials = []
        for _ in range(5 if len(LOOPS[ISA]) > 1 else 0):
            start = time.perf_counter()
            done = run_dots(200, 1, shape)
            trials.append(done / (time.perf_counter() - start))
        rates[shape] = max(trials, default=1.0)
    return max(rates, key=rates.get)
