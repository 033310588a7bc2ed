"""Malformed content, made by editing a valid file with h5py: each is refused by name."""

import json

import h5py
import numpy as np
import pytest
from h5_files import CLASSIC, SMALL_FILE, SMALLEST, TINY_FILE, refused

from intsmooth import h5file
from intsmooth.errors import FormatError, UnsupportedError


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
