"""Quantization, sums, products, clips and unary functions: how ONNX's become operators of weights/FORMAT.md."""

import math
from fractions import Fraction

import numpy as np

from intsmooth.convert import tflite_parameters as parameters
from intsmooth.convert.onnx_layers import affine, joined
from intsmooth.convert.onnx_layout import as_image, as_plain
from intsmooth.convert.onnx_translation import FULL, Translation
from intsmooth.convert.onnx_values import Integer, Known, Pending, Source, Target, View
from intsmooth.errors import FormatError, UnsupportedError

QUANTIZED = (np.int8, np.uint8)


# ONNX's numbers of types (TensorProto.DataType); 0 leaves the choice to the operator, which is uint8
_OUTPUT_DTYPES = {0: np.uint8, 2: np.uint8, 3: np.int8}


def scale_and_zero(t: Translation, scale_name: str, zero_name: str, unsigned: bool) -> Target:
    """One scale and one zero point, int8 or uint8, of an activation; without a zero point it is 0, of the type stated."""
    scale = t.known(scale_name, "scale")
    zero = t.known(zero_name, "zero point", "iu") if zero_name else np.zeros((), np.uint8 if unsigned else np.int8)
    if scale.size != 1 or zero.size != 1:
        raise UnsupportedError(f"an activation with {scale.size} scales and {zero.size} zero points, supported: one")
    if zero.dtype not in QUANTIZED:
        raise UnsupportedError(f"an activation of {zero.dtype}, supported: int8 and uint8")
    value = float(scale.item())
    if not value > 0:
        raise FormatError(f"{t.subject()} has scale {value:g}, required: a positive number")
    unsigned = zero.dtype == np.uint8
    return Target(value, int(zero.item()) - 128 * unsigned, FULL, unsigned)


def quantize_linear(t: Translation) -> None:
    source, scale_name, zero_name = t.inputs(2, 3)
    value = t.value(source)
    if isinstance(value, Known):
        raise UnsupportedError("quantizes a constant at run time, supported: constants stored as integers")
    if isinstance(value, Integer):
        raise UnsupportedError("quantizes an integer tensor")
    dtype = t.attribute("output_dtype", 0)
    if dtype not in _OUTPUT_DTYPES:
        raise UnsupportedError(f"quantizes to type {dtype}, supported: int8 and uint8")
    target = scale_and_zero(t, scale_name, zero_name, _OUTPUT_DTYPES[dtype] == np.uint8)
    if dtype and target.unsigned != (_OUTPUT_DTYPES[dtype] == np.uint8):
        raise FormatError(f"{t.subject()} has output_dtype {dtype} and a zero point of another type")
    if source in t.beyond:
        t.pass_on(source)
        return
    t.values[t.output()] = t.quantized(value, target, t.output())


def dequantize_linear(t: Translation) -> None:
    source, scale_name, zero_name = t.inputs(2, 3)
    value = t.value(source)
    if isinstance(value, Known):
        t.values[t.output()] = _known_reals(t, source, scale_name, zero_name)
        return
    if source in t.beyond:
        t.pass_on(source)
        return
    target = scale_and_zero(t, scale_name, zero_name, t.unsigned(source))
    t.values[t.output()] = View(t.integer(source, target.scale, target.zero_point, target.unsigned))


def _known_reals(t: Translation, source: str, scale_name: str, zero_name: str) -> Known:
    """A dequantized constant, with the integers kept."""
    integers, scales = t.known(source, "a dequantized constant", "iu"), t.known(scale_name, "scale")
    zeros = t.known(zero_name, "zero point", "iu") if zero_name else np.zeros(scales.shape, integers.dtype)
    axis = t.attribute("axis", 1)
    if t.attribute("block_size", 0) or scales.ndim > 1 or zeros.size != scales.size:
        raise UnsupportedError("scales of blocks, supported: one scale, or one per slice along an axis")
    shape = [1] * integers.ndim
    if scales.size > 1:
        if not -integers.ndim <= axis < integers.ndim or integers.shape[axis] != scales.size:
            raise FormatError(f"{t.subject()} has {scales.size} scales along axis {axis} of shape {integers.shape}")
        shape[axis] = scales.size
    if not (scales > 0).all():
        raise FormatError(f"{t.subject()} has a scale that is not positive")
    t.charge(16 * integers.size)
    centred = integers.astype(np.float64) - zeros.astype(np.float64).reshape(shape)
    reals = centred * scales.astype(np.float64).reshape(shape)
    return Known(reals, integers, scales.ravel(), zeros.ravel(), axis)


