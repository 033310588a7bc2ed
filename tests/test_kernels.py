"""Every compiled kernel against its naive twin, equal to the bit, on hypothesis-generated shapes and parameters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import IDENTITY, check, clamps, parameters, windows, zero_points

from intsmooth.engine import Engine
from intsmooth.graph import build_graph
from intsmooth.kernels import instruction
from intsmooth.plan import build_plan
from intsmooth.records import Node, Tensor


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), height=st.integers(1, 9), width=st.integers(1, 20), groups=st.integers(1, 3),
       depth=st.integers(1, 9), per_group=st.sampled_from([1, 2, 8, 15, 16, 17, 32, 33, 48, 64]), clamp=clamps, zero=zero_points,
       zero_out=zero_points, residual=st.booleans())
def test_conv2d(data, seed, height, width, groups, depth, per_group, clamp, zero, zero_out, residual):
    rng = np.random.default_rng(seed)
    kernel, stride, dilation, padding, extent = data.draw(windows(height, width))
    channels, outputs = depth * groups, per_group * groups
    constants = {"weights": rng.integers(-128, 128, (outputs, *kernel, depth)).astype(np.int8),
                 "bias": rng.integers(-30000, 30000, outputs).astype(np.int32), **parameters(rng, outputs)}
    attributes = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups, "clamp": clamp}
    inputs, op = ("x",), "conv2d"
    if residual and extent == ((height - 1) // stride[0] + 1, (width - 1) // stride[1] + 1) and outputs >= channels:
        op, inputs = "conv2d_add", ("x", "x")
        offset = data.draw(st.integers(0, outputs - channels))
        factors = np.zeros(outputs, np.int32)
        factors[offset:offset + channels] = rng.choice([0, 1, 50, 3000, 32767], channels)
        attributes |= {"skip_stride": stride, "skip_offset": offset}
        constants["skip_multiplier"] = factors
    check((height, width, channels), zero, [Node("conv", op, inputs, "y", attributes, constants)],
          {"y": Tensor("y", (*extent, outputs), "int8", zero_out)}, rng)


def residual(rng, skip_channels, outputs, depth, offset, kernel=(1, 1), stride=(1, 1), skip_stride=(1, 1)):
    """Attributes and constants of a conv2d_add."""
    factors = np.zeros(outputs, np.int32)
    factors[offset:offset + skip_channels] = rng.choice([1, 50, 3000, 32767], skip_channels)
    constants = {"weights": rng.integers(-128, 128, (outputs, *kernel, depth)).astype(np.int8), "skip_multiplier": factors,
                 "bias": rng.integers(-30000, 30000, outputs).astype(np.int32), **parameters(rng, outputs)}
    attributes = {"stride": stride, "dilation": (1, 1), "padding": (0, 0, 0, 0), "groups": 1, "clamp": (-128, 127),
                  "skip_stride": skip_stride, "skip_offset": offset}
    return attributes, constants


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(2, 7), width=st.integers(2, 9), cut=st.sampled_from([(0, 1), (1, 0), (1, 1)]),
       channels=st.sampled_from([1, 4, 16, 17]), more=st.integers(0, 20), zero=zero_points, zero_out=zero_points)
def test_a_skip_that_is_larger_than_the_output(seed, height, width, cut, channels, more, zero, zero_out):
    """A pointwise convolution reads its pixels as one row only where those of the skip lie alike."""
    rng = np.random.default_rng(seed)
    small = (height - cut[0], width - cut[1])
    pool = {"kernel": (1 + cut[0], 1 + cut[1]), "stride": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    nodes = [Node("pool", "max_pool2d", ("x",), "p", pool),
             Node("conv", "conv2d_add", ("p", "x"), "y", *residual(rng, channels, channels + more, channels, more))]
    check((height, width, channels), zero, nodes, {"p": Tensor("p", (*small, channels), "int8", zero),
                                                   "y": Tensor("y", (*small, channels + more), "int8", zero_out)}, rng)


@pytest.mark.parametrize(("channels", "outputs", "offset"), [(4, 70, 66), (320, 640, 160), (4, 60_004, 60_000), (4, 5000, 0)])
def test_a_skip_is_read_inside_the_arena(channels, outputs, offset):
    """For channels to which nothing is added, too: lanes are loaded before their factor of 0 is known."""
    rng = np.random.default_rng(3)
    node = Node("conv", "conv2d_add", ("x", "x"), "y", *residual(rng, channels, outputs, channels, offset))
    tensors = {"y": Tensor("y", (1, 1, outputs), "int8", 5)}
    check((1, 1, channels), -5, [node], tensors, rng)
    first = Node("input", "input_requantize", ("image",), "x", {}, IDENTITY)
    named = {"image": Tensor("image", (1, 1, channels), "int16"), "x": Tensor("x", (1, 1, channels), "int8", -5), **tensors}
    plan = build_plan(build_graph([first, node], named.values(), input="image", output="y", levels=(0, 255), unit=255,
                                  classes=tuple(map(str, range(outputs)))))
    for row in plan.table[plan.spans["conv"][0]:plan.spans["conv"][1]]:
        assert row[instruction.SECOND] >= 0
        assert row[instruction.SECOND] + -(-row[instruction.CHANNELS] // 32) * 32 <= len(plan.arena)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shift=st.integers(-31, 3), clamp=clamps, zero_out=zero_points)
def test_every_shift(seed, shift, clamp, zero_out):
    """Right shifts up to 31, where the zero point no longer fits beside the product, none at all, and left shifts."""
    rng = np.random.default_rng(seed)
    scale = 2**31 // 2**max(shift, 0) - 16 * 255 * 128
    constants = {"weights": rng.integers(-128, 128, (16, 1, 1, 16)).astype(np.int8),
                 "bias": rng.integers(-scale, scale, 16).astype(np.int32),
                 "multiplier": rng.integers(2**30, 2**31, 16).astype(np.int32), "shift": np.full(16, shift, np.int32)}
    constants["multiplier"][::3] >>= rng.integers(0, 31, 6).astype(np.int32)  # any number of bits
    constants["bias"][:8] >>= 16
    if shift >= 0:  # results must fit int32 with the zero point
        constants["bias"] >>= 2
    attributes = {"stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "groups": 1, "clamp": clamp}
    check((3, 5, 16), 3, [Node("conv", "conv2d", ("x",), "y", attributes, constants)],
          {"y": Tensor("y", (3, 5, 16), "int8", zero_out)}, rng)


def test_ties_round_away_from_zero():
    """Accumulators at exact ties of both rounding steps, positive and negative, for every small shift."""
    rng = np.random.default_rng(0)
    for shift in range(-12, 1):
        half = 1 << max(-shift - 1, 0)
        for multiplier in (2**30, 2**29, 2**20):
            bias = np.array([sign * (k * 2 * half + half) for sign in (1, -1) for k in range(8)]) * (2**31 // multiplier)
            bias = np.clip(bias, -(2**30), 2**30).astype(np.int32)
            constants = {"weights": np.zeros((16, 1, 1, 1), np.int8), "bias": bias,
                         "multiplier": np.full(16, multiplier, np.int32), "shift": np.full(16, shift, np.int32)}
            attributes = {"stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "groups": 1, "clamp": (-128, 127)}
            check((1, 1, 1), 0, [Node("conv", "conv2d", ("x",), "y", attributes, constants)],
                  {"y": Tensor("y", (1, 1, 16), "int8", 0)}, rng)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), height=st.integers(1, 9), width=st.integers(1, 20),
       channels=st.sampled_from([1, 3, 8, 16, 17, 40]), multiple=st.sampled_from([1, 1, 2, 5]), clamp=clamps, zero=zero_points,
       zero_out=zero_points)
def test_depthwise_conv2d(data, seed, height, width, channels, multiple, clamp, zero, zero_out):
    rng = np.random.default_rng(seed)
    kernel, stride, dilation, padding, extent = data.draw(windows(height, width))
    outputs = channels * multiple
    constants = {"weights": rng.integers(-128, 128, (*kernel, outputs)).astype(np.int8),
                 "bias": rng.integers(-30000, 30000, outputs).astype(np.int32), **parameters(rng, outputs)}
    attributes = {"stride": stride, "dilation": dilation, "padding": padding, "clamp": clamp}
    check((height, width, channels), zero, [Node("conv", "depthwise_conv2d", ("x",), "y", attributes, constants)],
          {"y": Tensor("y", (*extent, outputs), "int8", zero_out)}, rng)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(5,), (64,), (3, 4, 5), (1, 1, 33), (7, 3)]),
       outputs=st.sampled_from([1, 10, 16, 31, 33, 100]), clamp=clamps, zero=zero_points, zero_out=zero_points)
def test_fully_connected(seed, shape, outputs, clamp, zero, zero_out):
    rng = np.random.default_rng(seed)
    constants = {"weights": rng.integers(-128, 128, (outputs, int(np.prod(shape)))).astype(np.int8),
                 "bias": rng.integers(-30000, 30000, outputs).astype(np.int32), **parameters(rng, outputs)}
    check(shape, zero, [Node("dense", "fully_connected", ("x",), "y", {"clamp": clamp}, constants)],
          {"y": Tensor("y", (outputs,), "int8", zero_out)}, rng)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), op=st.sampled_from(["add", "sub", "mul"]), height=st.integers(1, 5), width=st.integers(1, 9),
       channels=st.sampled_from([1, 5, 16, 35]), clamp=clamps, zero=zero_points, other=zero_points, zero_out=zero_points,
       broadcast=st.booleans())
def test_binary(seed, op, height, width, channels, clamp, zero, other, zero_out, broadcast):
    rng = np.random.default_rng(seed)
    count = 1 if op == "mul" else 3
    constants = parameters(rng, count, -7, -5) if op == "mul" else parameters(rng, 3, -1, 0)
    if op != "mul":
        constants["shift"][2] = -18
    attributes = {"clamp": clamp} | ({} if op == "mul" else {"left_shift": 20})
    shape = (channels,) if broadcast else (height, width, channels)
    value = rng.integers(-128, 128, shape).astype(np.int8)
    nodes = [Node("const", "constant", (), "c", {}, {"value": value}),
             Node("op", op, ("x", "c"), "y", attributes, constants)]
    check((height, width, channels), zero, nodes,
          {"c": Tensor("c", shape, "int8", other), "y": Tensor("y", (height, width, channels), "int8", zero_out)}, rng)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), op=st.sampled_from(["average_pool2d", "max_pool2d"]),
       height=st.integers(1, 9), width=st.integers(1, 9), channels=st.sampled_from([1, 5, 16, 35]), clamp=clamps, zero=zero_points)
def test_pooling(data, seed, op, height, width, channels, clamp, zero):
    rng = np.random.default_rng(seed)
    kernel, stride, _, padding, extent = data.draw(windows(height, width, dilated=False))
    attributes = {"kernel": kernel, "stride": stride, "padding": padding, "clamp": clamp}
    check((height, width, channels), zero, [Node("pool", op, ("x",), "y", attributes)],
          {"y": Tensor("y", (*extent, channels), "int8", zero)}, rng)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 9), width=st.integers(1, 9), channels=st.sampled_from([1, 5, 64]),
       clamp=clamps, zero=zero_points, zero_out=zero_points)
def test_mean(seed, height, width, channels, clamp, zero, zero_out):
    rng = np.random.default_rng(seed)
    shift = -int(np.log2(height * width))
    check((height, width, channels), zero, [Node("mean", "mean", ("x",), "y", {"clamp": clamp}, parameters(rng, 1, shift, shift))],
          {"y": Tensor("y", (channels,), "int8", zero_out)}, rng)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), op=st.sampled_from(["requantize", "clamp", "lookup"]), clamp=clamps, zero=zero_points,
       zero_out=zero_points, shift=st.integers(-4, 3))
def test_unary(seed, op, clamp, zero, zero_out, shift):
    """All 256 int8 values."""
    rng = np.random.default_rng(seed)
    constants = {"requantize": parameters(rng, 1, shift, shift), "clamp": {},
                 "lookup": {"table": rng.integers(-128, 128, 256).astype(np.int8)}}[op]
    zero_out = zero if op == "clamp" else zero_out
    nodes = [Node("op", op, ("x",), "y", {} if op == "lookup" else {"clamp": clamp}, constants)]
    check((4, 8, 64), zero, nodes, {"y": Tensor("y", (4, 8, 64), "int8", zero_out)}, rng)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 40), shift=st.integers(0, 27), diff_min=st.integers(-248, -1))
def test_softmax(seed, classes, shift, diff_min):
    rng = np.random.default_rng(seed)
    diff_min = max(diff_min, -(2**31 - 1 >> shift))
    nodes = [Node("softmax", "softmax", ("x",), "y", {"diff_min": diff_min}, parameters(rng, 1, shift, shift))]
    check((2, classes), 0, nodes, {"y": Tensor("y", (2, classes), "int8", -128)}, rng, samples=5)


@pytest.mark.parametrize("classes", [255, 511, 512, 513, 600, 1000, 2048, 4095])
def test_softmax_of_many_classes_alike(classes):
    """From 512 on nothing is left of a class's share in 256 steps."""
    rng = np.random.default_rng(classes)
    constants = {"multiplier": np.array([2**30], np.int32), "shift": np.array([20], np.int32)}
    nodes = [Node("softmax", "softmax", ("x",), "y", {"diff_min": -248}, constants)]

    def differ(levels):
        first = Node("input", "input_requantize", ("image",), "x", {}, IDENTITY)
        named = [Tensor("image", (classes,), "int16"), Tensor("x", (classes,)), Tensor("y", (classes,), "int8", -128)]
        graph = build_graph([first, *nodes], named, input="image", output="y", levels=(0, 255), unit=255,
                            classes=tuple(map(str, range(classes))))
        fast, slow = (Engine(graph, backend).forward(levels) for backend in ("numba", "numpy"))
        np.testing.assert_array_equal(fast, slow)

    levels = np.full((4, classes), 100, np.int16)
    levels[1, 0], levels[2, ::2] = -128, 99
    levels[3] = rng.integers(98, 101, classes)
    differ(levels)


