"""Networks of one operator and of a few, as .tflite files, for importers and fuzzers."""

import numpy as np
from tflite_builder import ModelBuilder, run_tflm

from intsmooth.convert import tflite
from intsmooth.reference import engine

X_SCALE, X_ZERO = np.float32(0.05), -7
Y_SCALE, Y_ZERO = np.float32(0.11), 20
SAME = {"scale": X_SCALE, "zero_point": X_ZERO}


class OneOperator:
    """A model around one operator: `x` is the network's int8 input, `y` makes the output."""

    def __init__(self, shape, scale=X_SCALE, zero_point=X_ZERO, dtype="int8"):
        self.model = ModelBuilder()
        self.shape, self.dtype = shape, dtype
        self.x = self.model.tensor(shape, dtype, scale=scale, zero_point=zero_point)
        self.result = None

    def constant(self, array, **quantization):
        return self.model.constant(array, **quantization)

    def y(self, code, inputs, shape, options=None, *, scale=Y_SCALE, zero_point=Y_ZERO, dtype="int8", **fields):
        quantization = {} if dtype in ("int32", "float32") else {"scale": scale, "zero_point": zero_point}
        self.result = self.model.tensor(shape, dtype, **quantization)
        self.model.operator(code, inputs, [self.result], options, **fields)
        return self.result

    def build(self):
        return self.model.build([self.x], [self.result])

    def check(self, seed=0):
        """Import, run on random input and on the ends of the range; compare. Returns the conversion."""
        content = self.build()
        conversion = tflite.load(content)
        rng = np.random.default_rng(seed)
        samples = rng.integers(0, 256, (4, *self.shape[1:]))
        samples[0] = np.where(samples[0] < 128, 0, 255)
        results = engine.run(conversion.graph, samples.astype(np.int16))[conversion.graph.output]
        for levels, result in zip(samples, results, strict=True):
            values = levels.astype(np.uint8) if self.dtype == "uint8" else (levels - 128).astype(np.int8)
            expected = run_tflm(content, values[np.newaxis])
            if expected.dtype == np.uint8:
                expected = (expected.astype(np.int16) - 128).astype(np.int8)
            np.testing.assert_array_equal(result.ravel(), expected.ravel(), strict=True)
        return conversion


def operators(conversion):
    return [node.op for node in conversion.graph.nodes]


def small_model():
    """Convolution, depthwise convolution, sum, pool, reshape, fully connected and softmax."""
    rng = np.random.default_rng(21)
    one = OneOperator((1, 6, 6, 2))
    model = one.model

    def weights(*shape):
        return one.constant(rng.integers(-127, 128, shape).astype(np.int8), scale=0.02)

    wide = model.tensor((1, 6, 6, 4), scale=0.1, zero_point=-128)
    bias = one.constant(rng.integers(-99, 99, 4).astype(np.int32), scale=0.001)
    model.operator("CONV_2D", [one.x, weights(4, 3, 3, 2), bias], [wide], "Conv2DOptions", StrideH=1, StrideW=1,
                   FusedActivationFunction=1)  # fmt: skip
    deep = model.tensor((1, 6, 6, 4), scale=0.1, zero_point=-100)
    model.operator("DEPTHWISE_CONV_2D", [wide, weights(1, 3, 3, 4), -1], [deep], "DepthwiseConv2DOptions", StrideH=1,
                   StrideW=1, DepthMultiplier=1)  # fmt: skip
    total = model.tensor((1, 6, 6, 4), scale=0.2, zero_point=3)
    model.operator("ADD", [wide, deep], [total], "AddOptions")
    pooled = model.tensor((1, 3, 3, 4), scale=0.2, zero_point=3)
    model.operator("MAX_POOL_2D", [total], [pooled], "Pool2DOptions", StrideH=2, StrideW=2, FilterHeight=2,
                   FilterWidth=2)  # fmt: skip
    flat = model.tensor((1, 36), scale=0.2, zero_point=3)
    target = one.constant(np.array([1, 36], np.int32))
    model.operator("RESHAPE", [pooled, target], [flat], "ReshapeOptions", NewShape=[1, 36])
    scores = model.tensor((1, 3), scale=0.2, zero_point=0)
    model.operator("FULLY_CONNECTED", [flat, weights(3, 36), -1], [scores], "FullyConnectedOptions")
    one.y("SOFTMAX", [scores], (1, 3), "SoftmaxOptions", Beta=1.0, scale=1 / 256, zero_point=-128)
    return one


def small_network():
    return small_model().build()


def moving_model():
    """Constants, shapes known ahead, padding, transposition, concatenation, requantization, argmax."""
    one = OneOperator((1, 3, 4))
    model = one.model
    shape = model.tensor((3,), "int32")
    model.operator("SHAPE", [one.x], [shape], "ShapeOptions")
    first = model.tensor((), "int32")
    bounds = [one.constant(np.array([value], np.int32)) for value in (0, 1, 1)]
    model.operator("STRIDED_SLICE", [shape, *bounds], [first], "StridedSliceOptions", ShrinkAxisMask=1)
    target = model.tensor((2,), "int32")
    model.operator("PACK", [first, one.constant(np.array(12, np.int32))], [target], "PackOptions", ValuesCount=2)
    padded, turned = model.tensor((1, 4, 4), **SAME), model.tensor((1, 4, 4), **SAME)
    borders = one.constant(np.array([[0, 0], [1, 0], [0, 0]], np.int32))
    model.operator("PAD", [one.x, borders], [padded], "PadOptions")
    order = one.constant(np.array([0, 2, 1], np.int32))
    model.operator("TRANSPOSE", [padded, order], [turned], "TransposeOptions")
    flat, joined = model.tensor((1, 12), **SAME), model.tensor((1, 16), **SAME)
    model.operator("RESHAPE", [one.x, target], [flat], "ReshapeOptions")
    extra = one.constant(np.arange(4, dtype=np.int8).reshape(1, 4), **SAME)
    model.operator("CONCATENATION", [flat, extra], [joined], "ConcatenationOptions", Axis=1)
    square = model.tensor((1, 16), **SAME)
    model.operator("RESHAPE", [turned, -1], [square], "ReshapeOptions", NewShape=[1, 16])
    product = model.tensor((1, 16), scale=0.3, zero_point=0)
    model.operator("MUL", [joined, square], [product], "MulOptions")
    coarse = model.tensor((1, 16), scale=0.5, zero_point=1)
    model.operator("QUANTIZE", [product], [coarse], "QuantizeOptions")
    axis = one.constant(np.array(1, np.int32))
    one.y("ARG_MAX", [coarse, axis], (1,), "ArgMaxOptions", dtype="int32", OutputType=2)
    return one


def moving_network():
    return moving_model().build()


def relu_network(inputs=None, output=None, **tensor):
    """One RELU with chosen indices."""
    model = ModelBuilder()
    x = model.tensor((1, 4), **({"scale": 0.1, "zero_point": 0} | tensor))
    y = model.tensor((1, 4), scale=0.1)
    model.operator("RELU", [x] if inputs is None else inputs, [y if output is None else output])
    return model, x, y
