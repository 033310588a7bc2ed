"""The fake-quantized twin: the integer network's arithmetic, in floats that hold integers, with gradients.

Every activation is v = q - zero_point, an integer in a float tensor, and every weight an integer in [-127, 127] times a
scale per output channel. Sums of their products are exact in float32 while they stay below 2^24, as those of
trained networks do (agreement.py counts), and in bfloat16 the operands are. Biases and residual multipliers are rounded
in the accumulator's scale, as they will be stored. Requantization is acc * factor rounded to nearest while training; in
evaluation it is the engine's own, in 64-bit integers, so that an evaluated twin is the exported network. Its multipliers
are `nearest_result_multiplier`'s, which round once: a second rounding away from zero would move every image by a little
in the same direction under every draw of the noise, the input above all, where values are small.

Where the linear layer reads pooled features, it reads them twice, so that each of its weights is the sum of two integers
and its steps are half as large. It has the fewest weights of all layers to choose integers for, and the last word.

Gradients pass through rounding unchanged and stop where a value is clamped (Bengio et al., 2013). Ranges are constants
here, set by calibrate.py; weight scales follow the weights, but for the linear layer's.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from intsmooth.fixedpoint import nearest_result_multiplier, quantize_multipliers
from intsmooth.training.network import Architecture, FloatNetwork, flatten_hwc, place_skip

WEIGHT_LIMIT = 127
READINGS = 2  # of pooled features by the linear layer
SKIP_LIMIT = 32767
BIAS_LIMIT = 2**28
MOST_PEAK_STEPS = 64 * WEIGHT_LIMIT


class _Requantize(torch.autograd.Function):
    """round(acc * factor), clamped to [lowest, highest]; factor broadcasts over the channels.

    The gradient stops where the result is lowest or highest, as that of ReLU does at zero: the result is kept for the
    next layer anyway, and a mask of its own would cost another pass over memory.
    """

    @staticmethod
    def forward(ctx, acc, factor, lowest, highest):
        result = (acc * factor).round_().clamp_(lowest, highest)
        ctx.save_for_backward(result, factor)
        ctx.bounds = lowest, highest
        return result

    @staticmethod
    def backward(ctx, gradient):
        result, factor = ctx.saved_tensors
        lowest, highest = ctx.bounds
        return torch.where((result > lowest) & (result < highest), gradient * factor, 0.0), None, None, None


def _requantize(acc: torch.Tensor, factor: torch.Tensor, lowest, highest, exact: bool) -> torch.Tensor:
    """acc times factor (one per channel, or one), an integer in [lowest, highest] (integers or 0-d), in a float tensor.

    exact: multiply_by_quantized_multiplier of fixedpoint.py, on int64 and without gradients.
    """
    per_channel = factor.reshape(-1, *(1,) * (acc.dim() - 2))
    if not exact:
        return _Requantize.apply(acc, per_channel.to(acc.dtype), lowest, highest)
    multipliers, shifts = quantize_multipliers(factor.flatten().tolist(), nearest_result_multiplier)
    multiplier = torch.as_tensor(multipliers, device=acc.device).long().reshape(per_channel.shape)
    shift = torch.as_tensor(shifts, device=acc.device).long().reshape(per_channel.shape)
    high = ((acc.round().long() << shift.clamp_min(0)) * multiplier + (1 << 30)) >> 31
    right = (-shift).clamp_min(0)
    mask = (torch.ones_like(right) << right) - 1
    quotient = (high >> right) + ((high & mask) > (mask >> 1) + (high < 0).long()).long()
    return quotient.clamp_(lowest, highest).to(acc.dtype)


def _int8_range(zero: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least and largest v = q - zero of an int8 q."""
    return -128 - zero, 127 - zero


def _round(value: torch.Tensor) -> torch.Tensor:
    return value + (value.round() - value).detach()


class Rescaling(NamedTuple):
    """Per output channel: real units per step of the weights and of the accumulator, the factor from the accumulator to
    the output (float64 in evaluation), the integer multiplier of the residual, or, in the linear layer, of what is taken
    off, the peak, and the factor from the accumulator to the peak."""

    weight: torch.Tensor
    acc: torch.Tensor
    factor: torch.Tensor
    skip: torch.Tensor | None = None
    peak_factor: torch.Tensor | None = None


