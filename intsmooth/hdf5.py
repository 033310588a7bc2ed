"""A strict reader of the small part of HDF5 that model files use: bytes in, a tree of attributes and arrays out.

The HDF5 library is written for files that one trusts: a damaged or malicious file can make it loop for ever (in HDF5
2.0.0 a heap whose free list points at itself is enough) or corrupt memory (CVE-2025-2308 to -2310), and neither can be
turned into a Python error. A model file is therefore never shown to it. This reader knows the oldest encoding of HDF5
(superblock 0, version 1 object headers, groups as B-trees; "HDF5 File Format Specification Version 3.0", II.A, III.A to
III.D, IV.A), which every version of the library can write, and in it only groups, contiguous int8 and int32 arrays, and
attributes that are strings, int64 or float64. Everything else is refused by its name.

Time and memory are bounded by the size of the file: each structure must lie inside it, each object is read once, and
all structures together may not take more bytes than the file has. So loops end and nothing is amplified.
"""

import math
import struct
from dataclasses import dataclass

import numpy as np

from intsmooth.errors import FormatError
from intsmooth.hdf5_messages import (
    ATTRIBUTE,
    CONTINUATION,
    DATASPACE,
    DATATYPE,
    IGNORED,
    LAYOUT,
    MAX_NAME,
    SYMBOL_TABLE,
    attribute,
    dimensions,
    element_type,
    fields,
    is_group,
)

MAX_METADATA = 2**23  # bytes of headers, B-trees, heaps and attributes in one file
MAX_OBJECTS = 2**14  # groups and data sets
MAX_MESSAGES = 256  # in one object header
MAX_DEPTH = 2  # of groups below the root

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = struct.Struct("<8s8B2HI4Q2QI4x16x")
_UNDEFINED = 2**64 - 1


@dataclass(frozen=True)
class Group:
    """Attributes, groups and arrays by name. The arrays are read-only views of the file's bytes."""

    attributes: dict[str, str | int | float | tuple[int, ...] | tuple[float, ...]]
    groups: dict[str, "Group"]
    arrays: dict[str, np.ndarray]


def read_tree(data: bytes) -> Group:
    """The root group of an HDF5 file. Raises FormatError, naming the structure, for anything outside the subset."""
    if data[:8] != _SIGNATURE:
        raise FormatError("not an HDF5 file: it does not start with HDF5's signature" if data else "the file is empty")
    if len(data) < _SUPERBLOCK.size:
        raise FormatError(f"the file ends after {len(data)} bytes, inside its superblock: it is truncated")
    (_, version, space, table, _, shared, offsets, lengths, _, _, _, flags, base, free, end, driver,
     _, root, _) = _SUPERBLOCK.unpack_from(data)  # fmt: skip
    if version != 0:
        raise FormatError(f"HDF5 superblock version {version}, required: 0 (h5py: libver=('earliest', 'v108'))")
    found = (space, table, shared, offsets, lengths, flags, base, free, driver)
    if found != (0, 0, 0, 8, 8, 0, 0, _UNDEFINED, _UNDEFINED):
        raise FormatError("the HDF5 superblock is unusual, required: 8-byte offsets and lengths, base address 0")
    if end != len(data):
        raise FormatError(f"the file has {len(data)} bytes but says {end}: it is truncated or has something appended")
    reader = _Reader(data)
    return reader.group(reader.messages(root, "/"), "/", MAX_DEPTH)


