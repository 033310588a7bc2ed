"""Model files: round trips, files of other writers, paths that are no files, limits."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fuzz
import h5py
import models
import numpy as np
import pytest
from h5_files import CLASSIC, SMALL_FILE, TINY, TINY_FILE, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from intsmooth import h5file, hdf5, wellformed
from intsmooth.errors import FormatError
from intsmooth.records import Graph


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