def _per_channel(constant: np.ndarray, shape) -> np.ndarray | None:
    """A constant operand as one number per channel (or one for all), None where it varies within a channel."""
    padded = constant.reshape((1,) * max(0, len(shape) + 1 - constant.ndim) + constant.shape)
    if padded.ndim != len(shape) + 1 or any(size != 1 for i, size in enumerate(padded.shape) if i != 1):
        return None
    return padded.ravel().astype(np.float64) if padded.shape[1] in (1, shape[0]) else None


def _operands(t: Translation) -> tuple[str, str, np.ndarray | None, bool]:
    """(activation, other, the other's value where it is constant, whether they were exchanged)."""
    first, second = t.inputs(2)
    known = [isinstance(t.value(name), Known) for name in (first, second)]
    if all(known):
        raise UnsupportedError("two constant operands")
    if known[0]:
        first, second = second, first
    constant = t.known(second, "operand") if any(known) else None
    return first, second, constant, known[0]


def _with_constant(t: Translation, name: str, constant: np.ndarray, factor_of, offset_of) -> None:
    numbers = _per_channel(constant, t.shape(name))
    if numbers is None:
        raise UnsupportedError(f"a constant operand of shape {constant.shape}, supported: one number per channel")
    affine(t, name, factor_of(numbers), offset_of(numbers))


def _ones(numbers):
    return np.ones_like(numbers)


def _zeros(numbers):
    return np.zeros_like(numbers)


def add(t: Translation) -> None:
    first, second, constant, _ = _operands(t)
    if constant is not None:
        _with_constant(t, first, constant, _ones, lambda numbers: numbers)
        return
    for name, other in ((first, second), (second, first)):
        fused = joined(t, t.settle(name), other) if first != second else None
        if fused is not None:
            t.values[t.output()] = fused
            return
    t.values[t.output()] = combined(t, "add", t.real(first), t.real(second))


def sub(t: Translation) -> None:
    first, second, constant, exchanged = _operands(t)
    if constant is None:
        t.values[t.output()] = combined(t, "sub", t.real(first), t.real(second))
    elif exchanged:
        _with_constant(t, first, constant, lambda numbers: -np.ones_like(numbers), lambda numbers: numbers)
    else:
        _with_constant(t, first, constant, _ones, np.negative)


def mul(t: Translation) -> None:
    first, second, constant, _ = _operands(t)
    if constant is None:
        t.values[t.output()] = combined(t, "mul", t.real(first), t.real(second))
    else:
        _with_constant(t, first, constant, lambda numbers: numbers, _zeros)


def div(t: Translation) -> None:
    first, _, constant, exchanged = _operands(t)
    if constant is None or exchanged or not constant.all():
        raise UnsupportedError("a division by anything but constants that are not 0")
    _with_constant(t, first, constant, lambda numbers: 1 / numbers, _zeros)


def combined(t: Translation, op: str, a: Integer, b: Integer) -> Pending:
    """A sum, difference or product of two activations; the second may broadcast to the first."""
    if op != "sub" and math.prod(a.shape) < math.prod(b.shape):
        a, b = b, a
    if np.broadcast_shapes(a.shape, b.shape) != a.shape:
        raise UnsupportedError(f"operands of shapes {a.shape} and {b.shape}, supported: one has the result's shape")
    if len(a.shape) == 3:
        b3 = b if len(b.shape) == 3 else None
        if b3 is None:
            raise UnsupportedError(f"operands of shapes {a.shape} and {b.shape}, supported: equal ranks")

    def emit(t, target):
        if op == "mul":
            constants = t.rescale([Fraction(a.scale) * Fraction(b.scale) / Fraction(target.scale)])
            attributes = {"clamp": target.clamp}
        else:
            multiplier, shift = parameters.sum_parameters(a.scale, b.scale, target.scale)
            constants = {"multiplier": multiplier, "shift": shift}
            attributes = {"clamp": target.clamp, "left_shift": parameters.SUM_LEFT_SHIFT}
        if len(a.shape) == 3:
            names = [as_image(t, a), as_image(t, b)]
            place = dict(shape=a.shape, image=a.shape, ours=(*a.shape[1:], a.shape[0]))
        else:
            names = [as_plain(t, a), as_plain(t, b)]
            place = dict(shape=a.shape, image=None, ours=a.shape)
        return t.emit(op, names, a, target, attributes, constants, **place)

    return Pending(a.shape, emit)