class _Reader:
    """Reads objects at addresses, and accounts for every byte that it is made to look at."""

    def __init__(self, data: bytes):
        self._data = data
        self._left = len(data) - _SUPERBLOCK.size
        self._metadata_left = MAX_METADATA
        self._objects: set[int] = set()

    def group(self, messages: dict[int, list[bytes]], path: str, depth: int) -> Group:
        """The group with this object header, and all that is below it."""
        if not is_group(messages, path):
            raise FormatError(f"{path} is a data set, required: a group")
        attributes, groups, arrays = {}, {}, {}
        for body in messages.get(ATTRIBUTE, []):
            name, value = attribute(body, path)
            if name in attributes:
                raise FormatError(f"{path} has two attributes named {name!r}")
            attributes[name] = value
        for name, address in self._members(messages[SYMBOL_TABLE][0], path):
            where = f"{path.rstrip('/')}/{name}"
            if name in groups or name in arrays:
                raise FormatError(f"{where} exists twice")
            parts = self.messages(address, where)
            if not is_group(parts, where):
                arrays[name] = self._array(parts, where)
            elif depth == 0:
                raise FormatError(f"{where} is a group, required: a data set (groups are nested too deeply)")
            else:
                groups[name] = self.group(parts, where, depth - 1)
        return Group(attributes, groups, arrays)

    def messages(self, address: int, path: str) -> dict[int, list[bytes]]:
        """The messages of an object header (IV.A.1.a) by type, those without meaning for us left out."""
        if address in self._objects or len(self._objects) == MAX_OBJECTS:
            raise FormatError(f"{path} is linked twice, or there are more than {MAX_OBJECTS} groups and data sets")
        self._objects.add(address)
        header = f"the object header of {path}"
        start = self._take(address, 16, header)
        version, count, size = struct.unpack("<BxHxxxxIxxxx", start)
        if version != 1:
            found = "2 (new-style or with tracked order)" if start.startswith(b"OHDR") else version
            raise FormatError(f"{header} has version {found}, required: 1 (h5py: libver=('earliest', 'v108'))")
        if count > MAX_MESSAGES:
            raise FormatError(f"{header} has {count} messages, required: at most {MAX_MESSAGES}")
        blocks, messages, seen = [(address + 16, size)], {}, 0
        while blocks:
            block = self._take(*blocks.pop(0), header)
            position = 0
            while position + 8 <= len(block) and seen < count:
                kind, length, flags = struct.unpack_from("<HHB", block, position)
                body = block[position + 8 : position + 8 + length]
                position += 8 + length
                seen += 1
                if len(body) != length:
                    raise FormatError(f"{header} is damaged: a message of {length} bytes does not fit")
                if flags & ~1:
                    raise FormatError(f"{header} has a shared or unknown message (type {kind}, flags {flags})")
                if kind == CONTINUATION:
                    blocks.append(fields("<QQ", body, 0, header))
                elif kind not in IGNORED:
                    messages.setdefault(kind, []).append(body)
        if seen != count:
            raise FormatError(f"{header} has {seen} messages but says {count}")
        return messages

    def _take(self, address: int, length: int, what: str, metadata: bool = True) -> bytes:
        """The bytes at an address, which now count as used."""
        if address > len(self._data) or length > len(self._data) - address:
            raise FormatError(f"{what} lies outside the file: the file is truncated or damaged")
        self._left -= length
        if metadata:
            self._metadata_left -= length
        if self._left < 0:
            raise FormatError(
                f"at {what}, the structures take more bytes than the file has: they overlap or form loops"
            )
        if self._metadata_left < 0:
            raise FormatError(f"at {what}, headers take more than {MAX_METADATA} bytes")
        return self._data[address : address + length]

    def _members(self, table: bytes, path: str) -> list[tuple[str, int]]:
        """(name, address of the object header) of everything in a group: its B-tree's leaves (III.A.1), with names
        from its local heap (III.D)."""
        what = f"the list of members of {path}"
        tree, heap = fields("<QQ", table, 0, what)
        signature, version, size, start = struct.unpack("<4sB3xQ8xQ", self._take(heap, 32, what))
        if signature != b"HEAP" or version != 0:
            raise FormatError(f"{what} is damaged: no local heap of version 0 where its names should be")
        names = self._take(start, size, what)
        nodes, members = [(tree, None)], []
        while nodes:
            address, level = nodes.pop()
            signature, kind, depth, count = struct.unpack("<4sBBH16x", self._take(address, 24, what))
            if signature != b"TREE" or kind != 0 or level not in (None, depth):
                raise FormatError(f"{what} is damaged: no B-tree node where one should be")
            children = struct.unpack(f"<Q{2 * count}Q", self._take(address + 24, 16 * count + 8, what))[1::2]
            if depth > 0:
                nodes += [(child, depth - 1) for child in children]
            else:
                for child in children:
                    members += self._symbols(child, names, what)
        return members

    def _symbols(self, address: int, names: bytes, what: str) -> list[tuple[str, int]]:
        """(name, address of the object header) of everything in one symbol table node (III.B, III.C)."""
        signature, version, count = struct.unpack("<4sBxH", self._take(address, 8, what))
        if signature != b"SNOD" or version != 1:
            raise FormatError(f"{what} is damaged: no symbol table node where one should be")
        members = []
        for offset, header, cache in struct.iter_unpack("<QQI20x", self._take(address + 8, 40 * count, what)):
            name = names[offset : offset + MAX_NAME + 1].split(b"\0")[0].decode("ascii", "replace")
            if not 1 <= len(name) <= MAX_NAME or not name.isascii() or not name.isprintable():
                raise FormatError(f"{what} holds a name that is not 1 to {MAX_NAME} printable ASCII characters")
            if cache == 2:
                raise FormatError(f"{name!r} in {what} is a soft link, required: plain hard links")
            members.append((name, header))
        return members

    def _array(self, messages: dict[int, list[bytes]], path: str) -> np.ndarray:
        """A view of the bytes of a contiguous data set."""
        if ATTRIBUTE in messages:
            raise FormatError(f"data set {path} has attributes, required: none")
        shape = dimensions(messages[DATASPACE][0], path)
        dtype = element_type(messages[DATATYPE][0], path)
        address, size = fields("<2xQQ", messages[LAYOUT][0], 0, path)
        if dtype.kind != "i" or dtype.itemsize == 8:
            raise FormatError(f"{path} is {dtype.name}, required: int8 or int32")
        if not shape or 0 in shape:
            raise FormatError(f"{path} has shape {shape}, required: at least one dimension, none of them 0")
        required = math.prod(shape) * dtype.itemsize
        if required != size or address == _UNDEFINED:
            stored = "no data" if address == _UNDEFINED else f"{size} bytes"
            raise FormatError(f"{path} of shape {shape} stores {stored}, required: {required} bytes")
        return np.frombuffer(self._take(address, size, f"the data of {path}", metadata=False), dtype).reshape(shape)
