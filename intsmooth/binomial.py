"""From counts to probabilities: binomial tails, Clopper-Pearson bounds, and the test behind `predict`.

A library's quantile function answers "about p"; a certificate needs "at most p". Here every tail is enclosed between
two numbers, and a bound on a probability is a multiple of 2^-53 at which the enclosed tail was *checked* to be at
most alpha. How the candidate was found does not matter to its soundness. The test of `predict` uses integers and
nothing else.
"""

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial
from statistics import NormalDist

from intsmooth.enclosure import GRID, decimal_above, decimal_below, precise
from intsmooth.normal import PI

LARGEST_N = 2**40
UNIFORM = 2**64  # the randomized bound takes a uniform integer in [0, UNIFORM)

_ONE = 2**160  # fixed point of the sums
_SMALLEST_TERM = _ONE >> 112
_MARGIN = Decimal("1e-40")  # relative, far above the rounding errors of 60-digit decimals for n <= LARGEST_N
_STIRLING_FROM = 256
# B_2j / (2j (2j - 1)), j = 1..12, the coefficients of m^(1 - 2j) in Stirling's series for ln m!
_STIRLING = [
    Fraction(1, 12), Fraction(-1, 360), Fraction(1, 1260), Fraction(-1, 1680), Fraction(1, 1188),
    Fraction(-691, 360360), Fraction(1, 156), Fraction(-3617, 122400), Fraction(43867, 244188),
    Fraction(-174611, 125400), Fraction(77683, 5796), Fraction(-236364091, 1506960),
]  # fmt: skip


@lru_cache(maxsize=1024)
@precise
def ln_factorial(m: int) -> Decimal:
    """ln(m!), absolute error below 1e-56 + 1e-58 m ln m.

    Exact but for one rounding below 256. From there Stirling's series to its twelfth term: it envelops ln m!, so that
    the error is below the thirteenth term, 2193 / m^25 < 1e-56 (Whittaker and Watson, A Course of Modern Analysis,
    12.33).
    """
    if m < _STIRLING_FROM:
        return Decimal(factorial(m)).ln()
    x = Decimal(m)
    series = sum(Decimal(c.numerator) / c.denominator / x ** (2 * j + 1) for j, c in enumerate(_STIRLING))
    return (x + Decimal("0.5")) * x.ln() - x + (2 * PI).ln() / 2 + series


@precise
def _probability(k: int, n: int, p: Decimal) -> Decimal:
    """P[X = k], X ~ Bin(n, p), 0 < p < 1, relative error below 1e-42."""
    exponent = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
    if k:
        exponent += k * p.ln()
    if n - k:
        exponent += (n - k) * (1 - p).ln()
    return exponent.exp()


