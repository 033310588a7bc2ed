"""The robustness theorem for integer noise: from a probability to a radius, and back.

Both noise laws are a continuous Gaussian, their *ancestor*, followed by a random map onto the integers that commutes
with integer shifts; the `discrete` law only up to a density ratio within e^(+-eta). So the theorem of Cohen,
Rosenfeld and Kolter (2019) holds for the ancestor, and what the way there and back costs is subtracted. With

    s     the ancestor's standard deviation in levels,
    eta   the log of the density ratio, for all coordinates together,
    T     the total variation distance, for all coordinates together, from the law to the sampler that really runs,

a lower bound p on the probability of class c at x guarantees class c at x + delta for every integer delta with
|delta| <= r < R,

    R = s (PhiInv((p - T) e^-eta) - PhiInv((1/2 + T) e^eta)).

`docs/theory.md` proves it. Everything here returns a number on the safe side: radii are rounded down, the probability
that a radius needs is rounded up.
"""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil

from intsmooth.enclosure import GRID, decimal_above, decimal_below, exact_text, precise
from intsmooth.errors import InputError
from intsmooth.normal import CDF_ERROR, PI, normal_cdf, quantile_above, quantile_below

LAWS = ("rounded", "discrete")
LARGEST_ETA = Decimal("1e-9")  # what the default tau of the discrete law allows itself
TAU_GRID = 1024  # the default tau is a multiple of 1 / TAU_GRID levels
MARGIN = Decimal("1e-50")  # relative, far above the few roundings of a formula, 1e-58

_LARGEST_QUANTILE = Decimal("8.2")  # PhiInv(1 - 2^-53) = 8.2095: no probability on the grid reaches further


@dataclass(frozen=True)
class Ancestor:
    """The continuous Gaussian behind an integer noise law, with what the way to the sampler and back costs.

    sigma (the law's parameter), tau and scale are in levels; tau is 0 for the rounded law, which loses nothing.
    scale <= s, shrink <= e^-eta, slack >= T, half >= (1/2 + T) e^eta, centre >= PhiInv(half); `grow` >= e^eta.
    """

    law: str
    sigma: Fraction
    dimension: int
    tv: Fraction
    tau: Fraction
    eta: Decimal
    scale: Decimal
    shrink: Decimal
    grow: Decimal
    slack: Decimal
    half: Decimal
    centre: Decimal

    @precise
    def radius(self, p: float) -> Decimal:
        """A radius in levels, below R by less than 1e-28 s; 0 where p is too small to certify anything.

        p is a lower bound on the probability of the class at x, any float in [0, 1).
        """
        ancestral = (Decimal(p) - self.slack) * self.shrink - MARGIN
        if ancestral <= self.half:
            return Decimal(0)
        return max(self.scale * (quantile_below(ancestral) - self.centre) * (1 - MARGIN), Decimal(0))

    @precise
    def probability(self, radius: Fraction) -> float:
        """The smallest multiple of 2^-53, or one more, whose `radius` is at least `radius` levels.

        Raises InputError where no probability below 1 - 2^-53 is enough.
        """
        z = decimal_above(radius) / self.scale * (1 + MARGIN) + self.centre
        if z < _LARGEST_QUANTILE:
            p = (normal_cdf(z) + CDF_ERROR) / self.shrink + self.slack
            for numerator in range(ceil(p * GRID), GRID):
                if Fraction(self.radius(numerator / GRID)) >= radius:
                    return numerator / GRID
        raise InputError(
            f"a radius of {float(radius):g} levels is asked for, at sigma = {exact_text(self.sigma)} levels; that "
            "needs a "
            f"probability above 1 - 2^-53. Ask for less than {float(self.scale * 8):.4g} levels or use a larger sigma"
        )

    @precise
    def two_class_radius(self, p_top: float, p_other: float) -> Decimal:
        """A radius in levels, rounded down, from p_top below the top class's probability and p_other above every
        other's.

        The largest r with e^-eta Phi(PhiInv(p_top') - r/s) - T > e^eta Phi(PhiInv(p_other') + r/s) + T, by bisection;
        the inequality was checked at the r that is returned, with all errors against it. 0 where there is none.
        """
        ancestral_top = (Decimal(p_top) - self.slack) * self.shrink - MARGIN
        ancestral_other = max((Decimal(p_other) + self.slack) * self.grow + MARGIN, Decimal(1) / GRID)
        if ancestral_top <= ancestral_other:
            return Decimal(0)
        z_top, z_other = quantile_below(ancestral_top), quantile_above(ancestral_other)

        def holds(r: Decimal) -> bool:
            z = r / self.scale * (1 + MARGIN)
            top = self.shrink * (normal_cdf(z_top - z) - CDF_ERROR) - self.slack
            other = self.grow * (normal_cdf(z_other + z) + CDF_ERROR) + self.slack
            return top - other > MARGIN

        low, high = Decimal(0), self.scale * max(z_top - z_other, Decimal(0)) / 2
        if not holds(low):
            return low
        for _ in range(64):
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low


