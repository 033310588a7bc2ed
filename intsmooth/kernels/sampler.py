"""Noise for one sample: ChaCha20 words turned into outcomes of a threshold table, sixteen at a time, integers only.

A coordinate is first + #{thresholds <= u} for a 64-bit u. The high half of u is one word of the cipher, and nearly
always decides alone. A guide table finds the count: the range of the word is cut into 2^bits cells; the entry of a cell
with at most one threshold is `position of the threshold in the cell, left-justified | count of thresholds before`, and
one comparison of the word's own position with the entry settles the outcome. Cells in the tails hold many thresholds;
so the two ends of the range, 2^-TAIL_BITS of it each, have 2^bits finer cells of their own, behind the others. What is
left is cells with several thresholds even there (marked by a count of all ones) and words that equal a threshold's high
half: about one coordinate in a thousand, found by bisection. The low half of u is computed only for equality.

Cost per 16 coordinates: some twenty vector instructions and 16 scalar loads from the guide. Gather instructions were
slower than these loads on Zen 5, and a plain numba loop, which LLVM vectorized with gathers, slower still.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from intsmooth.kernels.chacha import I32, I64, chacha20_blocks
from intsmooth.kernels.jit import jit

TAIL_BITS = 5  # the two ends with finer cells are words whose TAIL_BITS highest bits are equal
SCRATCH_WORDS = 1024
NONCE_TAG = np.uint32(int.from_bytes(b"ints", "little"))
FIRST_LOW_COUNTER = np.uint32(2**31)
VECTOR = ir.VectorType(I32, 16)
SHORTS = ir.VectorType(ir.IntType(16), 16)


@intrinsic
def _look_up_row(typingctx, out, out_offset, words, word_offset, guide, bits, first):
    """out[out_offset : + 16] = outcomes of words[word_offset : + 16]; returns a mask of the lanes left undecided.

    out: int16[], words: uint32[], guide: uint32[2 << bits], offsets: int64, bits: uint32, first: int32 -> uint32.
    """
    signature = types.uint32(out, types.int64, words, types.int64, guide, types.uint32, types.int32)

    def codegen(context, builder, signature, arguments):
        out, out_offset, words, word_offset, guide, bits, first = arguments
        out, words, guide = (
            cgutils.create_struct_proxy(signature.args[i])(context, builder, value=value).data
            for i, value in ((0, out), (2, words), (4, guide))
        )

        def splat(scalar):
            undefined = ir.Constant(VECTOR, ir.Undefined)
            single = builder.insert_element(undefined, scalar, I32(0))
            return builder.shuffle_vector(single, undefined, ir.Constant(VECTOR, [0] * 16))

        def constant(value):
            return ir.Constant(VECTOR, [value] * 16)

        address = builder.bitcast(cgutils.gep(builder, words, word_offset), VECTOR.as_pointer())
        word = builder.load(address, align=4)
        # Both ends of the range, side by side: [-e, e) becomes [0, 2 e), e = 2^(32 - TAIL_BITS), modulo 2^32.
        turned = builder.add(word, constant(1 << 32 - TAIL_BITS))
        tail = builder.icmp_unsigned("<", turned, constant(1 << 33 - TAIL_BITS))
        position = builder.select(tail, turned, word)
        left = builder.add(splat(bits), builder.select(tail, constant(TAIL_BITS - 1), constant(0)))
        right = builder.sub(constant(32), left)
        tail_cells = builder.select(tail, splat(builder.shl(I32(1), bits)), constant(0))
        cell = builder.add(builder.lshr(position, right), tail_cells)

        entry = ir.Constant(VECTOR, ir.Undefined)
        for lane in range(16):
            index = builder.zext(builder.extract_element(cell, I32(lane)), I64)
            entry = builder.insert_element(entry, builder.load(cgutils.gep(builder, guide, index)), I32(lane))

        mask = splat(builder.sub(builder.shl(I32(1), bits), I32(1)))
        # Two shifts by the same amount in every lane: where no instruction shifts lanes by different amounts, LLVM would
        # go through floating point, powers of two being exact there.
        shifted = builder.shl(position, splat(bits))
        shifted = builder.select(tail, builder.shl(shifted, constant(TAIL_BITS - 1)), shifted)
        inside = builder.or_(shifted, mask)
        count = builder.and_(entry, mask)
        above = builder.zext(builder.icmp_unsigned(">", inside, entry), VECTOR)
        outcome = builder.add(builder.add(count, splat(first)), above)
        address = builder.bitcast(cgutils.gep(builder, out, out_offset), SHORTS.as_pointer())
        builder.store(builder.trunc(outcome, SHORTS), address, align=2)
        equal = builder.icmp_unsigned("<=", builder.xor(inside, entry), mask)
        crowded = builder.icmp_unsigned("==", count, mask)
        return builder.zext(builder.bitcast(builder.or_(equal, crowded), ir.IntType(16)), I32)

    return signature, codegen


@intrinsic
def _trailing_zeros(typingctx, value):
    """Number of zero bits below the lowest set bit of a uint32 that is not 0."""

    def codegen(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.uint32(types.uint32), codegen


@jit
def fill_noise(out, scratch, n, key, sample, first, high, low, guide, bits):
    """Write the n coordinates of one sample's noise to out[:n].

    out:     int16[], at least n rounded up to a multiple of 16 long; what lies between is overwritten
    scratch: uint32[SCRATCH_WORDS]
    n:       int64, 1 <= n < 2^31
    key:     uint32[8], ChaCha20 key of the image and stage
    sample:  uint64, index of the sample
    first:   int32, lowest outcome
    high, low: uint32[m], the halves of the thresholds
    guide:   uint32[2 << bits], bits: uint32, with m + 1 < 2^bits

    Arguments as `intsmooth.noise.sampler.table_arrays` prepares them; nothing is checked or allocated.
    """
    nonce1 = np.uint32(sample)
    nonce2 = np.uint32(sample >> np.uint64(32))
    for begin in range(0, n, 512):
        size = min(np.int64(512), n - begin)
        blocks = np.int64(16) if size <= 256 else np.int64(32)
        chacha20_blocks(scratch, 0, key, blocks, np.uint32(begin >> 4), NONCE_TAG, nonce1, nonce2)
        for row in range(0, size, 16):
            undecided = _look_up_row(out, begin + row, scratch, row, guide, bits, first)
            while undecided != 0:
                place = row + np.int64(_trailing_zeros(undecided))
                undecided = np.uint32(undecided & np.uint32(undecided - np.uint32(1)))
                word = scratch[place]
                left, right = np.int64(0), np.int64(high.size)
                while left < right:  # left becomes #{high < word}
                    middle = (left + right) >> 1
                    if high[middle] < word:
                        left = middle + 1
                    else:
                        right = middle
                if left < high.size and high[left] == word:
                    counter = np.uint32(FIRST_LOW_COUNTER + np.uint32(begin + place))
                    chacha20_blocks(scratch, 512, key, 1, counter, NONCE_TAG, nonce1, nonce2)
                    while left < high.size and high[left] == word and low[left] <= scratch[512]:
                        left += 1
                out[begin + place] = np.int16(np.int64(first) + left)


@jit
def fill_samples(out, scratch, row, n, key, first_sample, first, high, low, guide, bits):
    """Noise of the samples first_sample, first_sample + 1, ... in the rows of out.

    out: int16[count, n]; row: int16[n rounded up to a multiple of 16], scratch; first_sample: uint64; the others as in
    fill_noise.
    """
    for i in range(out.shape[0]):
        fill_noise(row, scratch, n, key, first_sample + np.uint64(i), first, high, low, guide, bits)
        for j in range(n):
            out[i, j] = row[j]
