"""The noise tables against independent arithmetic: decimal fractions of 140 digits, SciPy, and the definition of tv."""

import time
from decimal import Decimal, getcontext, localcontext
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from intsmooth.errors import InputError
from intsmooth.noise import enclosure
from intsmooth.noise.law import LAWS, MAX_SIGMA, noise_table, pmf

DIGITS = 140
SIGMAS = [Fraction(s) for s in ("1/100", "1/20", "1/10", "1/7", "1/3", "1/2", "1", "17/10", "4", "30.6", "63.75")]


@pytest.fixture(autouse=True)
def many_digits():
    with localcontext() as context:
        context.prec = DIGITS
        yield


@cache
def pi(digits=DIGITS + 5):
    """Gauss, Legendre, Brent, Salamin: arithmetic and geometric means (nothing like the package's arctangents)."""
    getcontext().prec = digits
    a, b, t, p = Decimal(1), 1 / Decimal(2).sqrt(), Decimal(1) / 4, Decimal(1)
    for _ in range(9):
        a, b, t, p = (a + b) / 2, (a * b).sqrt(), t - p * ((a - b) / 2) ** 2, 2 * p
    return (a + b) ** 2 / (4 * t)


def decimal(x: Fraction) -> Decimal:
    return Decimal(x.numerator) / Decimal(x.denominator)


def phi_minus(x: Fraction) -> Decimal:
    """Phi(-x) by the alternating series of erf; its cancellation at x = 10 costs 44 of the digits."""
    x = decimal(x)
    total, term, n = Decimal(0), x, 0
    while abs(term) > Decimal(10) ** -DIGITS or n < x * x:
        total += term / (2 * n + 1)
        n += 1
        term *= -x * x / (2 * n)
    return Decimal(1) / 2 - total / (2 * pi()).sqrt()


@cache
def ideal_lower_tail(sigma: Fraction, law: str) -> list[Decimal]:
    """P[Z <= -k] for k = 1, 2, ... while above 1e-30, and one more."""
    tails = []
    if law == "rounded":
        k = 1
        while not tails or tails[-1] > Decimal(10) ** -30:
            x = (k - Fraction(1, 2)) / sigma
            tails.append(phi_minus(x) if x < 13 else Decimal(0))
            k += 1
        return tails
    weights, k = [], 0
    while not weights or weights[-1] > Decimal(10) ** -60:
        weights.append((-decimal(Fraction(k * k) / (2 * sigma * sigma))).exp())
        k += 1
    total = weights[0] + 2 * sum(weights[1:])
    tail = Decimal(0)
    for weight in reversed(weights[1:]):
        tail += weight
        tails.append(tail / total)
    return tails[::-1]


def exact_tv(table) -> Decimal:
    """Half the sum of |sampled - ideal|, straight from the definition."""
    tails = ideal_lower_tail(table.sigma, table.law) + [Decimal(0)]
    ideal = {0: 1 - 2 * tails[0]}
    for k in range(1, len(tails)):
        ideal[k] = ideal[-k] = tails[k - 1] - tails[k]
    sampled = {table.first + i: decimal(p) for i, p in enumerate(pmf(table))}
    return sum(abs(sampled.get(z, Decimal(0)) - ideal.get(z, Decimal(0))) for z in ideal.keys() | sampled.keys()) / 2


def test_pi_is_pi():
    assert str(pi()).startswith("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigma", SIGMAS, ids=str)
def test_thresholds_are_the_rounded_distribution_function(sigma, law):
    """Every threshold is the nearest integer to 2^64 P[Z <= k], and the table stops where that integer would be 0."""
    table = noise_table(sigma, law)
    tails = ideal_lower_tail(sigma, law)
    reach = -table.first
    expected = [int((tails[k - 1] * 2**64).to_integral_value()) for k in range(1, reach + 1)]
    assert [int(t) for t in table.thresholds[:reach]] == expected[::-1]
    assert expected == [] or expected[-1] >= 1
    assert tails[reach] * 2**65 < 1


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigma", SIGMAS, ids=str)
def test_tv_is_a_tight_upper_bound(sigma, law):
    table = noise_table(sigma, law)
    exact = exact_tv(table)
    bound = decimal(table.tv)
    assert exact <= bound, (exact, bound)
    # Tight: enclosures are 2^-97 wide at worst, or 2^-88 beyond 11 sigma.
    assert bound <= exact + Decimal(2) ** -82, (exact, bound)
    assert table.tv <= Fraction(len(table.thresholds) + 2, 2**65)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigma", [*SIGMAS, Fraction(255), Fraction(0.12) * 255], ids=str)
