"""Operators that only move int8 values: concat, pad, reshape, transpose, and constant, which brings in an array."""

from intsmooth.errors import FormatError
from intsmooth.ops.bounds import int8_only
from intsmooth.ops.geometry import elements
from intsmooth.ops.operator import INT8, MAX_RANK, Attribute, Constant, Operator, per_output
from intsmooth.records import Node, Tensor

_DIMENSION = Attribute(None, 1, 2**26)


def infer_concat(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """The sum of the lengths along the axis; all other dimensions are equal."""
    axis, first = node.attributes["axis"], inputs[0].shape
    if axis >= len(first):
        raise FormatError(f"axis {axis} of shape {first}, required: less than {len(first)}")
    for tensor in inputs[1:]:
        if len(tensor.shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(first, tensor.shape, strict=True)) if i != axis
        ):
            raise FormatError(f"inputs of shapes {first} and {tensor.shape} differ in more than axis {axis}")
    return (*first[:axis], sum(tensor.shape[axis] for tensor in inputs), *first[axis + 1 :]), "int8"


def infer_pad(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """Every dimension with (before, after) added."""
    padding, shape = node.attributes["padding"], inputs[0].shape
    if len(padding) != 2 * len(shape):
        raise FormatError(f"padding holds {len(padding)} numbers, required: 2 for each dimension of shape {shape}")
    return tuple(size + padding[2 * i] + padding[2 * i + 1] for i, size in enumerate(shape)), "int8"


def infer_reshape(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """The attribute `shape`, of as many elements as the input."""
    shape = node.attributes["shape"]
    if elements(shape) != elements(inputs[0].shape) or len(shape) > MAX_RANK:
        raise FormatError(
            f"shape {shape} for an input of shape {inputs[0].shape}, required: as many elements, "
            f"at most {MAX_RANK} dimensions"
        )
    return shape, "int8"


def infer_transpose(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """Axis i of the output is axis permutation[i] of the input."""
    permutation, shape = node.attributes["permutation"], inputs[0].shape
    if sorted(permutation) != list(range(len(shape))):
        raise FormatError(f"permutation {permutation} for an input of shape {shape}, required: each axis once")
    return tuple(shape[axis] for axis in permutation), "int8"


def infer_constant(node: Node, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], str]:
    """The shape of the constant."""
    return node.constants["value"].shape, "int8"


def work_constant(node: Node, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> int:
    """Nothing is done per image."""
    return 0


CONCAT = Operator(
    "concat", (1, 256), infer_concat, int8_only, per_output, {"axis": Attribute(1, 0, MAX_RANK - 1)}, zero_point="same"
)
PAD = Operator(
    "pad",
    (1, 1),
    infer_pad,
    int8_only,
    per_output,
    {"padding": Attribute(None, 0, 65536), "value": Attribute(1, *INT8)},
    zero_point="same",
)
RESHAPE = Operator("reshape", (1, 1), infer_reshape, int8_only, per_output, {"shape": _DIMENSION}, zero_point="same")
TRANSPOSE = Operator(
    "transpose",
    (1, 1),
    infer_transpose,
    int8_only,
    per_output,
    {"permutation": Attribute(None, 0, MAX_RANK - 1)},
    zero_point="same",
)
CONSTANT = Operator(
    "constant",
    (0, 0),
    infer_constant,
    int8_only,
    work_constant,
    constants={"value": Constant("int8", None, *INT8, learned=True)},
)
