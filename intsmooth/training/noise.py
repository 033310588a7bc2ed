"""Integer noise in torch, of the same two laws as at certification, and the loss that rewards agreement under it.

Training needs noise of the right law, not a reproducible stream of it: torch's generators draw here, and only the
certifier's sampler (intsmooth.noise) ever enters a certificate.
"""

from fractions import Fraction

import torch
from torch.nn import functional


class IntegerNoise:
    """Integer noise of a standard deviation in levels.

    rounded:  floor(N(0, sigma^2) + 1/2)
    discrete: P[Z = k] proportional to exp(-k^2 / (2 sigma^2)), truncated where the tail is below 1e-16 and drawn by
              inversion of a float64 table
    """

    def __init__(self, sigma_levels: Fraction, law: str):
        self.sigma = float(sigma_levels)
        self.law = law
        if law == "discrete":
            self._first = -int(9 * self.sigma + 1)
            outcomes = torch.arange(self._first, 1 - self._first, dtype=torch.float64)
            weights = torch.exp(-(outcomes**2) / (2 * self.sigma**2))
            self._cumulative = torch.cumsum(weights, 0)[:-1] / weights.sum()

    def add_to(self, levels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """levels (any shape, float32, integer values) plus fresh noise, on the device of both."""
        if self.law == "discrete":
            uniform = torch.rand(levels.shape, dtype=torch.float64, device=levels.device, generator=generator)
            noise = torch.searchsorted(self._cumulative.to(levels.device), uniform) + self._first
            return levels + noise
        # torch draws ten times faster into plainly laid out memory than into channels-last
        noise = torch.empty(levels.numel(), device=levels.device).normal_(0.0, self.sigma, generator=generator)
        return levels + _laid_out_like(levels, noise.add_(0.5).floor_())


def _laid_out_like(values: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """`flat` in the shape of `values`, and in the order of its memory where that is channels-last."""
    if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
        return flat.view(values.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
    return flat.view(values.shape)


def consistency_loss(
    logits: torch.Tensor, labels: torch.Tensor, copies: int, consistency: float, entropy: float
) -> torch.Tensor:
    """Cross-entropy over all noisy copies, plus the consistency regularizer of Jeong and Shin (NeurIPS 2020, eq. 10).

    logits: (copies * N, classes), copy after copy of the same N images; labels (N,).
    With F_i the softmax of copy i and F their mean: consistency * mean_i KL(F || F_i) + entropy * H(F).
    """
    loss = functional.cross_entropy(logits, labels.repeat(copies))
    if not consistency:
        return loss
    log_each = functional.log_softmax(logits, 1).unflatten(0, (copies, -1))
    mean = log_each.exp().mean(0)
    log_mean = mean.clamp_min(1e-20).log()
    divergence = (mean * (log_mean - log_each)).sum(2).mean()
    return loss + consistency * divergence - entropy * (mean * log_mean).sum(1).mean()
