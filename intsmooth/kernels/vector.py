"""Sixteen int32 lanes as building blocks of the vector kernels, emitted as LLVM IR.

Every function here takes an llvmlite IRBuilder and values and returns a value; the tiles in `conv_tile.py` and its
neighbours compose them inside one `numba.extending.intrinsic`. A `<16 x i32>` is one register with AVX-512 and two with
AVX2: LLVM splits it. Only `dot4`, `multiply_add_pairs` and `multiply_add` name an instruction set, everything else is plain IR.

Requantization. With p = acc * m (64 bits), the gemmlowp double rounding

    t = floor((p + 2^30) / 2^31),   result = floor((t + half - [t < 0]) / 2^e),   half = 2^(e-1), e > 0

is nested floors, and floor((floor(y / a) + c) / b) = floor((y + c a) / (a b)), so it is one addition and one shift:

    result = (p + 2^30 + half 2^31 - [t < 0] 2^31) >> (31 + e),

where [t < 0] may be replaced by [acc < 0]: they differ only for t = 0, where both choices give 0. Nothing here asks for
a normalised multiplier: 0 <= m < 2^31. A left shift l (e = 0)
is (p + 2^(30-l)) >> (31-l). `plan` stores the shift and the rounding constant per channel as 64-bit lanes. If the output
is clamped from below at its zero point, the sign term changes nothing that survives the clamp: it is left out, and the
zero point, times 2^(31+e), joins the rounding constant.
"""

from llvmlite import ir
from numba.core import cgutils

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
LANES = 16
V16I32 = ir.VectorType(I32, LANES)
V16I8 = ir.VectorType(I8, LANES)
V8I64 = ir.VectorType(I64, 8)


def constant(value, count=LANES, kind=I32):
    return ir.Constant(ir.VectorType(kind, count), [value] * count)


def offset(builder, address, displacement):
    """address + displacement, where displacement is a Python int or an intp value."""
    if isinstance(displacement, int):
        displacement = ir.Constant(address.type, displacement)
    return builder.add(address, displacement)


def load(builder, address, kind=V16I32, align=1):
    value = builder.load(builder.inttoptr(address, kind.as_pointer()), typ=kind)
    value.align = align
    return value


def store(builder, value, address):
    instruction = builder.store(value, builder.inttoptr(address, value.type.as_pointer()))
    instruction.align = 1


def splat(builder, scalar, count=LANES):
    kind = ir.VectorType(scalar.type, count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), constant(0, count))


def _call(builder, name, result, *arguments):
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _halves(builder, value, kind):
    """The lower and upper half of a vector, reinterpreted as `kind`."""
    count = value.type.count // 2
    undefined = ir.Constant(value.type, ir.Undefined)
    parts = []
    for start in (0, count):
        mask = ir.Constant(ir.VectorType(I32, count), list(range(start, start + count)))
        parts.append(builder.bitcast(builder.shuffle_vector(value, undefined, mask), kind))
    return parts


def _join(builder, low, high):
    count = low.type.count * 2
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, count), list(range(count))))


def dot4(builder, isa, acc, unsigned, signed):
    """acc[i] + sum over the four bytes b of lane i of unsigned[i][b] * signed[i][b], modulo 2^32."""
    if isa == "vnni512":
        bytes64 = ir.VectorType(I8, 64)
        return _call(builder, "llvm.x86.avx512.vpdpbusd.512", V16I32, acc,
                     builder.bitcast(unsigned, bytes64), builder.bitcast(signed, bytes64))
    if isa == "vnni256":
        v8i32, bytes32 = ir.VectorType(I32, 8), ir.VectorType(I8, 32)
        parts = zip(_halves(builder, acc, v8i32), _halves(builder, unsigned, bytes32), _halves(builder, signed, bytes32),
                    strict=True)
        return _join(builder, *(_call(builder, "llvm.x86.avx512.vpdpbusd.256", v8i32, *part) for part in parts))
    # Even and odd bytes as 16-bit integers; a product is at most 255 * 128, so a pair sum fits in 32 bits.
    v32i16 = ir.VectorType(I16, 32)
    eight = constant(8, 32, I16)
    u, s = builder.bitcast(unsigned, v32i16), builder.bitcast(signed, v32i16)
    even = multiply_add_pairs(builder, isa, builder.and_(u, constant(255, 32, I16)), builder.ashr(builder.shl(s, eight), eight))
    odd = multiply_add_pairs(builder, isa, builder.lshr(u, eight), builder.ashr(s, eight))
    return builder.add(acc, builder.add(even, odd))


