"""The standard normal distribution with proven error bounds, in 60-digit decimals.

`normal_cdf` sums the series Phi(z) = 1/2 + phi(z) (z + z^3/3 + z^5/(3 5) + z^7/(3 5 7) + ...) (Abramowitz and Stegun,
26.2.11), whose terms all have the sign of z, so that nothing cancels. `quantile_below` and `quantile_above` find a
point by Newton's method, move it outward, and then *check* it with `normal_cdf`: however the point was found, the
inequality in their docstring holds.
"""

from decimal import Decimal
from statistics import NormalDist

from intsmooth.enclosure import GRID, precise
from intsmooth.errors import InputError

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
CDF_ERROR = Decimal("1e-50")  # |normal_cdf(z) - Phi(z)|; docs/theory.md section 7 shows that 1e-54 would do
LARGEST_ARGUMENT = 12
_QUANTILE_MARGIN = Decimal("1e-30")
_CONVERGED = Decimal("1e-18")  # the error after a step is below 5 times its square
_SMALLEST_TERM = Decimal("1e-60")


@precise
def normal_density(z: Decimal) -> Decimal:
    """phi(z) = exp(-z^2/2) / sqrt(2 pi), relative error below 1e-55 for |z| <= 12."""
    return (-z * z / 2).exp() / (2 * PI).sqrt()


@precise
def normal_cdf(z: Decimal) -> Decimal:
    """Phi(z) for |z| <= 12, within CDF_ERROR of the truth. Raises InputError for larger |z|."""
    if abs(z) > LARGEST_ARGUMENT:
        raise InputError(f"the normal distribution is asked at {z}; |z| <= {LARGEST_ARGUMENT} is required")
    square = z * z
    term, total, odd = z, z, 1
    # Past odd > z^2 the terms shrink by a factor below 1 that itself shrinks: once a term is 1e-60 of the sum and
    # odd > 2 z^2, what is left out is below 2e-60 of the sum.
    while odd <= 2 * square or abs(term) > _SMALLEST_TERM * abs(total):
        odd += 2
        term = term * square / odd
        total += term
    return Decimal("0.5") + normal_density(z) * total


@precise
def _quantile(p: Decimal) -> Decimal:
    """PhiInv(p) to about 1e-33, by Newton's method from the standard library's double."""
    start = min(max(float(p), 1 / GRID), 1 - 1 / GRID)
    z = Decimal(NormalDist().inv_cdf(start))
    # Two or three steps suffice; near p = 1, where a double tells little about 1 - p, it may take five.
    for _ in range(20):
        step = (normal_cdf(z) - p) / normal_density(z)
        z -= step
        if abs(step) < _CONVERGED:
            break
    return z


@precise
def quantile_below(p: Decimal) -> Decimal:
    """A z with Phi(z) <= p, less than 1e-29 under the largest one, for p in [2^-53, 1 - 2^-53]."""
    step = _QUANTILE_MARGIN
    z = _quantile(p) - step
    while normal_cdf(z) + CDF_ERROR > p:
        z -= step
        step *= 2
    return z


@precise
def quantile_above(p: Decimal) -> Decimal:
    """A z with Phi(z) >= p, less than 1e-29 above the smallest one, for p in [2^-53, 1 - 2^-53]."""
    return -quantile_below(1 - p)
