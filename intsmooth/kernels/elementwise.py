"""Operators that work element by element: the input's requantization, add, multiply, table look-up, copies, borders."""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from intsmooth.kernels import vector as v
from intsmooth.kernels.instruction import (
    A0,
    A1,
    A2,
    A3,
    A4,
    CHANNELS,
    COLUMNS,
    CONSTANTS,
    HIGH,
    LOW,
    ROWS,
    SECOND,
    SECOND_PIXEL,
    SECOND_ROW,
    SECOND_ZERO,
    SOURCE,
    SOURCE_PIXEL,
    SOURCE_ROW,
    SOURCE_ZERO,
    TARGET,
    TARGET_PIXEL,
    TARGET_ROW,
    TARGET_ZERO,
)
from intsmooth.kernels.isa import ISA, host_features
from intsmooth.kernels.jit import jit, jit_as

VBMI = ISA == "vnni512" and "avx512vbmi" in host_features()


def _finish(builder, value, parameters, out, lanes, zero, low, high):
    value = builder.add(v.requantize(builder, value, parameters, False), zero)
    v.store_pixels(builder, [v.clamp(builder, value, low, high)], out, ir.Constant(out.type, 0), lanes)


@intrinsic
def requantize16(typing, levels, parameters, out, lanes, zero, low, high):
    """16 int16 levels at `levels` to int8 bytes at `out`, of which `lanes` are stored."""

    def codegen(context, builder, signature, values):
        levels, parameters, out, lanes = values[:4]
        zero, low, high = (v.splat(builder, builder.trunc(value, v.I32)) for value in values[4:])
        value = builder.sext(v.load(builder, levels, ir.VectorType(v.I16, 16)), v.V16I32)
        _finish(builder, value, parameters, out, lanes, zero, low, high)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), codegen


def _binary(emit):
    @intrinsic
    def tile(typing, a, b, a_zero, b_zero, left_shift, parameters, out, lanes, zero, low, high):
        def codegen(context, builder, signature, values):
            a, b, a_zero, b_zero, left_shift, parameters, out, lanes = values[:8]
            zero, low, high = (v.splat(builder, builder.trunc(value, v.I32)) for value in values[8:])
            operands = []
            for address, offset in ((a, a_zero), (b, b_zero)):
                value = builder.zext(v.load(builder, address, v.V16I8), v.V16I32)
                operands.append(builder.sub(value, v.splat(builder, builder.trunc(offset, v.I32))))
            shift = v.splat(builder, builder.trunc(left_shift, v.I32))
            result, block = emit(builder, *operands, shift, parameters)
            _finish(builder, result, block, out, lanes, zero, low, high)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 11), codegen
    return tile


def _emit_sum(combine):
    def emit(builder, a, b, shift, parameters):
        terms = [v.requantize(builder, builder.shl(value, shift), v.offset(builder, parameters, at), False)
                 for value, at in ((a, 0), (b, v.REQUANTIZE_BYTES))]
        return getattr(builder, combine)(*terms), v.offset(builder, parameters, 2 * v.REQUANTIZE_BYTES)
    return emit


add16, sub16 = _binary(_emit_sum("add")), _binary(_emit_sum("sub"))
mul16 = _binary(lambda builder, a, b, shift, parameters: (builder.mul(a, b), parameters))


@jit
def input_requantize(code, levels, arena, scratch, blob):
    """Levels plus noise, int16 in row-major order, into the first activation."""
    parameters, source = blob.ctypes.data + code[CONSTANTS], levels.ctypes.data
    row_length = code[COLUMNS] * code[CHANNELS]
    for row in range(code[ROWS]):
        target = arena.ctypes.data + code[TARGET] + row * code[TARGET_ROW]
        for first in range(0, row_length, 16):
            requantize16(source + 2 * (row * row_length + first), parameters, target + first, row_length - first,
                         code[TARGET_ZERO], code[LOW], code[HIGH])


ADD, SUBTRACT, MULTIPLY, LINEAR = range(4)


# Parameters of a linear sum, in bytes: factors' upper and lower 15 bits as pairs of int16, rounding likewise, shift.
UPPER, LOWER, ROUND_UPPER, ROUND_LOWER, LINEAR_SHIFT = range(0, 320, 64)
LINEAR_BYTES, SPLIT = 320, 15