def _clip(t: Translation, source: str, low: float | None, high: float | None) -> None:
    value = t.settle(source)
    if isinstance(value, Source):
        value = View(t.real(source))
    if isinstance(value, View):
        x = value.integer
        clipped = Pending(x.shape, lambda t, target: t.requantized(x, target)).clipped(low, high)
        if t.chooser is not None:  # with the input's own scale nothing is rounded
            clipped = View(t.quantized(clipped, Target(x.scale, x.zero_point), t.output()))
    elif isinstance(value, Pending):
        clipped = value.clipped(low, high)
    else:
        raise UnsupportedError("an input that is no float activation")
    t.values[t.output()] = clipped


def relu(t: Translation) -> None:
    (source,) = t.inputs(1)
    _clip(t, source, 0.0, None)


def clip(t: Translation) -> None:
    source, low, high = t.inputs(1, 3)
    bounds = [float(t.known(name, "a bound").item()) if name and t.known(name, "a bound").size == 1 else None
              for name in (low, high)]  # fmt: skip
    bounds[0] = t.node.attributes.get("min", bounds[0])
    bounds[1] = t.node.attributes.get("max", bounds[1])
    if any(bound is not None and not (isinstance(bound, float) and math.isfinite(bound)) for bound in bounds):
        raise UnsupportedError(f"bounds {bounds}")
    _clip(t, source, *bounds)


def table(t: Translation, x: Integer, function) -> Pending:
    """A function of one variable: 256 entries, computed once in double precision."""

    def emit(t, target):
        reals = x.scale * (np.arange(-128, 128, dtype=np.float64) - x.zero_point)
        entries = np.rint(function(reals) / target.scale) + target.zero_point
        return t.emit("lookup", [x.name], x, target, {}, {"table": np.clip(entries, *target.clamp).astype(np.int8)})

    return Pending(x.shape, emit)


def sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


def leaky(slope):
    return lambda x: np.where(x < 0, slope * x, x)


def hard_sigmoid(alpha, beta):
    return lambda x: np.clip(alpha * x + beta, 0, 1)


def _function_of(t: Translation):
    op = t.node.op
    if op == "LeakyRelu":
        return leaky(t.attribute("alpha", 0.01))
    if op == "Elu":
        alpha = t.attribute("alpha", 1.0)
        return lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)
    if op == "HardSigmoid":
        return hard_sigmoid(t.attribute("alpha", 0.2), t.attribute("beta", 0.5))
    if op == "HardSwish":
        return lambda x: x * np.clip(x / 6 + 0.5, 0, 1)
    return {"Sigmoid": sigmoid, "Tanh": np.tanh}[op]


def unary(t: Translation) -> None:
    (source,) = t.inputs(1)
    t.values[t.output()] = table(t, t.real(source), _function_of(t))


def softmax(t: Translation) -> None:
    """Only at the end, where it changes no decision."""
    (source,) = t.inputs(1)
    shape = (0, *t.shape(source))  # as ONNX counts axes, the batch being 0
    axis = t.attribute("axis", -1 if t.model.opset >= 13 else 1)
    axis += len(shape) * (axis < 0)
    apart = shape[1:axis] + (shape[axis + 1 :] if t.model.opset >= 13 else ())  # before 13, over all axes from this one on
    if not 1 <= axis < len(shape) or math.prod(apart) != 1:
        raise UnsupportedError(f"a softmax along axis {axis} of shape {('batch', *shape[1:])}, supported: of one vector")
    t.note("dropped", "a softmax keeps the order of the scores")
    t.pass_on(source)


TRANSLATORS = {
    "QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear, "Add": add, "Sub": sub, "Mul": mul,
    "Div": div, "Relu": relu, "Clip": clip, "Softmax": softmax, "LogSoftmax": softmax,
} | dict.fromkeys(("Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "HardSwish"), unary)  # fmt: skip
