"""Random damage for the fuzzer: of bytes in any file, of fields in an ONNX model, of the parts of a .tflite model."""

import copy
import random

import numpy as np

EDGES = (*range(6), 7, 8, 16, 17, 64, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63,
         2**64 - 1)  # fmt: skip
WORDS = (b"[]", b"{}", b"[[", b"1e9", b"NaN", b"-1", b"99", b"null", b"true", b'"":', b"\\u0000", b"\xff\xfe", b"../",
         b"0003", b"TREE", b"SNOD", b"HEAP", b"conv2d", b"argmax", b"int16", b"1e999999999", b"1/0", b"inf", b"-0",
         b"\t\t", b"\n", b"\r\n", b"\x1b[2J", "\u2028".encode())  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 1e-9, 1e9, 1e30, 3e38, float("inf"), float("nan"))
DTYPES = ("float32", "int8", "uint8", "int16", "int32", "int64")


def flip_bytes(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to eight random changes: of bits, of whole fields, of blocks, of words in texts, of the file's length."""
    file = bytearray(data)
    for _ in range(min(1 + int(rng.expovariate(1)), 8)):
        kind = rng.randrange(10)
        at = rng.randrange(len(data))
        for _ in range(20):  # half of an HDF5 file is zeros that nothing reads
            if data[at] or not rng.randrange(8):
                break
            at = rng.randrange(len(data))
        at = min(at, len(file) - 1)
        if at < 0:
            break
        if kind <= 1:
            file[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            file[at] = rng.choice((0, 1, 2, 3, 127, 128, 255, rng.randrange(256)))
        elif kind <= 4:  # an integer field: an edge, an address in the file, or a neighbour of what was there
            size = rng.choice((2, 4, 8))
            at -= at % size
            old = int.from_bytes(file[at : at + size], "little")
            value = rng.choice(
                (rng.choice(EDGES), rng.randrange(max(len(data) // 4, 1)) * 4, old + 8, old - 1, old * 2)
            )
            file[at : at + size] = (value % 256**size).to_bytes(size, "little")
        elif kind == 5:  # a block from elsewhere, in this file or in another
            source = data if rng.randrange(4) else rng.choice(others)
            size, start = rng.choice((4, 8, 24, 40, 64, 328, 544)), rng.randrange(max(len(source) // 8, 1)) * 8
            block = source[start : start + size]
            at -= at % 4
            file[at : at + len(block)] = block
        elif kind == 6:
            word = rng.choice(WORDS)
            file[at : at + len(word)] = word
        elif kind == 7:  # another digit where one was
            digits = [i for i in range(at, min(at + 2000, len(file))) if 48 <= file[i] <= 57]
            if digits:
                file[rng.choice(digits)] = 48 + rng.randrange(10)
        elif kind == 8:  # bytes vanish or appear
            size = rng.choice((1, 8, 40, 512))
            if rng.randrange(2):
                del file[at : at + size]
            else:
                file[at:at] = bytes(size)
        elif rng.randrange(2):
            del file[at + 1 :]
    return bytes(file)


def change_text(data: bytes, rng: random.Random) -> bytes:
    """One to four cells of a tab-separated table replaced by something else, or rows and columns gone."""
    rows = [line.split(b"\t") for line in data.split(b"\n")]
    for _ in range(rng.randrange(1, 5)):
        row = rng.choice(rows)
        kind = rng.randrange(8)
        if kind == 0 and len(rows) > 1:
            rows.remove(row)
        elif kind == 1:
            row.pop(rng.randrange(len(row))) if len(row) > 1 else None
        elif kind == 2:
            row.append(rng.choice(WORDS))
        else:
            numbers = (b"-1", b"1e308", b"1e-400", b"nan", b"9" * 30, b"9" * 5000, b"0x10", b"1_0", b"", b" 1 ", b"2e9")
            row[rng.randrange(len(row))] = rng.choice((*numbers, rng.choice(WORDS), str(rng.choice(EDGES)).encode()))
    return b"\n".join(b"\t".join(row) for row in rows)


def change_fields(proto, rng: random.Random) -> bytes:
    """One to three fields of a protocol buffer (onnx.ModelProto), whatever they are, changed, doubled or removed."""
    proto = copy.deepcopy(proto)
    for _ in range(rng.randrange(1, 4)):
        message = proto
        while True:
            fields = message.ListFields()
            if not fields:
                break
            descriptor, value = rng.choice(fields)
            inner = descriptor.message_type is not None
            repeated = hasattr(value, "append") or hasattr(value, "add")
            if inner and rng.randrange(16):
                message = rng.choice(value) if repeated else value
                continue
            if repeated:
                _change_list(value, inner, rng)
            elif inner:
                message.ClearField(descriptor.name)
            else:
                setattr(message, descriptor.name, _other(value, rng))
            break
    return proto.SerializeToString()


def _change_list(values, inner: bool, rng: random.Random) -> None:
    kind = rng.randrange(4)
    if not len(values) or kind == 0:
        del values[:]
    elif kind == 1:
        del values[rng.randrange(len(values))]
    elif kind == 2:
        values.append(copy.deepcopy(rng.choice(values)))
    elif inner:
        values[rng.randrange(len(values))].CopyFrom(rng.choice(values))
    else:
        at = rng.randrange(len(values))
        values[at] = _other(values[at], rng)


def _other(value, rng: random.Random):
    """Another value of the type of `value`, that a protocol buffer takes for most fields."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        edge = rng.choice(EDGES) % 2**31
        return rng.choice((edge, -edge, value + 1, max(value - 1, 0), rng.randrange(20)))
    if isinstance(value, float):
        return rng.choice((*FLOATS, value * 2))
    if isinstance(value, str):
        return rng.choice((value[:-1], value + "x", "", "../../x", "\x1b[2J", value * 2, *NAMES))
    return flip_bytes(value, rng, [value]) if value else b"\0"


NAMES = ("x", "c0", "Conv", "Relu", "Gemm", "Add", "Concat", "Reshape", "Transpose", "Softmax", "MaxPool", "Mul", "Pad",
         "Slice", "Gather", "QLinearConv", "QuantizeLinear", "DequantizeLinear", "axis", "pads", "strides",
         "group")  # fmt: skip


def change_parts(builder, ends: tuple, rng: random.Random) -> bytes:
    """One to three tensors, operators or ends of a tflite_builder.ModelBuilder changed; then built."""
    tensors, operators, ends = list(builder.tensors), list(builder.operators), [list(end) for end in ends]
    count = len(tensors)
    for _ in range(rng.randrange(1, 4)):
        if rng.randrange(2):
            at = rng.randrange(count)
            shape, dtype, scales, zeros, data, dimension, name = tensors[at]
            kind = rng.randrange(7)
            if kind == 0 and shape:
                shape = list(shape)
                shape[rng.randrange(len(shape))] = rng.choice(EDGES[:17]) if rng.randrange(3) else -1
            elif kind == 1:
                shape = rng.choice(((), (*shape, 1), shape[:-1], shape[::-1], (1,) * 9))
            elif kind == 2:
                dtype = rng.choice(DTYPES)
            elif kind == 3:
                scales = None if scales is None or not rng.randrange(4) else np.full_like(scales, rng.choice(FLOATS))
                zeros = zeros if scales is not None else None
            elif kind == 4 and zeros is not None:
                zeros = np.full_like(zeros, rng.choice((-129, -128, -1, 0, 127, 128, 255, 2**31, -(2**40))))
            elif kind == 5:
                data = None if data is None else rng.choice((None, data.ravel()[:-1], data * 0, data + 1))
            elif kind == 6:
                dimension = rng.choice((0, 1, 3, 4, -1, 2**31 - 1))
            tensors[at] = (tuple(shape), dtype, scales, zeros, data, dimension, name)
        elif rng.randrange(6) == 0:
            end = rng.choice(ends)
            end[:] = rng.choice(([], [-1], [count], [rng.randrange(count)], [*end, *end]))
        else:
            at = rng.randrange(len(operators))
            code, inputs, outputs, options, fields = operators[at]
            kind = rng.randrange(6)
            if kind == 0:
                code = rng.choice(("ADD", "CUSTOM", "CONV_2D", "RESHAPE", "SOFTMAX", "PAD", "MUL", "CONCATENATION"))
            elif kind == 1:
                inputs = _other_indices(inputs, count, rng)
            elif kind == 2:
                outputs = _other_indices(outputs, count, rng)
            elif kind == 3:
                operators.insert(rng.randrange(len(operators)), operators[at])
            elif fields:
                name = rng.choice(list(fields))
                if isinstance(fields[name], float):
                    value = rng.choice(FLOATS)
                elif isinstance(fields[name], list):
                    value = [rng.choice((-2, -1, 0, 1, 2**31 - 1)) for _ in range(rng.randrange(9))]
                else:
                    value = rng.choice((0, 1, 2, 3, 5, 100))
                fields = fields | {name: value}
            operators[at] = (code, inputs, outputs, options, fields)
    builder = copy.copy(builder)
    builder.tensors, builder.operators = tensors, operators
    return builder.build(*ends)


def _other_indices(indices: tuple, count: int, rng: random.Random) -> tuple:
    at = rng.randrange(len(indices)) if indices else 0
    other = rng.choice((-1, -2, count, 2**31 - 1, rng.randrange(count), rng.randrange(count)))
    return rng.choice(((), indices[:-1], (*indices, other), (*indices[:at], other, *indices[at + 1 :])))
