"""Noise and loss of the training: the laws by chi-square at level 1e-6, the loss against its definition."""

import math
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")

from intsmooth.training.noise import IntegerNoise, consistency_loss  # noqa: E402


def probabilities(law, sigma, outcomes):
    """The law's own definition, in float64."""
    if law == "rounded":
        cdf = [0.5 * math.erfc(-(k + 0.5) / sigma / math.sqrt(2)) for k in (outcomes[0] - 1, *outcomes)]
        return np.diff(cdf)
    weights = np.exp(-(np.arange(-60, 61) ** 2) / (2 * sigma**2))
    return np.exp(-(np.asarray(outcomes) ** 2) / (2 * sigma**2)) / weights.sum()


@pytest.mark.parametrize("law", ["rounded", "discrete"])
@pytest.mark.parametrize("sigma", [Fraction(4), Fraction(3, 4)])
def test_noise_has_its_law(law, sigma):
    from scipy.stats import chi2

    count = 200_000
    levels = torch.full((count,), 7.0)
    noise = IntegerNoise(sigma, law).add_to(levels, torch.Generator().manual_seed(3)).numpy() - 7
    assert np.array_equal(noise, np.round(noise))
    reach = math.ceil(3 * sigma)
    outcomes = list(range(-reach, reach + 1))
    expected = count * probabilities(law, float(sigma), outcomes)
    observed = np.array([(noise == outcome).sum() for outcome in outcomes])
    expected, observed = np.append(expected, count - expected.sum()), np.append(observed, count - observed.sum())
    statistic = ((observed - expected) ** 2 / expected).sum()
    p_value = chi2.sf(statistic, len(expected) - 1)
    assert p_value > 1e-6, f"n = {count}, chi-square {statistic:.1f}, p = {p_value:.2e}"


def test_consistency_loss_is_its_definition():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2 * 5, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 3, 1, 1, 2])
    softmax = torch.softmax(logits, 1).reshape(2, 5, 4).numpy()
    mean = softmax.mean(0)
    cross_entropy = -np.mean([np.log(softmax[i, j, labels[j]]) for i in range(2) for j in range(5)])
    divergence = np.mean([(mean * np.log(mean / softmax[i])).sum(1).mean() for i in range(2)])
    entropy = -(mean * np.log(mean)).sum(1).mean()
    assert float(consistency_loss(logits, labels, 2, 10.0, 0.5)) == pytest.approx(
        cross_entropy + 10 * divergence + 0.5 * entropy, rel=1e-12
    )
    assert float(consistency_loss(logits, labels, 2, 0.0, 0.5)) == pytest.approx(cross_entropy, rel=1e-12)
