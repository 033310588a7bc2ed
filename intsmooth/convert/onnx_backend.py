"""ONNX's integer operators on this package's arithmetic, as a backend for ONNX's own tests (`onnx.backend.test`).

A model of one operator is run: QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger, QuantizeLinear or
DequantizeLinear on int8 and uint8. Products and sums are those of the naive twins, on int8 with uint8 less 128.

ONNX rescales accumulators by a real factor, the product of float scales, and rounds half to even; the package rescales
by (multiplier, shift) and rounds half up, once where no right shift is needed. The two differ by 1 on ties, and where a
value is so close to one that the multiplier's bits decide. With rounding "onnx" (the default) accumulators are rescaled
by the exact rational number that the scales are, in integers, half to even; with rounding "package" they are rescaled
as in every model that the package runs. The tests hold the first to ONNX's results and show where the second differs.
"""

from fractions import Fraction

import numpy as np

from intsmooth.convert.onnx_file import OnnxNode, read_model
from intsmooth.convert.tflite_layers import same_padding
from intsmooth.errors import InputError, UnsupportedError
from intsmooth.fixedpoint import nearest_result_multiplier, quantize_multipliers
from intsmooth.reference.arithmetic import multiply_by_quantized_multiplier
from intsmooth.reference.convolution import conv2d_accumulators

ROUNDINGS = ("onnx", "package")
EXCLUDED = {  # why a test of ONNX's suite about these operators is left out, by a part of its name
    "e4m3": "8-bit floats are not this package's",
    "e5m2": "8-bit floats are not this package's",
    "float4": "4-bit floats are not this package's",
    "uint16": "16-bit activations are not this package's",
    "int16": "16-bit activations are not this package's",
    "int4": "4-bit integers are not this package's",
    "int2": "2-bit integers are not this package's",
    "blocked_symmetric": "16-bit activations are not this package's",
    "dynamicquantizelinear": "scales that are computed at run time are not this package's",
}


class Backend:
    """The interface of onnx.backend.base.Backend, as far as its test runner uses it; nothing is inherited."""

    rounding = "onnx"

    @classmethod
    def is_compatible(cls, model, device="CPU", **options) -> bool:
        """Whether the model is one of the operators above; the types are checked when it runs."""
        return all(node.op_type in OPERATORS and not node.domain for node in model.graph.node)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"

    @classmethod
    def prepare(cls, model, device="CPU", **options) -> "Prepared":
        return Prepared(model.SerializeToString(), cls.rounding)

    @classmethod
    def run_model(cls, model, inputs, device="CPU", **options) -> tuple[np.ndarray, ...]:
        return cls.prepare(model, device).run(inputs)


class Prepared:
    """One model; `run(inputs)` gives its outputs, inputs being arrays in the model's order."""

    def __init__(self, content: bytes, rounding: str = "onnx"):
        if rounding not in ROUNDINGS:
            raise InputError(f"rounding is {rounding!r}; required: one of {', '.join(ROUNDINGS)}")
        self.model, self.rounding = read_model(content), rounding
        unknown = sorted({node.op for node in self.model.nodes} - OPERATORS.keys())
        if unknown:
            raise UnsupportedError(f"operators that this backend does not run: {', '.join(unknown)}")

    def run(self, inputs, **options) -> tuple[np.ndarray, ...]:
        """Arrays in, arrays out, as the model declares them."""
        values = dict(self.model.constants)
        values.update(zip(self.model.inputs, (np.asarray(array) for array in inputs), strict=True))
        for node in self.model.nodes:
            given = [values[name] if name else None for name in node.inputs]
            values[node.outputs[0]] = OPERATORS[node.op](self, node, *given)
        return tuple(values[name] for name in self.model.outputs)

    # Integers

    def rescale(self, accumulators: np.ndarray, factors: list[Fraction]) -> np.ndarray:
        """int32 accumulators by one factor, or by one per slice along the last axis."""
        if self.rounding == "package":
            multiplier, shift = quantize_multipliers(factors, nearest_result_multiplier)
            return multiply_by_quantized_multiplier(accumulators, multiplier, shift).astype(np.int64)
        shape = accumulators.shape[-1:] if len(factors) > 1 else (1,)
        tops = np.array([factor.numerator for factor in factors], object).reshape(shape)
        bottoms = np.array([factor.denominator for factor in factors], object).reshape(shape)
        products = accumulators.astype(object) * tops
        down = products // bottoms
        twice = 2 * (products - down * bottoms)  # 2 * remainder, against the denominator
        up = (twice > bottoms) | ((twice == bottoms) & (down % 2 == 1))
        return (down + up).astype(np.int64)

    def finish(self, accumulators, factors, zero_point) -> np.ndarray:
        limits = np.iinfo(zero_point.dtype)
        values = self.rescale(accumulators, factors) + int(zero_point.item())
        return np.clip(values, limits.min, limits.max).astype(zero_point.dtype)

    def qlinear_conv(self, node, x, xs, xz, w, ws, wz, ys, yz, bias=None):
        accumulators = _convolution(node, x, xz, w, wz)
        if bias is not None:
            accumulators = accumulators + bias.astype(np.int32)
        result = self.finish(accumulators, _factors(xs, ws, ys), yz)
        return np.moveaxis(result, -1, 1)

    def conv_integer(self, node, x, w, xz=None, wz=None):
        return np.moveaxis(_convolution(node, x, xz, w, wz), -1, 1)

    def qlinear_matmul(self, node, a, a_scale, az, b, b_scale, bz, ys, yz):
        return self.finish(_product(a, az, b, bz), _factors(a_scale, b_scale, ys), yz)

    def matmul_integer(self, node, a, b, az=None, bz=None):
        return _product(a, az, b, bz)

    # Between reals and integers: float arithmetic by definition

    def quantize_linear(self, node, x, scale, zero_point=None):
        if zero_point is None:
            types = {0: np.uint8, 2: np.uint8, 3: np.int8}
            wanted = node.attributes.get("output_dtype", 0)
            if wanted not in types:
                raise UnsupportedError(f"integers of type number {wanted}, supported: int8 and uint8")
            zero_point = np.zeros(scale.shape, types[wanted])
        _require_bytes(zero_point)
        scale, zero = (_along(array, x, node) for array in (scale, zero_point))
        limits = np.iinfo(zero_point.dtype)
        return np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(zero_point.dtype)

    def dequantize_linear(self, node, x, scale, zero_point=None):
        _require_bytes(x)
        zero = 0 if zero_point is None else _along(zero_point, x, node).astype(np.int32)
        return ((x.astype(np.int32) - zero) * _along(scale, x, node)).astype(scale.dtype)


