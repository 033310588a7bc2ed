"""influence.py gives what it says: second moments of the gradient of an image's share of votes, per filter."""

import pytest

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")
from torch.nn import functional  # noqa: E402

from intsmooth.training.influence import _share, influence  # noqa: E402
from intsmooth.training.network import FloatNetwork, architecture  # noqa: E402

IMAGES, COPIES = 5, 3


def network_without_gain(name, image):
    """Random weights; batch norms that do nothing but add their bias."""
    torch.manual_seed(3)
    network = FloatNetwork(architecture(name, image, 4), 16).eval()
    for norm in network.norms:
        norm.running_var.fill_(1 - norm.eps)
        torch.nn.init.normal_(norm.bias, 0.0, 0.3)
    return network


@pytest.mark.parametrize(("name", "image"), [("digits_cnn", (8, 8, 1)), ("resnet8", (8, 8, 3))])
def test_second_moments_of_each_filters_gradient(name, image):
    network = network_without_gain(name, image)
    levels = torch.randint(-8, 24, (COPIES * IMAGES, image[2], *image[:2]), generator=torch.Generator().manual_seed(1)).float()
    found = influence(network, [levels], COPIES)

    values = network.trace(levels)
    shares = _share(values["logits"], COPIES)
    assert shares.shape == (IMAGES,)
    layers = network.architecture.convolutions
    weights = [*(layer.weight for layer in network.convolutions), network.linear.weight]
    biases = [*(norm.bias for norm in network.norms), network.linear.bias]
    means = [
        functional.unfold(values[layer.source], layer.kernel, padding=layer.kernel // 2, stride=layer.stride).mean((0, 2))
        for layer in layers
    ] + [values["features"].mean(0)]
    expected = [0.0] * len(weights)
    for share in shares:
        gradients = torch.autograd.grad(share, [*weights, *biases], retain_graph=True)
        for i, mean in enumerate(means):
            z = gradients[i].flatten(1) - gradients[len(weights) + i][:, None] * mean
            expected[i] = expected[i] + z[:, :, None] * z[:, None, :] / IMAGES
    assert len(found) == len(expected)
    for moments, wish in zip(found, expected, strict=True):
        largest = float(wish.detach().abs().max())
        assert moments.shape == wish.shape and largest > 0
        torch.testing.assert_close(moments, wish.detach(), rtol=1e-3, atol=1e-4 * largest)


def test_pieces_are_averaged():
    network = network_without_gain("digits_cnn", (8, 8, 1))
    levels = torch.randint(-8, 24, (COPIES * IMAGES, 1, 8, 8), generator=torch.Generator().manual_seed(2)).float()
    for once, twice in zip(influence(network, [levels], COPIES), influence(network, [levels] * 2, COPIES), strict=True):
        torch.testing.assert_close(once, twice)


def test_a_share_is_soft_only_near_a_tie():
    logits = torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 4.0]])  # two draws of two images, draw after draw
    shares = _share(logits, 2)
    assert shares[0] > 0.95  # both draws are for its class
    assert 0.5 < shares[1] < 0.7  # one for its class, the second, and one against
