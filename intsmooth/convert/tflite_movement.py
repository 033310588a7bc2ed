"""Operators that move values, compute shapes or pick the class: their translation from TensorFlow Lite.

SHAPE, STRIDED_SLICE and PACK occur where a network computes the target of a reshape from its input's shape; all shapes
are fixed here, so their results are known and only checked.
"""

import math

import numpy as np

from intsmooth.convert.tflite_translation import Translation
from intsmooth.errors import FormatError, UnsupportedError


def reshape(t: Translation) -> None:
    source, shape_index = t.inputs(1, 2)
    target = t.output()
    if shape_index != -1:
        wanted, declared = t.integers(shape_index, "the new shape"), t.source(target).shape
        if len(wanted) != len(declared) or any(w not in (-1, d) for w, d in zip(wanted, declared, strict=True)):
            raise FormatError(f"{t.subject()} reshapes to {wanted}, its output tensor has shape {declared}")
    _moved(t, source, target)


def squeeze(t: Translation) -> None:
    (source,) = t.inputs(1)
    _moved(t, source, t.output())


def expand_dims(t: Translation) -> None:
    source, _ = t.inputs(2)
    _moved(t, source, t.output())


def _moved(t: Translation, source: int, target: int) -> None:
    """The same values in the same order, under the declared shape of the output."""
    t.same_quantization(source, target)
    if t.shape(source) == t.shape(target):
        t.alias(target, source, "the shape without the batch stays the same")
    else:
        t.emit("reshape", [t.read(source)], target, {"shape": t.shape(target)})


def transpose(t: Translation) -> None:
    source, order_index = t.inputs(2)
    target = t.output()
    t.same_quantization(source, target)
    order = t.integers(order_index, "the permutation")
    if sorted(order) != list(range(len(t.source(source).shape))):
        raise FormatError(f"{t.subject()} has permutation {order} for shape {t.source(source).shape}")
    if len(order) < 2 or order[0] != 0:
        raise UnsupportedError(f"permutation {order}, supported: those that leave the batch in front")
    t.emit("transpose", [t.read(source)], target, {"permutation": tuple(axis - 1 for axis in order[1:])})


def concatenation(t: Translation) -> None:
    sources = t.inputs(1, max(1, len(t.operator.inputs)))
    target = t.output()
    if -1 in sources:
        raise FormatError(f"{t.subject()} leaves out an input")
    if t.operator.options["FusedActivationFunction"] != 0:
        raise UnsupportedError("a fused activation")
    rank = len(t.source(target).shape)
    axis = t.operator.options["Axis"]
    axis += rank * (axis < 0)
    if not 1 <= axis < rank:
        raise UnsupportedError(f"axis {axis} of {rank}, supported: axes behind the batch")
    t.same_quantization(*sources, target)
    names = []
    for index in sources:
        if t.is_constant(index):
            names.append(t.constant_node(index, t.constant(index, "int8", "operand").reshape(t.shape(index))))
        else:
            names.append(t.read(index))
    t.emit("concat", names, target, {"axis": axis - 1})


def pad(t: Translation) -> None:
    """PAD fills with the zero point, PADV2 with a constant of its own."""
    source, padding_index, *value_index = t.inputs(2) if t.operator.code == "PAD" else t.inputs(3)
    target = t.output()
    t.same_quantization(source, target)
    value = t.quantization(target)[1]
    if value_index:
        t.same_quantization(value_index[0], target)
        value = int(t.constant(value_index[0], "int8", "the padded value").ravel()[0])
    padding = t.integers(padding_index, "the padding")
    if len(padding) != 2 * len(t.source(source).shape):
        raise FormatError(f"{t.subject()} has padding {padding} for shape {t.source(source).shape}")
    if any(padding[:2]) or len(padding) < 4:
        raise UnsupportedError(f"padding {padding}, supported: none of the batch")
    t.emit("pad", [t.read(source)], target, {"padding": tuple(padding[2:]), "value": value})


def dequantize(t: Translation) -> None:
    (source,) = t.inputs(1)
    target = t.output()
    if t.source(target).dtype != "float32" or t.is_constant(source):
        raise UnsupportedError("only the network's result, not a constant, may be dequantized, to float32")
    t.quantization(source, unsigned=True)
    t.alias(target, source, "float scores keep the order of the integers", kind="dropped")
    t.floats.add(target)


def arg_max(t: Translation) -> None:
    source, axis_index = t.inputs(2)
    target = t.output()
    shape = t.source(source).shape
    axis = t.integers(axis_index, "the axis")
    if len(axis) != 1 or not -len(shape) <= axis[0] < len(shape):
        raise FormatError(f"{t.subject()} has axis {axis} for shape {shape}")
    if math.prod(shape) != shape[axis[0]]:
        raise UnsupportedError(f"axis {axis[0]} of shape {shape}, supported: the only dimension that is not 1")
    if target not in t.model.outputs:
        raise UnsupportedError("an index that is not the network's result")
    t.produce(target, t.declare(target, 0, None, shape=(1,), dtype="int32"))
    t.node("argmax", [t.read(source)], t.read(target), origin_tensor=target)


def shape(t: Translation) -> None:
    (source,) = t.inputs(1)
    t.shape(source)
    t.know(t.output(), np.array(t.source(source).shape, dtype=np.int64))


def strided_slice(t: Translation) -> None:
    """Of a known vector: elements begin, begin + stride, ... before end; the masks of the schema for one axis."""
    source, begin_index, end_index, stride_index = t.inputs(4)
    vector = t.integers(source, "the sliced vector")
    options = t.operator.options
    begin, end, stride = (t.integers(i, "bounds of a slice") for i in (begin_index, end_index, stride_index))
    if not len(begin) == len(end) == len(stride) == 1 or options["EllipsisMask"] or options["NewAxisMask"]:
        raise UnsupportedError("slices of more than one axis")
    if stride[0] == 0:
        raise FormatError(f"{t.subject()} has stride 0")
    first = None if options["BeginMask"] & 1 else begin[0]
    if options["ShrinkAxisMask"] & 1:
        picked = vector[first or 0 :][:1]
    else:
        picked = vector[first : None if options["EndMask"] & 1 else end[0] : stride[0]]
    t.know(t.output(), np.array(picked, dtype=np.int64))


def pack(t: Translation) -> None:
    sources = t.inputs(1, max(1, len(t.operator.inputs)))
    if -1 in sources:
        raise FormatError(f"{t.subject()} leaves out an input")
    values = [t.integers(index, "a packed number") for index in sources]
    if any(len(value) != 1 for value in values) or t.operator.options["Axis"] not in (0, -1):
        raise UnsupportedError("packs more than single numbers")
    t.know(t.output(), np.array([value[0] for value in values], dtype=np.int64))


TRANSLATORS = {
    "RESHAPE": reshape,
    "SQUEEZE": squeeze,
    "EXPAND_DIMS": expand_dims,
    "TRANSPOSE": transpose,
    "CONCATENATION": concatenation,
    "PAD": pad,
    "PADV2": pad,
    "DEQUANTIZE": dequantize,
    "ARG_MAX": arg_max,
    "SHAPE": shape,
    "STRIDED_SLICE": strided_slice,
    "PACK": pack,
}