class QuantizedNetwork(nn.Module):
    """forward takes float images in levels (integer values, noise added), NCHW, and returns logits in real units.

    Scales are real units per step, except input_scale, which is levels per step. All are buffers, so that the state
    dict holds everything the exporter needs; calibrate.quantize sets them.
    """

    def __init__(self, architecture: Architecture, unit: int):
        super().__init__()
        self.architecture = architecture
        self.unit = unit
        self.readings = READINGS if architecture.pooled else 1
        layers = architecture.convolutions
        self.weights = nn.ParameterList(torch.zeros(c.outputs, c.inputs, c.kernel, c.kernel) for c in layers)
        self.biases = nn.ParameterList(torch.zeros(c.outputs) for c in layers)
        self.linear_weight = nn.Parameter(torch.zeros(architecture.classes, architecture.features))
        self.linear_bias = nn.Parameter(torch.zeros(architecture.classes))
        self.register_buffer("input_scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("input_zero", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scales", torch.ones(len(layers), dtype=torch.float64))
        self.register_buffer("features_scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("peak_steps", torch.ones(architecture.classes, dtype=torch.float64))
        self.register_buffer("peak_scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("logits_scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("logits_zero", torch.zeros((), dtype=torch.int64))
        self._position = {layer.name: i for i, layer in enumerate(layers)}

    def fold(self, network: FloatNetwork) -> None:
        """Take over a float network's weights, batch norm folded into the convolutions with its running statistics."""
        with torch.no_grad():
            for i, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
                gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                self.weights[i].copy_(convolution.weight * gain[:, None, None, None])
                self.biases[i].copy_(norm.bias - norm.running_mean * gain)
            self.linear_weight.copy_(network.linear.weight)
            self.linear_bias.copy_(network.linear.bias)

    def scale_of(self, tensor: str) -> torch.Tensor:
        """Real units per step of a convolution's output or of "input"."""
        return self.input_scale / self.unit if tensor == "input" else self.scales[self._position[tensor]]

    def weight_scale(self, i: int) -> torch.Tensor:
        """Scale per output channel of convolution i: largest weight / 127, and never so small that the bias or the
        residual's multiplier would leave its range."""
        layer = self.architecture.convolutions[i]
        weight, scale_in = self.weights[i].detach(), self.scale_of(layer.source)
        largest = weight.abs().amax((1, 2, 3)).double()
        scale = torch.maximum(largest / WEIGHT_LIMIT, largest.max() * 1e-4 / WEIGHT_LIMIT)
        scale = torch.maximum(scale, self.biases[i].detach().abs().double() / scale_in / BIAS_LIMIT)
        if layer.skip is not None:
            scale = torch.maximum(scale, self.scale_of(layer.skip) / scale_in / SKIP_LIMIT)
        return scale

    def linear_weight_scale(self) -> torch.Tensor:
        """Scale per class of the linear layer's weights, which makes a step of the peak a whole number of steps of the
        accumulator: a constant, so that weights which outgrow it saturate."""
        return self.peak_scale / self.features_scale / self.peak_steps

    def set_linear_scale(self) -> None:
        """Choose peak_steps: the largest that leaves every weight at most 127 for each reading. A class of small weights
        gets steps half as large as the class of the largest at most: the peak is taken off by int8 weights as well."""
        largest = self.linear_weight.detach().abs().amax(1).double()
        least = torch.maximum(largest, largest.max() / 2) / (self.readings * WEIGHT_LIMIT)
        self.peak_steps.copy_(torch.floor(self.peak_scale / self.features_scale / least).clamp(1, MOST_PEAK_STEPS))

    @torch.compiler.disable  # compiled, these few float64 divisions would be repeated for every pixel
    def rescaling(self) -> list[Rescaling]:
        """What each convolution, and last the linear layer, scales by."""
        found = []
        for i, layer in enumerate(self.architecture.convolutions):
            weight = self.weight_scale(i)
            acc = self.scale_of(layer.source) * weight
            skip = None if layer.skip is None else torch.round(self.scale_of(layer.skip) / acc).float()
            found.append(Rescaling(weight.float(), acc.float(), acc / self.scales[i], skip))
        weight = self.linear_weight_scale()
        acc = self.features_scale * weight
        factors = acc / self.logits_scale, self.peak_steps.float(), acc / self.peak_scale
        found.append(Rescaling(weight.float(), acc.float(), *factors))
        return [scales._replace(factor=scales.factor.float()) for scales in found] if self.training else found

    @torch.compiler.disable  # its multiplier is computed outside torch
    def input_value(self, levels: torch.Tensor) -> torch.Tensor:
        """v of the input: levels / input_scale to nearest, saturated to int8 around its zero point.

        Always exact: on so small integers double rounding differs from single rounding often, not just next to ties.
        """
        return _requantize(levels, 1.0 / self.input_scale, *_int8_range(self.input_zero), exact=True)

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        return self.trace(levels)["logits"] * self.logits_scale.float()

    def trace(self, levels: torch.Tensor) -> dict[str, torch.Tensor]:
        """All activations as v = q - zero_point: "input", one per convolution, "features", "coarse", "peak", "logits"."""
        values = {"input": self.input_value(levels)}
        *convolutions, linear = self.rescaling()
        for i, (layer, scales) in enumerate(zip(self.architecture.convolutions, convolutions, strict=True)):
            values[layer.name] = self.after_relu(self.accumulator(i, values, scales), scales)
        values["features"] = self.features(values[self.architecture.last])
        acc = self.linear_accumulator(values["features"], linear)
        values["coarse"] = _requantize(acc.detach(), linear.peak_factor, 0, 255, not self.training)
        values["peak"] = values["coarse"].amax(1, keepdim=True)
        # Saturated logits have no gradient, and all saturate that are not near the largest: see decision.py.
        lowest, highest = (-math.inf, math.inf) if self.training else _int8_range(self.logits_zero)
        relative = acc - values["peak"] * linear.skip
        values["logits"] = _requantize(relative, linear.factor, lowest, highest, not self.training)
        return values

    def accumulator(
        self, i: int, values: dict[str, torch.Tensor], scales: Rescaling, rounded: bool = True
    ) -> torch.Tensor:
        """The int32 accumulator of convolution i, its bias and residual added; rounded: False keeps its weights as
        they are."""
        layer = self.architecture.convolutions[i]
        weight = self.weights[i] / scales.weight[:, None, None, None]
        weight = _round(weight) if rounded else weight
        acc = functional.conv2d(values[layer.source], weight, None, layer.stride, layer.kernel // 2).float()
        acc = acc + _round(self.biases[i] / scales.acc)[:, None, None]
        if layer.skip is not None:
            acc = acc + place_skip(values[layer.skip], layer) * scales.skip[:, None, None]
        return acc

    def after_relu(self, acc: torch.Tensor, scales: Rescaling) -> torch.Tensor:
        """The activation that an accumulator becomes: the clamp at the zero point is ReLU."""
        return _requantize(acc, scales.factor, 0, 255, not self.training)

    def linear_accumulator(self, features: torch.Tensor, scales: Rescaling, rounded: bool = True) -> torch.Tensor:
        """The int32 accumulator of the linear layer; rounded as for accumulator()."""
        limit = self.readings * WEIGHT_LIMIT
        weight = (self.linear_weight / scales.weight[:, None]).clamp(-limit, limit)
        weight = _round(weight) if rounded else weight
        return functional.linear(features, weight).float() + _round(self.linear_bias / scales.acc)

    def features(self, value: torch.Tensor) -> torch.Tensor:
        """What the linear layer reads of the last activation."""
        if not self.architecture.pooled:
            return flatten_hwc(value)
        factor = self.scales[-1] / self.features_scale / (value.shape[2] * value.shape[3])
        return _requantize(value.sum((2, 3)), factor, 0, 255, not self.training)
