"""From a float network to its fake-quantized twin: the input's range from the noise, the others from noisy samples.

For activations after ReLU the scale is the one with the least squared error over the samples (clamping a few large
values buys finer steps); the logits keep their whole range, because two clamped logits would tie.
"""

from fractions import Fraction

import torch

from intsmooth.training.fakequant import QuantizedNetwork
from intsmooth.training.network import FloatNetwork

_MOST_VALUES = 400_000


def input_range(levels: tuple[int, int], sigma_levels: Fraction, margin: float) -> tuple[Fraction, int]:
    """(levels per step, zero point) of an int8 input covering [lowest - margin sigma, highest + margin sigma].

    Where several steps fit into a level, a step is 1/k of a level, so that every level has its own exact value.
    """
    reach = Fraction(margin) * sigma_levels
    width = levels[1] - levels[0] + 2 * reach
    step = width / 255
    if step < 1:
        step = Fraction(1, int(1 / step))
    return step, round(-128 - (levels[0] - reach) / step)


def least_error_scale(values: torch.Tensor, steps: int = 255) -> float:
    """The scale s with the least mean of (s * clamp(round(v / s), 0, steps) - v)^2 over non-negative values."""
    values = values.flatten()
    if len(values) > _MOST_VALUES:
        values = values[torch.linspace(0, len(values) - 1, _MOST_VALUES).long()]
    largest = float(values.max())
    if largest <= 0:
        return 1.0 / steps
    candidates = [largest / steps * fraction / 40 for fraction in range(8, 42)]
    errors = [float(((values / s).round_().clamp_(0, steps) * s - values).square().mean()) for s in candidates]
    return candidates[errors.index(min(errors))]


def quantize(
    network: FloatNetwork, samples: torch.Tensor, levels: tuple[int, int], sigma_levels: Fraction, margin: float
) -> QuantizedNetwork:
    """The twin of a float network, batch norm folded, ranges set from `samples`: noisy float images in levels, NCHW."""
    network = network.eval()
    twin = QuantizedNetwork(network.architecture, network.unit).to(samples.device)
    twin.fold(network)
    step, zero = input_range(levels, sigma_levels, margin)
    twin.input_scale.fill_(float(step))
    twin.input_zero.fill_(zero)
    with torch.no_grad():
        values = network.trace(twin.input_value(samples) * float(step))
    for i, layer in enumerate(network.architecture.convolutions):
        twin.scales[i] = least_error_scale(values[layer.name])
    if network.architecture.pooled:
        twin.features_scale.fill_(least_error_scale(values["features"]))
    else:
        twin.features_scale.copy_(twin.scales[-1])
    lowest, highest = float(values["logits"].min()), float(values["logits"].max())
    lowest, highest = min(lowest, 0.0), max(highest, lowest + 1e-6, 0.0)
    scale = (highest - lowest) * 1.05 / 255
    twin.logits_scale.fill_(scale)
    twin.logits_zero.fill_(round(-128 - lowest * 1.025 / scale))
    return twin
