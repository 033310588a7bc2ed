"""From a float network to its fake-quantized twin: the input's range from the noise, all else from noisy samples.

A smoothed classifier takes a vote over draws of the noise, so that errors which differ from draw to draw cancel, and
those which stay move an image's radius. Steps of an activation are of the first kind and clamping is of the second, so
ranges hold the largest value seen. Rounding of the weights is of the second kind: rounding.py chooses their integers by
what is left of it in the mean of several draws. decision.py says what the logits need. Last, biases take up what rounding
has moved the means by (Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019,
appendix D), layer by layer, so that each makes up for those before it. The sums before ReLU are at hand here;
convert/bias_correction.py corrects a finished graph, from its clamped outputs alone.
"""

from fractions import Fraction

import torch

from intsmooth.training.decision import common_part, deciding_range, tie_offsets
from intsmooth.training.fakequant import QuantizedNetwork
from intsmooth.training.network import FloatNetwork
from intsmooth.training.rounding import mean_of_copies, round_together, terms_and_sums


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


def covering_scale(values: torch.Tensor) -> float:
    """The least scale with which 0..255 steps hold all of `values`, which are not negative."""
    return max(float(values.max()), 1e-6) / 255


@torch.no_grad()
def quantize(
    network: FloatNetwork,
    samples: torch.Tensor,
    levels: tuple[int, int],
    sigma_levels: Fraction,
    margin: float,
    copies: int = 1,
) -> QuantizedNetwork:
    """The twin of a float network, batch norm folded, ranges, weights and biases set from `samples`.

    samples: noisy float images in levels, (copies * N, C, H, W), copy after copy of the same N images.
    """
    network = network.eval()
    twin = QuantizedNetwork(network.architecture, network.unit).to(samples.device).eval()
    twin.fold(network)
    step, zero = input_range(levels, sigma_levels, margin)
    twin.input_scale.fill_(float(step))
    twin.input_zero.fill_(zero)
    values = network.trace(samples)
    for i, layer in enumerate(network.architecture.convolutions):
        twin.scales[i] = covering_scale(values[layer.name])
    if network.architecture.pooled:
        twin.features_scale.fill_(covering_scale(values["features"]))
    else:
        twin.features_scale.copy_(twin.scales[-1])
    weights, bias = common_part(values["features"], values["logits"])
    twin.linear_weight -= weights
    twin.linear_bias -= bias
    values["logits"] = values["logits"] - (values["features"] @ weights + bias)[:, None]
    lowest, highest = deciding_range(values["logits"])
    step = (highest - lowest) / 255
    twin.logits_scale.fill_(step)
    twin.logits_zero.fill_(round(-128 - lowest / step))
    _fit_integers(network, values, twin, samples, copies)
    twin.linear_bias += tie_offsets(values["logits"], step)
    return twin


def _fit_integers(
    network: FloatNetwork, wanted: dict[str, torch.Tensor], twin: QuantizedNetwork, samples: torch.Tensor, copies: int
) -> None:
    """Round the twin's weights and move its biases so that every sum before a ReLU, and every logit, comes as close to
    the float network's as it can, and is equal to it in the mean.

    wanted: the float network's activations on the samples.
    """
    values = {"input": twin.input_value(samples)}
    for i, layer in enumerate(network.architecture.convolutions):
        scales, sums = twin.rescaling()[i], network.before_relu(i, wanted)
        lacking = sums / scales.acc[:, None, None] - twin.accumulator(i, values, scales, rounded=False)
        lacking, source = mean_of_copies(lacking, copies), mean_of_copies(values[layer.source], copies)
        _round(twin.weights[i], scales.weight, *terms_and_sums(source, lacking, layer.kernel, layer.stride))
        found = twin.accumulator(i, values, scales) * scales.acc[:, None, None]
        twin.biases[i] += (sums - found).mean((0, 2, 3))
        scales = twin.rescaling()[i]
        values[layer.name] = twin.after_relu(twin.accumulator(i, values, scales), scales)
    scales, features = twin.rescaling()[-1], twin.features(values[network.architecture.last])
    lacking = wanted["logits"] / scales.acc - twin.linear_accumulator(features, scales, rounded=False)
    _round(twin.linear_weight, scales.weight, mean_of_copies(features, copies), mean_of_copies(lacking, copies))
    found = twin.linear_accumulator(features, scales) * scales.acc
    twin.linear_bias += (wanted["logits"] - found).mean(0)


def _round(weights: torch.Tensor, scale: torch.Tensor, terms: torch.Tensor, lacking: torch.Tensor) -> None:
    """Make each of a layer's weights a multiple of its output's scale.

    terms: what the weights are multiplied with, (rows, terms); lacking: what the sums lack before, (rows, outputs), in
    steps of the accumulator. A filter's largest weight defines its scale: it is an integer of steps and stays one.
    """
    terms, lacking = (terms - terms.mean(0)).double(), (lacking - lacking.mean(0)).double()
    steps = weights.flatten(1).double() / scale.double()[:, None]
    moments, wanted = terms.T @ terms / len(terms), lacking.T @ terms / len(terms)
    integers = round_together(steps.cpu(), moments.cpu(), wanted.cpu()).to(steps)  # many small steps: not for a GPU
    weights.copy_((integers * scale.double()[:, None]).view_as(weights))
