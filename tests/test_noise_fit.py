"""Goodness of fit of the final integers at level 1e-6, seeds fixed; the exact sampler of Canonne, Kamath and Steinke.

The statistics here are SciPy's and share nothing with the package's own selftest. A failing test prints the number of
integers, the degrees of freedom and the probability.
"""

import random
from fractions import Fraction
from functools import cache
from math import floor, sqrt

import numpy as np
import pytest
from scipy import stats

from intsmooth.noise.law import noise_table, pmf
from intsmooth.noise.sampler import sample_noise
from intsmooth.noise.stream import stream_key

LEVEL = 1e-6
CASES = [
    (Fraction("63.75"), "rounded"),
    (Fraction(4), "discrete"),
    (Fraction(1, 2), "rounded"),
    (Fraction(255), "discrete"),
]


@cache
def drawn(sigma, law):
    """About four million integers, 1366 samples of a 32 x 32 x 3 image."""
    key = stream_key(b"goodness of fit, a fixed seed...", bytes(32), 1)
    return noise_table(sigma, law), sample_noise(noise_table(sigma, law), key, 2**32 - 683, 1366, 3072)


def pooled(observed, expected, minimum=25):
    """Neighbouring cells added up from the left until each expects `minimum` counts."""
    cells, o, e = [], 0, 0.0
    for count, mean in zip(observed, expected, strict=True):
        o, e = o + count, e + mean
        if e >= minimum:
            cells.append([o, e])
            o, e = 0, 0.0
    cells[-1][0] += o
    cells[-1][1] += e
    return np.array(cells).T


def assert_probable(statistic, probability, n, k):
    message = f"n = {n}, k = {k}, statistic = {statistic:.6g}, probability = {probability:.3g}"
    print(message)
    assert LEVEL < probability, message


def assert_standard_normal(z, n):
    assert_probable(z, 2 * stats.norm.sf(abs(z)), n, 1)


@pytest.mark.parametrize("sigma, law", CASES, ids=str)
def test_counts(sigma, law):
    """Pearson's chi-square of all outcomes against the exact probabilities of the table."""
    table, noise = drawn(sigma, law)
    assert noise.min() >= table.first and noise.max() <= table.last
    counts = np.bincount(noise.ravel().astype(int) - table.first, minlength=len(table.thresholds) + 1)
    observed, expected = pooled(counts, [float(p) * noise.size for p in pmf(table)])
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert_probable(statistic, stats.chi2.sf(statistic, len(observed) - 1), noise.size, len(observed) - 1)
    assert_probable(statistic, stats.chi2.cdf(statistic, len(observed) - 1), noise.size, len(observed) - 1)


@pytest.mark.parametrize("sigma, law", CASES, ids=str)
def test_mean_variance_skew_and_kurtosis(sigma, law):
    """The first four raw moments against the table's, each in units of its own standard deviation."""
    table, noise = drawn(sigma, law)
    outcomes = range(table.first, table.last + 1)
    exact = [float(sum(p * z**k for p, z in zip(pmf(table), outcomes, strict=True))) for k in range(9)]
    values = noise.ravel().astype(np.float64)
    for k in (1, 2, 3, 4):
        z = ((values**k).mean() - exact[k]) / sqrt((exact[2 * k] - exact[k] ** 2) / values.size)
        assert_standard_normal(z, values.size)
    if law == "rounded" and sigma > 1:  # the law's own figures: Sheppard's corrections to a Gaussian
        variance = float(sigma) ** 2 + 1 / 12
        assert abs(values.var() / variance - 1) < 6 * sqrt(2 / values.size)
        assert abs(stats.skew(values)) < 6 * sqrt(6 / values.size)
        assert abs(stats.kurtosis(values)) < 6 * sqrt(24 / values.size)


@pytest.mark.parametrize("sigma, law", CASES[:2], ids=str)
def test_serial_and_cross_coordinate_correlation(sigma, law):
    """Values, magnitudes and parities: neighbours in a sample, across words, blocks and groups, and across samples."""
    table, noise = drawn(sigma, law)
    for transform in (lambda z: z, np.abs, lambda z: z & 1):
        x = transform(noise.astype(np.int32)).astype(np.float32)
        x = (x - x.mean(dtype=np.float64)) / x.std(dtype=np.float64)
        pairs = [(x[:, :-lag], x[:, lag:]) for lag in (1, 2, 3, 15, 16, 17, 255, 256, 257, 512, 2816)]
        pairs += [(x[:-lag], x[lag:]) for lag in (1, 2, 683)]
        for left, right in pairs:
            z = float(np.einsum("ij,ij->i", left, right).sum(dtype=np.float64)) / sqrt(left.size)
            assert_standard_normal(z, left.size)


def test_each_coordinate_has_the_same_law():
    """Two-way table of coordinate (all 3072) by sixteenth of the distribution: no lane, word or block is special."""
    table, noise = drawn(*CASES[0])
    edges = np.quantile(noise.ravel()[::7], np.arange(1, 16) / 16).astype(np.int16)
    classes = np.searchsorted(edges, noise, side="right")
    counts = np.stack([(classes == c).sum(axis=0) for c in range(16)], axis=1)
    share = counts.sum(axis=0) / noise.size
    statistic = ((counts - share * len(noise)) ** 2 / (share * len(noise))).sum()
    degrees = (noise.shape[1] - 1) * 15
    assert_probable(statistic, stats.chi2.sf(statistic, degrees), noise.size, degrees)
    assert_probable(statistic, stats.chi2.cdf(statistic, degrees), noise.size, degrees)