@intrinsic
def linear16(typing, a, b, a_zero, b_zero, left_shift, parameters, out, lanes, zero, low, high):
    """(a A + b B + C) >> S for bytes a and b and 30-bit factors, in 32 bits: A = A' 2^15 + A", B and C alike, and

    (a A + b B + C) >> S = (a A' + b B' + C' + ((a A" + b B" + C") >> 15)) >> (S - 15), floors being nested.
    The signature is that of the other tiles; zero points and zero are part of C.
    """

    def codegen(context, builder, signature, values):
        a, b, parameters, out, lanes = (values[index] for index in (0, 1, 5, 6, 7))
        low, high = (v.splat(builder, builder.trunc(value, v.I32)) for value in values[9:])
        first, second = (builder.zext(v.load(builder, address, v.V16I8), v.V16I32) for address in (a, b))
        pair = builder.bitcast(builder.or_(first, builder.shl(second, v.constant(16))), ir.VectorType(v.I16, 32))

        def part(factors_at, round_at):
            factors = v.load(builder, v.offset(builder, parameters, factors_at), pair.type)
            rounding = v.load(builder, v.offset(builder, parameters, round_at))
            return builder.add(v.multiply_add_pairs(builder, ISA, pair, factors), rounding)

        total = builder.add(part(UPPER, ROUND_UPPER), builder.ashr(part(LOWER, ROUND_LOWER), v.constant(SPLIT)))
        value = builder.ashr(total, v.load(builder, v.offset(builder, parameters, LINEAR_SHIFT)))
        v.store_pixels(builder, [v.clamp(builder, value, low, high)], out, ir.Constant(out.type, 0), lanes)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 11), codegen


def _make_row(name, tile):
    @jit_as(name)
    def row(a, b, out, channels, a_zero, b_zero, left_shift, parameters, zero, low, high):
        for first in range(0, channels, 16):
            tile(a + first, b + first, a_zero, b_zero, left_shift, parameters, out + first, channels - first, zero, low, high)
    return row


_add_row, _sub_row = _make_row("add_row", add16), _make_row("sub_row", sub16)
_mul_row, _linear_row = _make_row("mul_row", mul16), _make_row("linear_row", linear16)


@jit
def binary(code, levels, arena, scratch, blob):
    """A0: which operation; A1: left shift. The second operand broadcasts by zero steps; channels are never broadcast."""
    base, parameters = arena.ctypes.data, blob.ctypes.data + code[CONSTANTS]
    for row in range(code[ROWS]):
        for column in range(code[COLUMNS]):
            a = base + code[SOURCE] + row * code[SOURCE_ROW] + column * code[SOURCE_PIXEL]
            b = base + code[SECOND] + row * code[SECOND_ROW] + column * code[SECOND_PIXEL]
            out = base + code[TARGET] + row * code[TARGET_ROW] + column * code[TARGET_PIXEL]
            if code[A0] == ADD:
                _add_row(a, b, out, code[CHANNELS], code[SOURCE_ZERO], code[SECOND_ZERO], code[A1], parameters,
                         code[TARGET_ZERO], code[LOW], code[HIGH])
            elif code[A0] == SUBTRACT:
                _sub_row(a, b, out, code[CHANNELS], code[SOURCE_ZERO], code[SECOND_ZERO], code[A1], parameters,
                         code[TARGET_ZERO], code[LOW], code[HIGH])
            elif code[A0] == LINEAR:
                _linear_row(a, b, out, code[CHANNELS], code[SOURCE_ZERO], code[SECOND_ZERO], code[A1], parameters,
                            code[TARGET_ZERO], code[LOW], code[HIGH])
            else:
                _mul_row(a, b, out, code[CHANNELS], code[SOURCE_ZERO], code[SECOND_ZERO], code[A1], parameters,
                         code[TARGET_ZERO], code[LOW], code[HIGH])


