"""Constants, and the operators that compute shapes from them: known at conversion time, none of them is left to run."""

import math

import numpy as np

from intsmooth.convert.onnx_translation import Translation, checked_size
from intsmooth.convert.onnx_values import Integer, Known
from intsmooth.errors import UnsupportedError


def constant(t: Translation) -> None:
    names = ("value", "value_float", "value_int", "value_floats", "value_ints")
    found = next((t.node.attributes[name] for name in names if name in t.node.attributes), None)
    if found is None or isinstance(found, str):
        raise UnsupportedError("a constant that is no array of numbers")
    array = found if isinstance(found, np.ndarray) else np.array(found)
    numbers = not isinstance(found, np.ndarray) and array.dtype.kind == "f"
    t.values[t.output()] = Known(array.astype(np.float32) if numbers else array)


def shape_of(t: Translation) -> None:
    (source,) = t.inputs(1)
    full = (t.batch, *t.shape(source))
    t.values[t.output()] = Known(np.array(full[t.attribute("start", 0) : t.attribute("end", len(full))], np.int64))


def gather(t: Translation) -> None:
    source, index = t.inputs(2)
    vector, index = t.known(source, "the gathered vector", "iu"), t.known(index, "the index", "iu")
    if vector.ndim != 1 or index.size > 64 or t.attribute("axis", 0) != 0 or (np.abs(index) > len(vector)).any():
        raise UnsupportedError("gathers from anything but a short vector of sizes")
    t.values[t.output()] = Known(np.take(vector, index.astype(np.int64), mode="wrap"))


def constant_of_shape(t: Translation) -> None:
    """PyTorch writes the zero points of a bias, one per channel, this way."""
    (source,) = t.inputs(1)
    shape = t.integers(source, "the shape")
    value = t.attribute("value", np.zeros(1, np.float32))
    if value.size != 1 or len(shape) > 4:
        raise UnsupportedError(f"{value.size} values in shape {shape}, supported: one value, up to 4 dimensions")
    t.charge(math.prod(checked_size(shape)) * value.itemsize)
    t.values[t.output()] = Known(np.full(shape, value.item(), value.dtype))


def cast(t: Translation) -> None:
    """Of constants; of quantized activations to the type that they have, which PyTorch writes behind QuantizeLinear."""
    (source,) = t.inputs(1)
    types, wanted = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64}, t.attribute("to", 0)
    value = t.value(source)
    if isinstance(value, Integer) and types.get(wanted) == (np.uint8 if value.unsigned else np.int8):
        t.values[t.output()] = value
        return
    array = t.known(source, "a constant", "iuf")
    if wanted not in types:
        raise UnsupportedError(f"a cast to type {wanted}")
    t.values[t.output()] = Known(array.astype(types[wanted]))


TRANSLATORS = {
    "Constant": constant, "Shape": shape_of, "Gather": gather, "Cast": cast, "ConstantOfShape": constant_of_shape,
}  # fmt: skip