def multiply_add_pairs(builder, isa, a, b):
    """a[2i] * b[2i] + a[2i+1] * b[2i+1] of int16 vectors of 32 lanes, as 16 lanes of int32."""
    if isa == "portable":
        wide = ir.VectorType(I32, 32)
        product = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
        undefined = ir.Constant(wide, ir.Undefined)
        picks = [ir.Constant(V16I32, list(range(start, 32, 2))) for start in (0, 1)]
        return builder.add(*(builder.shuffle_vector(product, undefined, pick) for pick in picks))
    if isa == "vnni512":
        return _call(builder, "llvm.x86.avx512.pmaddw.d.512", V16I32, a, b)
    v16i16, v8i32 = ir.VectorType(I16, 16), ir.VectorType(I32, 8)
    parts = zip(_halves(builder, a, v16i16), _halves(builder, b, v16i16), strict=True)
    return _join(builder, *(_call(builder, "llvm.x86.avx2.pmadd.wd", v8i32, *part) for part in parts))


def multiply_add(builder, isa, acc, byte_address, factors):
    """acc[i] + unsigned byte i * factors[i], modulo 2^32; the 16 bytes start at byte_address, -2^15 <= factors[i] < 2^15."""
    values = builder.zext(load(builder, byte_address, V16I8), V16I32)
    if isa == "vnni512":  # pairs of int16: the upper half of each value is zero, so the pair sum is the one product
        return _call(builder, "llvm.x86.avx512.vpdpwssd.512", V16I32, acc, values, factors)
    return builder.add(acc, builder.mul(values, factors))


# One block of requantization parameters: 16 channels, as the plan writes them, in units of bytes.
MULTIPLIER_EVEN, MULTIPLIER_ODD, ROUND_EVEN, ROUND_ODD, SHIFT_EVEN, SHIFT_ODD, SIGN_EVEN, SIGN_ODD = range(0, 512, 64)
REQUANTIZE_BYTES = 512


def requantize(builder, acc, parameters, rectified):
    """Sixteen accumulators times their multipliers, rounded and shifted (see the module's head)."""
    bits32 = constant(32, 8, I64)
    even_odd = builder.bitcast(acc, V8I64)
    even = builder.ashr(builder.shl(even_odd, bits32), bits32)
    odd = builder.ashr(even_odd, bits32)
    halves = []
    for value, m_at, c_at, s_at, n_at in ((even, MULTIPLIER_EVEN, ROUND_EVEN, SHIFT_EVEN, SIGN_EVEN),
                                          (odd, MULTIPLIER_ODD, ROUND_ODD, SHIFT_ODD, SIGN_ODD)):
        m, c, s = (load(builder, offset(builder, parameters, at), V8I64) for at in (m_at, c_at, s_at))
        m = builder.ashr(builder.shl(m, bits32), bits32)  # tells LLVM that 32 x 32 bits suffice: one VPMULDQ
        p = builder.add(builder.mul(value, m), c)
        if not rectified:
            sign = load(builder, offset(builder, parameters, n_at), V8I64)  # -2^31, or 0 where e = 0
            p = builder.add(p, builder.and_(builder.ashr(value, constant(63, 8, I64)), sign))
        halves.append(builder.bitcast(builder.ashr(p, s), V16I32))
    interleave = ir.Constant(V16I32, [lane // 2 * 2 + (lane % 2) * 16 for lane in range(LANES)])
    return builder.shuffle_vector(*halves, interleave)


def clamp(builder, value, low, high):
    value = builder.select(builder.icmp_signed("<", value, low), low, value)
    return builder.select(builder.icmp_signed(">", value, high), high, value)


def store_first(builder, value, address, count):
    """Store the first `count` bytes (intp) of a byte vector, all of it where count is larger."""
    lanes = value.type.count
    numbers = ir.Constant(ir.VectorType(count.type, lanes), list(range(lanes)))
    mask = builder.icmp_signed("<", numbers, splat(builder, count, lanes))
    pointer = value.type.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [value.type, pointer, I32, mask.type])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{lanes}i8.p0")
    builder.call(function, [value, builder.inttoptr(address, pointer), ir.Constant(I32, 1), mask])


def store_pixels(builder, values, address, step, lanes):
    """Store the low bytes of each vector (all values within 0..255), `step` bytes apart; of 16 channels `lanes` exist."""
    packed = [builder.trunc(value, V16I8) for value in values]
    places = [address]
    for _ in packed[1:]:
        places.append(builder.add(places[-1], step))
    with builder.if_else(builder.icmp_signed(">=", lanes, ir.Constant(lanes.type, LANES))) as (then, otherwise):
        with then:
            for value, place in zip(packed, places, strict=True):
                store(builder, value, place)
        with otherwise:
            for value, place in zip(packed, places, strict=True):
                store_first(builder, value, place, lanes)