def _require_bytes(array: np.ndarray) -> None:
    if array.dtype not in (np.int8, np.uint8):
        raise UnsupportedError(f"integers of type {array.dtype}, supported: int8 and uint8")


def _along(array: np.ndarray, like: np.ndarray, node: OnnxNode) -> np.ndarray:
    """One number, or one per slice (with block_size: per block) of `like` along the node's axis, so that it broadcasts."""
    axis, block = node.attributes.get("axis", 1), node.attributes.get("block_size", 0)
    if block:
        return np.repeat(array, block, axis).take(range(like.shape[axis]), axis)
    if array.size == 1:
        return array.reshape(())
    shape = [1] * like.ndim
    shape[axis] = array.size
    return array.reshape(shape)


def _int8(array: np.ndarray, zero_point: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """int8 values and int zero points: those of uint8 less 128."""
    _require_bytes(array)
    offset = 128 if array.dtype == np.uint8 else 0
    zero = np.zeros(1, np.int32) if zero_point is None else np.atleast_1d(zero_point).astype(np.int32)
    return (array.astype(np.int16) - offset).astype(np.int8), zero - offset


def _factors(input_scale, weight_scale, output_scale) -> list[Fraction]:
    """The exact rational factors that accumulators are rescaled by."""
    top, bottom = Fraction(float(input_scale.item())), Fraction(float(output_scale.item()))
    return [top * Fraction(float(scale)) / bottom for scale in np.ravel(weight_scale)]


def _convolution(node: OnnxNode, x, x_zero, w, w_zero) -> np.ndarray:
    """int32 (N, OH, OW, O) of sum (x - zx)(w - zw), as sum (x - zx) w less zw sum (x - zx): int8 weights in both."""
    if x.ndim != 4:
        raise UnsupportedError(f"a convolution of an input of shape {x.shape}, supported: 4 dimensions")
    (x, zero), (w, w_zero) = _int8(x, x_zero), _int8(w, w_zero)
    attributes, kernel = node.attributes, w.shape[2:]
    stride, dilation = attributes.get("strides", (1, 1)), attributes.get("dilations", (1, 1))
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    automatic = attributes.get("auto_pad", "NOTSET")
    if automatic.startswith("SAME"):
        flip = -1 if automatic == "SAME_LOWER" else 1
        (top, bottom), (left, right) = (
            same_padding(*sizes)[::flip] for sizes in zip(x.shape[2:], kernel, stride, dilation, strict=True)
        )
    geometry = {"input_zero_point": int(zero.item()), "stride": stride, "dilation": dilation,
                "padding": (top, bottom, left, right), "groups": attributes.get("group", 1)}  # fmt: skip
    images, weights = np.moveaxis(x, 1, -1), w.transpose(0, 2, 3, 1)
    none = np.zeros(len(w), np.int32)
    sums = conv2d_accumulators(images, np.ones_like(weights), none, **geometry)
    return conv2d_accumulators(images, weights, none, **geometry) - w_zero * sums


def _product(a, a_zero, b, b_zero) -> np.ndarray:
    """int32 of (a - za) @ (b - zb); zero points of b per column, those of a per row."""
    (a, za), (b, zb) = _int8(a, a_zero), _int8(b, b_zero)
    za = za[:, np.newaxis] if za.size > 1 else za
    return np.matmul(a.astype(np.int32) - za, b.astype(np.int32) - zb)


OPERATORS = {
    "QLinearConv": Prepared.qlinear_conv,
    "QLinearMatMul": Prepared.qlinear_matmul,
    "ConvInteger": Prepared.conv_integer,
    "MatMulInteger": Prepared.matmul_integer,
    "QuantizeLinear": Prepared.quantize_linear,
    "DequantizeLinear": Prepared.dequantize_linear,
}
