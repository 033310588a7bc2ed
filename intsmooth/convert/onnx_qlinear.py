"""Operators that take and give integers: QLinearConv, QLinearMatMul and ONNX Runtime's (domain com.microsoft).

Each is a float operator between a DequantizeLinear and a QuantizeLinear, in one node.
"""

import math

import numpy as np

from intsmooth.convert.onnx_elementwise import combined, leaky, scale_and_zero, sigmoid, table
from intsmooth.convert.onnx_layers import bias_of, convolution, dense, weights_of
from intsmooth.convert.onnx_movement import joined_along
from intsmooth.convert.onnx_translation import Translation
from intsmooth.convert.onnx_values import Integer, Known, Pending, Target, View
from intsmooth.convert.onnx_windows import average, mean
from intsmooth.errors import FormatError, UnsupportedError


def _activation(t: Translation, name: str, scale_name: str, zero_name: str) -> Integer:
    found = scale_and_zero(t, scale_name, zero_name, t.unsigned(name))
    return t.integer(name, found.scale, found.zero_point, found.unsigned)


def _finish(t: Translation, pending: Pending, target: Target) -> None:
    t.values[t.output()] = t.quantized(pending, target, t.output())


def _integer_weights(t: Translation, name: str, scale_name: str, zero_name: str, axis: int):
    scales = t.known(scale_name, "weight scales")
    zeros = t.known(zero_name, "weight zero points", "iu") if zero_name else np.zeros(scales.shape, np.int8)
    if not (scales > 0).all():
        raise FormatError(f"{t.subject()} has a weight scale that is not positive")
    return weights_of(t, name, "weights", scales, zeros, axis)


def qlinear_conv(t: Translation) -> None:
    x_name, xs, xz, w, ws, wz, ys, yz, bias = t.inputs(8, 9)
    x = _activation(t, x_name, xs, xz)
    weights, scales = _integer_weights(t, w, ws, wz, 0)
    reals = bias_of(t, bias, weights.shape[0], x.scale * scales)
    _finish(t, convolution(t, x, weights, scales, reals), scale_and_zero(t, ys, yz, x.unsigned))


def qlinear_matmul(t: Translation) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, ys, yz = t.inputs(8)
    x = _activation(t, a, a_scale, a_zero)
    weights, scales = _integer_weights(t, b, b_scale, b_zero, 1)
    if weights.ndim != 2:
        raise UnsupportedError(f"a product with weights of shape {weights.shape}, supported: two dimensions")
    layer = dense(t, x, np.ascontiguousarray(weights.T), scales, np.zeros(weights.shape[1]))
    _finish(t, layer, scale_and_zero(t, ys, yz, x.unsigned))


def qgemm(t: Translation) -> None:
    """Without an output scale the result is float."""
    a, a_scale, a_zero, b, b_scale, b_zero, bias, ys, yz = t.inputs(6, 9)
    if t.attribute("transA", 0) or t.attribute("alpha", 1.0) != 1:
        raise UnsupportedError("transA, or alpha other than 1")
    turned = t.attribute("transB", 0)
    x = _activation(t, a, a_scale, a_zero)
    weights, scales = _integer_weights(t, b, b_scale, b_zero, 0 if turned else 1)
    if weights.ndim != 2:
        raise UnsupportedError(f"a product with weights of shape {weights.shape}, supported: two dimensions")
    weights = weights if turned else np.ascontiguousarray(weights.T)
    layer = dense(t, x, weights, scales, bias_of(t, bias, len(weights), x.scale * scales))
    if ys:
        _finish(t, layer, scale_and_zero(t, ys, yz, x.unsigned))
    else:
        t.values[t.output()] = layer


def _binary(op: str):
    def translate(t: Translation) -> None:
        a, a_scale, a_zero, b, b_scale, b_zero, ys, yz = t.inputs(8)
        if isinstance(t.value(a), Known) or isinstance(t.value(b), Known):
            raise UnsupportedError("a constant operand")
        operands = (_activation(t, a, a_scale, a_zero), _activation(t, b, b_scale, b_zero))
        _finish(t, combined(t, op, *operands), scale_and_zero(t, ys, yz, operands[0].unsigned))

    return translate


def _pool(t: Translation, global_: bool) -> None:
    source, xs, xz, ys, yz = t.inputs(4, 5)
    if t.attribute("channels_last", 0):
        raise UnsupportedError("channels_last")
    x = _activation(t, source, xs, xz)
    pending = mean(t, x, (x.shape[0], 1, 1)) if global_ else average(t, x)
    _finish(t, pending, scale_and_zero(t, ys, yz, x.unsigned))


def qlinear_average_pool(t: Translation) -> None:
    _pool(t, False)


def qlinear_global_average_pool(t: Translation) -> None:
    _pool(t, True)


def qlinear_concat(t: Translation) -> None:
    names = t.inputs(5, max(5, len(t.node.inputs)))
    if (len(names) - 2) % 3:
        raise FormatError(f"{t.subject()} has {len(names)} inputs, required: 2 and 3 for each part")
    target = scale_and_zero(t, *names[:2], t.unsigned(names[2]))
    parts = []
    for i in range(2, len(names), 3):
        x = _activation(t, *names[i : i + 3])
        plain = Target(target.scale, target.zero_point)
        parts.append(t.quantized(View(x), plain, None))
    rank = len(parts[0].shape) + 1
    axis = t.attribute("axis", 0)
    axis += rank * (axis < 0) - 1
    if axis < 0:
        raise UnsupportedError("parts along the batch")
    shape = tuple(sum(p.shape[i] for p in parts) if i == axis else n for i, n in enumerate(parts[0].shape))
    _finish(t, Pending(shape, lambda t, wanted: joined_along(t, axis, parts, wanted)), target)


def _table(t: Translation, function) -> None:
    source, xs, xz, ys, yz = t.inputs(4, 5)
    x = _activation(t, source, xs, xz)
    _finish(t, table(t, x, function), scale_and_zero(t, ys, yz, x.unsigned))


def qlinear_sigmoid(t: Translation) -> None:
    _table(t, sigmoid)


def qlinear_leaky_relu(t: Translation) -> None:
    _table(t, leaky(t.attribute("alpha", 0.01)))


def qlinear_softmax(t: Translation) -> None:
    """Only at the end, where it changes no decision."""
    source, *_ = t.inputs(4, 5)
    if math.prod(t.shape(source)) != t.shape(source)[-1]:
        raise UnsupportedError("a softmax of more than one vector")
    t.note("dropped", "a softmax keeps the order of the scores")
    t.pass_on(source)


_MICROSOFT = {
    "QLinearAdd": _binary("add"), "QLinearMul": _binary("mul"), "QGemm": qgemm,
    "QLinearAveragePool": qlinear_average_pool, "QLinearGlobalAveragePool": qlinear_global_average_pool,
    "QLinearConcat": qlinear_concat, "QLinearSigmoid": qlinear_sigmoid, "QLinearLeakyRelu": qlinear_leaky_relu,
    "QLinearSoftmax": qlinear_softmax,
}  # fmt: skip
TRANSLATORS = {"QLinearConv": qlinear_conv, "QLinearMatMul": qlinear_matmul} | {
    f"com.microsoft.{name}": translate for name, translate in _MICROSOFT.items()
}
