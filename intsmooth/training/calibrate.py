"""From a float network to its fake-quantized twin: the input's range from the noise, all else from noisy samples.

A smoothed classifier takes a vote over draws of the noise, so that errors which differ from draw to draw cancel, and
those which stay move an image's radius. Steps of an activation are of the first kind and clamping is of the second, so
ranges hold all but the few largest of the values seen, unless the float network was trained with bounds of its own, which
are the ranges then. Rounding of the weights is of the second kind: rounding.py
chooses their integers by what it does to an image's share of the votes (influence.py) and by what is left of it in the
mean of several draws. decision.py says what the logits need. Last, biases take up what rounding has moved the means by
(Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019, appendix D), layer by
layer, so that each makes up for those before it. The sums before ReLU are at hand here; convert/bias_correction.py
corrects a finished graph, from its clamped outputs alone.
"""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

import torch

from intsmooth.training.decision import LOGITS_ZERO, PEAK_STEPS, peak_range, shared_weights
from intsmooth.training.fakequant import WEIGHT_LIMIT, QuantizedNetwork
from intsmooth.training.influence import influence
from intsmooth.training.network import FloatNetwork
from intsmooth.training.rounding import mean_of_copies, round_together, terms_and_sums

_OUTSIDE = 3e-7  # share of an activation's values that may saturate: the largest, far from any decision's edge
PIECE = 64  # images whose gradients are held at a time
_LEAST_PEAK = 16  # steps of the sums that make one of the peak, at least: a weight of this size takes it off
_SUMS = 0.03  # weight of the sums' own errors beside that of their influence: a guard where few images speak


def input_range(levels: tuple[int, int], sigma_levels: Fraction, margin: float) -> tuple[Fraction, int]:
    """(levels per step, zero point) of an int8 input covering [lowest - margin sigma, highest + margin sigma].

    Where several steps fit into a level, a step is 1/k of a level, so that every level has its own exact value.
    Otherwise a step is a fraction with an odd numerator: then no level lies halfway between two steps, and what rounding
    adds to the levels of one period it takes off others of it. With steps of 4 levels every fourth level is a tie, all
    of them go the same way, and an image is moved that way under every draw of the noise.
    """
    reach = Fraction(margin) * sigma_levels
    width = levels[1] - levels[0] + 2 * reach
    step = width / 255
    if step < 1:
        step = Fraction(1, int(1 / step))
    elif step.numerator % 2 == 0:
        step += Fraction(1, 8 * step.denominator)
    return step, round(-128 - (levels[0] - reach) / step)


def covering_scale(values: torch.Tensor, outside: float = _OUTSIDE) -> float:
    """The scale with which 0..255 steps hold `values`, which are not negative, but for the share `outside` of them."""
    largest = values.flatten().topk(int(outside * values.numel()) + 1).values[-1]
    return max(float(largest), 1e-6) / 255


@torch.no_grad()
def set_bounds(
    network: FloatNetwork,
    samples: torch.Tensor,
    levels: tuple[int, int],
    sigma_levels: Fraction,
    margin: float,
    outside: float,
) -> None:
    """Give a float network, which is trained on afterwards, the bounds that its integers will have.

    The share `outside` of every activation's values on the samples (N, C, H, W) is above its ceiling; the input reaches as
    far as the integer input does. What the float network was trained with is no error of its integers, and their steps
    are smaller than for the few largest values.
    """
    step, zero = input_range(levels, sigma_levels, margin)
    network.reach.copy_(torch.tensor([float((-128 - zero) * step), float((127 - zero) * step)]))
    network.bounded = True
    network.ceilings.fill_(torch.inf)
    values = network.eval().trace(samples)
    for i, layer in enumerate(network.architecture.convolutions):
        network.ceilings[i] = 255 * covering_scale(values[layer.name], outside)


