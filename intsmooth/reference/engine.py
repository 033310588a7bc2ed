"""The naive engine: runs a graph one operator at a time on a batch, keeping every tensor.

It is the twin that the compiled engine is compared with, and the `numpy` backend where nothing but NumPy is installed.
"""

import numpy as np

from intsmooth.errors import InputError, UnsupportedError
from intsmooth.reference import convolution, elementwise, pooling, shape, softmax


def _zero_points(graph, node):
    """Zero points of a node with one input, by the twins' argument names."""
    return {
        "input_zero_point": graph.tensors[node.inputs[0]].zero_point,
        "output_zero_point": graph.tensors[node.output].zero_point,
    }


def _binary_zero_points(graph, node):
    return {
        "a_zero_point": graph.tensors[node.inputs[0]].zero_point,
        "b_zero_point": graph.tensors[node.inputs[1]].zero_point,
        "output_zero_point": graph.tensors[node.output].zero_point,
    }


def _with_zero_points(function):
    """A twin called as function(x, constants..., zero points, attributes)."""
    return lambda graph, node, x: function(x, **node.constants, **_zero_points(graph, node), **node.attributes)


def _with_binary_zero_points(function):
    return lambda graph, node, a, b: function(
        a, b, **node.constants, **_binary_zero_points(graph, node), **node.attributes
    )


def _plain(function):
    """A twin that needs no zero points."""
    return lambda graph, node, x: function(x, **node.constants, **node.attributes)


def _input_requantize(graph, node, levels):
    output_zero_point = graph.tensors[node.output].zero_point
    return elementwise.input_requantize(levels, **node.constants, output_zero_point=output_zero_point)


def _conv2d_add(graph, node, x, skip):
    skip_zero_point = graph.tensors[node.inputs[1]].zero_point
    return convolution.conv2d_add(
        x, skip, **node.constants, skip_zero_point=skip_zero_point, **_zero_points(graph, node), **node.attributes
    )


TWINS = {
    "input_requantize": _input_requantize,
    "conv2d": _with_zero_points(convolution.conv2d),
    "conv2d_add": _conv2d_add,
    "depthwise_conv2d": _with_zero_points(convolution.depthwise_conv2d),
    "fully_connected": _with_zero_points(convolution.fully_connected),
    "add": _with_binary_zero_points(elementwise.add),
    "sub": _with_binary_zero_points(elementwise.sub),
    "mul": _with_binary_zero_points(elementwise.mul),
    "average_pool2d": _plain(pooling.average_pool2d),
    "max_pool2d": _plain(pooling.max_pool2d),
    "mean": _with_zero_points(pooling.mean),
    "requantize": _with_zero_points(elementwise.requantize_int8),
    "clamp": _plain(elementwise.clamp_int8),
    "lookup": _plain(elementwise.lookup),
    "softmax": _plain(softmax.softmax),
    "concat": lambda graph, node, *arrays: shape.concat(arrays, **node.attributes),
    "pad": _plain(shape.pad),
    "reshape": _plain(shape.reshape),
    "transpose": _plain(shape.transpose),
    "argmax": _plain(shape.argmax),
}


def run(graph, levels):
    """Run `graph` on a batch and return every tensor by name, batch first.

    levels: int16 (N, *graph.input_shape), images in levels with or without noise.
    Returns {tensor name: array}: the input, int8 activations (N, *shape), int32 (N, 1) for a class index.
    Raises InputError for a wrong dtype or shape, UnsupportedError for operators without a twin (all of them listed).
    """
    levels = np.asarray(levels)
    if levels.dtype != np.int16 or levels.shape[1:] != tuple(graph.input_shape) or levels.ndim == 0:
        raise InputError(
            f"the network takes int16 levels of shape (N, {', '.join(map(str, graph.input_shape))}), "
            f"not {levels.dtype} of shape {levels.shape}; convert with numpy.asarray(images, dtype=numpy.int16)"
        )
    unknown = sorted({node.op for node in graph.nodes} - TWINS.keys() - {"constant"})
    if unknown:
        raise UnsupportedError(
            f"no reference implementation for {', '.join(unknown)}; known operators: {', '.join(TWINS)}"
        )
    values = {graph.input: levels}
    for node in graph.nodes:
        if node.op == "constant":
            values[node.output] = shape.constant(node.constants["value"], batch=levels.shape[0])
        else:
            values[node.output] = TWINS[node.op](graph, node, *(values[name] for name in node.inputs))
    return values