def test_moves():
    """concat along every axis, pad, transpose and reshape between tensors with and without borders."""
    rng = np.random.default_rng(1)
    conv = {"stride": (1, 1), "dilation": (1, 1), "padding": (1, 1, 1, 1), "groups": 1, "clamp": (-128, 127)}

    def constants(depth, outputs):
        return {"weights": rng.integers(-128, 128, (outputs, 3, 3, depth)).astype(np.int8),
                "bias": rng.integers(-3000, 3000, outputs).astype(np.int32), **parameters(rng, outputs)}

    nodes = [
        Node("conv", "conv2d", ("x",), "a", conv, constants(6, 6)),           # x has a border
        Node("height", "concat", ("x", "a"), "b", {"axis": 0}),
        Node("width", "concat", ("b", "b"), "c", {"axis": 1}),
        Node("depth", "concat", ("c", "c"), "d", {"axis": 2}),
        Node("pad", "pad", ("d",), "e", {"padding": (1, 2, 0, 1, 3, 0), "value": -9}),
        Node("turn", "transpose", ("e",), "f", {"permutation": (2, 0, 1)}),
        Node("shape", "reshape", ("x",), "g", {"shape": (10, 6, 3)}),          # from a bordered to a bordered tensor
        Node("conv2", "conv2d", ("g",), "h", conv, constants(3, 4)),
        Node("flat", "reshape", ("h",), "i", {"shape": (240,)}),
        Node("flat2", "reshape", ("f",), "j", {"shape": (2475,)}),
        Node("all", "concat", ("i", "j"), "k", {"axis": 0}),
        Node("class", "argmax", ("k",), "l", {}),
    ]
    shapes = {"a": (6, 5, 6), "b": (12, 5, 6), "c": (12, 10, 6), "d": (12, 10, 12), "e": (15, 11, 15), "f": (15, 15, 11),
              "g": (10, 6, 3), "h": (10, 6, 4), "i": (240,), "j": (2475,), "k": (2715,)}
    tensors = {name: Tensor(name, shape, "int8", 11) for name, shape in shapes.items()}
    tensors["l"] = Tensor("l", (1,), "int32")
    check((6, 5, 6), 11, nodes, tensors, rng)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batch_size_and_threads_do_not_matter(threads):
    rng = np.random.default_rng(2)
    constants = {"weights": rng.integers(-128, 128, (10, 48)).astype(np.int8), "bias": np.zeros(10, np.int32),
                 **parameters(rng, 10)}
    graph = build_graph(
        [Node("input", "input_requantize", ("image",), "x", {}, IDENTITY),
         Node("dense", "fully_connected", ("x",), "y", {"clamp": (-128, 127)}, constants)],
        [Tensor("image", (4, 4, 3), "int16"), Tensor("x", (4, 4, 3)), Tensor("y", (10,))],
        input="image", output="y", levels=(0, 255), unit=255, classes=tuple("0123456789"))
    levels = rng.integers(-128, 128, (1000, 4, 4, 3)).astype(np.int16)
    whole = Engine(graph, threads=threads).classify(levels)
    parts = [Engine(graph, threads=1).classify(part) for part in np.array_split(levels, 7)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    np.testing.assert_array_equal(whole, Engine(graph, "numpy").classify(levels))
