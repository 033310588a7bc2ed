"""Element-wise operators, softmax and tables: how TensorFlow Lite's are expressed in those of weights/FORMAT.md."""

import math

import numpy as np

from intsmooth.convert import tflite_parameters as parameters
from intsmooth.convert.tflite_translation import Translation
from intsmooth.errors import FormatError, UnsupportedError

INT8_RANGE = (-128, 127)


def _binary(t: Translation, op: str) -> None:
    """ADD, SUB and MUL; the larger operand comes first, a constant one second or expanded."""
    first, second = t.inputs(2)
    target = t.output()
    shape = t.shape(target)
    if t.is_constant(first) and t.is_constant(second):
        raise UnsupportedError("two constant operands")
    smaller_first = t.is_constant(first) or (not t.is_constant(second) and t.shape(first) != shape)
    if smaller_first and op != "sub":
        first, second = second, first
        t.note("re-expressed", "the operands are exchanged, which changes no result")
    elif smaller_first and not t.is_constant(first):
        raise UnsupportedError("the first operand of a subtraction is broadcast")
    (a_scale, _), (b_scale, _), (y_scale, _) = (t.quantization(index) for index in (first, second, target))
    derive = parameters.product_parameters if op == "mul" else parameters.sum_parameters
    multiplier, shift = derive(a_scale, b_scale, y_scale)
    attributes = {"clamp": t.clamp(target)} | ({} if op == "mul" else {"left_shift": parameters.SUM_LEFT_SHIFT})
    names = [_operand(t, index, shape, whole=position == 0) for position, index in enumerate((first, second))]
    t.emit(op, names, target, attributes, {"multiplier": multiplier, "shift": shift})


def _operand(t: Translation, index: int, shape: tuple[int, ...], *, whole: bool) -> str:
    """The name of an operand. A constant is expanded to all channels, with `whole` to the full shape."""
    if not t.is_constant(index):
        return t.read(index)
    value = t.constant(index, "int8", "operand")
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = value[0]
    value = value.reshape((1,) * (value.ndim == 0) + value.shape)
    wanted = shape if whole else (*value.shape[:-1], shape[-1])
    try:
        np.broadcast_shapes(wanted, shape)
        t.charge(math.prod(wanted))
        expanded = np.broadcast_to(value, wanted)
    except ValueError:
        raise UnsupportedError(f"a constant operand of shape {value.shape} for a result of shape {shape}") from None
    return t.constant_node(index, expanded)


def add(t: Translation) -> None:
    _binary(t, "add")


def sub(t: Translation) -> None:
    _binary(t, "sub")


def mul(t: Translation) -> None:
    _binary(t, "mul")


def quantize(t: Translation) -> None:
    (source,) = t.inputs(1)
    target = t.output()
    if t.source(source).dtype == "float32":
        if source not in t.model.inputs:
            raise UnsupportedError("quantizes a float tensor inside the network")
        raise FormatError(f"{t.subject()} quantizes the network's input a second time")
    (x_scale, x_zero), (y_scale, y_zero) = (t.quantization(index, unsigned=True) for index in (source, target))
    if (x_scale, x_zero) == (y_scale, y_zero):
        t.alias(target, source, "equal scales and zero points: nothing to do")
        return
    multiplier, shift = parameters.requantize_parameters(x_scale, y_scale)
    constants = {"multiplier": multiplier, "shift": shift}
    t.emit("requantize", [t.read(source)], target, {"clamp": INT8_RANGE}, constants)


def _rectify(t: Translation, activation: str) -> None:
    (source,) = t.inputs(1)
    target = t.output()
    (x_scale, x_zero), (y_scale, y_zero) = t.quantization(source), t.quantization(target)
    clamp = parameters.activation_clamp(activation, y_scale, y_zero)
    if (x_scale, x_zero) == (y_scale, y_zero):
        t.emit("clamp", [t.read(source)], target, {"clamp": clamp})
    elif activation == "relu":
        multiplier, shift = parameters.requantize_parameters(x_scale, y_scale)
        t.emit("requantize", [t.read(source)], target, {"clamp": clamp}, {"multiplier": multiplier, "shift": shift})
    else:  # the reference kernel clamps and ignores the output's quantization
        raise UnsupportedError("different scales or zero points of input and output")


def relu(t: Translation) -> None:
    _rectify(t, "relu")


def relu6(t: Translation) -> None:
    _rectify(t, "relu6")


def _table(t: Translation, derive, scale: float, zero_point: int) -> None:
    (source,) = t.inputs(1)
    target = t.output()
    if t.quantization(target) != (np.float32(scale), zero_point):
        raise UnsupportedError(f"an output of other scale or zero point than {scale} and {zero_point}")
    t.emit("lookup", [t.read(source)], target, {}, {"table": derive(*t.quantization(source))})


def logistic(t: Translation) -> None:
    _table(t, parameters.logistic_table, 1 / 256, -128)


def tanh(t: Translation) -> None:
    _table(t, parameters.tanh_table, 1 / 128, 0)


def softmax(t: Translation) -> None:
    (source,) = t.inputs(1)
    target = t.output()
    if source in t.floats:
        if math.prod(t.shape(source)) != t.shape(source)[-1]:
            raise UnsupportedError(f"a float softmax of shape {t.shape(source)}, supported: of one vector")
        t.alias(target, source, "a float softmax keeps the order of the scores", kind="dropped")
        t.floats.add(target)
        return
    if t.quantization(target) != (np.float32(1 / 256), -128):
        raise UnsupportedError("a softmax output of other scale or zero point than 1/256 and -128")
    multiplier, shift, diff_min = parameters.softmax_parameters(t.quantization(source)[0], t.operator.options["Beta"])
    t.emit("softmax", [t.read(source)], target, {"diff_min": diff_min}, {"multiplier": multiplier, "shift": shift})


TRANSLATORS = {
    "ADD": add,
    "SUB": sub,
    "MUL": mul,
    "QUANTIZE": quantize,
    "RELU": relu,
    "RELU6": relu6,
    "LOGISTIC": logistic,
    "TANH": tanh,
    "SOFTMAX": softmax,
}
