"""From a float network to its fake-quantized twin: the input's range from the noise, the others from noisy samples.

For activations after ReLU the scale is the one with the least squared error over the samples (clamping a few large
values buys finer steps). Of the logits, only those need a value of their own that can decide; the others saturate.
Last, biases take up what rounding has moved the means by (Nagel et al., "Data-free quantization through weight
equalization and bias correction", ICCV 2019, appendix D), layer by layer, so that each corrects those before it. The
sums before ReLU are at hand here; convert/bias_correction.py corrects a finished graph, from its clamped outputs alone.
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


def deciding_range(logits: torch.Tensor) -> tuple[float, float]:
    """The range of values (N, classes) in which it is decided which is largest, with an eighth to spare on either side.

    Above it lies at most the largest logit of a sample, below it never the largest: both may saturate and the decision
    stays, in finer steps than all logits would need. It holds 0, as the zero point of an int8 tensor must.
    """
    largest, second = logits.topk(2, 1).values.unbind(1)
    lowest, highest = sorted((float(largest.min()), float(second.max())))
    width = max(highest - lowest, float(logits.max() - logits.min()) / 4, 1e-6)
    return min(lowest - width / 8, 0.0), max(highest + width / 8, 0.0)


@torch.no_grad()
def quantize(
    network: FloatNetwork, samples: torch.Tensor, levels: tuple[int, int], sigma_levels: Fraction, margin: float
) -> QuantizedNetwork:
    """The twin of a float network, batch norm folded, ranges and biases set from `samples`: noisy float images in
    levels, NCHW."""
    network = network.eval()
    twin = QuantizedNetwork(network.architecture, network.unit).to(samples.device).eval()
    twin.fold(network)
    step, zero = input_range(levels, sigma_levels, margin)
    twin.input_scale.fill_(float(step))
    twin.input_zero.fill_(zero)
    values = network.trace(samples)
    for i, layer in enumerate(network.architecture.convolutions):
        twin.scales[i] = least_error_scale(values[layer.name])
    if network.architecture.pooled:
        twin.features_scale.fill_(least_error_scale(values["features"]))
    else:
        twin.features_scale.copy_(twin.scales[-1])
    lowest, highest = deciding_range(values["logits"])
    step = (highest - lowest) / 255
    twin.logits_scale.fill_(step)
    twin.logits_zero.fill_(round(-128 - lowest / step))
    _correct_biases(network, values, twin, samples)
    return twin


def _correct_biases(
    network: FloatNetwork, wanted: dict[str, torch.Tensor], twin: QuantizedNetwork, samples: torch.Tensor
) -> None:
    """Move the twin's biases so that every sum before a ReLU, and every logit, has the float network's mean.

    wanted: the float network's activations on the samples.
    """
    values = {"input": twin.input_value(samples)}
    for i, layer in enumerate(network.architecture.convolutions):
        scales = twin.rescaling()[i]
        found = twin.accumulator(i, values, scales) * scales.acc[:, None, None]
        twin.biases[i] += (network.before_relu(i, wanted) - found).mean((0, 2, 3))
        scales = twin.rescaling()[i]
        values[layer.name] = twin.after_relu(twin.accumulator(i, values, scales), scales)
    scales = twin.rescaling()[-1]
    found = twin.linear_accumulator(twin.features(values[network.architecture.last]), scales) * scales.acc
    twin.linear_bias += (wanted["logits"] - found).mean(0)