@intrinsic
def lookup_bytes(typing, target, source, table, count):
    """target[i] = table[source[i]] for `count` bytes, table of 256; reads up to 63 bytes past the end of source.

    With AVX512-VBMI the table is four registers, and a byte permutation looks 64 bytes up in each half of it.
    """
    v64i8 = ir.VectorType(v.I8, 64)

    def permute(builder, low, index, high):
        kind = ir.FunctionType(v64i8, [v64i8] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpermi2var.qi.512")
        return builder.call(function, [low, index, high])

    def codegen(context, builder, signature, values):
        target, source, table, count = values
        step = 64 if VBMI else 1
        quarters = [v.load(builder, v.offset(builder, table, 64 * part), v64i8) for part in range(4)] if VBMI else []
        steps = builder.sdiv(builder.add(count, ir.Constant(count.type, step - 1)), ir.Constant(count.type, step))
        with cgutils.for_range(builder, steps, intp=count.type) as loop:
            done = builder.mul(loop.index, ir.Constant(count.type, step))
            here, there = builder.add(source, done), builder.add(target, done)
            if not VBMI:
                byte = builder.zext(v.load(builder, here, v.I8), count.type)
                v.store(builder, v.load(builder, builder.add(table, byte), v.I8), there)
            else:
                index = v.load(builder, here, v64i8)
                low, high = (permute(builder, quarters[k], index, quarters[k + 1]) for k in (0, 2))
                upper = builder.icmp_signed("<", index, ir.Constant(v64i8, [0] * 64))
                v.store_first(builder, builder.select(upper, high, low), there, builder.sub(count, done))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@jit
def lookup(code, levels, arena, scratch, blob):
    """Every unary function of a byte, as a table of 256 bytes."""
    base, table = arena.ctypes.data, blob.ctypes.data + code[CONSTANTS]
    for row in range(code[ROWS]):
        for column in range(code[COLUMNS]):
            source = base + code[SOURCE] + row * code[SOURCE_ROW] + column * code[SOURCE_PIXEL]
            target = base + code[TARGET] + row * code[TARGET_ROW] + column * code[TARGET_PIXEL]
            lookup_bytes(target, source, table, np.int64(code[CHANNELS]))


@intrinsic
def copy_bytes(typing, target, source, count):
    """memcpy between addresses that do not overlap."""

    def codegen(context, builder, signature, values):
        target, source, count = values
        pointers = [builder.inttoptr(address, v.I8.as_pointer()) for address in (target, source)]
        cgutils.raw_memcpy(builder, *pointers, count, 1)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


@jit
def copy(code, levels, arena, scratch, blob):
    """Strided copy; A0 and A1 are the channel steps of source and target, so that a transposition is a copy too."""
    base, channels = arena.ctypes.data, code[CHANNELS]
    together = code[A0] == 1 and code[A1] == 1
    whole_rows = together and code[SOURCE_PIXEL] == channels and code[TARGET_PIXEL] == channels
    for row in range(code[ROWS]):
        source_row, target_row = code[SOURCE] + row * code[SOURCE_ROW], code[TARGET] + row * code[TARGET_ROW]
        if whole_rows:
            copy_bytes(base + target_row, base + source_row, np.int64(code[COLUMNS]) * channels)
            continue
        for column in range(code[COLUMNS]):
            source, target = source_row + column * code[SOURCE_PIXEL], target_row + column * code[TARGET_PIXEL]
            if together:
                copy_bytes(base + target, base + source, np.int64(channels))
                continue
            for channel in range(channels):
                arena[target + channel * code[A1]] = arena[source + channel * code[A0]]


@jit
def fill_border(code, levels, arena, scratch, blob):
    """Write the zero point around ROWS x COLUMNS pixels at TARGET: A0 above, A1 below, A2 left, A3 right; A4 is the byte."""
    pixel, row_step, columns, rows = code[TARGET_PIXEL], code[TARGET_ROW], code[COLUMNS], code[ROWS]
    byte, start = code[A4], code[TARGET]
    left, right = code[A2] * pixel, code[A3] * pixel
    whole = left + columns * pixel + right
    for row in range(-code[A0], 0):
        at = start + row * row_step - left
        arena[at:at + whole] = byte
    for row in range(rows):
        at = start + row * row_step
        arena[at - left:at] = byte
        arena[at + columns * pixel:at + columns * pixel + right] = byte
    for row in range(rows, rows + code[A1]):
        at = start + row * row_step - left
        arena[at:at + whole] = byte
