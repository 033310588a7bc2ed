"""Published results tables at another number of samples, for docs/curves.py.

They were made with n = 100,000 samples. `converted` brings them to the n of ours: the radius gives the bound on p, that
bound the share of votes it came from, that share at the smaller n another bound and another radius.
"""

from functools import lru_cache

import numpy as np
from scipy.stats import beta, norm

from intsmooth.results import Results

ALPHA, PUBLISHED_N = 0.001, 100_000


@lru_cache
def lower_bounds(n: int, alpha: float) -> np.ndarray:
    """The one-sided Clopper-Pearson lower bound for each k in 0..n votes: float64 [n + 1], for plots (no rounding)."""
    k = np.arange(1, n + 1)
    return np.concatenate([[0.0], beta.ppf(alpha, k, n - k + 1)])


def votes_of_bounds(p: np.ndarray, n: int, alpha: float = ALPHA) -> np.ndarray:
    """The votes k in 0..n whose lower bound is nearest to each p: float64, whole numbers."""
    bounds = lower_bounds(n, alpha)
    at = np.clip(np.searchsorted(bounds, p), 1, n)
    return np.where(p - bounds[at - 1] < bounds[at] - p, at - 1.0, at)


def converted_radii(radius: np.ndarray, sigma: float, n: int, to_n: int, alpha: float = ALPHA) -> np.ndarray:
    """What radii certified with n samples become with to_n of the same votes; 0 stays 0, and so does what falls to it.

    radius: float64 [N], [0, 1] units, from the one-sided bound: sigma times the quantile of it.
    """
    hits = votes_of_bounds(norm.cdf(radius / sigma), n, alpha) * (to_n / n)
    bound = beta.ppf(alpha, np.maximum(hits, 1e-9), to_n - hits + 1)
    return np.where(radius > 0, np.maximum(sigma * norm.ppf(bound), 0.0), 0.0)


def converted(results: Results, sigma: float, to_n: int, n: int = PUBLISHED_N) -> Results:
    """A published table at another number of samples; where the radius falls to 0 the row abstains."""
    radius = converted_radii(results.radius, sigma, n, to_n)
    lost = (radius == 0) & (results.radius > 0)
    columns = dict(results.columns)
    columns["radius"] = tuple(repr(float(r)) for r in radius)
    columns["predict"] = tuple("-1" if gone else old for gone, old in zip(lost, columns["predict"], strict=True))
    columns["correct"] = tuple("0" if gone else old for gone, old in zip(lost, columns["correct"], strict=True))
    return Results(results.name, columns)
