"""Model files: .h5 <-> Graph, as weights/FORMAT.md describes them. The only module that knows h5py.

A file is written with h5py and read with the strict reader of hdf5.py, which takes nothing on trust; h5py is not needed
to load a model. Writing is atomic: a reader finds the whole old file or the whole new one.
"""

import io
import json
import os
import stat
from pathlib import Path

from intsmooth.atomic import write_whole
from intsmooth.errors import FormatError, ModelError, ResourceError
from intsmooth.graph import VERSION, build_graph, content_digest
from intsmooth.hdf5 import Group, read_tree
from intsmooth.ops.operator import brief
from intsmooth.records import Graph, Node, Tensor

MAGIC = "intsmooth"
MAX_FILE_BYTES = 2**28 + 2**25
MAX_TEXT_BYTES = 64_000  # of one string attribute; HDF5 ends at 64 KiB
_ROOT = {"format": str, "version": int, "digest": str, "input": str, "output": str, "levels": tuple, "unit": int,
         "classes": str, "facts": str}  # fmt: skip
_TENSOR = {"name": str, "shape": tuple, "dtype": str, "zero_point": int}
_NODE = {"name": str, "op": str, "inputs": str, "output": str, "attributes": str}


def load(path: str | os.PathLike) -> Graph:
    """The checked graph of a model file, its arrays read-only.

    Raises FormatError (not a well-formed model file, or one that cannot be read) or UnsupportedError (operators that
    are not implemented, all listed). Whatever a file holds, time and memory are bounded by its size.
    """
    path = Path(path)
    try:
        with open(path, "rb", opener=_open_regular) as file:
            size = os.fstat(file.fileno()).st_size
            _check_size(size)
            return decode(file.read(size))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error}); give a model file") from None
    except MemoryError:
        raise FormatError(f"{path}: too large for the memory of this machine") from None
    except ModelError as error:
        raise type(error)(f"{path}: {error}") from None


def save(graph: Graph, path: str | os.PathLike) -> None:
    """Write a model file atomically; the same graph gives the same bytes.

    Raises FormatError where the graph breaks the format (nothing is written then) and ResourceError where the file
    cannot be written (the old file, if any, is untouched).
    """
    data = encode(graph)
    decode(data)  # a file that load() would refuse is never written
    path = Path(path)
    try:
        write_whole(path, data)
        _sync_folder(path.parent)
    except OSError as error:
        raise ResourceError(
            f"{path}: the model cannot be written ({error.strerror or error}); check the folder and its free space"
        ) from None


def digest(graph: Graph) -> str:
    """Hex SHA-256 of all that decides the network's outputs (graph.content_digest)."""
    return content_digest(graph)


def encode(graph: Graph) -> bytes:
    """The bytes of a model file, the same for the same graph. Raises FormatError where the graph breaks the format."""
    import h5py

    graph = build_graph(
        graph.nodes,
        graph.tensors.values(),
        input=graph.input,
        output=graph.output,
        levels=graph.levels,
        unit=graph.unit,
        classes=graph.classes,
        facts=graph.facts,
    )
    memory = io.BytesIO()
    # The oldest encoding that HDF5 knows: every version of the library reads it, and all write the same bytes.
    with h5py.File(memory, "w", libver=("earliest", "v108")) as file:
        head = {
            "format": MAGIC,
            "version": VERSION,
            "digest": graph.digest,
            "input": graph.input,
            "output": graph.output,
            "levels": graph.levels,
            "unit": graph.unit,
            "classes": _to_json(graph.classes),
            "facts": _to_json(graph.facts),
        }
        _write_attributes(file, head)
        tensors, nodes = file.create_group("tensors"), file.create_group("nodes")
        for i, tensor in enumerate(graph.tensors.values()):
            fields = {name: getattr(tensor, name) for name in _TENSOR}
            if tensor.scale is not None:
                fields["scale"] = float(tensor.scale)
            _write_attributes(tensors.create_group(f"{i:04d}"), fields)
        for i, node in enumerate(graph.nodes):
            group = nodes.create_group(f"{i:04d}")
            fields = {"name": node.name, "op": node.op, "inputs": _to_json(node.inputs), "output": node.output,
                      "attributes": _to_json(node.attributes)}  # fmt: skip
            _write_attributes(group, fields)
            for name in sorted(node.constants):
                group.create_dataset(name, data=node.constants[name], track_times=False)
    return memory.getvalue()


def decode(data: bytes) -> Graph:
    """The checked graph in the bytes of a model file; errors as those of load()."""
    _check_size(len(data))
    root = read_tree(data)
    if root.attributes.get("format") != MAGIC:
        raise FormatError(f"an HDF5 file, but attribute 'format' is not {MAGIC!r}: no model of intsmooth")
    version = root.attributes.get("version")
    if version != VERSION:
        raise FormatError(f"model format version {brief(version)}; this intsmooth reads version {VERSION}: update it")
    head = _attributes(root, "/", _ROOT)
    _members(root, "/", groups={"nodes", "tensors"})
    graph = build_graph(
        [_read_node(group, where) for where, group in _numbered(root, "nodes")],
        [_read_tensor(group, where) for where, group in _numbered(root, "tensors")],
        input=head["input"],
        output=head["output"],
        levels=head["levels"],
        unit=head["unit"],
        classes=_strings(_from_json(head["classes"], list, "attribute 'classes' of /"), "attribute 'classes' of /"),
        facts=_from_json(head["facts"], dict, "attribute 'facts' of /"),
    )
    if graph.digest != head["digest"]:
        raise FormatError(
            f"the content's digest is {graph.digest}, the file says {brief(head['digest'])}: it was damaged or changed"
        )
    return graph


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise FormatError(f"{size} bytes are too large for a model file, required: at most {MAX_FILE_BYTES}")