@torch.no_grad()
def quantize(
    network: FloatNetwork,
    samples: torch.Tensor,
    levels: tuple[int, int],
    sigma_levels: Fraction,
    margin: float,
    copies: int = 1,
    more: Iterable[torch.Tensor] | None = None,
) -> QuantizedNetwork:
    """The twin of a float network, batch norm folded, ranges, weights and biases set from `samples`.

    samples: noisy float images in levels, (copies * N, C, H, W), copy after copy of the same N images. more: pieces of
    the same kind, of other images too, for what needs more images and is done piece by piece (default: the samples).
    """
    network = network.eval()
    twin = QuantizedNetwork(network.architecture, network.unit).to(samples.device).eval()
    twin.fold(network)
    step, zero = input_range(levels, sigma_levels, margin)
    twin.input_scale.fill_(float(step))
    twin.input_zero.fill_(zero)
    values = network.trace(samples)
    for i, layer in enumerate(network.architecture.convolutions):
        ceiling = float(network.ceilings[i])
        twin.scales[i] = ceiling / 255 if math.isfinite(ceiling) else covering_scale(values[layer.name])
    if network.architecture.pooled:
        twin.features_scale.fill_(covering_scale(values["features"]))
    else:
        twin.features_scale.copy_(twin.scales[-1])
    shared = shared_weights(twin.linear_weight)
    twin.linear_weight -= shared
    values["logits"] = values["logits"] - (values["features"] @ shared)[:, None]
    lowest, highest = peak_range(values["logits"])
    twin.linear_bias -= lowest
    values["logits"] = values["logits"] - lowest
    finest = float(twin.features_scale) * float(twin.linear_weight.abs().max()) / WEIGHT_LIMIT
    twin.peak_scale.fill_(max((highest - lowest) / 255, _LEAST_PEAK * finest))
    twin.logits_scale.fill_(float(twin.peak_scale) / PEAK_STEPS)
    twin.logits_zero.fill_(LOGITS_ZERO)
    twin.set_linear_scale()
    influences = influence(network, _pieces(samples, copies) if more is None else more, copies)
    _fit_integers(network, values, twin, samples, copies, influences)
    return twin


def _pieces(samples: torch.Tensor, copies: int) -> Iterator[torch.Tensor]:
    for piece in samples.unflatten(0, (copies, -1)).split(PIECE, 1):
        yield piece.flatten(0, 1)


def _fit_integers(
    network: FloatNetwork,
    wanted: dict[str, torch.Tensor],
    twin: QuantizedNetwork,
    samples: torch.Tensor,
    copies: int,
    influences: list[torch.Tensor],
) -> None:
    """Round the twin's weights and move its biases so that images keep their votes, that every sum before a ReLU, and
    every logit, comes close to the float network's, and is equal to it in the mean.

    wanted: the float network's activations on the samples.
    """
    values = {"input": twin.input_value(samples)}
    for i, layer in enumerate(network.architecture.convolutions):
        scales, sums = twin.rescaling()[i], network.before_relu(i, wanted)
        lacking = sums / scales.acc[:, None, None] - twin.accumulator(i, values, scales, rounded=False)
        lacking, source = mean_of_copies(lacking, copies), mean_of_copies(values[layer.source], copies)
        terms, lacking = terms_and_sums(source, lacking, layer.kernel, layer.stride)
        _round(twin.weights[i], scales.weight, terms, lacking, influences[i])
        found = twin.accumulator(i, values, scales) * scales.acc[:, None, None]
        twin.biases[i] += (sums - found).mean((0, 2, 3))
        scales = twin.rescaling()[i]
        values[layer.name] = twin.after_relu(twin.accumulator(i, values, scales), scales)
    scales, features = twin.rescaling()[-1], twin.features(values[network.architecture.last])
    lacking = wanted["logits"] / scales.acc - twin.linear_accumulator(features, scales, rounded=False)
    lacking, source = mean_of_copies(lacking, copies), mean_of_copies(features, copies)
    _round(twin.linear_weight, scales.weight, source, lacking, influences[-1])
    found = twin.linear_accumulator(features, scales) * scales.acc
    twin.linear_bias += (wanted["logits"] - found).mean(0)


def _round(
    weights: torch.Tensor, scale: torch.Tensor, terms: torch.Tensor, lacking: torch.Tensor, influence: torch.Tensor
) -> None:
    """Make each of a layer's weights a multiple of its output's scale.

    terms: what the weights are multiplied with, (rows, terms); lacking: what the sums lack before, (rows, outputs), in
    steps of the accumulator. A filter's largest weight defines its scale: it is an integer of steps and stays one.
    """
    terms, lacking = (terms - terms.mean(0)).double(), (lacking - lacking.mean(0)).double()
    steps = weights.flatten(1).double() / scale.double()[:, None]
    moments, wanted = (terms.T @ terms / len(terms)).cpu(), (lacking.T @ terms / len(terms)).cpu()
    size = _SUMS / moments.diagonal().mean().clamp_min(1e-30)
    both = (one.cpu().double() / one.diagonal().mean().clamp_min(1e-30).cpu() + size * moments for one in influence)
    integers = round_together(steps.cpu(), both, size * wanted).to(steps)  # many small steps: not for a GPU
    weights.copy_((integers * scale.double()[:, None]).view_as(weights))
