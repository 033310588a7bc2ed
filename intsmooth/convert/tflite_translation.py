"""The state of one translation from TensorFlow Lite: what has been emitted, and the questions every operator asks.

The source's tensors carry a batch of 1 in front, ours leave it out. uint8 tensors occur at the ends only and are held
as int8: value and zero point less 128, which changes no result. Whatever is well-formed but not supported raises
UnsupportedError, and the importer goes on with the next operator in order to list everything.
"""

from collections.abc import Container
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from intsmooth.convert.names import UniqueNames, clean_name
from intsmooth.convert.report import Note, Origin
from intsmooth.convert.tflite_file import TfliteModel, TfliteOperator, TfliteTensor
from intsmooth.convert.tflite_parameters import activation_clamp
from intsmooth.errors import FormatError, UnsupportedError
from intsmooth.fixedpoint import quantize_multiplier
from intsmooth.records import Node, Tensor

MAX_CONSTANT_BYTES = 2**28
ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6"}


@dataclass(frozen=True)
class InputMapping:
    """How levels become the source's input integers.

    scale None: one level is one step of the source's input, its lowest integer standing for the lowest level.
    Otherwise one level has the real value `scale`, level 0 is real 0, and the source's quantization decides the rest.
    """

    levels: tuple[int, int]
    scale: Fraction | None = None


