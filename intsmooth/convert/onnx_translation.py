"""The state of one translation from ONNX: what has been emitted, and the questions every operator asks.

ONNX's images are (batch, channels, height, width), ours (height, width, channels): weights, axes and constants are
turned when they are read, so that an ordinary convolutional network needs no transposition at run time. Where a model
asks for ONNX's order itself, nodes that turn the values are emitted and noted.

The same translation serves quantized and float models. Where a float result is needed as integers without the model
saying how, a `chooser` (of post-training quantization) is asked for a scale and zero point; without one the model is
refused.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from intsmooth.convert.names import UniqueNames, clean_name
from intsmooth.convert.onnx_file import OnnxModel, OnnxNode
from intsmooth.convert.onnx_values import Integer, Known, Pending, Source, Target, View
from intsmooth.convert.report import Note, Origin
from intsmooth.errors import FormatError, UnsupportedError
from intsmooth.fixedpoint import nearest_result_multiplier, quantize_multipliers
from intsmooth.records import Node, Tensor

FULL = (-128, 127)
MAX_SHAPE = 2**26
MAX_CHARGE = 2**31  # bytes of constants, all copies that a translation makes of them together


@dataclass(frozen=True)
class InputMapping:
    """How levels become the source's reals or integers.

    scale None, mean None: one level is one step of the source's input integers, the lowest standing for the lowest.
    scale: the real value of one level, level 0 being real 0.
    mean, std: reals are (level * scale - mean) / std per channel.
    margin: levels beyond both ends that the first operator keeps, for noise.
    """

    levels: tuple[int, int]
    scale: Fraction | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    margin: int = 0


class Translation:
    """Nodes and tensors in the making; `values` says what every tensor of the source is."""

    def __init__(self, model: OnnxModel, mapping: InputMapping, chooser: Callable[[str], Target] | None = None):
        self.model, self.mapping, self.chooser = model, mapping, chooser
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.notes: list[Note] = []
        self.origins: dict[str, Origin] = {}
        self.values: dict[str, object] = {name: Known(array) for name, array in model.constants.items()}
        self.readers: dict[str, int] = {}
        for name in (*(name for node in model.nodes for name in node.inputs), *model.outputs):
            self.readers[name] = self.readers.get(name, 0) + 1
        self.unique_names = UniqueNames()
        self.charged = 0
        self.node: OnnxNode | None = None
        self.batch = 1
        self.entered: tuple[str, Integer] | None = None  # the levels' name and the first integers
        self.beyond: dict[str, str] = {}  # behind a softmax at the end: the scores that are decided by

    # What an operator asks about the source

    def subject(self) -> str:
        return f"node {self.node.index} ({self.node.op})" if self.node else "input"

    def inputs(self, low: int, high: int | None = None) -> list[str]:
        """Names of the current node's inputs, "" for those left out, `high` of them."""
        given, high = list(self.node.inputs), low if high is None else high
        if not low <= len(given) <= high or "" in given[:low]:
            required = f"{low} to {high}, the first {low} given"
            raise FormatError(f"{self.subject()} has {len(given)} inputs, required: {required}")
        return given + [""] * (high - len(given))

    def output(self) -> str:
        if not self.node.outputs or not self.node.outputs[0]:
            raise FormatError(f"{self.subject()} has no output")
        if any(self.readers.get(name) for name in self.node.outputs[1:]):
            raise UnsupportedError("a second output that is read")
        return self.node.outputs[0]

    def attribute(self, name: str, default, kind=None):
        """An attribute of the current node, of the default's type or of `kind`."""
        value, kind = self.node.attributes.get(name, default), kind or type(default)
        if value is not default and not isinstance(value, kind):
            raise FormatError(f"{self.subject()} has attribute {name} {value!r:.80}, required: {kind.__name__}")
        return value

    def value(self, name: str):
        if name not in self.values:
            raise FormatError(f"{self.subject()} reads tensor {name[:80]!r}, which nothing before it has produced")
        if self.values[name] is None:  # its producer was refused
            raise Skipped
        return self.values[name]

    def known(self, name: str, what: str, kinds: str = "f") -> np.ndarray:
        """A constant of the model, `kinds` being the NumPy kinds of dtype that are allowed."""
        value = self.value(name)
        if not isinstance(value, Known):
            raise UnsupportedError(f"{what} ({name[:80]!r}) is not constant")
        if value.value.dtype.kind not in kinds:
            raise UnsupportedError(f"{what} ({name[:80]!r}) is {_type(value.value)}")
        if value.value.dtype.kind == "f" and not np.isfinite(value.value).all():
            raise FormatError(f"{what} ({name[:80]!r}) holds numbers that are not finite")
        self.charge(value.value.nbytes)
        return value.value

    def integers(self, name: str, what: str) -> list[int]:
        """A short list of integers known at conversion time: axes, shapes, paddings."""
        array = self.known(name, what, "iu")
        if array.size > 64:
            raise FormatError(f"{what} ({name[:80]!r}) holds {array.size} integers, at most 64 make sense")
        return [int(number) for number in array.ravel()]

    def charge(self, count: int) -> None:
        """Count bytes of constants before they are copied: many operators may read one."""
        self.charged += count
        if self.charged > MAX_CHARGE:
            raise FormatError(f"the operators' constants take over {MAX_CHARGE} bytes in all, which is the limit")

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor without the batch."""
        value = self.value(name)
        return value.integer.shape if isinstance(value, View) else value.shape

    def unsigned(self, name: str) -> bool:
        """Whether an integer tensor is uint8, which says what its readers' missing zero points are."""
        value = self.value(name)
        return value.unsigned if isinstance(value, Integer) else self.model.inputs.get(name, ("uint8",))[0] != "int8"

    # Floats and integers

    def real(self, name: str) -> Integer:
        """The integers behind a float tensor, which post-training quantization chooses where the model does not."""
        value = self.value(name)
        if isinstance(value, View):
            return value.integer
        if isinstance(value, Integer | Known):
            found = "constant" if isinstance(value, Known) else "an integer tensor"
            raise UnsupportedError(f"input {name[:80]!r} is {found} where a float activation is needed")
        if self.chooser is None:
            raise UnsupportedError(f"its float input {name[:80]!r} is not quantized")
        node, self.node = self.node, getattr(value, "node", None) or self.node
        integer = self.quantized(value, self.chooser(name), name)
        self.node = node
        self.values[name] = View(integer)
        return integer

    def settle(self, name: str):
        """The value of a float tensor; as integers where several operators read it and nothing may be folded twice."""
        value = self.value(name)
        if self.chooser is not None and isinstance(value, Pending | Source) and self.readers[name] > 1:
            return View(self.real(name))
        return value

    def quantized(self, value, target: Target, name: str | None) -> Integer:
        """A float value as integers; `name` is the source's tensor that holds them, None where no tensor does."""
        if isinstance(value, Source):
            return self.enter(value, target, name)
        if isinstance(value, View):
            x = value.integer
            if (x.scale, x.zero_point) == (target.scale, target.zero_point) and target.clamp == FULL:
                if name is not None:
                    self.note("folded", "equal scales and zero points: nothing to do")
                return replace(x, unsigned=target.unsigned)
            value = Pending(x.shape, lambda t, wanted: t.requantized(x, wanted))
        if value.low is not None or value.high is not None:
            low, high = target.clamp
            low = low if value.low is None else max(low, _step(value.low, target))
            high = high if value.high is None else min(high, _step(value.high, target))
            target = replace(target, clamp=(min(low, 127), max(high, -128, min(low, 127))))
        integer = value.emit(self, target)
        self.claim(integer, name)
        return integer

    def requantized(self, x: Integer, target: Target) -> Integer:
        """Integers under another scale; by a table that is what ONNX defines where the source has the scales."""
        if (x.scale, x.zero_point) == (target.scale, target.zero_point):
            return self.emit("clamp", [x.name], x, target, {"clamp": target.clamp})
        if self.chooser is None:
            with np.errstate(over="ignore"):  # scales far apart: what becomes infinite is clamped
                reals = np.float32(x.scale) * (np.arange(-128, 128) - x.zero_point).astype(np.float32)
                entries = np.rint(reals / np.float32(target.scale)) + target.zero_point
            table = {"table": np.clip(entries, *target.clamp).astype(np.int8)}
            return self.emit("lookup", [x.name], x, target, {}, table)
        constants = self.rescale([Fraction(x.scale) / Fraction(target.scale)])
        return self.emit("requantize", [x.name], x, target, {"clamp": target.clamp}, constants)

    def integer(self, name: str, scale: float, zero_point: int, unsigned: bool) -> Integer:
        """An integer tensor under the scale and zero point that its reader states (zero point of int8)."""
        x = self.value(name)
        if isinstance(x, Source):
            x = self.values[name] = self.enter(x, Target(scale, zero_point, FULL, unsigned), name)
        if not isinstance(x, Integer):
            raise UnsupportedError(f"input {name[:80]!r} is not an integer activation")
        if x.zero_point != zero_point:
            self.note("re-expressed", f"an identity table gives {name[:80]!r} the zero point that is read")
            table = {"table": np.arange(-128, 128).astype(np.int8)}
            return self.emit("lookup", [x.name], x, Target(scale, zero_point, FULL, unsigned), {}, table)
        return replace(x, scale=scale)

    # What an operator emits

    def move(self, op: str, name: str, shape, attributes) -> str:
        """A node that moves the elements of our tensor `name`."""
        tensor = self.tensors[name]
        moved = self.unique(f"{name} {op}")
        self.tensors[moved] = replace(tensor, name=moved, shape=tuple(shape))
        self.add(op, [name], moved, attributes, {}, suffix=f" {op}")
        return moved

    def emit(self, op, inputs, like: Integer, target: Target, attributes=None, constants=None, *,
             ours=None, shape=None, image=None) -> Integer:  # fmt: skip
        """A node whose output has our shape `ours`; shape and layout of ONNX's tensor are those of `like` or given."""
        if shape is None:
            shape, image, ours = like.shape, like.image, self.tensors[like.name].shape
        name = self.unique(clean_name(self.node.outputs[0] if self.node else next(iter(self.model.inputs))))
        self.tensors[name] = Tensor(name, tuple(ours), "int8", target.zero_point, target.scale)
        self.add(op, inputs, name, attributes or {}, constants or {})
        return Integer(name, tuple(shape), target.scale, target.zero_point, image, target.unsigned)

    def add(self, op, inputs, output, attributes, constants, suffix="") -> None:
        self.charge(sum(array.nbytes for array in constants.values()))
        label = f"{self.node.index} {self.node.op}" if self.node else "input"
        name = self.unique(f"{clean_name(label)}{suffix}", self.origins)
        self.nodes.append(Node(name, op, tuple(inputs), output, attributes, constants))
        self.origins[name] = Origin(label)

    def claim(self, integer: Integer, name: str | None) -> None:
        """The node that produces `integer` stands for the source's tensor `name`."""
        for node in reversed(self.nodes):
            if node.output == integer.name:
                self.origins[node.name] = replace(self.origins[node.name], tensor=name)
                return

    def constant_node(self, values: np.ndarray, target: Target) -> str:
        name = self.unique(clean_name(f"{self.node.outputs[0]} constant"))
        self.tensors[name] = Tensor(name, values.shape, "int8", target.zero_point, target.scale)
        self.add("constant", [], name, {}, {"value": np.ascontiguousarray(values)}, suffix=" constant")
        return name

    def rescale(self, factors) -> dict[str, np.ndarray]:
        """Constants multiplier and shift of real factors; ONNX rounds once, and so do these wherever it pays."""
        multiplier, shift = quantize_multipliers(factors, nearest_result_multiplier)
        return {"multiplier": multiplier, "shift": shift}

    def note(self, kind: str, text: str) -> None:
        note = Note(kind, self.subject(), text)
        if note not in self.notes:
            self.notes.append(note)

    def enter(self, source: Source, target: Target, name: str) -> Integer:
        """The network's float input as its first integers."""
        from intsmooth.convert.onnx_input import enter  # which uses the layers, and they this class

        if self.entered is None:
            self.entered = enter(self, source, target)
            self.claim(self.entered[1], name)
        elif (self.entered[1].scale, self.entered[1].zero_point) != (target.scale, target.zero_point):
            raise UnsupportedError("the network's input is quantized in more than one way")
        return self.entered[1]

    def pass_on(self, name: str) -> None:
        """The current node changes no decision of the network: its output stands for its input."""
        self.values[self.output()] = self.value(name)
        self.beyond[self.output()] = self.beyond.get(name, name)

    def unique(self, name: str, taken: Mapping | None = None) -> str:
        return self.unique_names.choose(name, self.tensors if taken is None else taken)


class Skipped(Exception):
    """An operator reads what was refused already; nothing new to report."""


def _step(real: float, target: Target) -> int:
    """The integer, not limited to int8, that stands for a real number."""
    return target.zero_point + int(np.clip(np.rint(real / target.scale), -(2**20), 2**20))


def _type(array: np.ndarray) -> str:
    return str(array.item(0)) if array.dtype == object else str(array.dtype)


def checked_size(shape) -> tuple[int, ...]:
    """A shape without the batch, of a size that the model format can hold."""
    shape = tuple(int(size) for size in shape)
    if any(size < 1 for size in shape) or math.prod(shape) > MAX_SHAPE:
        raise FormatError(f"a tensor of shape {shape}; sizes must be positive and their product at most {MAX_SHAPE}")
    return shape