@precise
def _theta(exponent: Decimal) -> Decimal:
    """2 sum_{m >= 1} exp(-exponent m^2), rounded up, for exponent >= 1."""
    total, m = Decimal(0), 1
    while (term := (-exponent * m * m).exp()) > Decimal("1e-80"):
        total, m = total + 2 * term, m + 1
    return total * (1 + MARGIN) + 4 * term  # successive terms shrink by exp(-3) at least


@precise
def density_ratio(tau: Fraction, sigma: Fraction, dimension: int) -> Decimal | None:
    """eta of the discrete law, rounded up, for 0 < tau < sigma; None where tau is so small that there is no bound.

    The log of the ratio between two densities on the integers, at its largest over all points, in n = dimension
    coordinates: the discrete Gaussian's, and that of Y ~ N(0, sigma^2 - tau^2) rounded at random, to k with probability
    proportional to exp(-(k - Y)^2 / (2 tau^2)). With theta(c) = 2 sum_m exp(-2 pi^2 c m^2) it is at most

        -n ln((1 - theta(sigma^2)) (1 - theta(tau^2 (2 - tau^2/sigma^2)) - theta(tau^2)^2 / (1 - theta(tau^2)))).
    """
    square = tau * tau
    factor = 2 * PI * PI * (1 - MARGIN)
    if factor * decimal_below(square) < 1:
        return None  # tau < 0.226: theta(tau^2) > 0.77 soon reaches 1, and such a bound is of no use
    whole = _theta(factor * decimal_below(sigma * sigma))
    mean = _theta(factor * decimal_below(square * (2 - square / (sigma * sigma))))
    largest = _theta(factor * decimal_below(square))
    rest = (1 - whole) * (1 - mean - largest * largest / (1 - largest)) - MARGIN
    return dimension * (MARGIN - rest.ln()) * (1 + MARGIN) if rest > 0 else None


@lru_cache(maxsize=256)
def default_tau(sigma: Fraction, dimension: int) -> Fraction | None:
    """The smallest multiple of 1/1024 levels below sigma whose eta is at most 1e-9, None where there is none.

    0.88 levels for dimension 3072 and a sigma of many levels. eta falls with tau, so halving finds it.
    """

    def is_wide_enough(numerator: int) -> bool:
        eta = density_ratio(Fraction(numerator, TAU_GRID), sigma, dimension)
        return eta is not None and eta <= LARGEST_ETA

    low, high = 0, min(ceil(sigma * TAU_GRID) - 1, 4 * TAU_GRID)
    if high < 1 or not is_wide_enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_wide_enough(middle) else (middle, high)
    return Fraction(high, TAU_GRID)


@lru_cache(maxsize=256)
@precise
def ancestor(
    law: str, sigma: Fraction, dimension: int, tv: Fraction = Fraction(0), tau: Fraction | None = None
) -> Ancestor:
    """The ancestor of an integer noise law.

    law: "rounded" or "discrete"; sigma: the law's parameter in levels; dimension: the number of coordinates; tv: an
    upper bound on the total variation distance per coordinate between the sampler that runs and its law. tau (levels,
    discrete only) divides the discrete Gaussian's variance between ancestor and rounding; None picks `default_tau`.
    Raises InputError where the theorem has nothing to say: tau outside (0, sigma), or T and eta so large that they
    eat every probability.
    """
    if law not in LAWS:
        raise InputError(f"law is {law!r}; it must be one of {', '.join(LAWS)}")
    if law == "rounded":
        if tau is not None:
            raise InputError("tau is given for the law 'rounded', which has none; leave it out")
        tau, eta = Fraction(0), Decimal(0)
        scale = decimal_below(sigma)
    else:
        chosen = default_tau(sigma, dimension) if tau is None else tau
        if chosen is None:
            raise InputError(
                f"sigma is {exact_text(sigma)} levels, too small for the law 'discrete' in dimension {dimension} with "
                f"eta <= {LARGEST_ETA}; use law='rounded', a larger sigma, or give tau"
            )
        if not 0 < chosen < sigma:
            raise InputError(
                f"tau is {exact_text(chosen)} levels and sigma {exact_text(sigma)}; 0 < tau < sigma is required"
            )
        tau = chosen
        bound = density_ratio(tau, sigma, dimension)
        if bound is None:
            raise InputError(f"tau is {exact_text(tau)} levels, too small for the theorem; use 0.3 or more")
        eta = bound
        scale = decimal_below(sigma * sigma - tau * tau).sqrt() * (1 - MARGIN)
    slack = decimal_above(dimension * tv)
    shrink, grow = (-eta).exp() * (1 - MARGIN), eta.exp() * (1 + MARGIN)
    half = (Decimal("0.5") + slack) * grow
    if half >= 1 - Decimal(1) / GRID:
        raise InputError(
            f"the sampler is {float(slack):.3g} away from its law in total variation and eta is {float(eta):.3g}; "
            "with (1/2 + T) e^eta "
            "at 1 or above nothing can be certified: use a more exact noise table, a larger tau or the law 'rounded'"
        )
    return Ancestor(law, sigma, dimension, tv, tau, eta, scale, shrink, grow, slack, half, quantile_above(half))
