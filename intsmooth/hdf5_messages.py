"""What the messages of an HDF5 object header say: which kinds are allowed, attributes, element types, dimensions.

Functions from the bytes of one message to a value. `where` names the object or attribute for the FormatError that
anything outside the subset of hdf5.py ends in. Sections are those of the "HDF5 File Format Specification Version 3.0".
"""

import math
import struct

import numpy as np

from intsmooth.errors import FormatError

# Message types (IV.A.2).
NIL, DATASPACE, LINK_INFO, DATATYPE, FILL_OLD, FILL, LINK, EXTERNAL_FILES, LAYOUT = range(9)
FILTERS, ATTRIBUTE, COMMENT, TIME_OLD, SHARED_TABLE, CONTINUATION, SYMBOL_TABLE, TIME = range(11, 19)
IGNORED = {NIL, FILL_OLD, FILL, TIME_OLD, TIME}

MAX_DIMENSIONS = 8
MAX_NAME = 255

_LINK_TYPES = {0: "a hard link in a new-style group", 1: "a soft link", 64: "an external link"}
_LAYOUTS = {0: "compact", 2: "chunked", 3: "virtual"}
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset"}
_TYPE_CLASSES = ("integer", "float", "time", "string", "bitfield", "opaque", "compound", "reference", "enumeration",
                 "variable-length", "array", "complex")  # fmt: skip
# Version and class, class bits, size, then the properties (IV.A.2.d): exactly what is prescribed for these types.
_TYPES = {
    bytes.fromhex("10080000 01000000 00000800"): np.dtype("<i1"),
    bytes.fromhex("10080000 04000000 00002000"): np.dtype("<i4"),
    bytes.fromhex("10080000 08000000 00004000"): np.dtype("<i8"),
    bytes.fromhex("11203f00 08000000 00004000 340b0034 ff030000"): np.dtype("<f8"),
}


def fields(layout: str, body: bytes, offset: int, where: str) -> tuple[int, ...]:
    """struct.unpack_from for bytes of unknown length."""
    if struct.calcsize(layout) > len(body) - offset:
        raise FormatError(f"{where} is damaged: a structure is too short")
    return struct.unpack_from(layout, body, offset)


def is_group(messages: dict[int, list[bytes]], where: str) -> bool:
    """Whether an object is a plain group, as opposed to a plain contiguous data set; FormatError for all else."""
    if LINK in messages:
        kinds = [
            kind if flags & 8 else 0 for flags, kind in (fields("<xBB", body, 0, where) for body in messages[LINK])
        ]
        found = _LINK_TYPES.get(max(kinds), "a user-defined link")
        raise FormatError(f"{where} holds {found}, required: plain hard links in an old-style group")
    if EXTERNAL_FILES in messages:
        raise FormatError(f"{where} has external storage: its data would lie in other files; required: in this file")
    if FILTERS in messages:
        (number,) = fields("<8xH", messages[FILTERS][0], 0, where)
        name = _FILTERS.get(number, f"unknown number {number}")
        raise FormatError(f"{where} passes through a filter ({name}), required: no compression and no filters")
    if LAYOUT in messages:
        version, layout = fields("<BB", messages[LAYOUT][0], 0, where)
        if (version, layout) != (3, 1):
            found = _LAYOUTS.get(layout, f"in layout {layout} of version {version}")
            raise FormatError(f"{where} is {found}, required: one contiguous array")
    kinds = messages.keys() - {ATTRIBUTE}
    if kinds not in ({SYMBOL_TABLE}, {DATASPACE, DATATYPE, LAYOUT}) or any(len(messages[kind]) > 1 for kind in kinds):
        raise FormatError(f"{where} is neither a plain group nor a plain data set: it has messages {sorted(messages)}")
    return SYMBOL_TABLE in kinds


def attribute(body: bytes, where: str) -> tuple[str, str | int | float | tuple[int, ...] | tuple[float, ...]]:
    """(name, value) of an attribute message (IV.A.2.m): a string, a number, or a list of numbers."""
    what = f"an attribute of {where}"
    version, *sizes = fields("<BxHHH", body, 0, what)
    if version != 1:
        raise FormatError(f"{what} has version {version}, required: 1")
    parts, position = [], 8
    for size in sizes:  # name, type and dimensions, each padded to a multiple of 8
        parts.append(body[position : position + size])
        position += -(-size // 8) * 8
    name = parts[0].split(b"\0")[0].decode("ascii", "replace")
    if not 1 <= len(name) <= MAX_NAME or not name.isascii() or not name.isprintable():
        raise FormatError(f"{what} has a name that is not 1 to {MAX_NAME} printable ASCII characters")
    what = f"attribute {name!r} of {where}"
    shape, values = dimensions(parts[2], what), body[position:]
    if parts[1][:1] == b"\x13":
        return name, _string(parts[1], shape, values, what)
    dtype, count = element_type(parts[1], what), math.prod(shape)
    if len(shape) > 1 or dtype.itemsize != 8 or count * 8 > len(values):
        raise FormatError(f"{what} is {dtype.name} of shape {shape}, required: int64 or float64, one or a list of them")
    numbers = np.frombuffer(values, dtype, count).tolist()
    return name, tuple(numbers) if shape else numbers[0]


def _string(kind: bytes, shape: tuple[int, ...], values: bytes, what: str) -> str:
    """A string of fixed length, ended or padded by zeros, ASCII or UTF-8."""
    bits, size = fields("<xB2xI", kind, 0, what)
    if bits & 15 > 1 or bits >> 4 > 1 or shape or size > len(values):
        raise FormatError(f"{what} is an unusual or damaged string, required: one, of fixed length, padded by zeros")
    try:
        return values[:size].rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{what} is not valid UTF-8") from None


def dimensions(body: bytes, where: str) -> tuple[int, ...]:
    """The dimensions of a data space message (IV.A.2.b), () for a scalar."""
    version, rank, flags = fields("<BBB", body, 0, where)
    if version != 1 or flags > 1 or rank > MAX_DIMENSIONS:
        raise FormatError(
            f"{where} has a data space of version {version}, rank {rank} and flags {flags}, required: version 1, "
            f"at most {MAX_DIMENSIONS} dimensions"
        )
    numbers = fields(f"<{rank * (1 + flags)}Q", body, 8, where)
    if flags and numbers[rank:] != numbers[:rank]:
        raise FormatError(f"{where} can be resized, required: fixed dimensions")
    return numbers[:rank]


def element_type(body: bytes, where: str) -> np.dtype:
    """The element type of a data type message, one of the four that are allowed."""
    for encoding, dtype in _TYPES.items():
        if body.startswith(encoding):
            return dtype
    kind, bits, size = fields("<BBxxI", body, 0, where)
    name = _TYPE_CLASSES[kind & 15] if kind & 15 < len(_TYPE_CLASSES) else "unknown"
    order = "big-endian " if kind & 15 in (0, 1) and bits & 1 else ""
    sign = "unsigned " if kind & 15 == 0 and not bits & 8 else ""
    raise FormatError(f"{where} is of type {order}{sign}{name} of {size} bytes, required: little-endian, signed")