def _tail_over_first(k: int, n: int, a: int, b: int) -> tuple[int, int]:
    """Integers low <= S <= high, S = 2^160 P[X >= k] / P[X = k], X ~ Bin(n, a / (a + b)), for (n - k) a < (k + 1) b.

    Successive probabilities have the ratio (n - j) a / ((j + 1) b), below 1 from the start and falling. Every term is
    rounded down, which after i steps has cost at most i units; what is left out at the end is bounded by a geometric
    series.
    """
    term = low = _ONE
    steps = rest = 0
    for j in range(k, n):
        term = term * ((n - j) * a) // ((j + 1) * b)
        low += term
        steps += 1
        if term < _SMALLEST_TERM:
            numerator = (n - j - 1) * a
            denominator = (j + 2) * b - numerator
            rest = -(-(term + steps) * numerator // denominator)
            if rest < _SMALLEST_TERM:
                break
            rest = 0
    return low, low + steps * (steps + 1) // 2 + rest


@precise
def tail_bounds(k: int, n: int, numerator: int, weight: Decimal = Decimal(1)) -> tuple[Decimal, Decimal, Decimal]:
    """(low, high, at): P[X > k] + weight P[X = k] lies in [low, high]; `at` is about P[X = k].

    X ~ Bin(n, p) with p = numerator / 2^53, 0 < p < 1; 0 <= k <= n <= 2^40; 0 <= weight <= 1. The width is about 1e-30,
    relative where k >= n p and absolute elsewhere. Time grows with the standard deviation of X.
    """
    p, miss = Decimal(numerator) / GRID, GRID - numerator
    at = _probability(k, n, p)
    above = k * GRID >= n * numerator
    low, high = _tail_over_first(k, n, numerator, miss) if above else _tail_over_first(n - k, n, miss, numerator)
    at_least, at_most = at * (1 - _MARGIN), at * (1 + _MARGIN)
    low, high = low * at_least / _ONE, high * at_most / _ONE  # of P[X >= k], or P[X <= k] where that tail is shorter
    if above:
        return low - (1 - weight) * at_most, high - (1 - weight) * at_least, at
    return 1 - high + weight * at_least - _MARGIN, 1 - low + weight * at_most + _MARGIN, at


@precise
def _find_lower_bound(k: int, n: int, target: Decimal, weight: Decimal) -> int:
    """About the largest numerator p 2^53 with P[X > k] + weight P[X = k] <= target.

    Newton's method on ln(tail) as a function of the log odds of p, from Wilson's interval. That function is
    increasing and concave (its second derivative is the variance of X given the tail less that of X), so that from
    the second step on the iterates rise to the root and do not pass it.
    """
    goal = target.ln()
    z = -NormalDist().inv_cdf(max(float(target), 1e-300))
    share = max(k - float(weight) / 2, 0.0) / n
    width = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    numerator = int((share + z * z / (2 * n) - width) / (1 + z * z / n) * GRID)
    for _ in range(60):
        numerator = min(max(numerator, 1), GRID - 1)
        low, high, at = tail_bounds(k, n, numerator, weight)
        tail, odds = (low + high) / 2, Decimal(numerator) / (GRID - numerator)
        slope = at * (weight * k + (1 - weight) * (n - k) * odds) / (1 + odds) / tail
        odds *= max(min((goal - tail.ln()) / slope, Decimal(3)), Decimal(-3)).exp()
        previous, numerator = numerator, int(odds / (1 + odds) * GRID)
        # The next error is about the square of this step, relative, times the standard deviation of X, below 2^20.
        if abs(numerator - previous) <= 1 + (min(previous, GRID - previous) >> 40):
            break
    return min(max(numerator, 0), GRID - 1)


@lru_cache(maxsize=4096)
@precise
def clopper_pearson_lower(k: int, n: int, alpha: Fraction, uniform: int | None = None) -> float:
    """A lower confidence bound on p from k hits among n votes, one-sided, at level alpha (Clopper and Pearson, 1934).

    The largest multiple of 2^-53 (a float, exactly) at which P[Bin(n, p) >= k] <= alpha was checked with all errors
    against it; 0 for k = 0. 0 <= k <= n, 1 <= n <= 2^40, 0 < alpha < 1/2.

    With `uniform`, an integer drawn uniformly from [0, 2^64) and independently of the votes, the bound is Stevens'
    (1950) randomized one, P[X > k] + U P[X = k] <= alpha with U = (uniform + 1) / 2^64: never below the plain bound,
    and exact in coverage but for the rounding of U, which is upward and so towards a lower bound.
    """
    weight = Decimal(1) if uniform is None else decimal_above(Fraction(uniform + 1, UNIFORM))
    target = decimal_below(alpha)

    def passes(numerator: int) -> bool:
        return tail_bounds(k, n, numerator, weight)[1] <= target

    if k == 0 and weight >= target:
        return 0.0
    if k == n and weight <= target:  # every p < 1 passes, and 1 itself would claim an infinite radius
        return (GRID - 1) / GRID
    passing = _find_lower_bound(k, n, target, weight)
    failing, step = passing + 1, 1
    while passing > 0 and not passes(passing):
        passing, failing, step = max(passing - step, 0), passing, 2 * step
    while failing < GRID and passes(failing):
        passing, failing, step = failing, min(failing + step, GRID), 2 * step
    while failing - passing > 1:  # only where Newton's method had not quite arrived
        middle = (passing + failing) // 2
        passing, failing = (middle, failing) if passes(middle) else (passing, middle)
    return passing / GRID


def clopper_pearson_upper(k: int, n: int, alpha: Fraction) -> float:
    """An upper confidence bound on p, one-sided at level alpha: one minus the lower bound for n - k, exactly."""
    return 1.0 - clopper_pearson_lower(n - k, n, alpha)


@precise
def binomial_test(first: int, second: int, alpha: Fraction) -> bool:
    """Whether two counts differ at level alpha: the exact two-sided binomial test at p = 1/2.

    The p-value is min(1, 2 P[Bin(first + second, 1/2) >= max(first, second)]); the answer is `p-value <= alpha`,
    decided exactly. This is the test of Cohen, Rosenfeld and Kolter (2019, Predict), after Hung and Fithian (2019).
    """
    n, k = first + second, max(first, second)
    if 2 * k <= n + 1:
        return alpha >= 1  # a draw, or one vote more: the p-value is 1
    # Not by way of C(n, k), which has about n digits and for n = 2^31 would take hours.
    low, high, _ = tail_bounds(k, n, GRID // 2)
    if 2 * high <= decimal_below(alpha):
        return True
    if 2 * low > decimal_above(alpha):
        return False
    # Equal to 30 digits: only a level made for the occasion comes here, such as the p-value itself.
    return 2 * sum(comb(n, j) for j in range(k, n + 1)) * alpha.denominator <= alpha.numerator << n
