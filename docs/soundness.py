"""Demonstrations for docs/soundness.md: what goes wrong elsewhere, shown next to what this package does.

    python docs/soundness.py            all of them, about half a minute
    python docs/soundness.py floats     one: floats, shortcuts or generator

Needs numpy, scipy and numba. Every number in docs/soundness.md is printed by this script; seeds are fixed.
"""

import math
import re
import sys
from fractions import Fraction

import numpy as np
from scipy.stats import beta, norm

from intsmooth.audit.selftest import QUICK_SAMPLES
from intsmooth.certify import certificate_from_counts
from intsmooth.errors import IntsmoothError
from intsmooth.noise import selftest
from intsmooth.noise.law import noise_table, pmf
from intsmooth.noise.sampler import sample_noise

ALPHA = 0.001
KEY = np.arange(8, dtype=np.uint32)


# 1. Floats: the counterexample of Voracek and Hein, "Sound randomized smoothing in floating-point arithmetics" (2023).

A = np.float32(210 / 255)  # the image, one pixel, in [0, 1] units; 210 in levels
SIGMA = 0.5


def remembers_a(z: np.ndarray) -> np.ndarray:
    """The base classifier in float32: 1 where subtracting a and adding it again gives back z."""
    z = z.astype(np.float32)
    return (((z - A) + A) == z).astype(np.int64)


def float_votes(x: np.float32, n: int, rng: np.random.Generator) -> np.ndarray:
    """Votes of the usual loop: float32 noise is added to a float32 image."""
    noise = rng.standard_normal(n, dtype=np.float32) * np.float32(SIGMA)
    return np.bincount(remembers_a(np.float32(x) + noise), minlength=2)


def float_certify(x: np.float32, n0: int, n: int, rng: np.random.Generator) -> tuple[int, float]:
    """Certify of Cohen, Rosenfeld and Kolter (2019) as everybody implements it: class and radius in [0, 1] units."""
    top = int(np.argmax(float_votes(x, n0, rng)))
    hits = int(float_votes(x, n, rng)[top])
    p = beta.ppf(ALPHA, hits, n - hits + 1)
    return top, float(SIGMA * norm.ppf(p))


def integer_votes(x: int, n: int, table, stage: int) -> np.ndarray:
    """Votes with integer noise: the same classifier of a float, read off an integer level."""
    key = KEY + np.uint32(stage)
    levels = x + sample_noise(table, key, 0, n, 1)[:, 0].astype(np.int64)
    return np.bincount(remembers_a(levels / np.float32(255)), minlength=2)


def integer_probability(x: int, table) -> Fraction:
    """P[class 1] at x, exactly: the sum of the table's probabilities over all outcomes."""
    outcomes = np.arange(table.first, table.last + 1)
    ones = remembers_a((x + outcomes) / np.float32(255))
    return sum((p for p, one in zip(pmf(table), ones, strict=True) if one), Fraction(0))


def floats(n: int = 100_000) -> dict:
    """Certify the counterexample both ways and try to refute each certificate."""
    rng = np.random.default_rng(0)
    top, radius = float_certify(A, 100, n, rng)
    share = float_votes(np.float32(0), n, rng)[top] / n
    print("1. Float noise on a float image: F(z) = 1 where ((z - a) + a) == z in float32, a = 210/255, sigma = 0.5")
    print(f"   usual float loop at a        class {top}, radius {radius:.3f}")
    print(
        f"   at 0, distance {float(A):.3f}         class {top} has {share:.3f} of {n:,} votes: {_verdict(share < 0.5)}"
    )
    table = noise_table(Fraction(SIGMA) * 255, "rounded")
    selection, votes = integer_votes(210, 100, table, 0), integer_votes(210, n, table, 1)
    winner = int(np.argmax(selection))
    made = certificate_from_counts(
        int(votes[winner]), n, sigma=SIGMA, dimension=1, alpha=ALPHA, tv=table.tv, top=winner
    )
    print("   the same F, read off integer levels z / 255, with integer noise of sigma 127.5 levels:")
    reach = math.isqrt(made.budget)
    shares = []
    for delta in range(-reach, reach + 1):
        one = integer_probability(210 + delta, table)
        shares.append(float(one if winner == 1 else 1 - one))
    least, where = min(shares), f"class {winner}, budget {made.budget} squared levels, radius {made.radius:.3f}"
    verdict = f"the exact probability is at least {least:.3f}: {_verdict(least <= 0.5)}"
    print(f"   intsmooth at 210             {where};")
    print(f"      over all {len(shares)} shifts within it {verdict}")
    return {"radius": radius, "share": share, "budget": made.budget, "least": least}


