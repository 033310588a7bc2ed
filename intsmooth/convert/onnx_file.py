"""Reads an .onnx file into plain records, and treats it as hostile.

The package `onnx` knows the protocol buffers; its checker, shape inference and helpers are not used, because they check
other things than these: bytes are counted before they are interpreted, sizes before anything is allocated, and nothing
outside the file is opened, so tensors with external data are refused. Nothing is interpreted here: which operators and
types are supported is decided by the importer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from intsmooth.convert.tflite_file import read_bytes
from intsmooth.errors import FormatError, MissingExtraError, ModelError, UnsupportedError

MAX_NODES = 2**14
MAX_TENSORS = 2**16
MAX_RANK = 8
MAX_ELEMENTS = 2**28
MAX_OPSET = 28  # of onnx 1.23
MAX_NAME = 2**12
# ONNX's TensorProto.DataType by number; the ones without a NumPy type are named, so that they can be refused by name.
DTYPES = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
          10: "float16", 11: "float64", 12: "uint32", 13: "uint64"}  # fmt: skip
# The field that holds the values of a tensor without raw_data.
_FIELDS = {"float32": "float_data", "float64": "double_data", "int64": "int64_data", "uint32": "uint64_data",
           "uint64": "uint64_data"}  # fmt: skip
_EXTERNAL = 1  # TensorProto.EXTERNAL
DOMAINS = {"": "", "ai.onnx": "", "com.microsoft": "com.microsoft"}
# Node attributes by AttributeProto.AttributeType: what a reader makes of them. Graphs and the like stay unread.
_FLOAT, _INT, _STRING, _TENSOR, _FLOATS, _INTS = 1, 2, 3, 4, 6, 7


@dataclass(frozen=True)
class OnnxNode:
    """One operator. `op` is its name, with the domain in front where it is not ONNX's own ("com.microsoft.QGemm")."""

    index: int
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxModel:
    """inputs: name -> (dtype, shape), a size that is not fixed being None; constants: name -> read-only array."""

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, np.ndarray]
    inputs: Mapping[str, tuple[str, tuple[int | None, ...] | None]]
    outputs: tuple[str, ...]
    opset: int


