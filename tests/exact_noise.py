"""The two integer noise laws and their exact worst cases, written down from their definitions: what the theorem is
compared with. Nothing here is shared with the package. Probabilities are floats, right to about 1e-15.
"""

import itertools
import math

import numpy as np


def law_pmf(law: str, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """(outcomes, probabilities) of one coordinate."""
    reach = math.ceil(8.5 * sigma) + 2  # beyond lies less than 1e-16
    k = np.arange(-reach, reach + 1)
    if law == "rounded":
        # The upper tail of |k|, on the side where nothing cancels.
        tail = [math.erfc((abs(int(i)) - 0.5) / (sigma * math.sqrt(2))) / 2 for i in k]
        beyond = [math.erfc((abs(int(i)) + 0.5) / (sigma * math.sqrt(2))) / 2 for i in k]
        pmf = np.array(tail) - np.array(beyond)
        pmf[k == 0] = math.erf(0.5 / (sigma * math.sqrt(2)))
    else:
        pmf = np.exp(-(k.astype(float) ** 2) / (2 * sigma**2))
    return k, pmf / pmf.sum()


def inner_product_law(law: str, sigma: float, delta: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(outcomes, probabilities) of <delta, Z>, by convolution."""
    k, pmf = law_pmf(law, sigma)
    first, total = 0, np.ones(1)
    for d in delta:
        if d:
            spread = np.zeros((len(k) - 1) * abs(d) + 1)
            spread[:: abs(d)] = pmf
            total = np.convolve(total, spread)
            first += int(k[0]) * abs(d)  # the law is symmetric
    return first + np.arange(len(total)), total


def worst_case(law: str, sigma: float, delta: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The lower envelope of (P[x + Z in A], P[x + delta + Z in A]) over all, randomized, sets A: its corners.

    By the lemma of Neyman and Pearson its corners are the sets of smallest likelihood ratio dP(x + delta) / dP(x).
    For the discrete Gaussian that ratio is a function of <delta, Z>; for the rounded law all outcomes are listed and
    sorted.
    """
    if law == "discrete":
        t, pmf = inner_product_law(law, sigma, delta)
        keep = pmf > 0
        t, pmf = t[keep], pmf[keep]
        # Under the shift, the set {<delta, Z> <= t} has the probability P[<delta, Z> <= t - |delta|^2].
        cdf = np.concatenate([[0.0], np.cumsum(pmf)])
        squared = sum(d * d for d in delta)
        return cdf, np.concatenate([[0.0], cdf[np.searchsorted(t, t - squared, side="right")]])
    k, pmf = law_pmf(law, sigma)
    here = there = np.ones(1)
    for d in delta:
        if d:
            moved = np.zeros_like(pmf)  # P[Z + d = k]
            moved[max(d, 0) : len(k) + min(d, 0)] = pmf[max(-d, 0) : len(k) - max(d, 0)]
            here, there = np.outer(here, pmf).ravel(), np.outer(there, moved).ravel()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(here > 0, there / here, np.inf)
    order = np.argsort(ratio, kind="stable")
    return tuple(np.concatenate([[0.0], np.cumsum(mass[order])]) for mass in (here, there))


def small_deltas(dimension: int, largest: int, limit: int) -> list[tuple[int, ...]]:
    """All non-increasing vectors of entries 0..largest with 0 < |delta|^2 <= limit; the others follow by symmetry."""
    vectors = itertools.combinations_with_replacement(range(largest, -1, -1), dimension)
    return [v for v in vectors if 0 < sum(d * d for d in v) <= limit]
