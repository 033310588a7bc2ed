"""Random layers for the kernels, and the comparison of every tensor with the naive twin's."""

import numpy as np
from hypothesis import strategies as st

from intsmooth.engine import Engine
from intsmooth.graph import build_graph
from intsmooth.records import Node, Tensor

INT8_EDGES = np.array([-128, -127, -1, 0, 1, 126, 127], np.int16)
IDENTITY = {"multiplier": np.array([2**30], np.int32), "shift": np.array([1], np.int32)}
clamps = st.sampled_from([(-128, 127), (-128, 100), (-20, 127), (-3, 90), (5, 5)])
zero_points = st.sampled_from([-128, -127, -5, 0, 7, 127])


def parameters(rng, count, shift_low=-11, shift_high=-6):
    """Multipliers and shifts for `count` channels; some multipliers are small, with or without a right shift, some 0."""
    multiplier = rng.integers(2**30, 2**31, count).astype(np.int32)
    shift = rng.integers(shift_low, shift_high + 1, count).astype(np.int32)
    small = rng.random(count)
    multiplier[small < 0.05] = 0
    multiplier[small > 0.6] >>= -shift[small > 0.6]
    shift[small > 0.8] = 0
    return {"multiplier": multiplier, "shift": shift}


def check(shape, zero_point, nodes, tensors, rng, samples=3):
    """Run input -> x -> nodes in both backends; every tensor must be equal. `nodes` read "x" (and "x" again as skip)."""
    first = Node("input", "input_requantize", ("image",), "x", {}, IDENTITY)
    named = {"image": Tensor("image", shape, "int16"), "x": Tensor("x", shape, "int8", zero_point), **tensors}
    output = nodes[-1].output
    scores = output if named[output].dtype == "int8" else nodes[-1].inputs[0]
    classes = int(np.prod(named[scores].shape))
    graph = build_graph([first, *nodes], named.values(), input="image", output=output, levels=(0, 255), unit=255,
                        classes=tuple(map(str, range(classes))))
    levels = rng.integers(-128, 128, (samples, *shape)).astype(np.int16) - np.int16(zero_point)
    levels[0] = rng.choice(INT8_EDGES, shape) - zero_point
    fast, slow = Engine(graph, threads=1).trace(levels), Engine(graph, "numpy").trace(levels)
    for name in slow:
        np.testing.assert_array_equal(fast[name], slow[name], err_msg=name)
    if named[output].dtype == "int8":
        np.testing.assert_array_equal(Engine(graph, threads=2).forward(levels), slow[output].reshape(samples, -1))


@st.composite
def windows(draw, height, width, dilated=True):
    """Kernel, stride, dilation, padding of a window that fits into a height x width image, and the output's extent."""
    while True:
        kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) if dilated else (1, 1)
        padding = draw(st.tuples(*[st.integers(0, k - 1) for k in (kernel[0], kernel[0], kernel[1], kernel[1])]))
        extent = tuple((size + padding[2 * i] + padding[2 * i + 1] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1
                       for i, size in enumerate((height, width)))
        if min(extent) >= 1:
            return kernel, stride, dilation, padding, extent
