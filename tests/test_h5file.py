"""Model files: what save writes and h5py reads, and one test per way in which a file can be malformed or hostile."""

import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fuzz
import fuzz_targets
import h5py
import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intsmooth import h5file, hdf5, wellformed
from intsmooth.errors import FormatError, ResourceError, UnsupportedError
from intsmooth.records import Graph

SMALLEST = fuzz_targets.smallest(np.random.default_rng(1))
SMALL_FILE = h5file.encode(SMALLEST)
TINY = models.tiny_conv(np.random.default_rng(2))
TINY_FILE = h5file.encode(TINY)
CLASSIC = {"libver": ("earliest", "v108")}


def same(a: Graph, b: Graph) -> bool:
    """Equal in every field, arrays included."""
    for x, y in zip(a.nodes, b.nodes, strict=True):
        if replace(x, constants={}) != replace(y, constants={}) or x.constants.keys() != y.constants.keys():
            return False
        for name, array in x.constants.items():
            other = y.constants[name]
            if array.dtype != other.dtype or array.shape != other.shape or not (array == other).all():
                return False
    return replace(a, nodes=()) == replace(b, nodes=())


def refused(data: bytes, *words: str, error=FormatError) -> str:
    """The message with which a file's bytes are refused; it must hold all the words."""
    with pytest.raises(error) as caught:
        h5file.decode(data)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)


# Round trips.


@pytest.mark.parametrize("name", models.ALL)
def test_round_trip(name, tmp_path):
    graph = models.ALL[name](np.random.default_rng(9))
    h5file.save(graph, tmp_path / "model.h5")
    loaded = h5file.load(str(tmp_path / "model.h5"))
    assert same(graph, loaded) and loaded.digest == h5file.digest(graph)
    for node in loaded.nodes:
        for array in node.constants.values():
            assert not array.flags.writeable and array.flags.aligned and array.flags.c_contiguous


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.dictionaries(st.text("aé数\n\t {}\"\\'", max_size=9), st.text("aé数\n ", max_size=9))
)
def test_round_trip_of_random_networks_with_odd_facts(seed, facts):
    graph = replace(models.random_graph(np.random.default_rng(seed)), facts=facts)
    data = h5file.encode(graph)
    assert same(graph, h5file.decode(data))
    assert h5file.encode(h5file.decode(data)) == data