def _verdict(refuted: bool) -> str:
    return "the certificate is REFUTED" if refuted else "not refuted"


# 2. Shortcuts with the discrete Gaussian, P[Z = k] proportional to exp(-k^2 / (2 sigma^2)).


def discrete(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and probabilities, float64, tails below 1e-30 left out."""
    k = np.arange(-math.ceil(12 * sigma), math.ceil(12 * sigma) + 1)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    return k, weights / weights.sum()


def inner_product(sigma: float, delta: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and probabilities of <delta, Z>, by convolution."""
    k, weights = discrete(sigma)
    total, reach = np.ones(1), 0
    for d in delta:
        spread = np.zeros((len(k) - 1) * abs(d) + 1)
        spread[:: abs(d)] = weights
        total, reach = np.convolve(total, spread), reach + int(k[-1]) * abs(d)
    return np.arange(-reach, reach + 1), total


def worst_after_shift(sigma: float, delta: tuple[int, ...], p: float) -> float:
    """The least probability, after the shift delta, of any set of probability p: Neyman and Pearson, exactly.

    The likelihood ratio is a function of <delta, Z>, so the worst sets are half-spaces; between two of them the
    curve through (P[T <= t], P[T <= t - |delta|^2]) is linear.
    """
    t, weights = inner_product(sigma, delta)
    before = np.cumsum(weights)
    square = sum(d * d for d in delta)
    after = np.concatenate([np.zeros(square), before])[: len(before)]
    return float(np.interp(p, before, after))


def shortcuts() -> dict:
    """The four shortcuts of the theory, each with its counterexample."""
    print("2. Shortcuts with the discrete Gaussian")
    result = {}
    k, weights = discrete(1.0)
    cdf = np.cumsum(weights)
    claimed = int(k[np.searchsorted(cdf, 0.95)])
    least = worst_after_shift(1.0, (1, 1, 1), 0.95)
    print(
        f"   inverse of its own CDF: sigma 1, p 0.95 claims radius {claimed}; delta (1,1,1) has norm {math.sqrt(3):.3f}"
    )
    print(f"      and leaves a class of probability 0.95 only {least:.4f}: {_verdict(least < 0.5)}")
    result["inverse"] = (claimed, least)

    p_a, p_b = float(cdf[k == 1][0]), float(1 - cdf[k == 2][0])  # P[Z <= 1] and P[Z >= 3]
    radius = 0.5 * (norm.ppf(p_a) - norm.ppf(p_b))
    top = worst_after_shift(1.0, (2,), p_a)
    other = 1 - worst_after_shift(1.0, (2,), 1 - p_b)
    print(f"   sigma/2 (PhiInv(p_A) - PhiInv(p_B)): sigma 1, p_A {p_a:.6f}, p_B {p_b:.6f} claims radius {radius:.3f};")
    print(f"      at delta 2 both classes have {top:.6f}, {other:.6f}: {_verdict(top <= other + 1e-12)}")
    result["two classes"] = (float(radius), top, other)

    print("   Phi(PhiInv(p) - |delta|/sigma) as a bound on the probability after the shift, its largest excess over p:")
    for sigma, delta in ((1.0, 1), (64.0, 5)):
        t, weights = inner_product(sigma, (delta,))
        p = np.cumsum(weights)
        p = p[(p > 1e-9) & (p < 1 - 1e-9)]
        after = np.array([worst_after_shift(sigma, (delta,), value) for value in p])
        excess = float(np.max(norm.cdf(norm.ppf(p) - delta / sigma) - after))
        print(f"      sigma {sigma:g}, delta {delta}: too high by {excess:.1e}")
        result[f"excess {sigma:g}"] = excess

    t, weights = inner_product(1.0, (1, 1, 1))
    k, single = discrete(math.sqrt(3))
    zero = float(weights[t == 0][0]), float(single[k == 0][0])
    t2, scaled = inner_product(1.0, (2,))
    odd = float(scaled[t2 % 2 == 1].sum())
    print("   <delta, Z> taken for a discrete Gaussian of parameter sigma |delta|: for delta (1,1,1) P[0] is")
    print(f"      {zero[0]:.9f}, not {zero[1]:.9f}; for delta (2,) odd values have probability {odd:g}")
    result["inner product"] = zero

    made = certificate_from_counts(9990, 10_000, sigma=3, unit=1, dimension=3, law="discrete", alpha=ALPHA)
    shifts = _shifts(made.budget)
    worst = min(worst_after_shift(3.0, delta, made.p_lower) for delta in shifts)
    made_of = f"p {made.p_lower:.4f}, budget {made.budget}"
    print(f"   intsmooth, law discrete, sigma 3, 9,990 of 10,000 votes: {made_of}; over all shifts of")
    print(f"      three coordinates within it the exact worst case is {worst:.4f}: {_verdict(worst <= 0.5)}")
    result["intsmooth"] = (made.budget, worst)
    return result


def _shifts(budget: int) -> list[tuple[int, ...]]:
    """Shifts of three coordinates with 0 < |delta|^2 <= budget, up to signs and order, zeros left out."""
    top = math.isqrt(budget)
    every = [(a, b, c) for a in range(1, top + 1) for b in range(a + 1) for c in range(b + 1)]
    return [tuple(d for d in shift if d) for shift in every if sum(d * d for d in shift) <= budget]


# 3. A tampered generator, after Dahiya, Shumailov and Anderson, "Machine learning needs better randomness standards".


def tampered_words(shape: tuple[int, int], bias: float, rng: np.random.Generator) -> np.ndarray:
    """uint32 words, every bit fair but one: the second highest is turned towards the middle with probability `bias`.

    The middle half of the range, words that begin with 01 or 10, are the small outcomes of the table.
    """
    words = rng.integers(0, 2**32, shape, dtype=np.uint32)
    outer = (words >> np.uint32(31)) == ((words >> np.uint32(30)) & np.uint32(1))
    flip = outer & (rng.random(shape, dtype=np.float32) < bias)
    return words ^ (flip.astype(np.uint32) << np.uint32(30))


def tampered_sampler(bias: float):
    """A sampler like noise.sampler.sample_noise, on a generator with a biased bit."""

    def draw(table, key, first, count, n, backend="numba"):
        rng = np.random.default_rng([first, *key.tolist()])
        high = (table.thresholds >> np.uint64(32)).astype(np.uint32)
        noise = np.searchsorted(high, tampered_words((count, n), bias, rng), side="left") + table.first
        return noise.astype(np.int16)

    return draw


def overstatement(bias: float, n: int = 100_000) -> tuple[float, float]:
    """(certified, true) radius in sigmas, of a linear classifier whose boundary is one sigma away from the image."""
    table = noise_table(Fraction("63.75"), "rounded")
    noise = tampered_sampler(bias)(table, KEY, 0, n, 1)[:, 0]
    boundary = 64.0  # levels; P[noise < 64] is about Phi(1), and the true radius 64 levels
    hits = int(np.count_nonzero(noise < boundary))
    made = certificate_from_counts(hits, n, sigma="0.25", dimension=1, alpha=ALPHA, tv=table.tv)
    return made.radius_levels / 63.75, boundary / 63.75


def failed_checks(bias: float, samples: int = 1366) -> tuple[int, int]:
    """(failed, all) statistics of the goodness of fit for noise from the tampered generator."""
    table = noise_table(Fraction("63.75"), "rounded")
    findings = selftest.goodness_of_fit(tampered_sampler(bias)(table, KEY, 0, samples, 3072), table)
    return sum(not finding.passed for finding in findings), len(findings)


def generator() -> dict:
    """Certificates from a tampered generator, and whether the check of the final integers notices."""
    print("3. A generator with one biased bit: large noise made small with the probability given")
    print("   bias     certified radius  true radius   statistics that fail (4.2 million integers)")
    result = {}
    for bias in (0.0, 0.0005, 0.001, 0.01, 0.05, 0.2):
        certified, true = overstatement(bias)
        failed, every = failed_checks(bias)
        note = "  OVERSTATED" if certified > true else ""
        print(f"   {bias:<8} {certified:6.3f} sigma      {true:.3f} sigma   {failed:>3} of {every}{note}")
        result[bias] = (certified, true, failed)
    try:
        selftest.check("numba", draw=tampered_sampler(0.01), seed=bytes(32))
        result["self-test"] = "nothing"
    except IntsmoothError as error:
        result["self-test"] = re.search(r"\d+ of \d+ checks failed", str(error)).group()
    print(f"   the self-test at a bias of 0.01, integers unlike the naive twin's included: {result['self-test']}")
    size, result["start-up"] = QUICK_SAMPLES * 3072, failed_checks(0.05, QUICK_SAMPLES)[0]
    print(
        f"   the check before every `intsmooth certify`, {size:,} integers, at 0.05: {result['start-up']} fail"
    )
    return result


DEMONSTRATIONS = {"floats": floats, "shortcuts": shortcuts, "generator": generator}


def main(names: list[str]) -> int:
    """Run the demonstrations that are named, or all of them."""
    unknown = [name for name in names if name not in DEMONSTRATIONS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(DEMONSTRATIONS)}", file=sys.stderr)
        return 2
    for name in names or DEMONSTRATIONS:
        DEMONSTRATIONS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
