"""The strict HDF5 reader on files that were made to cost as much time and memory as possible."""

import struct
import time

import fuzz
import pytest
from h5_files import u64

from intsmooth import h5file, hdf5
from intsmooth.errors import FormatError


class Crafted:
    """An HDF5 file put together by hand, without any of the library's checks."""

    def __init__(self):
        self.data = bytearray(96)

    def add(self, block: bytes) -> int:
        self.data += bytes(-len(self.data) % 8) + block
        return len(self.data) - len(block)

    def header(self, messages: list[tuple[int, bytes]]) -> int:
        body = b"".join(struct.pack("<HHBxxx", kind, len(content), 0) + content for kind, content in messages)
        return self.add(struct.pack("<BxHIIxxxx", 1, len(messages), 1, len(body)) + body)

    def group(self, members: dict[str, int], messages=()) -> int:
        names, entries = bytearray(8), []
        for name, address in members.items():
            entries.append(struct.pack("<QQIxxxx16x", len(names), address, 0))
            names += name.encode() + b"\0"
        leaves = [self.add(b"SNOD" + struct.pack("<BxH", 1, len(part)) + b"".join(part))
                  for part in (entries[i : i + 60_000] for i in range(0, len(entries), 60_000))]  # fmt: skip
        segment = self.add(bytes(names))
        heap = self.add(struct.pack("<4sB3xQQQ", b"HEAP", 0, len(names), 1, segment))
        keys = b"".join(u64(0) + u64(leaf) for leaf in leaves) + u64(0)
        tree = self.add(struct.pack("<4sBBHQQ", b"TREE", 0, 0, len(leaves), 2**64 - 1, 2**64 - 1) + keys)
        return self.header([*messages, (0x11, u64(tree) + u64(heap))])

    def finish(self, root: int) -> bytes:
        undefined, length = 2**64 - 1, len(self.data)
        versions_and_sizes = (0, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0)
        addresses = (0, undefined, length, undefined, 0, root, 0)
        signature = b"\x89HDF\r\n\x1a\n"
        self.data[:96] = struct.pack("<8s8B2HI4Q2QI4x16x", signature, *versions_and_sizes, *addresses)
        return bytes(self.data)


def attribute_message(name: str, value: bytes) -> tuple[int, bytes]:
    kind = struct.pack("<BBxxI", 0x13, 0x10, len(value))
    padded = name.encode() + bytes(8 - len(name) % 8)
    body = struct.pack("<BxHHH", 1, len(name) + 1, 8, 8) + padded + kind + struct.pack("<BBBx4x", 1, 0, 0) + value
    return 0x0C, body + bytes(-len(body) % 8)


def test_crafted_files_are_hdf5():
    """What the floods are made of is well-formed: the reader finds what was put in."""
    file = Crafted()
    inner = file.group({}, [attribute_message("name", b"a name")])
    tree = hdf5.read_tree(file.finish(file.group({"inner": inner, "other": file.group({})})))
    assert tree == hdf5.Group(
        {}, {"inner": hdf5.Group({"name": "a name"}, {}, {}), "other": hdf5.Group({}, {}, {})}, {}
    )


def flood_of_messages() -> bytes:
    file = Crafted()
    nothing = [(0, b"")] * 255
    return file.finish(file.group({f"{i:05d}": file.group({}, nothing) for i in range(3900)}))


def flood_of_attributes() -> bytes:
    file = Crafted()
    many = [attribute_message(f"{i}", b"x") for i in range(255)]
    return file.finish(file.group({f"{i:04d}": file.group({}, many) for i in range(600)}))


def flood_of_objects() -> bytes:
    file = Crafted()
    return file.finish(file.group({f"{i:05d}": file.group({}) for i in range(80_000)}))


def flood_of_links() -> bytes:
    """Every entry of a long list leads to the same large group."""
    file = Crafted()
    large = file.group({}, [attribute_message(f"{i}", b"x" * 60_000) for i in range(200)])
    return file.finish(file.group({f"{i:06d}": large for i in range(100_000)}))


def flood_of_long_names() -> bytes:
    """A heap without a single end of a name, and many entries that point into it."""
    file = Crafted()
    root = file.group({f"{i:05d}": 96 for i in range(50_000)})
    heap = file.data.index(b"HEAP")
    size, segment = struct.unpack_from("<Q8xQ", file.data, heap + 8)
    file.data[segment : segment + size] = b"x" * size
    return file.finish(root)


@pytest.mark.parametrize(
    "flood", [flood_of_messages, flood_of_attributes, flood_of_objects, flood_of_links, flood_of_long_names]
)
def test_floods_are_refused_in_bounded_time_and_memory(flood):
    data = flood()
    before, start = fuzz.peak_memory(), time.process_time()
    with pytest.raises(FormatError):
        h5file.decode(data)
    assert time.process_time() - start < fuzz.MAX_SECONDS
    assert fuzz.peak_memory() - before < 2**28


def test_metadata_is_bounded():
    file = Crafted()
    many = [attribute_message(f"{i}", b"x" * 60_000) for i in range(255)]
    with pytest.raises(FormatError, match="more than 8388608 bytes"):
        h5file.decode(file.finish(file.group({"a": file.group({}, many), "b": file.group({}, many)})))
