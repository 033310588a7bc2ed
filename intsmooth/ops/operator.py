"""What an operator is: one frozen record with the schema of its attributes and constants, and its rules.

The files beside this one each describe a family of operators of weights/FORMAT.md with these records; nothing here
knows a particular operator. All arithmetic is in integers. Rules report a broken model with FormatError and leave it
to graph.py to name the node.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from intsmooth.errors import FormatError
from intsmooth.records import Node, Tensor

MAX_RANK = 4  # of an activation or a constant, without the batch
INT8 = (-128, 127)


@dataclass(frozen=True)
class Attribute:
    """Integers in lowest..highest: a plain one (count 1), a tuple of `count`, or of 1 to 2 * MAX_RANK (count None)."""

    count: int | None
    lowest: int
    highest: int


@dataclass(frozen=True)
class Constant:
    """An array of `rank` dimensions (None: 1 to MAX_RANK) with values in lowest..highest.

    length: the only length allowed of a one-dimensional array, None where it follows from other constants.
    learned: counts as parameters of the network (weights and biases), as opposed to how results are requantized.
    """

    dtype: str
    rank: int | None
    lowest: int
    highest: int
    length: int | None = None
    learned: bool = False


Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """An operator's schema and rules. `inputs` are Tensor records of the node's inputs, in order.

    inputs:             lowest and highest number of input tensors.
    infer:              (node, inputs) -> (shape, dtype) of the output; FormatError where the parts do not fit.
    accumulator_bound:  (node, inputs) -> int64[channels], or [1] where all channels share it: no int32 value that the
                        operator computes exceeds it in magnitude, whatever int8 (int16 for the network's input)
                        values come in and in whatever order terms are summed. Required: <= 2^31 - 1.
    work:               (node, inputs, output shape) -> steps of the innermost loop for one image.
    zero_point:         "free"; "same": all inputs' and the output's are equal; or the only value of the output's.
    """

    name: str
    inputs: tuple[int, int]
    infer: Callable[[Node, tuple[Tensor, ...]], tuple[Shape, str]]
    accumulator_bound: Callable[[Node, tuple[Tensor, ...]], np.ndarray]
    work: Callable[[Node, tuple[Tensor, ...], Shape], int]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    constants: Mapping[str, Constant] = field(default_factory=dict)
    zero_point: str | int = "free"
    input_dtype: str = "int8"

    def multiply_adds(self, node: Node, inputs: tuple[Tensor, ...], shape: Shape) -> int:
        """Multiply-adds as the literature counts them: those with weights; 0 for every other operator."""
        return self.work(node, inputs, shape) if "weights" in self.constants else 0

    def parameters(self, node: Node) -> int:
        """Number of learned constants (weights and biases) of a node."""
        return sum(node.constants[name].size for name, schema in self.constants.items() if schema.learned)

    def schema_problems(self, node: Node) -> list[str]:
        """Everything in which a node's own parts differ from the schema; empty where they agree."""
        problems = []
        lowest, highest = self.inputs
        if not lowest <= len(node.inputs) <= highest:
            required = f"{lowest}" if lowest == highest else f"{lowest} to {highest}"
            problems.append(f"has {len(node.inputs)} inputs, required: {required}")
        for kind, found, schema in (
            ("attribute", node.attributes, self.attributes),
            ("constant", node.constants, self.constants),
        ):
            problems += [f"{kind} {name!r} is missing" for name in schema if name not in found]
            problems += [f"{kind} {name!r} is not one of this operator's" for name in found if name not in schema]
        for name, schema in self.attributes.items():
            if name in node.attributes:
                problems += _attribute_problems(name, node.attributes[name], schema)
        for name, schema in self.constants.items():
            if name in node.constants:
                problems += _constant_problems(name, node.constants[name], schema)
        return problems


def _attribute_problems(name: str, value: int | tuple[int, ...], schema: Attribute) -> list[str]:
    numbers = value if isinstance(value, tuple) else (value,)
    if schema.count is None:
        shaped, wanted = isinstance(value, tuple) and 1 <= len(value) <= 2 * MAX_RANK, f"1 to {2 * MAX_RANK} integers"
    elif schema.count == 1:
        shaped, wanted = not isinstance(value, tuple), "one integer"
    else:
        shaped, wanted = isinstance(value, tuple) and len(value) == schema.count, f"{schema.count} integers"
    problems = []
    if not shaped or any(not schema.lowest <= number <= schema.highest for number in numbers):
        wanted += f" in {schema.lowest}..{schema.highest}"
        problems.append(f"attribute {name!r} is {brief(value)}, required: {wanted}")
    elif name == "clamp" and value[0] > value[1]:
        problems.append(f"attribute 'clamp' is {value}, required: lowest <= highest")
    return problems


def _constant_problems(name: str, array: np.ndarray, schema: Constant) -> list[str]:
    problems = []
    if array.dtype.newbyteorder("=") != np.dtype(schema.dtype):
        problems.append(f"constant {name!r} is {array.dtype}, required: {schema.dtype}")
    if array.size == 0 or not (1 <= array.ndim <= MAX_RANK if schema.rank is None else array.ndim == schema.rank):
        rank = f"1 to {MAX_RANK}" if schema.rank is None else f"{schema.rank}"
        problems.append(f"constant {name!r} has shape {array.shape}, required: {rank} dimensions, none of them 0")
    elif schema.length is not None and array.shape != (schema.length,):
        problems.append(f"constant {name!r} has shape {array.shape}, required: ({schema.length},)")
    if problems:
        return problems
    if schema.lowest <= array.min() and array.max() <= schema.highest:
        return []
    outside = (array < schema.lowest) | (array > schema.highest)
    return [f"constant {name!r} holds {array[outside][0]}, required: {schema.lowest}..{schema.highest}"]


def brief(value: object) -> str:
    """A value for a message: its repr, cut where it is long (a hostile file chooses what it holds)."""
    text = f"an integer of {value.bit_length()} bits" if isinstance(value, int) and abs(value) >> 80 else ""
    if isinstance(value, tuple) and (len(value) > 8 or any(abs(part) >> 80 for part in value if isinstance(part, int))):
        text = f"a list of {len(value)}"
    text = text or repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def require_length(node: Node, length: int, *names: str) -> None:
    """FormatError unless each of the named one-dimensional constants holds `length` values, one per output channel."""
    for name in names:
        if len(node.constants[name]) != length:
            raise FormatError(f"constant {name!r} holds {len(node.constants[name])} values, required: {length}")


def keep_shape(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Shape, str]:
    """Shape rule of operators that work element by element: the first input's shape."""
    return inputs[0].shape, "int8"


def per_output(node: Node, inputs: tuple[Tensor, ...], shape: Shape) -> int:
    """Work of one step per element of the output."""
    return math.prod(shape)


def per_input(node: Node, inputs: tuple[Tensor, ...], shape: Shape) -> int:
    """Work of one step per element of the first input."""
    return math.prod(inputs[0].shape)


def per_weight(node: Node, inputs: tuple[Tensor, ...], shape: Shape) -> int:
    """Work of one step per weight and output pixel, channels being the last dimension."""
    return math.prod(shape[:-1]) * node.constants["weights"].size


# Schemas that several operators share.
CLAMP = Attribute(2, *INT8)
STRIDE = Attribute(2, 1, 1024)
DILATION = Attribute(2, 1, 1024)
PADDING = Attribute(4, 0, 1024)
GROUPS = Attribute(1, 1, 65536)
BIAS = Constant("int32", 1, -(2**31), 2**31 - 1, learned=True)
MULTIPLIER = Constant("int32", 1, 0, 2**31 - 1)  # below 2^30 too: fewer bits, but no right shift, hence one rounding
SHIFT = Constant("int32", 1, -31, 30)
ONE_MULTIPLIER = Constant("int32", 1, 0, 2**31 - 1, length=1)
ONE_SHIFT = Constant("int32", 1, -31, 30, length=1)
