"""Weights rounded together: up or down, as the sums over them need it rather than each weight by itself.

To nearest, the errors of a filter's weights add up in some direction that its inputs share, in a pixel's neighbourhood
above all, and an image is moved towards a class or away from it under every draw of the noise. Among the two neighbours
of every weight those are taken here that leave the least expected squared error: of the sum, the objective of Nagel et
al., "Up or down? Adaptive rounding for post-training quantization" (ICML 2020), section 3, or of what influence.py says
that it leads to. It is descended a weight or two at a time.
"""

from collections.abc import Iterable

import torch
from torch.nn import functional

_MOST_ROWS = 1 << 16
_EXACT = 1e-4  # steps; integers stay what they are
_FIRST = 64  # entries that are tried together with every other one
_GAIN = 1e-9  # of the inputs' mean second moment, counts as lower: rounding errors cannot make it go round in circles


def round_together(weights: torch.Tensor, moments: Iterable[torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
    """Integers, floor or ceiling of each of `weights` (outputs, terms), in steps, float64.

    moments: for each output (terms, terms), E[x x'] of the centred inputs. wanted: (outputs, terms), E[x r] of the
    centred inputs and of what the sum of each output lacks, in steps, before anything is rounded. Ends where no change of
    one weight or of two lowers E[(e x - r)^2], e being the change of the weights; beyond 64 terms not every pair is tried.
    """
    nearest = weights.round()
    error = nearest - weights
    error[error.abs() < _EXACT] = 0  # a quotient's own rounding error
    chosen, other = nearest.clone(), nearest - error.sign()
    for row, second in enumerate(moments):
        _descend(chosen[row], other[row], error[row] @ second - wanted[row], second)
    return chosen


def _descend(chosen: torch.Tensor, other: torch.Tensor, slope: torch.Tensor, moments: torch.Tensor) -> None:
    """Exchange entries of `chosen` with those of `other`, in place, one or two at a time, whichever gains most.

    slope: half the gradient of the objective at `chosen`, kept up to date. Pairs are tried where no single one gains, one
    of the two being among those that would lose least alone.
    """
    diagonal = moments.diagonal()
    enough = -_GAIN * float(diagonal.mean())
    while True:
        step = other - chosen
        alone = step * (2 * slope + step * diagonal)
        changed = [int(alone.argmin())]
        if alone[changed[0]] >= enough:
            first = alone.topk(min(_FIRST, len(alone)), largest=False).indices
            both = alone[first, None] + alone + 2 * step[first, None] * step * moments[first]
            both[torch.arange(len(first)), first] = 0
            least = int(both.argmin())
            changed = [int(first[least // len(step)]), least % len(step)]
            if both.flatten()[least] >= enough:
                return
        for i in changed:
            slope += step[i] * moments[i]
            chosen[i], other[i] = other[i].clone(), chosen[i].clone()


def mean_of_copies(values: torch.Tensor, copies: int) -> torch.Tensor:
    """(copies * N, ...), copy after copy of the same N images, -> (N, ...): what does not cancel over draws of the noise."""
    return values.unflatten(0, (copies, -1)).mean(0)


def terms_and_sums(
    values: torch.Tensor, sums: torch.Tensor, kernel: int, stride: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a convolution's input and output, what the weights are multiplied with and what comes out, a row per output
    pixel: (rows, inputs * kernel * kernel), (rows, outputs); of every k-th image where there would be too many rows."""
    every = max(1, sums[:, 0].numel() // _MOST_ROWS)
    columns = functional.unfold(values[::every], kernel, padding=kernel // 2, stride=stride)
    return columns.transpose(1, 2).flatten(0, 1), sums[::every].permute(0, 2, 3, 1).flatten(0, 2)