def test_shape_of_the_table(sigma, law):
    table = noise_table(sigma, law)
    assert table.thresholds.dtype == np.uint64 and not table.thresholds.flags.writeable
    assert table.first == -table.last and len(table.thresholds) == 2 * table.last
    assert (table.thresholds[1:] >= table.thresholds[:-1]).all()
    probabilities = pmf(table)
    assert sum(probabilities) == 1
    assert probabilities == probabilities[::-1]  # exactly symmetric
    assert all(p >= 0 for p in probabilities)
    assert noise_table(sigma, law) is table  # cached


@pytest.mark.parametrize("sigma", [Fraction(1, 10), Fraction(1), Fraction(255, 4), Fraction(255)], ids=str)
def test_rounded_agrees_with_scipy(sigma):
    table = noise_table(sigma, "rounded")
    edges = (np.arange(table.first, table.last) + 0.5) / float(sigma)
    assert np.allclose(table.thresholds / 2.0**64, stats.norm.cdf(edges), rtol=1e-9, atol=1e-19)


def test_discrete_agrees_with_its_definition_in_floats():
    table = noise_table(4, "discrete")
    weights = np.exp(-(np.arange(table.first, table.last + 1) ** 2) / 32.0)
    assert np.allclose([float(p) for p in pmf(table)], weights / weights.sum(), rtol=1e-12, atol=1e-19)


def test_variances():
    """Sheppard: rounding adds 1/12; the discrete Gaussian's variance is sigma^2 up to e^(-2 pi^2 sigma^2)."""
    for law, expected in (("rounded", 16 + 1 / 12), ("discrete", 16.0)):
        table = noise_table(4, law)
        variance = sum(p * (table.first + i) ** 2 for i, p in enumerate(pmf(table)))
        assert abs(float(variance) - expected) < 1e-12


def test_tiny_sigma_is_always_zero_and_says_how_far_off_that_is():
    for law in LAWS:
        table = noise_table(Fraction(1, 100), law)
        assert table.first == 0 and len(table.thresholds) == 0 and pmf(table) == [1]
        assert 0 < table.tv < Fraction(1, 2**64)


def test_hopelessly_small_sigma_takes_no_time():
    for law in ("rounded", "discrete"):
        assert len(noise_table(Fraction(1, 10**30), law).thresholds) <= 1


def test_largest_sigma_fits_int16_with_an_8_bit_level():
    table = noise_table(MAX_SIGMA, "discrete")
    assert table.last + 255 <= 32767


@pytest.mark.parametrize(
    "sigma", [0, -1, Fraction(-1, 2), MAX_SIGMA + 1, 10**30, 0.25, 63.75, True, "1", None, np.float64(4)]
)
def test_bad_sigma(sigma):
    with pytest.raises(InputError, match="sigma"):
        noise_table(sigma)


@pytest.mark.parametrize("law", ["gaussian", "", None, 0, "Rounded"])
def test_bad_law(law):
    with pytest.raises(InputError, match="law"):
        noise_table(4, law)


def test_numpy_integers_are_rationals():
    assert noise_table(np.int64(4)) is noise_table(4)


def test_building_is_fast():
    """Half a second is the goal at sigma = 255 levels; the limit leaves room for a busy machine."""
    begin = time.process_time()
    noise_table(Fraction(2549999, 10000), "rounded")
    assert time.process_time() - begin < 1.0


@settings(max_examples=60, deadline=None)
@given(st.fractions(0, 11, max_denominator=1000))
def test_gaussian_tail_is_enclosed(x):
    with localcontext() as context:
        context.prec = DIGITS
        low, high = enclosure.gaussian_tail(x.numerator, x.denominator)
        assert low <= phi_minus(x) * enclosure.ONE <= high
        assert high - low <= enclosure.ONE >> 97


@settings(max_examples=60, deadline=None)
@given(st.fractions(0, 200, max_denominator=1000))
def test_exponential_is_enclosed(y):
    with localcontext() as context:
        context.prec = DIGITS
        low, high = enclosure.exp_minus(y.numerator, y.denominator)
        assert low <= (-decimal(y)).exp() * enclosure.ONE <= high
        assert high - low <= enclosure.ONE >> 180


def test_constant_is_enclosed():
    low, high = enclosure.inverse_sqrt_two_pi()
    assert low <= enclosure.ONE / (2 * pi()).sqrt() <= high and high - low <= 2


def test_far_tail_is_enclosed():
    low, high = enclosure.gaussian_tail(111, 10)
    assert low == 0 and phi_minus(Fraction(111, 10)) * enclosure.ONE <= high
