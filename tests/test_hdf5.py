"""The strict HDF5 reader, byte by byte: truncation, bit flips, broken structures, loops."""

import math
import struct

import fuzz_targets
import numpy as np
import pytest
from h5_files import SMALL_FILE, SMALLEST, refused, u64

from intsmooth import h5file, hdf5
from intsmooth.errors import ModelError


def with_length(data: bytes) -> bytes:
    """The file with a superblock that says its true length."""
    end = fuzz_targets.END_OF_FILE
    return data[:end] + struct.pack("<Q", len(data)) + data[end + 8 :] if len(data) >= end + 8 else data


def patched(*changes: tuple[int, bytes]) -> bytes:
    data = bytearray(SMALL_FILE)
    for at, value in changes:
        data[at : at + len(value)] = value
    return with_length(bytes(data))


def positions(pattern: bytes) -> list[int]:
    found, at = [], SMALL_FILE.find(pattern)
    while at >= 0:
        found.append(at)
        at = SMALL_FILE.find(pattern, at + 1)
    return found


# A weights data set of shape (2, 3): dimensions twice (current and maximal) in its data space message.
(DIMENSIONS,) = positions(struct.pack("<4Q", 2, 3, 2, 3))
LAYOUT = SMALL_FILE.index(bytes.fromhex("0800 1800 00 000000 03 01"), DIMENSIONS) + 8  # version, class, address, size


# Truncation and bit flips.


def test_truncation_at_every_byte():
    for length in range(len(SMALL_FILE)):
        refused(SMALL_FILE[:length])


def test_truncation_at_every_second_byte_of_a_file_that_admits_it():
    """The superblock says the shortened length, so every other structure is met at its end."""
    for length in range(0, len(SMALL_FILE), 2):
        refused(with_length(SMALL_FILE[:length]))


def flip(byte: int, bit: int) -> None:
    data = bytearray(SMALL_FILE)
    data[byte] ^= 1 << bit
    try:
        graph = h5file.decode(bytes(data))
    except ModelError as error:
        assert len(str(error)) < 20_000
    else:
        assert graph.digest == SMALLEST.digest


def test_a_flipped_bit_in_every_fifth_byte():
    bits = np.random.default_rng(0).integers(8, size=len(SMALL_FILE))
    for byte in range(0, len(SMALL_FILE), 5):
        flip(byte, int(bits[byte]))


@pytest.mark.slow
def test_every_flipped_bit():
    for byte in range(len(SMALL_FILE)):
        for bit in range(8):
            flip(byte, bit)


def test_a_flipped_bit_in_data_is_found_by_the_digest():
    address = struct.unpack_from("<Q", SMALL_FILE, LAYOUT + 2)[0]
    assert SMALL_FILE[address : address + 6] == SMALLEST.nodes[1].constants["weights"].tobytes()
    for byte in range(address, address + 6):
        for bit in range(8):
            refused(patched((byte, bytes([SMALL_FILE[byte] ^ 1 << bit]))), "digest", "damaged or changed")


# Structures, each broken in its own way.


def test_superblock():
    refused(patched((0, b"\x88")), "signature")
    refused(patched((8, b"\x01")), "superblock version 1")
    refused(patched((13, b"\x04")), "8-byte offsets")
    refused(patched((14, b"\x04")), "8-byte offsets")
    refused(patched((24, u64(512))), "base address")
    refused(patched((48, u64(96))), "superblock is unusual")
    refused(SMALL_FILE + b"\0", "something appended")
    for address in (len(SMALL_FILE), len(SMALL_FILE) - 8, 2**63, 2**64 - 1):
        refused(patched((64, u64(address))), "object header of / lies outside the file")


@pytest.mark.parametrize("signature", [b"TREE", b"HEAP", b"SNOD"])
def test_group_structures(signature):
    for at in positions(signature):
        refused(patched((at, b"XXXX")), "list of members of /", "damaged")
        refused(patched((at + 4, b"\x09")), "list of members of /", "damaged")


def test_b_tree_that_is_its_own_child():
    tree = positions(b"TREE")[0]
    refused(patched((tree + 5, b"\x01"), (tree + 32, u64(tree))), "no B-tree node")
    refused(patched((tree + 5, b"\xff"), (tree + 32, u64(tree))), "no B-tree node")  # levels go down, so loops end


def test_b_tree_and_symbol_table_with_too_many_entries():
    for signature in (b"TREE", b"SNOD"):
        at = positions(signature)[0]
        refused(patched((at + 6, b"\xff\xff")), "/")


def test_heap_that_lies_outside():
    heap = positions(b"HEAP")[0]
    refused(patched((heap + 8, u64(2**64 - 8))), "lies outside the file")
    refused(patched((heap + 24, u64(2**64 - 8))), "lies outside the file")
    refused(patched((heap + 8, u64(len(SMALL_FILE) - 800)), (heap + 24, u64(700))), "more bytes than the file has")