def test_same_graph_same_bytes(tmp_path):
    h5file.save(TINY, tmp_path / "a.h5")
    time.sleep(1.1)  # HDF5 would store times in seconds
    h5file.save(h5file.load(tmp_path / "a.h5"), tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes() == TINY_FILE


def test_many_nodes_and_large_texts():
    """Groups large enough for B-trees of several levels, and attributes near HDF5's limit."""
    b = models.NetworkBuilder(np.random.default_rng(0), (4,))
    x = b.start
    for _ in range(1500):
        x = b.same("clamp", [x], clamp=(-128, 127))
    graph = b.graph(x, facts={"text": "é" * 31_000})
    assert same(graph, h5file.decode(h5file.encode(graph)))


def test_h5py_reads_what_save_wrote(tmp_path):
    """The file is genuine HDF5: the reference library finds the same names, types and values."""
    graph = models.every_operator(np.random.default_rng(9))
    h5file.save(graph, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r") as file:
        assert file.attrs["format"] == b"intsmooth" and file.attrs["version"] == 1
        assert file.attrs["digest"] == graph.digest.encode() and tuple(file.attrs["levels"]) == graph.levels
        assert json.loads(file.attrs["classes"]) == list(graph.classes)
        assert list(file["nodes"]) == [f"{i:04d}" for i in range(len(graph.nodes))]
        for node, group in zip(graph.nodes, file["nodes"].values(), strict=True):
            stored = [group.attrs[name].decode() for name in ("name", "op", "output")]
            assert stored == [node.name, node.op, node.output]
            assert {k: tuple(v) if isinstance(v, list) else v for k, v in
                    json.loads(group.attrs["attributes"]).items()} == node.attributes  # fmt: skip
            assert set(group) == set(node.constants)
            for name, array in node.constants.items():
                assert group[name].dtype == array.dtype and (group[name][()] == array).all()
        for tensor, group in zip(graph.tensors.values(), file["tensors"].values(), strict=True):
            assert group.attrs["name"].decode() == tensor.name and tuple(group.attrs["shape"]) == tensor.shape
            assert group.attrs["zero_point"] == tensor.zero_point and group.attrs.get("scale") == tensor.scale


def write_by_hand(path, graph, **file_options):
    """The recipe of FORMAT.md with h5py alone, in another order, with times and NumPy byte strings."""
    with h5py.File(path, "w", **{**CLASSIC, **file_options}) as file:
        nodes, tensors = file.create_group("nodes"), file.create_group("tensors")
        for i, node in reversed(list(enumerate(graph.nodes))):
            group = nodes.create_group(f"{i:04d}")
            for name, array in node.constants.items():
                group.create_dataset(name, data=array, track_times=True)
            group.attrs["attributes"] = np.bytes_(json.dumps(node.attributes, indent=1).encode())
            group.attrs["output"] = np.bytes_(node.output.encode())
            group.attrs["inputs"] = np.bytes_(json.dumps(node.inputs).encode())
            group.attrs["op"], group.attrs["name"] = np.bytes_(node.op), np.bytes_(node.name.encode())
        for i, tensor in enumerate(graph.tensors.values()):
            group = tensors.create_group(f"{i:04d}")
            group.attrs["shape"], group.attrs["zero_point"] = np.array(tensor.shape), np.int64(tensor.zero_point)
            group.attrs["name"], group.attrs["dtype"] = np.bytes_(tensor.name.encode()), np.bytes_(tensor.dtype)
        file.attrs["facts"], file.attrs["classes"] = np.bytes_("{}"), np.bytes_(json.dumps(graph.classes))
        file.attrs["levels"], file.attrs["unit"] = np.array(graph.levels), np.int64(graph.unit)
        file.attrs["input"], file.attrs["output"] = np.bytes_(graph.input), np.bytes_(graph.output)
        file.attrs["digest"], file.attrs["version"] = np.bytes_(graph.digest), np.int64(1)
        file.attrs["format"] = np.bytes_("intsmooth")


def test_files_of_other_writers_are_read(tmp_path):
    write_by_hand(tmp_path / "model.h5", TINY)
    loaded = h5file.load(tmp_path / "model.h5")
    assert loaded.digest == TINY.digest and loaded.facts == {}


@pytest.mark.parametrize(
    "options,word",
    [({"libver": "latest"}, "superblock version"), ({"libver": "v108"}, "superblock version"),
     ({"userblock_size": 512}, "signature"), ({"track_order": True}, "tracked order")],
)  # fmt: skip
def test_other_encodings_of_hdf5_are_refused(options, word, tmp_path):
    write_by_hand(tmp_path / "model.h5", TINY, **options)
    refused((tmp_path / "model.h5").read_bytes(), word)


# Malformed content, made by editing a valid file with h5py. Each case: what is done, and words of the message.


def set_attribute(where, name, value, dtype=None):
    def edit(file):
        if name in file[where].attrs:
            del file[where].attrs[name]
        file[where].attrs.create(name, value, dtype=dtype)

    return edit


def text(where, name, value):
    data = value if isinstance(value, bytes) else value.encode()
    return set_attribute(where, name, data, h5py.string_dtype("utf-8", max(len(data), 1)))


def replace_data(make, where="/nodes/0001/bias"):
    def edit(file):
        del file[where]
        group, name = where.rsplit("/", 1)
        make(file[group or "/"], name)

    return edit


def data_set(constant="bias", **options):
    """The second node's constant, made again with these options of h5py."""
    return replace_data(lambda group, name: group.create_dataset(name, **options), f"/nodes/0001/{constant}")


def delete_attribute(where, name):
    return lambda file: file[where].attrs.__delitem__(name)


def set_link(where, link):
    def edit(file):
        if where in file:
            del file[where]
        file[where] = file[link[1:]] if isinstance(link, str) else link

    return edit


def virtual(group, name):
    layout = h5py.VirtualLayout((2,), np.int32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (2,))
    group.create_virtual_dataset(name, layout)


def low_level(group, name, shape=(2,), layout=h5py.h5d.CONTIGUOUS, kind=h5py.h5t.STD_I32LE):
    """A data set whose layout h5py's own interface does not offer, without data."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(layout)
    plist.set_obj_track_times(False)
    h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)


def committed(group, name):
    group.file["kind"] = np.dtype("<i4")
    group.create_dataset(name, data=np.zeros(2, "<i4"), dtype=group.file["kind"])
    del group.file["kind"]


def space_padded(file):
    kind = h5py.h5t.FORTRAN_S1.copy()
    kind.set_size(6)
    h5py.h5a.delete(file.id, b"input")
    attribute = h5py.h5a.create(file.id, b"input", kind, h5py.h5s.create(h5py.h5s.SCALAR))
    attribute.write(np.array(b"levels"), mtype=kind)


OPEN, TENSOR, NODE = "/", "/tensors/0001", "/nodes/0001"
I32 = np.zeros(2, "<i4")
MALFORMED = {
    # the root
    "no magic": (delete_attribute(OPEN, "format"), ["'format'", "no model"]),
    "wrong magic": (text(OPEN, "format", "intsmoother"), ["'format'", "no model"]),
    "newer version": (set_attribute(OPEN, "version", 2), ["version 2", "reads version 1", "update"]),
    "version zero": (set_attribute(OPEN, "version", 0), ["version 0"]),
    "version as text": (text(OPEN, "version", "1"), ["version '1'"]),
    "no version": (delete_attribute(OPEN, "version"), ["version None"]),
    "wrong digest": (text(OPEN, "digest", "0" * 64), ["digest", "damaged or changed"]),
    "odd digest": (text(OPEN, "digest", "sha256:x"), ["digest", "'sha256:x'"]),
    "no input": (delete_attribute(OPEN, "input"), ["misses attribute 'input'"]),
    "unknown attribute": (set_attribute(OPEN, "pickle", 1), ["unknown attribute 'pickle'"]),
    "unit as list": (set_attribute(OPEN, "unit", [16]), ["'unit'", "one int64"]),
    "levels as number": (set_attribute(OPEN, "levels", 16), ["'levels'", "list of int64"]),
    "levels as floats": (set_attribute(OPEN, "levels", [0.0, 16.0]), ["'levels'", "list of int64"]),
    "three levels": (set_attribute(OPEN, "levels", [0, 8, 16]), ["levels (0, 8, 16)"]),
    "classes no JSON": (text(OPEN, "classes", "[oops"), ["'classes'", "not valid JSON"]),
    "classes an object": (text(OPEN, "classes", '{"a":1}'), ["'classes'", "required: list"]),
    "classes numbers": (text(OPEN, "classes", "[1,2]"), ["'classes'", "not a string"]),
    "facts a list": (text(OPEN, "facts", "[]"), ["'facts'", "required: dict"]),
    "facts deep": (text(OPEN, "facts", "[" * 50_000), ["'facts'", "not valid JSON"]),
    "facts twice": (text(OPEN, "facts", '{"a":"1","a":"2"}'), ["'facts'", "comes twice"]),
    "facts control": (text(OPEN, "facts", '{"a":"\\u001b[2J"}'), ["fact 'a'", "printable"]),
    "extra group": (lambda file: file.create_group("extra"), ["unexpected group 'extra'"]),
    "extra data": (lambda file: file.create_dataset("extra", data=I32), ["unexpected data set 'extra'"]),
    "no nodes": (lambda file: file.__delitem__("nodes"), ["misses the group 'nodes'"]),
    "nodes as data": (replace_data(lambda group, name: group.create_dataset(name, data=I32), "/nodes"), ["'nodes'"]),
    "attribute of nodes": (set_attribute("/nodes", "count", 2), ["/nodes", "'count'"]),
    # tensors and nodes
    "gap in numbers": (lambda file: file["nodes"].move("0001", "0002"), ["/nodes", "'0001'"]),
    "name for number": (lambda file: file["tensors"].move("0001", "x"), ["/tensors", "'0001'"]),
    "tensor attribute": (set_attribute(TENSOR, "axis", 1), [TENSOR, "'axis'"]),
    "tensor with data": (lambda file: file[TENSOR].create_dataset("x", data=I32), [TENSOR, "unexpected data set 'x'"]),
    "tensor with group": (lambda file: file[TENSOR].create_group("x"), [f"{TENSOR}/x", "nested too deeply"]),
    "node with group": (lambda file: file[NODE].create_group("x"), [f"{NODE}/x", "nested too deeply"]),
    "node attribute": (set_attribute(NODE, "code", 1), [NODE, "'code'"]),
    "no tensor name": (delete_attribute(TENSOR, "name"), [TENSOR, "'name'"]),
    "shape as number": (set_attribute(TENSOR, "shape", 3), [TENSOR, "'shape'", "list"]),
    "empty shape": (set_attribute(TENSOR, "shape", np.zeros(0, np.int64)), ["shape ()"]),
    "negative shape": (set_attribute(TENSOR, "shape", [-3]), ["shape (-3,)"]),
    "zero shape": (set_attribute(TENSOR, "shape", [0]), ["shape (0,)"]),
    "huge shape": (set_attribute(TENSOR, "shape", [2**62, 2**62]), ["product of at most"]),
    "scale as list": (set_attribute(TENSOR, "scale", [0.5]), ["'scale'", "one float64"]),
    "scale as integer": (set_attribute(TENSOR, "scale", 1), ["'scale'", "one float64"]),
    "scale NaN": (set_attribute(TENSOR, "scale", np.nan), ["scale nan"]),
    "zero point 128": (set_attribute(TENSOR, "zero_point", 128), ["zero point 128"]),
    "float zero point": (set_attribute(TENSOR, "zero_point", 1.0), ["'zero_point'", "one int64"]),
    "dtype float32": (text(TENSOR, "dtype", "float32"), ["'float32'"]),
    "name with path": (text(NODE, "name", "../../etc/cron.d/x"), ["path out of a folder"]),
    "name of nothing": (text(NODE, "name", b""), ["node name ''"]),
    "name not UTF-8": (text(NODE, "name", b"\xff\xfe"), [NODE, "not valid UTF-8"]),
    "inputs no list": (text(NODE, "inputs", '"x"'), [NODE, "'inputs'", "required: list"]),
    "inputs numbers": (text(NODE, "inputs", "[0]"), [NODE, "'inputs'"]),
    "attributes float": (text(NODE, "attributes", '{"clamp":[-128.0,127]}'), [NODE, "'attributes'", "not allowed"]),
    "attributes NaN": (text(NODE, "attributes", '{"clamp":NaN}'), [NODE, "'attributes'", "not allowed"]),
    "attributes bool": (text(NODE, "attributes", '{"clamp":true}'), ["'clamp'", "not an integer"]),
    "attributes nested": (text(NODE, "attributes", '{"clamp":[[1],2]}'), ["'clamp'", "not an integer"]),
    "attributes list": (text(NODE, "attributes", "[1]"), [NODE, "'attributes'"]),
    "attributes huge": (text(NODE, "attributes", '{"clamp":[1%s,2]}' % ("0" * 4000)), ["'clamp'", "a list of 2"]),
    "attributes endless": (text(NODE, "attributes", '{"clamp":1%s}' % ("0" * 60_000)), ["attributes"]),
    "cycle": (text(NODE, "inputs", json.dumps([SMALLEST.output])), ["cycle"]),
    "dangling edge": (text(NODE, "inputs", '["ghost"]'), ["'ghost'", "does not declare"]),
    "two producers": (text(NODE, "output", SMALLEST.nodes[0].output), ["produced by 2 nodes"]),
    "wrong channels": (data_set("weights", data=np.zeros((2, 4), "i1")), ["weights for 4 features"]),
    "missing constant": (lambda file: file.__delitem__(f"{NODE}/bias"), ["constant 'bias' is missing"]),
    "unknown constant": (lambda file: file[NODE].create_dataset("beta", data=I32), ["constant 'beta' is not"]),
    "multiplier range": (data_set("multiplier", data=I32 - 1), ["'multiplier' holds -1"]),
    "shift range": (data_set("shift", data=I32 - 32), ["'shift' holds -32"]),
    # links
    "soft link": (set_link(f"{NODE}/bias", h5py.SoftLink("/nodes/0001/shift")), ["soft link"]),
    "dangling soft link": (set_link("/nodes/0002", h5py.SoftLink("/nowhere")), ["soft link"]),
    "external link": (set_link(f"{NODE}/bias", h5py.ExternalLink("/etc/passwd", "/x")), ["an external link"]),
    "second hard link": (set_link(f"{NODE}/bias", f"={NODE}/shift"), ["shift is linked twice"]),
    "hard link to root": (set_link("/nodes/0002", "=/"), ["/nodes/0002 is linked twice"]),
    # data sets
    "chunked": (data_set(data=I32, chunks=(2,)), ["bias is chunked"]),
    "gzip": (data_set(data=I32, compression="gzip"), ["filter (gzip)"]),
    "shuffle": (data_set(data=I32, chunks=(2,), shuffle=True), ["filter (shuffle)"]),
    "checksum": (data_set(data=I32, fletcher32=True), ["filter (fletcher32)"]),
    "unknown filter": (data_set(data=I32, compression="lzf"), ["filter (unknown number 32000)"]),
    "compressed bomb": (data_set(shape=(2**31,), dtype="i1", compression="gzip", chunks=(2**20,)), ["filter"]),
    "resizable": (data_set(data=I32, maxshape=(None,)), ["chunked"]),
    "external storage": (data_set(shape=(2,), dtype="<i4", external=[("/etc/passwd", 0, 8)]), ["external storage"]),
    "virtual": (replace_data(virtual), ["virtual"]),
    "compact": (replace_data(lambda group, name: low_level(group, name, layout=h5py.h5d.COMPACT)), ["compact"]),
    "without data": (replace_data(low_level), ["stores", "bytes"]),
    "huge without data": (replace_data(lambda g, n: low_level(g, n, (2**30, 2**30, 2**4))), ["bias"]),
    "scalar": (data_set(data=np.int32(1)), ["at least one dimension"]),
    "null": (data_set(data=h5py.Empty("<i4")), ["data space of version 2"]),
    "zero dimension": (data_set(shape=(0,), dtype="<i4"), ["shape (0,)"]),
    "nine dimensions": (data_set(data=np.zeros((1,) * 9, "<i4")), ["rank 9"]),
    "big-endian": (data_set(data=I32, dtype=">i4"), ["big-endian integer of 4 bytes"]),
    "unsigned": (data_set(data=I32, dtype="<u4"), ["unsigned integer of 4 bytes"]),
    "int16": (data_set(data=I32, dtype="<i2"), ["integer of 2 bytes"]),
    "int64": (data_set(data=I32, dtype="<i8"), ["int64, required: int8 or int32"]),
    "float32": (data_set(data=I32, dtype="<f4"), ["float of 4 bytes"]),
    "float64": (data_set(data=I32, dtype="<f8"), ["float64, required: int8 or int32"]),
    "text": (data_set(data=np.bytes_(b"x" * 8)), ["string of 8 bytes"]),
    "variable length": (data_set(data="text", dtype=h5py.string_dtype()), ["variable-length"]),
    "object references": (data_set(shape=(2,), dtype=h5py.ref_dtype), ["reference of 8 bytes"]),
    "region references": (data_set(shape=(2,), dtype=h5py.regionref_dtype), ["reference"]),
    "compound": (data_set(data=np.zeros(2, [("a", "i4")])), ["compound"]),
    "enumeration": (data_set(data=np.zeros(2, bool)), ["enumeration"]),
    "array type": (data_set(shape=(2,), dtype=np.dtype(("<i4", (2,)))), ["array of 8 bytes"]),
    "opaque": (data_set(data=np.zeros(2, "V4")), ["opaque"]),
    "committed type": (replace_data(committed), ["shared"]),
    "attribute of data": (set_attribute(f"{NODE}/bias", "scale", 1.0), ["data set /nodes/0001/bias has attributes"]),
    # attributes
    "variable string": (set_attribute(OPEN, "input", "levels"), ["'input'", "variable-length"]),
    "space padded": (space_padded, ["'input'", "unusual"]),
    "list of strings": (set_attribute(OPEN, "input", np.array([b"a", b"b"])), ["'input'", "unusual"]),
    "int32 attribute": (set_attribute(OPEN, "unit", 16, "<i4"), ["'unit'", "int32"]),
    "big-endian attribute": (set_attribute(OPEN, "unit", 16, ">i8"), ["'unit'", "big-endian"]),
    "unsigned attribute": (set_attribute(OPEN, "unit", 16, "<u8"), ["'unit'", "unsigned"]),
    "float32 scale": (set_attribute(TENSOR, "scale", 0.5, "<f4"), ["'scale'", "float of 4 bytes"]),
    "matrix attribute": (set_attribute(OPEN, "levels", [[0, 16]]), ["'levels'", "one or a list"]),
    "reference attribute": (lambda file: file.attrs.__setitem__("input", file["nodes"].ref), ["'input'", "reference"]),
    "empty attribute": (set_attribute(OPEN, "unit", h5py.Empty("<i8")), ["'unit'", "data space of version 2"]),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_content_is_refused_by_name(case, tmp_path):
    edit, words = MALFORMED[case]
    (tmp_path / "model.h5").write_bytes(SMALL_FILE)
    with h5py.File(tmp_path / "model.h5", "r+", libver=("earliest", "latest")) as file:
        edit(file)
    refused((tmp_path / "model.h5").read_bytes(), *words)
    with pytest.raises(FormatError, match="model.h5: "):
        h5file.load(tmp_path / "model.h5")


def test_unknown_operators_are_all_listed(tmp_path):
    (tmp_path / "model.h5").write_bytes(TINY_FILE)
    with h5py.File(tmp_path / "model.h5", "r+", **CLASSIC) as file:
        text("/nodes/0001", "op", "lstm")(file)
        text("/nodes/0002", "op", "os.system")(file)
    refused((tmp_path / "model.h5").read_bytes(), "'lstm'", "'os.system'", error=UnsupportedError)
    with pytest.raises(UnsupportedError, match="model.h5: "):
        h5file.load(tmp_path / "model.h5")


def test_edits_by_h5py_that_change_nothing_are_accepted(tmp_path):
    """The editing that the cases above are made with is not what they are refused for."""
    (tmp_path / "model.h5").write_bytes(SMALL_FILE)
    with h5py.File(tmp_path / "model.h5", "r+", **CLASSIC) as file:
        bias = file[f"{NODE}/bias"][()]
        data_set(data=bias)(file)
        set_attribute(OPEN, "unit", 16)(file)
        text(OPEN, "facts", '{"who":"somebody else"}')(file)
        file.create_group("more")
        del file["more"]
    loaded = h5file.decode((tmp_path / "model.h5").read_bytes())
    assert loaded.digest == SMALLEST.digest and loaded.facts == {"who": "somebody else"}


# Saving.


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path, seen = tmp_path / "model.h5", []
    h5file.save(SMALLEST, path)

    def watched(source, target):
        seen.append((h5file.load(source).digest, h5file.load(target).digest))
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", watched)
    h5file.save(TINY, path)
    assert seen == [(TINY.digest, SMALLEST.digest)]
    assert h5file.load(path).digest == TINY.digest and leftovers(tmp_path) == ["model.h5"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(function, error, tmp_path, monkeypatch):
    path = tmp_path / "model.h5"
    h5file.save(SMALLEST, path)
    before = path.read_bytes()

    def fail(*arguments):
        raise error

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(ResourceError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        h5file.save(TINY, path)
    if isinstance(error, OSError):
        assert "model.h5" in str(caught.value) and "No space left" in str(caught.value)
    assert path.read_bytes() == before and leftovers(tmp_path) == ["model.h5"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """A real failing write: the system refuses to let any file of this process grow beyond 4 KiB."""
    path = tmp_path / "model.h5"
    h5file.save(SMALLEST, path)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(ResourceError, match="cannot be written"):
            h5file.save(TINY, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert h5file.load(path).digest == SMALLEST.digest and leftovers(tmp_path) == ["model.h5"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "model.h5", tmp_path / "file" / "model.h5", tmp_path / "folder"):
        with pytest.raises(ResourceError, match="cannot be written"):
            h5file.save(SMALLEST, path)
    assert leftovers(tmp_path) == ["file", "folder"] and leftovers(tmp_path / "folder") == []


def test_saved_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "other").write_bytes(b"")
    h5file.save(SMALLEST, tmp_path / "model.h5")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "model.h5")]
    assert modes[0] == modes[1]


def test_graphs_that_break_the_format_are_not_written(tmp_path):
    name = SMALLEST.nodes[1].output
    tensors = {**SMALLEST.tensors, name: replace(SMALLEST.tensors[name], zero_point=1000)}
    for graph in (replace(SMALLEST, tensors=tensors), replace(SMALLEST, unit=0), replace(SMALLEST, nodes=())):
        with pytest.raises(FormatError):
            h5file.save(graph, tmp_path / "model.h5")
    with pytest.raises(FormatError, match="64001 bytes, required: 1 to 64000"):
        h5file.save(replace(SMALLEST, facts={"a": "x" * (64_001 - 8)}), tmp_path / "model.h5")
    assert leftovers(tmp_path) == []
    h5file.save(replace(SMALLEST, facts={"a": "x" * (64_000 - 8)}), tmp_path / "model.h5")
    assert len(h5file.load(tmp_path / "model.h5").facts["a"]) == 63_992


def test_the_format_page_states_the_limits():
    page = (Path(__file__).parents[1] / "weights" / "FORMAT.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page[page.index("### Limits") : page.index("### Digest")], re.M)
    )
    limits = {
        "file": f"{h5file.MAX_FILE_BYTES >> 20} MiB, a regular file",
        "HDF5 headers, B-trees, heaps and attributes together": f"{hdf5.MAX_METADATA >> 20} MiB",
        "HDF5 groups and data sets; messages per object header": f"{hdf5.MAX_OBJECTS:,}; {hdf5.MAX_MESSAGES}",
        "constants together": f"{wellformed.MAX_CONSTANT_BYTES >> 20} MiB",
        "nodes; tensors": f"{wellformed.MAX_NODES}; one per node and the input",
        "classes": f"1 to {wellformed.MAX_CLASSES:,}, one per score",
        "work per image": f"2^{wellformed.MAX_WORK.bit_length() - 1} innermost steps, all operators together",
    }
    assert {name: rows[name] for name in limits} == limits
    assert f"2^{wellformed.MAX_ELEMENTS.bit_length() - 1} elements" in rows["shape of an activation"]
    assert f"{h5file.MAX_TEXT_BYTES:,} bytes as `save`" in rows["a string attribute"]
    assert f"1 to {wellformed.MAX_NAME} printable" in rows["names of nodes, tensors and classes"]


# Files that are no files, and the size of a file.


def test_paths_that_are_no_readable_file(tmp_path):
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "short.h5").write_bytes(SMALL_FILE[:8])
    (tmp_path / "text.h5").write_bytes(b"format: intsmooth\n" * 100)
    os.mkfifo(tmp_path / "pipe.h5")
    expected = {"missing.h5": "No such file", "empty.h5": "empty", "short.h5": "truncated", "pipe.h5": "regular file",
                "text.h5": "not an HDF5 file", ".": "regular file", "/dev/zero": "regular file"}  # fmt: skip
    for name, word in expected.items():
        with pytest.raises(FormatError, match=word):
            h5file.load(tmp_path / name)


def test_huge_files_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "huge.h5"
    path.write_bytes(SMALL_FILE)
    os.truncate(path, 2**40)  # sparse: takes no space
    before = fuzz.peak_memory()
    with pytest.raises(FormatError, match="too large for a model file"):
        h5file.load(path)
    assert fuzz.peak_memory() - before < 2**25


def test_a_file_may_not_take_more_memory_than_there_is(tmp_path, monkeypatch):
    def exhausted(data):
        raise MemoryError

    (tmp_path / "model.h5").write_bytes(SMALL_FILE)
    monkeypatch.setattr(h5file, "read_tree", exhausted)
    with pytest.raises(FormatError, match="too large for the memory"):
        h5file.load(tmp_path / "model.h5")


def test_loading_needs_no_h5py(tmp_path):
    """The reader is our own: with h5py made unimportable, a model loads all the same."""
    h5file.save(TINY, tmp_path / "model.h5")
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        f"from intsmooth.h5file import load; print(load({str(tmp_path / 'model.h5')!r}).digest)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == TINY.digest
