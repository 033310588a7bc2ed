"""How an image's share of the votes moves with each weight: what rounding has to leave alone.

To first order, changing the weights of one filter by e moves the share of an image's votes that its class gets by e . z,
z being the gradient of that share in the filter's weights: summed over the pixels where the filter is at work, averaged
over draws of the noise. Most directions e move next to nothing, and a filter has many choices of integers. The one to
take has the least mean of (e . z)^2 over images; the second moments E[z z'] of each filter are all that it needs. They
are the Fisher information that Li et al. reconstruct by ("BRECQ", ICLR 2021, section 3.2), here of a vote over draws.
"""

from collections.abc import Iterable, Iterator

import torch
from torch.nn import functional

from intsmooth.training.network import FloatNetwork

_SOFT = 1 / 3  # of the median margin: so wide is the passage of a vote from one class to another


def influence(network: FloatNetwork, pieces: Iterable[torch.Tensor], copies: int) -> list[torch.Tensor]:
    """E[z z'] of each convolution's filters and of the linear layer's: (outputs, terms, terms) per layer, float32.

    pieces: noisy float images in levels, (copies * N, C, H, W), copy after copy of the same N images. Inputs are taken
    less their means over the first piece: biases are set afterwards, so that no mean moves.
    """
    total: list[torch.Tensor] = []
    means: list[torch.Tensor] = []
    images = 0
    for levels in pieces:
        images += len(levels) // copies
        for i, (gradient, terms) in enumerate(_gradients_and_terms(network.eval(), levels, copies)):
            if i == len(means):
                means.append(terms.mean((0, 2))[:, None])
                total.append(0.0)
            z = gradient.flatten(2) @ (terms - means[i]).transpose(1, 2)
            z = z.unflatten(0, (copies, -1)).sum(0).transpose(0, 1)
            total[i] = total[i] + z.transpose(1, 2) @ z
    return [moments / images for moments in total]


def _gradients_and_terms(
    network: FloatNetwork, levels: torch.Tensor, copies: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Per layer, for every sample and pixel: the gradient of its image's share in the sums, (copies * N, outputs, ...),
    and what the weights are multiplied with, (copies * N, terms, pixels)."""
    layers = network.architecture.convolutions
    with torch.enable_grad():
        values = {"input": network.input_value(levels).requires_grad_()}
        sums = []
        for i, layer in enumerate(layers):
            sums.append(network.before_relu(i, values))
            values[layer.name] = network.after_relu(i, sums[-1])
        features = network.features(values[network.architecture.last])
        sums.append(network.linear(features))
        gradients = torch.autograd.grad(_share(sums[-1], copies).sum(), sums)
    with torch.no_grad():
        for layer, gradient in zip(layers, gradients[:-1], strict=True):
            source = values[layer.source].detach()
            yield gradient, functional.unfold(source, layer.kernel, padding=layer.kernel // 2, stride=layer.stride)
        yield gradients[-1][:, :, None], features.detach()[:, :, None]


def _share(logits: torch.Tensor, copies: int) -> torch.Tensor:
    """(N,) the share of each image's draws that are for the class of the largest mean logit, with a soft edge."""
    classes = logits.detach().unflatten(0, (copies, -1)).mean(0).argmax(1).repeat(copies)[:, None]
    others = logits.scatter(1, classes, -torch.inf).amax(1)
    margin = logits.gather(1, classes)[:, 0] - others
    width = (margin.detach().abs().median() * _SOFT).clamp_min(1e-12)
    return torch.sigmoid(margin / width).unflatten(0, (copies, -1)).mean(0)