def test_heap_with_a_free_list_that_points_at_itself():
    """A file on which HDF5 2.0.0 loops for ever. The free list says nothing about the model, and is not read."""
    heap = positions(b"HEAP")[0]
    free, segment = struct.unpack_from("<QQ", SMALL_FILE, heap + 16)
    looping = patched((segment + free, u64(free)))
    assert looping != SMALL_FILE and h5file.decode(looping).digest == SMALLEST.digest


def test_names_of_members():
    symbols = positions(b"SNOD")[0]
    refused(patched((symbols + 8, u64(2**64 - 1))), "printable ASCII")
    refused(patched((symbols + 8, u64(0))), "printable ASCII")  # the empty name at the start of every heap
    (name,) = positions(b"tensors\0")
    for bad in (b"t\xc3\xa9nsor\0", b"te\x1bsors\0", b"ten\nors\0"):
        refused(patched((name, bad)), "printable ASCII")
    refused(patched((name, b"nodes\0")), "/nodes exists twice")


def test_object_headers():
    header = struct.unpack_from("<Q", SMALL_FILE, 64)[0]
    refused(patched((header, b"\x02")), "object header of / has version 2")
    refused(patched((header + 2, struct.pack("<H", 2000))), "has 2000 messages, required: at most 256")
    refused(patched((header + 2, struct.pack("<H", 200))), "messages but says 200")
    refused(patched((header + 2, struct.pack("<H", 1))), "neither a plain group nor")
    refused(patched((header + 8, struct.pack("<I", 2**32 - 1))), "lies outside the file")
    first = header + 16
    refused(patched((first + 2, struct.pack("<H", 65535))), "does not fit")
    refused(patched((first + 4, b"\x02")), "shared")
    refused(patched((LAYOUT - 8, struct.pack("<H", 999))), "neither a plain group nor a plain data set")


def test_continuation_that_points_at_itself():
    """Each turn costs a message, and a header has a bounded number of them."""
    header = struct.unpack_from("<Q", SMALL_FILE, 64)[0]
    loop = struct.pack("<HHBxxxQQ", 0x10, 16, 0, header + 16, 24)
    refused(patched((header + 16, loop)), "messages")


@pytest.mark.parametrize(
    "shape,words",
    [((2**32, 2**32), "stores 6 bytes, required: 18446744073709551616"), ((2**63, 2), "required"),
     ((2**64 - 1, 1), "required"), ((0, 3), "none of them 0"), ((3, 3), "required: 9 bytes"),
     ((1, 3), "required: 3 bytes"), ((2**62, 4), "required")],
)  # fmt: skip
def test_dimensions_whose_product_is_wrong_or_overflows(shape, words):
    refused(patched((DIMENSIONS, struct.pack("<4Q", *shape, *shape))), "weights", words)


def test_dimensions_that_could_grow():
    refused(patched((DIMENSIONS + 16, u64(2**64 - 1))), "can be resized")


def test_data_that_lies_elsewhere():
    for address in (len(SMALL_FILE), len(SMALL_FILE) - 5, 2**63, 2**64 - 7):
        refused(patched((LAYOUT + 2, u64(address))), "the data of /nodes/0001/weights lies outside the file")
    refused(patched((LAYOUT + 2, u64(2**64 - 1))), "stores no data")
    size = u64(2**40)
    refused(patched((LAYOUT + 10, size), (DIMENSIONS, u64(2**40) + u64(1) + u64(2**40) + u64(1))), "lies outside")


def test_layouts():
    refused(patched((LAYOUT, b"\x01")), "version 1")
    refused(patched((LAYOUT, b"\x04\x03")), "virtual")
    refused(patched((LAYOUT + 1, b"\x02")), "chunked")
    refused(patched((LAYOUT + 1, b"\x07")), "layout 7")


def test_attributes():
    (at,) = positions(b"format\0")
    refused(patched((at, b"for\0")), "'format'")
    refused(patched((at, b"\0")), "printable ASCII")
    refused(patched((at, b"f\xffrmat")), "printable ASCII")
    refused(patched((at - 8, b"\x03")), "has version 3")
    refused(patched((at - 6, b"\xff\xff")), "/")
    refused(patched((at + 8 + 4, struct.pack("<I", 2**32 - 1))), "damaged string")


def test_the_largest_allowed_data_is_read_without_copies():
    """Arrays are views of the file: a model of n bytes costs n bytes here, and n more for the graph's own copy."""
    tree = hdf5.read_tree(SMALL_FILE)
    weights = tree.groups["nodes"].groups["0001"].arrays["weights"]
    assert not weights.flags.owndata and not weights.flags.writeable
    assert math.prod(weights.shape) == weights.nbytes == 6
