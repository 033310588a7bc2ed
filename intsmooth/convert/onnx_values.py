"""What a tensor of an ONNX model can be while the model is translated.

ONNX computes with floats between a DequantizeLinear and the next QuantizeLinear; the integer graph has no floats. So a
float tensor is held as what it will be: the view of an integer tensor, or a result that is still to be quantized. The
operators of quantized models (QLinearConv and others) are the same thing in one step.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Integer:
    """An integer tensor of the graph: real = scale * (q - zero_point), held as int8.

    name:  of our tensor. shape: ONNX's, without the batch.
    image: (channels, height, width) where our elements lie in the order height, width, channels; None where they lie in
           ONNX's order. `shape` is this or its flat form.
    unsigned: ONNX's tensor is uint8: its integers are ours plus 128.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    image: tuple[int, int, int] | None = None
    unsigned: bool = False


@dataclass(frozen=True)
class Source:
    """The network's float input; with `mean` and `std` the reals are (level / unit - mean) / std per channel."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """A constant. `integers`, `scales`, `zero_points`, `axis`: what a DequantizeLinear made it from, where one did."""

    value: np.ndarray
    integers: np.ndarray | None = None
    scales: np.ndarray | None = None
    zero_points: np.ndarray | None = None
    axis: int = 0


@dataclass(frozen=True)
class Target:
    """How a result is to be held. clamp: range of its int8 values."""

    scale: float
    zero_point: int
    clamp: tuple[int, int] = (-128, 127)
    unsigned: bool = False


@dataclass(frozen=True)
class Shortcut:
    """What a convolution adds to its accumulators: every stride-th pixel, its channels moved up by `offset`."""

    source: Integer
    stride: tuple[int, int] = (1, 1)
    offset: int = 0


@dataclass(frozen=True)
class Weighted:
    """A layer with weights, before its output is quantized.

    weights: float64 reals, or int8 where `scales` (float64, one per output channel) is given; (O, KH, KW, I / groups)
             of a convolution, (O, I) of a fully connected layer. bias: float64 reals (O).
    geometry: stride, dilation, padding and groups of a convolution, None of a fully connected layer.
    """

    source: Integer
    weights: np.ndarray
    scales: np.ndarray | None
    bias: np.ndarray
    geometry: dict[str, Any] | None
    shortcut: Shortcut | None = None

    @property
    def channels(self) -> int:
        return self.weights.shape[0]

    def affine(self, factor: np.ndarray, offset: np.ndarray) -> "Weighted | None":
        """The layer followed by factor * y + offset per channel; None where its integer weights do not allow that."""
        bias = self.bias * factor + offset
        if self.shortcut is not None and not (factor == 1).all():
            return None
        if self.scales is None:
            shape = (-1,) + (1,) * (self.weights.ndim - 1)
            return replace(self, weights=self.weights * factor.reshape(shape), bias=bias)
        return replace(self, scales=self.scales * factor, bias=bias) if (factor > 0).all() else None


@dataclass(frozen=True)
class Pending:
    """A float result: `emit(translation, target)` returns it as an Integer. low, high: reals it is clipped to.

    shape: ONNX's, without the batch. weighted: the layer that computes it, while others may still be folded into it.
    moved: what it is, where it only moves the values of another tensor and can join a sum as it is.
    node: the source's node that it comes from, after which what is emitted is named.
    """

    shape: tuple[int, ...]
    emit: Callable[[Any, Target], Integer]
    low: float | None = None
    high: float | None = None
    weighted: Weighted | None = None
    moved: Shortcut | None = None
    node: Any = None

    def clipped(self, low: float | None, high: float | None) -> "Pending":
        """Clipped once more, which ends what can be folded into it: the old bounds are clipped like any other value."""
        low, high = (-inf if low is None else low), (inf if high is None else high)
        old = (-inf if self.low is None else self.low), (inf if self.high is None else self.high)
        bounds = [min(max(bound, low), high) for bound in old]  # ONNX: the upper bound wins
        new_low, new_high = (bound if isfinite(bound) else None for bound in bounds)
        return replace(self, low=new_low, high=new_high, weighted=None, moved=None)


@dataclass(frozen=True)
class View:
    """The reals of an integer tensor."""

    integer: Integer
