"""Interval propagation: what every tensor and every accumulator can be, for all int16 inputs at once.

An interval per channel goes through the network operator by operator, in exact integers. The rules here share nothing
with `ops` and `overflow.py`, which prove the same from the weights alone; where all inputs of a layer may take every
int8 value the two must agree, and elsewhere these are tighter. A requantization never decreases (its multiplier is not
negative), so its ends are the ends' images. Padding contributes 0 to a sum.
"""

import math
from dataclasses import dataclass

import numpy as np

from intsmooth.fixedpoint import multiply_by_quantized_multiplier
from intsmooth.records import Graph

INT16 = (-(2**15), 2**15 - 1)
_LARGEST_ZERO = 255  # zero points are added to bytes, q + 128
_FITS = 2**31  # magnitudes from here on do not fit int32; they are reported, and not rescaled any further


@dataclass(frozen=True)
class Interval:
    """Lowest and highest value per channel, int64[channels]; channels are a tensor's last dimension."""

    low: np.ndarray
    high: np.ndarray

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.high + other.high)

    def __neg__(self) -> "Interval":
        return Interval(-self.high, -self.low)

    def shifted(self, offset) -> "Interval":
        return Interval(self.low + offset, self.high + offset)

    def scaled(self, factor) -> "Interval":
        """Times a factor >= 0."""
        return Interval(self.low * factor, self.high * factor)

    def hull(self, other: "Interval") -> "Interval":
        return Interval(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def clamped(self, lowest, highest) -> "Interval":
        return Interval(np.clip(self.low, lowest, highest), np.clip(self.high, lowest, highest))

    def merged(self, channels: int) -> "Interval":
        """The same interval, of all channels together, for `channels` channels."""
        return Interval(np.full(channels, self.low.min()), np.full(channels, self.high.max()))

    def magnitude(self) -> np.ndarray:
        return np.maximum(np.abs(self.low), np.abs(self.high))


ZERO = Interval(np.zeros(1, np.int64), np.zeros(1, np.int64))


@dataclass(frozen=True)
class Step:
    """One operator: its output, and the largest magnitude of any int32 value on the way, per channel."""

    output: Interval
    largest: np.ndarray


def propagate(graph: Graph) -> dict[str, Step]:
    """Node name -> Step, for every input whose values are int16."""
    width = graph.input_shape[-1]
    known = {graph.input: Interval(np.full(width, INT16[0], np.int64), np.full(width, INT16[1], np.int64))}
    steps = {}
    for node in graph.nodes:
        steps[node.name] = _RULES[node.op](graph, node, [known[name] for name in node.inputs])
        known[node.output] = steps[node.name].output
    return steps


def _zero(graph, node, index=0) -> int:
    return graph.tensors[node.inputs[index]].zero_point


def _rescale(interval: Interval, multiplier, shift) -> tuple[Interval, np.ndarray]:
    """Both ends through MBQM, and the largest magnitude met: x * 2^shift before, the result plus a zero point after."""
    wide = np.minimum(interval.magnitude(), _FITS) << np.maximum(shift, 0).astype(np.int64)
    limit = (_FITS - 1) >> np.maximum(shift, 0).astype(np.int64)
    safe = interval.clamped(-limit, limit)
    ends = [multiply_by_quantized_multiplier(end, multiplier, shift).astype(np.int64) for end in (safe.low, safe.high)]
    result = Interval(*ends)
    return result, np.maximum(wide, result.magnitude() + _LARGEST_ZERO)


def _finish(graph, node, total: Interval, multiplier, shift, partial=0) -> Step:
    """Requantize, add the output's zero point, clamp."""
    rescaled, largest = _rescale(total, multiplier, shift)
    output = rescaled.shifted(graph.tensors[node.output].zero_point)
    output = output.clamped(*node.attributes.get("clamp", (-128, 127)))
    return Step(output, np.maximum(np.maximum(largest, total.magnitude()), partial))


def _accumulate(graph, node, terms: Interval, rise, fall) -> Step:
    """Requantize bias + terms; rise and -fall are the extremes that a sum of some of the terms can reach."""
    bias = node.constants["bias"].astype(np.int64)
    partial = np.maximum(np.maximum(bias, 0) + rise, np.maximum(-bias, 0) + fall)
    return _finish(graph, node, terms.shifted(bias), node.constants["multiplier"], node.constants["shift"], partial)


def _products(x: Interval, rows: np.ndarray) -> tuple[Interval, np.ndarray, np.ndarray]:
    """sum over k of rows[o, k] * x[o or 0, k]: the full sum's interval, and rise and fall of partial sums."""
    high, low = np.maximum(rows * x.high, rows * x.low), np.minimum(rows * x.high, rows * x.low)
    rise, fall = np.maximum(high, 0).sum(axis=-1), np.maximum(-low, 0).sum(axis=-1)
    return Interval(low.sum(axis=-1), high.sum(axis=-1)), rise, fall


def _convolution(graph, node, inputs) -> Step:
    weights = node.constants["weights"].astype(np.int64)
    x = inputs[0].shifted(-_zero(graph, node))
    x = x.hull(ZERO) if any(node.attributes["padding"]) else x
    if node.op == "depthwise_conv2d":
        taps = np.moveaxis(weights.reshape(-1, weights.shape[-1]), 0, 1)
        source = np.arange(len(taps)) // (len(taps) // len(x.low))
        terms = _products(Interval(x.low[source, None], x.high[source, None]), taps)
    else:
        outputs, taps, groups = len(weights), weights.shape[1] * weights.shape[2], node.attributes["groups"]
        rows = weights.reshape(outputs, taps, -1)
        group = np.arange(outputs) // (outputs // groups)
        low, high = (end.reshape(groups, 1, -1)[group] for end in (x.low, x.high))
        parts = [_products(Interval(low[:, 0], high[:, 0]), rows[:, tap]) for tap in range(taps)]
        terms = tuple(sum(values[1:], values[0]) for values in zip(*parts, strict=True))
    total, rise, fall = terms
    if node.op == "conv2d_add":
        skip = _skip(graph, node, inputs[1], len(weights))
        total, rise, fall = total + skip, rise + np.maximum(skip.high, 0), fall + np.maximum(-skip.low, 0)
    return _accumulate(graph, node, total, rise, fall)


def _skip(graph, node, source: Interval, outputs: int) -> Interval:
    """skip_multiplier * (k - zk) per output channel, 0 where the skip input has no such channel."""
    channel = np.arange(outputs) - node.attributes["skip_offset"]
    inside = (channel >= 0) & (channel < len(source.low))
    channel, factor = (
        np.where(inside, channel, 0),
        np.where(inside, node.constants["skip_multiplier"].astype(np.int64), 0),
    )
    centred = source.shifted(-_zero(graph, node, 1))
    return Interval(centred.low[channel] * factor, centred.high[channel] * factor)


def _fully_connected(graph, node, inputs) -> Step:
    weights = node.constants["weights"].astype(np.int64)
    x = inputs[0].shifted(-_zero(graph, node))
    repeats = weights.shape[1] // len(x.low)
    return _accumulate(graph, node, *_products(Interval(np.tile(x.low, repeats), np.tile(x.high, repeats)), weights))


def _sum(graph, node, inputs) -> Step:
    multiplier, shift = node.constants["multiplier"], node.constants["shift"]
    terms, largest = [], np.zeros(1, np.int64)
    for index, x in enumerate(inputs):
        shifted = x.shifted(-_zero(graph, node, index)).scaled(1 << node.attributes["left_shift"])
        term, seen = _rescale(shifted, multiplier[index], shift[index])
        terms.append(term)
        largest = np.maximum(largest, np.maximum(seen, shifted.magnitude()))
    total = terms[0] + (terms[1] if node.op == "add" else -terms[1])
    return _finish(graph, node, total, multiplier[2], shift[2], largest)


def _product(graph, node, inputs) -> Step:
    a, b = (x.shifted(-_zero(graph, node, index)) for index, x in enumerate(inputs))
    corners = np.stack(np.broadcast_arrays(a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high))
    total = Interval(corners.min(axis=0), corners.max(axis=0))
    return _finish(graph, node, total, node.constants["multiplier"][0], node.constants["shift"][0])


def _mean(graph, node, inputs) -> Step:
    height, width, _ = graph.tensors[node.inputs[0]].shape
    total = inputs[0].shifted(-_zero(graph, node)).scaled(height * width)
    partial = total.hull(ZERO).magnitude()
    return _finish(graph, node, total, node.constants["multiplier"][0], node.constants["shift"][0], partial)


def _rescaled(graph, node, inputs) -> Step:
    x = inputs[0].shifted(-_zero(graph, node))
    return _finish(graph, node, x, node.constants["multiplier"][0], node.constants["shift"][0])


def _average_pool(graph, node, inputs) -> Step:
    height, width, _ = graph.tensors[node.inputs[0]].shape
    count = min(node.attributes["kernel"][0], height) * min(node.attributes["kernel"][1], width)
    largest = inputs[0].hull(ZERO).magnitude() * count + count // 2
    return Step(inputs[0].clamped(*node.attributes["clamp"]), largest)


def _softmax(graph, node, inputs) -> Step:
    spread = min(int(inputs[0].high.max() - inputs[0].low.min()), -node.attributes["diff_min"])
    largest = max(spread << int(node.constants["shift"][0]), len(inputs[0].low) << 19)
    channels = len(inputs[0].low)
    return Step(Interval(np.full(channels, -128), np.full(channels, 127)), np.array([largest]))


def _moved(rule):
    """An operator that computes nothing: int8 in, int8 out."""
    return lambda graph, node, inputs: Step(rule(graph, node, inputs), np.array([128], np.int64))


def _lookup(graph, node, inputs) -> Interval:
    table = node.constants["table"].astype(np.int64)
    reached = [table[low + 128 : high + 129] for low, high in zip(inputs[0].low, inputs[0].high, strict=True)]
    return Interval(*(np.array([end(values) for values in reached]) for end in (min, max)))


def _concat(graph, node, inputs) -> Interval:
    if node.attributes["axis"] == len(graph.tensors[node.output].shape) - 1:
        return Interval(*(np.concatenate([getattr(x, end) for x in inputs]) for end in ("low", "high")))
    result = inputs[0]
    for x in inputs[1:]:
        result = result.hull(x)
    return result


def _pad(graph, node, inputs) -> Interval:
    *others, before, after = node.attributes["padding"]
    value = Interval(*[np.full(1, node.attributes["value"], np.int64)] * 2)
    inner = inputs[0].hull(value) if any(others) else inputs[0]
    return Interval(
        *(np.pad(end, (before, after), constant_values=node.attributes["value"]) for end in (inner.low, inner.high))
    )


def _reshape(graph, node, inputs) -> Interval:
    channels = graph.tensors[node.output].shape[-1]
    if channels % len(inputs[0].low) == 0:  # C order: channel c of the input is every len-th one of the output
        repeats = channels // len(inputs[0].low)
        return Interval(np.tile(inputs[0].low, repeats), np.tile(inputs[0].high, repeats))
    return inputs[0].merged(channels)


def _transpose(graph, node, inputs) -> Interval:
    permutation = node.attributes["permutation"]
    if permutation[-1] == len(permutation) - 1:
        return inputs[0]
    return inputs[0].merged(graph.tensors[node.output].shape[-1])


def _constant(graph, node, inputs) -> Interval:
    value = node.constants["value"].astype(np.int64)
    value = value.reshape(-1, value.shape[-1])
    return Interval(value.min(axis=0), value.max(axis=0))


def _argmax(graph, node, inputs) -> Step:
    highest = np.array([math.prod(graph.tensors[node.inputs[0]].shape) - 1], np.int64)
    return Step(Interval(np.zeros(1, np.int64), highest), highest)


_RULES = {
    "input_requantize": _rescaled,
    "conv2d": _convolution,
    "conv2d_add": _convolution,
    "depthwise_conv2d": _convolution,
    "fully_connected": _fully_connected,
    "add": _sum,
    "sub": _sum,
    "mul": _product,
    "mean": _mean,
    "requantize": _rescaled,
    "average_pool2d": _average_pool,
    "softmax": _softmax,
    "max_pool2d": _moved(lambda graph, node, inputs: inputs[0].clamped(*node.attributes["clamp"])),
    "clamp": _moved(lambda graph, node, inputs: inputs[0].clamped(*node.attributes["clamp"])),
    "lookup": _moved(_lookup),
    "concat": _moved(_concat),
    "pad": _moved(_pad),
    "reshape": _moved(_reshape),
    "transpose": _moved(_transpose),
    "constant": _moved(_constant),
    "argmax": _argmax,
}