def import_onnx(purpose):
    """The package `onnx`; MissingExtraError where it is not installed."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("the package onnx", "onnx", purpose) from None
    return onnx


def read_model(content) -> OnnxModel:
    """bytes -> OnnxModel. Raises FormatError for anything malformed, MissingExtraError without the package."""
    onnx = import_onnx("reading .onnx models")
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.ModelProto.FromString(content)
    except (DecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"not a well-formed ONNX model ({error}); it may be truncated: obtain it again") from None
    try:
        return _model(proto)
    except ModelError:
        raise
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError, UnicodeError) as error:
        raise FormatError(
            f"not a well-formed ONNX model ({type(error).__name__}: {error}); obtain it again"
        ) from None


def _model(proto) -> OnnxModel:
    if not proto.HasField("graph") or not proto.graph.node:
        raise FormatError("not an ONNX model: it holds no graph of operators; give a file that an exporter wrote")
    graph = proto.graph
    counts = {"nodes": len(graph.node), "constants": len(graph.initializer), "inputs": len(graph.input)}
    for what, count in counts.items():
        limit = MAX_NODES if what == "nodes" else MAX_TENSORS
        if count > limit:
            raise FormatError(f"the graph has {count} {what}, at most {limit} are read")
    if len(graph.sparse_initializer):
        raise FormatError("the graph has sparse constants, which no exporter of quantized networks writes")
    opsets = {DOMAINS.get(item.domain, item.domain): item.version for item in proto.opset_import}
    opset = int(opsets.get("", 0))
    if not 1 <= opset <= MAX_OPSET:
        raise UnsupportedError(
            f"operator set {opset or 'not stated'}, supported: 1 to {MAX_OPSET}, because a later one may give "
            "operators another meaning; export the model for an older operator set"
        )
    constants: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        if _name(tensor.name) in constants:
            raise FormatError(f"constant {tensor.name[:80]!r} occurs twice")
        constants[tensor.name] = _array(tensor)
    nodes, produced = [], set(constants)
    inputs = {_name(item.name): _value_info(item) for item in graph.input if item.name not in constants}
    produced |= inputs.keys()
    for index, node in enumerate(graph.node):
        domain = DOMAINS.get(_name(node.domain), node.domain)
        op = f"{domain}.{_name(node.op_type)}" if domain else _name(node.op_type)
        outputs = tuple(_name(name) for name in node.output)
        for name in outputs:
            if name and name in produced:
                raise FormatError(f"tensor {name[:80]!r} is produced twice")
        if len(node.input) > MAX_TENSORS or len(outputs) > MAX_TENSORS:
            raise FormatError(f"node {index} ({op}) has {len(node.input)} inputs and {len(outputs)} outputs")
        produced.update(name for name in outputs if name)
        attributes = {_name(item.name): _attribute(item) for item in node.attribute}
        nodes.append(OnnxNode(index, op, tuple(_name(name) for name in node.input), outputs, attributes))
    names = tuple(_name(item.name) for item in graph.output)
    return OnnxModel(tuple(nodes), constants, inputs, names, opset)


def _name(text: str | bytes) -> str:
    if not isinstance(text, str):  # what protocol buffers make of broken UTF-8
        raise FormatError(f"a name of bytes that are no UTF-8: {text[:40]!r}")
    if len(text) > MAX_NAME:
        raise FormatError(f"a name of {len(text)} characters, at most {MAX_NAME} are read")
    return text


def _value_info(item):
    kind = item.type.tensor_type
    if not item.type.HasField("tensor_type"):
        return "no tensor", None
    _name(item.name)
    dtype = DTYPES.get(kind.elem_type, f"type {kind.elem_type}")
    if not kind.HasField("shape"):
        return dtype, None
    sizes = [int(size.dim_value) if size.HasField("dim_value") else None for size in kind.shape.dim]
    if len(sizes) > MAX_RANK or any(size is not None and not 0 <= size <= MAX_ELEMENTS for size in sizes):
        raise FormatError(f"input {item.name[:80]!r} has shape {sizes}, at most {MAX_RANK} dimensions are read")
    return dtype, tuple(sizes)


def _attribute(item):
    """The value of an attribute; a string where it holds something that no supported operator has."""
    if item.type == _TENSOR:
        return _array(item.t)
    if item.type in (_FLOATS, _INTS):
        values = item.floats if item.type == _FLOATS else item.ints
        if len(values) > MAX_TENSORS:
            raise FormatError(f"attribute {item.name[:80]!r} holds {len(values)} numbers, the limit is {MAX_TENSORS}")
        return tuple(values)
    if item.type == _STRING:
        return item.s[:MAX_NAME].decode("utf-8")
    if item.type in (_FLOAT, _INT):
        return item.f if item.type == _FLOAT else item.i
    return f"an attribute of type {item.type}"


def _array(tensor) -> np.ndarray:
    """A TensorProto as a read-only array; its own bytes only."""
    _name(tensor.name)
    subject = f"constant {tensor.name[:80]!r}"
    if tensor.data_location == _EXTERNAL or len(tensor.external_data):
        raise FormatError(
            f"{subject} lies in another file, and other files are never opened; save the model with all constants "
            "inside (onnx.save_model with save_as_external_data=False)"
        )
    dims = tuple(int(size) for size in tensor.dims)
    if len(dims) > MAX_RANK or any(not 0 <= size <= MAX_ELEMENTS for size in dims) or math.prod(dims) > MAX_ELEMENTS:
        raise FormatError(f"{subject} has dimensions {dims[:12]}; at most {MAX_RANK}, and {MAX_ELEMENTS} elements")
    if tensor.data_type not in DTYPES:
        return _opaque(tensor.data_type)
    dtype = np.dtype(DTYPES[tensor.data_type])
    count = math.prod(dims)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != count * dtype.itemsize:
            required = f"{count} elements of {dtype} take {count * dtype.itemsize}"
            raise FormatError(f"{subject} holds {len(tensor.raw_data)} bytes, its {required}")
        array = np.frombuffer(tensor.raw_data, dtype.newbyteorder("<")).astype(dtype)
    else:
        values = getattr(tensor, _FIELDS.get(dtype.name, "int32_data"))
        if len(values) != count:
            raise FormatError(f"{subject} holds {len(values)} values, its shape {dims} needs {count}")
        if dtype == np.float16:  # stored as the bits of each number
            array = np.array(values, np.int64).astype(np.uint16).view(np.float16)
        else:
            array = np.array(values, np.float64 if dtype.kind == "f" else None if count else dtype)
            limits = np.iinfo(dtype) if dtype.kind in "iu" and count else None
            if limits and (array.min() < limits.min or array.max() > limits.max):
                raise FormatError(f"{subject} holds values outside {dtype}")
            array = array.astype(dtype)
    array = array.reshape(dims)
    array.setflags(write=False)
    return array


def _opaque(data_type: int) -> np.ndarray:
    """Stands for a constant of a type without arithmetic here; whoever needs its values refuses its dtype."""
    array = np.array([f"type {data_type}"], dtype=object)
    array.setflags(write=False)
    return array


__all__ = ["OnnxModel", "OnnxNode", "import_onnx", "read_bytes", "read_model"]