def _read_tensor(group: Group, where: str) -> Tensor:
    _members(group, where)
    fields = dict(group.attributes)
    scale = fields.pop("scale", None)
    if not isinstance(scale, float | None):
        raise FormatError(f"attribute 'scale' of {where} is {brief(scale)}, required: one float64")
    return Tensor(**_attributes(Group(fields, {}, {}), where, _TENSOR), scale=scale)


def _read_node(group: Group, where: str) -> Node:
    _members(group, where, arrays=group.arrays)
    fields = _attributes(group, where, _NODE)
    inputs = _strings(_from_json(fields["inputs"], list, f"attribute 'inputs' of {where}"), f"'inputs' of {where}")
    attributes = {}
    for name, value in _from_json(fields["attributes"], dict, f"attribute 'attributes' of {where}").items():
        numbers = value if isinstance(value, list) else [value]
        if any(type(number) is not int for number in numbers):
            raise FormatError(f"{brief(name)} in 'attributes' of {where} is not an integer or a list of integers")
        attributes[name] = tuple(value) if isinstance(value, list) else value
    return Node(fields["name"], fields["op"], tuple(inputs), fields["output"], attributes, group.arrays)


def _attributes(group: Group, where: str, schema: dict[str, type]) -> dict:
    """The attributes of a group, which must be exactly those of the schema."""
    missing, unknown = schema.keys() - group.attributes.keys(), group.attributes.keys() - schema.keys()
    if missing or unknown:
        found = [f"misses attribute {name!r}" for name in sorted(missing)]
        found += [f"has the unknown attribute {name!r}" for name in sorted(unknown)]
        raise FormatError(f"{where} {' and '.join(found)}")
    for name, kind in schema.items():
        value = group.attributes[name]
        if type(value) is not kind or kind is tuple and any(type(part) is not int for part in value):
            wanted = {str: "a string", int: "one int64", tuple: "a list of int64"}[kind]
            raise FormatError(f"attribute {name!r} of {where} is {brief(value)}, required: {wanted}")
    return group.attributes


def _members(group: Group, where: str, groups=frozenset(), arrays=frozenset()) -> None:
    """FormatError unless a group holds exactly these groups and arrays."""
    for found, wanted, kind in ((group.groups, groups, "group"), (group.arrays, arrays, "data set")):
        for name in sorted(set(found) ^ set(wanted)):
            verb = "has an unexpected" if name in found else "misses the"
            raise FormatError(f"{where} {verb} {kind} {name!r}")


def _numbered(root: Group, name: str) -> list[tuple[str, Group]]:
    """(path, group) of /name/0000, /name/0001, ... in order, with no gap."""
    group, where = root.groups[name], f"/{name}"
    _attributes(group, where, {})
    numbers = [f"{i:04d}" for i in range(len(group.groups))]
    _members(group, where, groups=numbers)
    return [(f"{where}/{number}", group.groups[number]) for number in numbers]


def _strings(values: list, where: str) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise FormatError(f"{where} holds something that is not a string")
    return values


def _from_json(text: str, kind: type, where: str) -> list | dict:
    """Parsed JSON of the kind required; no floats, no NaN, no name twice in an object."""

    def refuse(found):
        raise ValueError(f"{brief(found)} is not allowed")

    def unique(pairs):
        return dict(pairs) if len(dict(pairs)) == len(pairs) else refuse("a name that comes twice")

    try:
        value = json.loads(text, parse_float=refuse, parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not valid JSON: {brief(str(error))}") from None
    if not isinstance(value, kind):
        raise FormatError(f"{where} is a JSON {type(value).__name__}, required: {kind.__name__}")
    return value


def _to_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _write_attributes(group, fields: dict) -> None:
    """Strings as UTF-8 of fixed length, integers as int64, floats as float64."""
    import h5py

    for name, value in fields.items():
        if isinstance(value, str):
            text = value.encode("utf-8")
            if not 1 <= len(text) <= MAX_TEXT_BYTES:
                raise FormatError(
                    f"{name!r} of {group.name} takes {len(text)} bytes, required: 1 to {MAX_TEXT_BYTES}; shorten it"
                )
            group.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text)))
        else:
            group.attrs.create(name, value, dtype="<f8" if isinstance(value, float) else "<i8")


def _open_regular(path: str, flags: int) -> int:
    """os.open for regular files only: a pipe or a device could block for ever or never end."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "not a regular file")
    return descriptor


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
