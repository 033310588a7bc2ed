"""Reads a .tflite file into plain records, and treats it as hostile.

The `tflite` and `flatbuffers` packages know the schema; their accessors check little. Counts are bounded before
anything is looped over, indices before anything is looked up, and whatever goes wrong inside the accessors becomes one
FormatError. Nothing is interpreted here: which operators and types are supported is decided by the importer.
"""

import math
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from intsmooth.errors import FormatError, InputError, MissingExtraError, ModelError

MAX_FILE_BYTES = 2**29
MAX_TENSORS = 2**16
MAX_OPERATORS = 2**13
MAX_RANK = 8
MAX_NAME_BYTES = 2**12
IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3

# Scalar fields of the options of every operator that the importer knows, by the schema's names.
_POOL = ("Pool2DOptions", ("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth", "FusedActivationFunction"))
_CONVOLUTION = ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction")
_MASKS = ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask")
OPTIONS = {
    "CONV_2D": ("Conv2DOptions", _CONVOLUTION),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_CONVOLUTION, "DepthMultiplier")),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat")),
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "SUB": ("SubOptions", ("FusedActivationFunction",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": _POOL,
    "MAX_POOL_2D": _POOL,
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "PACK": ("PackOptions", ("Axis",)),
    "STRIDED_SLICE": ("StridedSliceOptions", _MASKS),
}


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor; data is a read-only array of `shape` where the file holds its values, None otherwise.

    scales and zero_points are empty, or of one element, or of one per slice along `dimension`.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: np.ndarray
    zero_points: np.ndarray
    dimension: int
    data: np.ndarray | None
    features: tuple[str, ...] = ()  # what is unusual about it: variable, sparse, ...


@dataclass(frozen=True)
class TfliteOperator:
    """One operator: `code` as in the schema ("CONV_2D"), tensor indices (-1: left out), scalar options by name."""

    index: int
    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class TfliteModel:
    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    description: str
    subgraphs: int


def read_bytes(source):
    """The content of a file, or `source` itself where it is bytes. Raises InputError, FormatError (too large)."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        content = bytes(source)
    else:
        try:
            path = os.fspath(source)  # refuses a number, which open() would take for a file descriptor
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(None, "not a regular file")  # a pipe or a device could block for ever or never end
            if status.st_size > MAX_FILE_BYTES:
                raise FormatError(f"{path!r} is larger than {MAX_FILE_BYTES} bytes, the largest file read")
            with open(path, "rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except (OSError, TypeError) as error:
            found = getattr(error, "strerror", None) or error
            raise InputError(f"cannot read {str(source)!r}: {found}; give the path of a model file or its bytes") from None
    if len(content) > MAX_FILE_BYTES:
        raise FormatError(f"the model is larger than {MAX_FILE_BYTES} bytes, the largest that is read")
    return content


def read_model(content):
    """bytes -> TfliteModel. Raises FormatError for anything malformed, MissingExtraError without the packages."""
    try:
        import tflite
    except ImportError:
        raise MissingExtraError("the packages tflite and flatbuffers", "tflite", "reading .tflite models") from None
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        raise FormatError(f"not a TensorFlow Lite model: bytes 4 to 7 are {content[4:8]!r}, required: {IDENTIFIER!r}")
    try:
        return _Reader(tflite, content).model()
    except ModelError:
        raise
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise FormatError(
            f"not a well-formed TensorFlow Lite model ({type(error).__name__}: {error}); "
            "it may be truncated or damaged: obtain it again"
        ) from None


def _names(enumeration):
    return {number: name for name, number in vars(enumeration).items() if isinstance(number, int)}


class _Reader:
    def __init__(self, schema, content):
        self.schema = schema
        self.content = content
        self.codes = _names(schema.BuiltinOperator)
        self.types = {number: name.lower() for number, name in _names(schema.TensorType).items()}
        self.root = schema.Model.GetRootAs(content, 0)

    def model(self):
        root = self.root
        if root.Version() != SCHEMA_VERSION:
            raise FormatError(f"schema version {root.Version()}, required: {SCHEMA_VERSION}")
        subgraphs = self.count("subgraphs", root.SubgraphsLength(), MAX_TENSORS)
        if subgraphs == 0:
            raise FormatError("the model holds no graph")
        graph = root.Subgraphs(0)
        tensors = self.count("tensors", graph.TensorsLength(), MAX_TENSORS)
        operators = self.count("operators", graph.OperatorsLength(), MAX_OPERATORS)
        self.tensor_count = tensors
        description = root.Description()
        return TfliteModel(
            tensors=tuple(self.tensor(i, graph.Tensors(i)) for i in range(tensors)),
            operators=tuple(self.operator(i, graph.Operators(i)) for i in range(operators)),
            inputs=self.indices("the graph's inputs", graph.InputsLength(), graph.InputsAsNumpy, 0),
            outputs=self.indices("the graph's outputs", graph.OutputsLength(), graph.OutputsAsNumpy, 0),
            description=self.text(description),
            subgraphs=subgraphs,
        )

    def count(self, what, number, limit):
        """Every entry of a vector of tables takes at least 4 bytes, so a count is also bounded by the file's size."""
        if number > min(limit, len(self.content) // 4):
            raise FormatError(f"{number} {what}, at most {limit} are read, in at least 4 bytes each")
        return number

    def text(self, raw):
        return (raw or b"")[:MAX_NAME_BYTES].decode("utf-8", "replace")

    def indices(self, what, length, read, lowest):
        values = tuple(int(value) for value in read()) if self.count(what, length, MAX_TENSORS) else ()
        for value in values:
            if not lowest <= value < self.tensor_count:
                raise FormatError(f"{what} name tensor {value}, there are {self.tensor_count}")
        return values

    def tensor(self, index, table):
        what = f"tensor {index}"
        rank = self.count(f"dimensions of {what}", table.ShapeLength(), MAX_RANK)
        shape = tuple(int(size) for size in table.ShapeAsNumpy()) if rank else ()
        dtype = self.types.get(table.Type())
        if dtype is None:
            raise FormatError(f"{what} has type {table.Type()}, which the schema does not know")
        scales, zero_points, dimension, features = self.quantization(what, table.Quantization())
        features += ["variable"] * bool(table.IsVariable()) + ["sparse"] * (table.Sparsity() is not None)
        data = self.data(what, table.Buffer(), shape, dtype)
        return TfliteTensor(
            index, self.text(table.Name()), shape, dtype, scales, zero_points, dimension, data, tuple(features)
        )

    def quantization(self, what, table):
        scales, zero_points = np.zeros(0, np.float32), np.zeros(0, np.int64)
        if table is None:
            return scales, zero_points, 0, []
        features = ["custom quantization"] * (table.Details() is not None)
        if self.count(f"scales of {what}", table.ScaleLength(), len(self.content)):
            scales = table.ScaleAsNumpy()
        if self.count(f"zero points of {what}", table.ZeroPointLength(), len(self.content)):
            zero_points = table.ZeroPointAsNumpy()
        elif len(scales):
            zero_points = np.zeros(len(scales), np.int64)
        if len(scales) != len(zero_points):
            raise FormatError(f"{what} has {len(scales)} scales and {len(zero_points)} zero points")
        if not (np.isfinite(scales).all() and (scales > 0).all()):
            raise FormatError(f"{what} has a scale that is not a positive finite number")
        if len(zero_points) and (zero_points.min() < -(2**31) or zero_points.max() >= 2**31):
            raise FormatError(f"{what} has a zero point beyond 32 bits")
        return scales, zero_points, int(table.QuantizedDimension()), features

    def data(self, what, number, shape, dtype):
        """The values in buffer `number`, None where it is empty. Types without a NumPy equivalent stay bytes."""
        if number == 0:
            return None
        if not 0 < number < self.root.BuffersLength():
            raise FormatError(f"{what} names buffer {number}, there are {self.root.BuffersLength()}")
        buffer = self.root.Buffers(number)
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise FormatError(f"{what} lies outside the flatbuffer (files over 2 GB do that), which is not read here")
        if buffer.DataLength() == 0:
            return None
        raw = buffer.DataAsNumpy()
        try:
            width = np.dtype(dtype)
        except TypeError:
            return raw
        if min(shape, default=1) < 0 or len(raw) != math.prod(shape) * width.itemsize:
            raise FormatError(f"{what} holds {len(raw)} bytes, its shape {shape} of {dtype} needs another number")
        return raw.view(width.newbyteorder("<")).reshape(shape)

    def operator(self, index, table):
        what = f"operator {index}"
        number = table.OpcodeIndex()
        if not 0 <= number < self.root.OperatorCodesLength():
            raise FormatError(f"{what} has code index {number}, there are {self.root.OperatorCodesLength()}")
        entry = self.root.OperatorCodes(number)
        builtin = max(entry.BuiltinCode(), entry.DeprecatedBuiltinCode())
        code = self.codes.get(builtin, f"operator code {builtin}")
        if code == "CUSTOM":
            code = f"custom operator {self.text(entry.CustomCode())[:64]!r}"
        inputs = self.indices(f"inputs of {what}", table.InputsLength(), table.InputsAsNumpy, -1)
        outputs = self.indices(f"outputs of {what}", table.OutputsLength(), table.OutputsAsNumpy, 0)
        return TfliteOperator(index, code, inputs, outputs, self.options(what, code, table))

    def options(self, what, code, table):
        if code not in OPTIONS:
            return {}
        name, fields = OPTIONS[code]
        if table.BuiltinOptionsType() != getattr(self.schema.BuiltinOptions, name) or table.BuiltinOptions() is None:
            raise FormatError(f"{what} ({code}) has options of another kind, required: {name}")
        union, options = table.BuiltinOptions(), getattr(self.schema, name)()
        options.Init(union.Bytes, union.Pos)
        return {field: getattr(options, field)() for field in fields}
