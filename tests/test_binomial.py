"""Binomial tails, Clopper-Pearson bounds and the test of `predict`, against exact integers and against SciPy."""

import time
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from math import comb, factorial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from intsmooth.binomial import (
    UNIFORM,
    binomial_test,
    clopper_pearson_lower,
    clopper_pearson_upper,
    ln_factorial,
    tail_bounds,
)
from intsmooth.enclosure import GRID

ALPHA = Fraction(1, 1000)

counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([Fraction(1, 1000), Fraction(1, 10), Fraction(49, 100), Fraction(1, 10**9)])
numerators = st.one_of(st.sampled_from([1, 2, GRID // 2, GRID - 1]), st.integers(1, GRID - 1))


def exact_tail(k: int, n: int, numerator: int) -> Fraction:
    """P[Bin(n, numerator / 2^53) >= k] in integers, term by term."""
    miss = GRID - numerator
    return Fraction(sum(comb(n, j) * numerator**j * miss ** (n - j) for j in range(k, n + 1)), GRID**n)


@pytest.mark.parametrize("m", [0, 1, 2, 100, 255, 256, 257, 1000, 20_000])
def test_ln_factorial_is_right_to_50_digits(m):
    with localcontext() as context:
        context.prec = 80
        exact = Decimal(factorial(m)).ln()
        assert abs(ln_factorial(m) - exact) < Decimal("1e-50") * max(1, m)


@settings(max_examples=300, deadline=None)
@given(counts, numerators, st.one_of(st.just(UNIFORM), st.just(1), st.integers(1, UNIFORM)))
def test_the_tail_lies_between_its_bounds_and_they_are_close(count, numerator, weight):
    k, n = count
    weight = Fraction(weight, UNIFORM)  # has at most 64 decimals
    with localcontext() as context:
        context.prec = 100
        low, high, _ = tail_bounds(k, n, numerator, Decimal(weight.numerator) / weight.denominator)
        low, high = Fraction(low), Fraction(high)
    above, at = exact_tail(k + 1, n, numerator), exact_tail(k, n, numerator) - exact_tail(k + 1, n, numerator)
    assert low <= above + weight * at <= high
    assert high - low <= Fraction(1, 10**29) * (above + at if k * GRID >= n * numerator else 1)


@settings(max_examples=200, deadline=None)
@given(counts, levels)
def test_the_lower_bound_is_the_largest_grid_point_whose_exact_tail_is_at_most_alpha(count, alpha):
    k, n = count
    numerator = int(clopper_pearson_lower(k, n, alpha) * GRID)
    assert k > 0 or numerator == 0
    if numerator:
        assert exact_tail(k, n, numerator) <= alpha
    if k:
        # The next one must fail. An exact tie of tail and alpha (n = 2, alpha = 1/4) counts as failed already.
        assert exact_tail(k, n, numerator + 1) >= alpha


@pytest.mark.parametrize("k, n", [(1, 1000), (500, 1000), (900, 1000), (999, 1000), (1000, 1000)])
def test_the_downward_step_in_integers_at_a_thousand_votes(k, n):
    numerator = int(clopper_pearson_lower(k, n, ALPHA) * GRID)
    assert exact_tail(k, n, numerator) <= ALPHA < exact_tail(k, n, numerator + 1)


@pytest.mark.parametrize(
    "k, n, p",
    [
        (100_000, 100_000, "0.999930924833009"),
        (99_000, 100_000, "0.988989340377475"),
        (51_000, 100_000, "0.505109349244056"),
        (50_100, 100_000, "0.496108985583011"),
        (9_990, 10_000, "0.997588308032568"),
        (900, 1_000, "0.867464018025748"),
        (10, 10, "0.501187233627272"),
        (9, 9, "0.464158883361278"),
    ],
)
def test_reference_values_of_40_digit_arithmetic(k, n, p):
    assert f"{Decimal(clopper_pearson_lower(k, n, ALPHA)):.15f}" == p


@pytest.mark.parametrize("n", [1, 7, 100, 5_000, 10**6])
def test_agreement_with_scipy(n):
    for k in {1, n // 3 or 1, n // 2 or 1, n - n // 50, n - 1 or 1, n}:
        for alpha in (Fraction(1, 1000), Fraction(1, 20), Fraction(1, 10**7)):
            ours, theirs = clopper_pearson_lower(k, n, alpha), special.betaincinv(k, n - k + 1, float(alpha))
            assert ours == pytest.approx(theirs, rel=1e-11, abs=2e-16), (k, n, alpha)


def test_extremes():
    assert clopper_pearson_lower(0, 10, ALPHA) == 0.0
    assert clopper_pearson_lower(1, 10**12, ALPHA) == pytest.approx(1e-15, rel=0.2)
    n = 2**31
    p = clopper_pearson_lower(n, n, ALPHA)
    assert p == pytest.approx(0.001 ** (1 / n), abs=1e-15) and p < 1
    with localcontext() as context:
        context.prec = 80
        assert Decimal(p) ** n <= Decimal("0.001") < Decimal(p + 2**-53) ** n


def test_bounds_grow_with_hits_and_with_alpha():
    bounds = [clopper_pearson_lower(k, 97, ALPHA) for k in range(98)]
    assert all(a < b for a, b in pairwise(bounds))
    assert all(clopper_pearson_lower(k, 97, Fraction(1, 100)) > bounds[k] for k in range(1, 98))


def test_the_upper_bound_mirrors_the_lower_one():
    for k in range(21):
        assert clopper_pearson_upper(k, 20, ALPHA) == 1 - clopper_pearson_lower(20 - k, 20, ALPHA)
    assert clopper_pearson_upper(20, 20, ALPHA) == 1.0


@settings(max_examples=150, deadline=None)
@given(counts, levels, st.integers(0, UNIFORM - 1))
def test_the_randomized_bound_solves_its_equation_and_is_never_below_the_plain_one(count, alpha, uniform):
    k, n = count
    bound = clopper_pearson_lower(k, n, alpha, uniform)
    assert bound >= clopper_pearson_lower(k, n, alpha)
    u, numerator = Fraction(uniform + 1, UNIFORM), int(bound * GRID)

    def tail(m: int) -> Fraction:
        return (1 - u) * exact_tail(k + 1, n, m) + u * exact_tail(k, n, m)

    assert numerator == 0 or tail(numerator) <= alpha
    assert numerator == GRID - 1 or tail(numerator + 1) > alpha * (1 - Fraction(1, 10**25))


def test_the_randomized_bound_at_its_ends():
    plain = clopper_pearson_lower(9, 10, ALPHA)
    assert clopper_pearson_lower(9, 10, ALPHA, UNIFORM - 1) == plain  # U = 1 is the plain bound
    assert clopper_pearson_lower(9, 10, ALPHA, 0) == pytest.approx(clopper_pearson_lower(10, 10, ALPHA), rel=1e-12)
    assert clopper_pearson_lower(10, 10, ALPHA, 0) == 1 - 2**-53  # U <= alpha: any p < 1, but never 1 itself
    assert clopper_pearson_lower(0, 10, ALPHA, 0) > 0 == clopper_pearson_lower(0, 10, ALPHA, UNIFORM // 2)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 25), st.integers(1, GRID - 1), levels)
def test_the_randomized_bound_covers_exactly(n, numerator, alpha):
    """P[bound > p] = sum_k P[X = k] P[U < (alpha - P[X > k]) / P[X = k]] telescopes to alpha, whatever p is."""
    error = Fraction(0)
    for k in range(n + 1):
        above, at = exact_tail(k + 1, n, numerator), exact_tail(k, n, numerator) - exact_tail(k + 1, n, numerator)
        error += at * min(max((alpha - above) / at, 0), 1)
    assert error == alpha
    # And the code decides `bound >= p` as that threshold on U says, on both sides of it.
    k = next(k for k in range(n + 1) if exact_tail(k + 1, n, numerator) < alpha)
    above, at = exact_tail(k + 1, n, numerator), exact_tail(k, n, numerator) - exact_tail(k + 1, n, numerator)
    threshold = (alpha - above) / at
    for factor, reaches in ((1 - Fraction(1, 2**20), True), (1 + Fraction(1, 2**20), False)):
        uniform = int(threshold * factor * UNIFORM)
        if uniform < UNIFORM:
            bound = int(clopper_pearson_lower(k, n, alpha, uniform) * GRID)
            assert (bound >= numerator) == reaches or abs(bound - numerator) <= 1


def test_every_small_two_sided_test_is_exact():
    for n in range(1, 41):
        for k in range(n + 1):
            extreme = max(k, n - k)
            p_value = min(Fraction(1), Fraction(2 * sum(comb(n, j) for j in range(extreme, n + 1)), 2**n))
            for alpha in (ALPHA, Fraction(1, 20), Fraction(499, 1000), p_value, p_value * (1 - Fraction(1, 10**60))):
                assert binomial_test(k, n - k, alpha) == (p_value <= alpha), (k, n, alpha)


@pytest.mark.parametrize("n", [999, 10_000, 100_000])
def test_two_sided_tests_agree_with_scipy_where_the_answer_turns(n):
    critical = int(stats.binom.isf(0.0005, n, 0.5)) + 1
    answers = [binomial_test(k, n - k, ALPHA) for k in range(critical - 1, critical + 2)]
    assert answers == [2 * stats.binom.sf(k - 1, n, 0.5) <= 0.001 for k in range(critical - 1, critical + 2)]
    assert set(answers) == {False, True} and binomial_test(n - critical, critical, ALPHA) == answers[1]


def test_the_two_sided_test_is_fast_enough():
    start = time.perf_counter()
    assert binomial_test(50_521, 49_479, ALPHA) == (stats.binomtest(50_521, 100_000).pvalue <= 0.001)
    assert time.perf_counter() - start < 10
    assert not binomial_test(0, 0, ALPHA)