class Translation:
    """Nodes and tensors in the making. Tensor indices are the source's."""

    def __init__(self, model: TfliteModel, mapping: InputMapping):
        self.model, self.mapping = model, mapping
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.notes: list[Note] = []
        self.origins: dict[str, Origin] = {}
        self.names: dict[int, str] = {}  # source tensor -> our tensor that holds its integers
        self.values: dict[int, np.ndarray] = {}  # int32 tensors known without running the model
        self.floats: set[int] = set()  # float tensors that are a monotone view of an integer tensor
        self.constant_bytes = 0
        self.unique_names = UniqueNames()
        self.operator: TfliteOperator | None = None

    # What an operator asks about the source

    def inputs(self, low: int, high: int | None = None) -> list[int]:
        """Input indices of the current operator, -1 for those left out, `high` of them."""
        given = list(self.operator.inputs)
        high = low if high is None else high
        if not low <= len(given) <= high or -1 in given[:low]:
            raise FormatError(f"{self.subject()} has inputs {given}, required: {low} to {high}, the first {low} given")
        return given + [-1] * (high - len(given))

    def output(self) -> int:
        if len(self.operator.outputs) != 1:
            raise FormatError(f"{self.subject()} has {len(self.operator.outputs)} outputs, required: 1")
        return self.operator.outputs[0]

    def subject(self) -> str:
        return f"operator {self.operator.index} ({self.operator.code})"

    def source(self, index: int) -> TfliteTensor:
        return self.model.tensors[index]

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape without the batch, (1,) for a scalar."""
        shape = self.source(index).shape
        if any(size < 1 for size in shape):
            raise UnsupportedError(f"tensor {index} has shape {shape}: no dynamic or empty shapes")
        if shape and shape[0] != 1:
            raise UnsupportedError(f"tensor {index} has shape {shape}: the first dimension, the batch, must be 1")
        return shape[1:] or (1,)

    def quantization(self, index: int, *, unsigned: bool = False) -> tuple[np.float32, int]:
        """(scale, zero point) of an int8 activation; with `unsigned` also of a uint8 one, its zero point less 128."""
        tensor = self.source(index)
        if tensor.dtype != "int8" and not (unsigned and tensor.dtype == "uint8"):
            raise UnsupportedError(f"tensor {index} is {tensor.dtype}, supported: int8" + " or uint8" * unsigned)
        if len(tensor.scales) != 1 or tensor.features:
            found = ", ".join(tensor.features) or f"{len(tensor.scales)} scales"
            raise UnsupportedError(f"tensor {index} has {found}, supported: one scale and zero point, nothing else")
        zero_point = int(tensor.zero_points[0]) - 128 * (tensor.dtype == "uint8")
        if not -128 <= zero_point <= 127:
            raise FormatError(f"tensor {index} has zero point {tensor.zero_points[0]}, too large for {tensor.dtype}")
        return tensor.scales[0], zero_point

    def same_quantization(self, *indices: int) -> None:
        found = {self.quantization(index) for index in indices}
        if len(found) > 1:
            pairs = ", ".join(f"{float(scale):g}/{zero}" for scale, zero in sorted(found))
            raise UnsupportedError(f"different scales/zero points ({pairs}) where this operator needs equal ones")

    def clamp(self, index: int) -> tuple[int, int]:
        """Range of output `index` under the current operator's fused activation."""
        activation = self.operator.options["FusedActivationFunction"]
        if activation not in ACTIVATIONS:
            raise UnsupportedError(f"fused activation {activation}, supported: {', '.join(ACTIVATIONS.values())}")
        return activation_clamp(ACTIVATIONS[activation], *self.quantization(index))

    def constant(self, index: int, dtype: str, what: str) -> np.ndarray:
        """The values of a constant tensor; their bytes are charged, since one buffer can serve many operators."""
        tensor = self.source(index)
        if tensor.data is None:
            raise UnsupportedError(f"{what} (tensor {index}) must be constant")
        if tensor.dtype != dtype or tensor.features:
            found = ", ".join((tensor.dtype, *tensor.features))
            raise UnsupportedError(f"{what} (tensor {index}) is {found}, supported: {dtype}")
        self.charge(tensor.data.nbytes)
        return tensor.data

    def charge(self, count: int) -> None:
        """Count bytes of constants before they are copied."""
        self.constant_bytes += count
        if self.constant_bytes > MAX_CONSTANT_BYTES:
            raise FormatError(f"the operators' constants take over {MAX_CONSTANT_BYTES} bytes, which is the limit")

    def integers(self, index: int, what: str) -> list[int]:
        """A list of integers known at conversion time: axes, shapes, paddings."""
        if index in self.values:
            return [int(value) for value in self.values[index].ravel()]
        tensor = self.source(index)
        if tensor.data is None or tensor.dtype not in ("int32", "int64"):
            raise UnsupportedError(f"{what} (tensor {index}) must be constant int32 or int64")
        if tensor.data.size > 64:
            raise FormatError(f"{what} (tensor {index}) holds {tensor.data.size} integers, at most 64 make sense")
        return [int(value) for value in tensor.data.ravel()]

    def is_constant(self, index: int) -> bool:
        return self.source(index).data is not None

    # What an operator emits

    def read(self, index: int) -> str:
        """Our tensor that holds source tensor `index`."""
        if index not in self.names:
            raise FormatError(f"{self.subject()} reads tensor {index} before any operator has produced it")
        return self.names[index]

    def declare(self, index: int, zero_point: int, scale: float | None, *, suffix: str = "",
                shape: tuple[int, ...] | None = None, dtype: str = "int8") -> str:  # fmt: skip
        """A new tensor named after source tensor `index`."""
        name = self._unique(clean_name(self.source(index).name) + suffix)
        shape = self.shape(index) if shape is None else shape
        self.tensors[name] = Tensor(name, shape, dtype, zero_point, scale)
        return name

    def emit(self, op: str, inputs: list[str], index: int, attributes=None, constants=None) -> None:
        """A node whose output is source tensor `index`."""
        scale, zero_point = self.quantization(index, unsigned=True)
        self.produce(index, self.declare(index, zero_point, float(scale)))
        self.node(op, inputs, self.names[index], attributes, constants, origin_tensor=index)

    def node(self, op, inputs, output, attributes=None, constants=None, *, origin_tensor=None, suffix="") -> None:
        """A node with names for tensors."""
        label = f"{self.operator.index} {self.operator.code}" if self.operator else "input"
        name = self._unique(f"{label}{suffix}", self.origins)
        self.nodes.append(Node(name, op, tuple(inputs), output, attributes or {}, constants or {}))
        self.origins[name] = Origin(f"{label}", origin_tensor)

    def produce(self, index: int, name: str) -> None:
        if index in self.names or index in self.values or self.is_constant(index):
            raise FormatError(f"tensor {index} is produced twice, or produced although it is constant")
        self.names[index] = name

    def alias(self, index: int, other: int, why: str, kind: str = "folded") -> None:
        """Source tensor `index` holds the same integers in the same order as `other`: no node is needed."""
        self.produce(index, self.read(other))
        self.note(kind, why)

    def know(self, index: int, values: np.ndarray) -> None:
        """An int32 tensor whose values follow from shapes."""
        if index in self.names or index in self.values or self.is_constant(index):
            raise FormatError(f"tensor {index} is produced twice, or produced although it is constant")
        self.values[index] = values
        self.note("folded", f"its result {values.tolist()} is known without running the model")

    def constant_node(self, index: int, value: np.ndarray) -> str:
        """A constant operand, under the quantization of source tensor `index`."""
        scale, zero_point = self.quantization(index)
        name = self.declare(index, zero_point, float(scale), shape=value.shape)
        self.node("constant", [], name, {}, {"value": np.ascontiguousarray(value)}, suffix=" constant")
        return name

    def note(self, kind: str, text: str) -> None:
        self.notes.append(Note(kind, self.subject() if self.operator else "input", text))

    def enter(self, index: int) -> str:
        """The network's input: int16 levels, requantized to source tensor `index`. Returns the levels' name."""
        scale, zero_point = self.quantization(index, unsigned=True)
        levels = self._unique("levels")
        unit = self.mapping.scale
        self.tensors[levels] = Tensor(levels, self.shape(index), "int16", 0, None if unit is None else float(unit))
        if unit is None:
            offset = -128 - self.mapping.levels[0]
            multiplier, shift = quantize_multiplier(1)
            text = f"level l is the source's input integer l - {-offset} (held as int8), saturated"
        else:
            offset = zero_point
            multiplier, shift = quantize_multiplier(unit / Fraction(float(scale)))
            text = f"a level is real {float(unit):g}, requantized to the source's scale {float(scale):g}"
        if not -128 <= offset <= 127:
            raise UnsupportedError(f"levels from {self.mapping.levels[0]}: int8 needs a lowest level from -255 to 0")
        constants = {"multiplier": np.array([multiplier], np.int32), "shift": np.array([shift], np.int32)}
        entry = self.declare(index, zero_point, float(scale))
        self.produce(index, entry)
        if offset == zero_point:
            self.node("input_requantize", [levels], entry, {}, constants, origin_tensor=index, suffix=" requantize")
        else:
            shifted = self.declare(index, offset, float(scale), suffix=" as levels")
            self.node("input_requantize", [levels], shifted, {}, constants, suffix=" requantize")
            table = np.arange(-128, 128).astype(np.int8)
            self.node("lookup", [shifted], entry, {}, {"table": table}, origin_tensor=index, suffix=" zero point")
            self.note("re-expressed", f"an identity table gives the input its zero point, {zero_point}")
        self.note("input", text)
        return levels

    def _unique(self, name: str, taken: Container[str] | None = None) -> str:
        return self.unique_names.choose(name, self.tensors if taken is None else taken)
