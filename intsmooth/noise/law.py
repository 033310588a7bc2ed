"""The two laws of integer noise, as tables of 64-bit thresholds with a proven distance from the law.

    rounded   Z = floor(Y + 1/2), Y ~ N(0, sigma^2):  P[Z <= -k] = Phi(-(k - 1/2) / sigma)
    discrete  P[Z = k] proportional to exp(-k^2 / (2 sigma^2))     (Canonne, Kamath and Steinke, 2020, definition 1)

sigma is a rational number of levels. A uniform 64-bit integer u gives the outcome `first + #{thresholds <= u}`
(inversion), so the table alone says what is sampled: outcome number i has probability (t[i] - t[i-1]) / 2^64. The
thresholds are the distribution function times 2^64, rounded to nearest, mirrored about 0 so that noise is exactly
symmetric; outcomes further out than the first k with P[Z <= -k] < 2^-65 get no threshold. `tv` bounds what rounding
and cutting cost. Everything is computed with the integer enclosures of `enclosure.py`; no float is involved.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from numbers import Rational

import numpy as np

from intsmooth.errors import InputError
from intsmooth.noise.enclosure import BITS, ONE, Enclosure, exp_minus, gaussian_tail

LAWS = ("rounded", "discrete")
MAX_SIGMA = 3500  # levels; the farthest outcome is 9.16 sigma, and noise plus an 8-bit level must fit int16
_CUT = ONE >> 65
_NEGLIGIBLE = ONE >> 110
_TV_BITS = 128


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """What one coordinate of noise is: outcome = first + #{thresholds <= u} for a uniform 64-bit integer u.

    law:        "rounded" or "discrete"
    sigma:      standard deviation parameter in levels, an exact Fraction
    first:      lowest outcome, in levels
    thresholds: uint64[m], ascending, equal neighbours allowed (an outcome of probability 0); read-only
    tv:         upper bound on the total variation distance, per coordinate, between the table and its law
    """

    law: str
    sigma: Fraction
    first: int
    thresholds: np.ndarray
    tv: Fraction

    @property
    def last(self) -> int:
        """Highest outcome, in levels."""
        return self.first + len(self.thresholds)


def noise_table(sigma_levels: Rational, law: str = "rounded") -> NoiseTable:
    """The table of `law` with parameter sigma_levels (an int or Fraction, in levels, 0 < sigma <= 3500); cached.

    Floats are refused, because 0.12 * 255 is not 30.6: Fraction("0.12") * 255 is. Raises InputError.
    """
    if isinstance(sigma_levels, bool) or not isinstance(sigma_levels, Rational):
        raise InputError(
            f"sigma_levels is {sigma_levels!r} of type {type(sigma_levels).__name__}; an exact rational number of "
            "levels is required: pass an int or a fractions.Fraction, for example Fraction('0.25') * 255"
        )
    if law not in LAWS:
        raise InputError(f"law is {law!r}; it must be one of {', '.join(LAWS)}")
    sigma = Fraction(int(sigma_levels.numerator), int(sigma_levels.denominator))
    if sigma <= 0:
        raise InputError(f"sigma is {sigma} levels; it must be above 0")
    if sigma > MAX_SIGMA:
        raise InputError(f"sigma is {sigma} levels; noise of more than {MAX_SIGMA} levels does not fit int16: use less")
    return _build(sigma, law)


@lru_cache(maxsize=64)
def _build(sigma: Fraction, law: str) -> NoiseTable:
    tails = _rounded_tails(sigma) if law == "rounded" else _discrete_tails(sigma)
    reach = len(tails) - 1  # outcomes are -reach .. reach; tails[reach] is what lies beyond, on either side
    shift = BITS - 64
    lower = [(low + high + (1 << shift)) >> (shift + 1) for low, high in tails[:reach]]
    thresholds = np.array([*reversed(lower), *((1 << 64) - value for value in lower)], dtype=np.uint64)
    thresholds.setflags(write=False)
    return NoiseTable(law, sigma, -reach, thresholds, _total_variation(tails, lower))


def _rounded_tails(sigma: Fraction) -> list[Enclosure]:
    """Enclosures of P[Z <= -k], k = 1, 2, ..., ending with the first that is below 2^-65."""
    tails = []
    while not tails or tails[-1][1] >= _CUT:
        odd = 2 * len(tails) + 1  # (k - 1/2) / sigma = odd / (2 sigma)
        tails.append(gaussian_tail(odd * sigma.denominator, 2 * sigma.numerator))
    return tails


def _discrete_tails(sigma: Fraction) -> list[Enclosure]:
    """Enclosures of P[Z <= -k], k = 1, 2, ..., ending with the first that is below 2^-65.

    The weights exp(-k^2 / (2 sigma^2)) are summed from the far end. What lies beyond the last k is at most
    weight(k) sigma^2 / k, the integral of a falling function (Mills' ratio).
    """
    square, square_denominator = sigma.numerator**2, sigma.denominator**2
    weights = [exp_minus(k * k * square_denominator, 2 * square) for k in (0, 1)]
    while weights[-1][1] > _NEGLIGIBLE:
        weights.append(exp_minus(len(weights) ** 2 * square_denominator, 2 * square))
    last = len(weights) - 1
    low, high = 0, weights[last][1] * (square // (square_denominator * last) + 1)
    sums = []
    for weight_low, weight_high in reversed(weights[1:]):
        low, high = low + weight_low, high + weight_high
        sums.append((low, high))
    sums.reverse()
    total_low, total_high = weights[0][0] + 2 * low, weights[0][1] + 2 * high
    tails = [((low << BITS) // total_high, (high << BITS) // total_low + 1) for low, high in sums]
    return tails[: next(k for k, tail in enumerate(tails) if tail[1] < _CUT) + 1]


def _total_variation(tails: list[Enclosure], lower: list[int]) -> Fraction:
    """Half the sum of |sampled - ideal| over all outcomes, rounded up.

    Let D[k] be the table's P[Z <= -k] minus the law's; the table has probability 0 beyond its reach, so D there is
    minus the tail. Outcome -k has the error D[k] - D[k+1], outcome 0 has -2 D[1], positive ones mirror negative ones.
    Each D is known to the width of its enclosure, and 2 (reach + 1) of them enter the sum.
    """
    errors = [(value << BITS - 64) - low for value, (low, _) in zip(lower, tails, strict=False)]
    errors.append(-tails[-1][0])
    total = tails[-1][0] + abs(errors[0])
    total += sum(abs(near - far) for near, far in zip(errors, errors[1:], strict=False))
    total += 2 * len(errors) * max(high - low for low, high in tails)
    return Fraction(-(-total >> BITS - _TV_BITS), 1 << _TV_BITS)


def pmf(table: NoiseTable) -> list[Fraction]:
    """Exact probabilities of the outcomes table.first, ..., table.last as they are sampled; they add up to 1."""
    edges = [0, *(int(t) for t in table.thresholds), 1 << 64]
    return [Fraction(right - left, 1 << 64) for left, right in zip(edges, edges[1:], strict=False)]