def test_pairs_of_neighbours():
    """Joint law of two neighbours at sigma = 1/2, all pairs counted: independence, not only zero correlation."""
    table, noise = drawn(*CASES[2])
    probability = np.array([float(p) for p in pmf(table)])
    left, right = noise[:, 0::2].ravel().astype(int) - table.first, noise[:, 1::2].ravel().astype(int) - table.first
    counts = np.bincount(left * len(probability) + right, minlength=len(probability) ** 2)
    observed, expected = pooled(counts, np.outer(probability, probability).ravel() * left.size)
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert_probable(statistic, stats.chi2.sf(statistic, len(observed) - 1), left.size, len(observed) - 1)


# The exact sampler of Canonne, Kamath and Steinke (2020), algorithms 1 to 3, on integers and fractions alone.


def bernoulli(p: Fraction, source: random.Random) -> bool:
    return source.randrange(p.denominator) < p.numerator


def bernoulli_exp(gamma: Fraction, source: random.Random) -> bool:
    """True with probability exp(-gamma), gamma >= 0 (algorithm 1)."""
    while gamma > 1:
        if not bernoulli_exp(Fraction(1), source):
            return False
        gamma -= 1
    k = 1
    while bernoulli(gamma / k, source):
        k += 1
    return k % 2 == 1


def discrete_laplace(t: int, source: random.Random) -> int:
    """Probability proportional to exp(-|x| / t) (algorithm 2)."""
    while True:
        u = source.randrange(t)
        if not bernoulli_exp(Fraction(u, t), source):
            continue
        v = 0
        while bernoulli_exp(Fraction(1), source):
            v += 1
        magnitude, negative = u + t * v, source.randrange(2)
        if magnitude or not negative:
            return -magnitude if negative else magnitude


def discrete_gaussian(square: Fraction, source: random.Random) -> int:
    """Probability proportional to exp(-x^2 / (2 square)) (algorithm 3)."""
    t = floor(sqrt(square)) + 1
    while True:
        y = discrete_laplace(t, source)
        if bernoulli_exp((abs(y) - square / t) ** 2 / (2 * square), source):
            return y


@pytest.mark.parametrize("gamma", [Fraction(0), Fraction(1, 3), Fraction(1), Fraction(7, 2)])
def test_exact_bernoulli(gamma):
    source, n = random.Random(2020), 20_000
    hits, p = sum(bernoulli_exp(gamma, source) for _ in range(n)), float(np.exp(-float(gamma)))
    probability = stats.binomtest(hits, n, p).pvalue
    assert_probable(hits, probability, n, 1)


@pytest.mark.parametrize("sigma", [Fraction(1, 2), Fraction(17, 10), Fraction(8)], ids=str)
def test_discrete_law_against_the_exact_rejection_sampler(sigma):
    """Two-sample chi-square: table inversion against a sampler that has no table and no truncation."""
    source, n = random.Random(31), 25_000
    slow = np.array([discrete_gaussian(sigma**2, source) for _ in range(n)])
    key = stream_key(b"two samples, another fixed seed.", bytes(32), 0)
    fast = sample_noise(noise_table(sigma, "discrete"), key, 0, 40, n // 40).ravel()
    low, high = min(slow.min(), fast.min()), max(slow.max(), fast.max())
    counts = np.stack([np.bincount(x.astype(int) - low, minlength=high - low + 1) for x in (slow, fast)])
    a, _ = pooled(counts[0], counts.sum(axis=0), minimum=50)
    b, _ = pooled(counts[1], counts.sum(axis=0), minimum=50)
    statistic = ((a - b) ** 2 / (a + b)).sum()
    assert_probable(statistic, stats.chi2.sf(statistic, len(a) - 1), 2 * n, len(a) - 1)


def test_the_slow_twin_can_tell_the_laws_apart():
    """At sigma = 1/2 rounding differs visibly from the discrete Gaussian: the comparison above has power."""
    source, n = random.Random(7), 20_000
    slow = np.array([discrete_gaussian(Fraction(1, 4), source) for _ in range(n)])
    tables = {law: noise_table(Fraction(1, 2), law) for law in ("rounded", "discrete")}
    zeros = {law: float(pmf(table)[-table.first]) for law, table in tables.items()}
    count = int((slow == 0).sum())
    assert stats.binomtest(count, n, zeros["discrete"]).pvalue > LEVEL
    assert stats.binomtest(count, n, zeros["rounded"]).pvalue < 1e-20


def test_closed_form_probability_of_a_sum():
    """P[Z_1 + Z_2 = 0] at sigma = 1 by convolution of the exact table, against four million pairs."""
    table = noise_table(1, "rounded")
    p = pmf(table)
    exact = float(sum(a * b for a, b in zip(p, reversed(p), strict=True)))
    noise = sample_noise(table, stream_key(b"a sum of two, one fixed seed....", bytes(32), 2), 0, 1366, 3072)
    hits = int((noise[:, ::2] + noise[:, 1::2] == 0).sum())
    z = (hits - exact * noise.size / 2) / sqrt(exact * (1 - exact) * noise.size / 2)
    assert_standard_normal(z, noise.size // 2)
