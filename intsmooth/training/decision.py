"""Logits in int8 that decide as the float ones, although eight bits for the range of all logits are too few.

Logits a coarse step apart would be equal now and then, and the lower index would win: images between two classes would
move towards one of them under every draw of the noise. So the linear layer is run twice. The first, coarse logits serve
for their maximum alone, the peak. The second ones are less the peak, so that only a step of the coarse ones is left in
which it is decided who is largest, and their steps are 1/128 of that. What is far below saturates.
"""

import torch

PEAK_STEPS = 128  # of the logits, in one step of the peak
LOGITS_ZERO = 51  # int8 reaches from 1.4 peak steps below the peak, which is rounded, to 0.6 above
_SPARE = 1 / 2  # of the range of the largest logits, on either side, for images that are not among the samples


def shared_weights(weights: torch.Tensor) -> torch.Tensor:
    """(features,) what to take off every class's weights (classes, features), so that the largest of them becomes as
    small as it can: no decision changes, and steps become finer."""
    return (weights.amax(0) + weights.amin(0)) / 2


def peak_range(logits: torch.Tensor) -> tuple[float, float]:
    """Where a sample's largest logit may lie, from logits (N, classes), with half of that to spare on either side."""
    largest = logits.amax(1)
    lowest, highest = float(largest.min()), float(largest.max())
    width = max(highest - lowest, 1e-6)
    return lowest - width * _SPARE, highest + width * _SPARE
