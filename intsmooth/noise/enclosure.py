"""exp(-y) and the Gaussian tail Phi(-x) enclosed between two integers: the arithmetic that the noise tables rest on.

A real number v >= 0 is held as a pair (low, high) of Python integers with low <= v * 2^BITS <= high. Every operation
below is monotone in non-negative operands, so the low end rounds down, the high end rounds up, and no error analysis is
left to trust: the width of the pair is the error. There is no float in here, and no library other than the integers.

    exp(-y) = 1 / exp(y / 2^h)^(2^h)                                  Taylor series of positive terms
    Phi(-x) = 1/2 - exp(-x^2 / 2) / sqrt(2 pi) * sum x^(2n+1) / (2n+1)!!       (Abramowitz and Stegun 26.2.11)

Both series are cut where each further term is at most half of the one before, so what is left out is at most the last
term that was added.
"""

from functools import cache
from math import isqrt

BITS = 192
ONE = 1 << BITS
FLAT = 256  # exp(-y) < 2^-192 for y above it: the smallest enclosure there is
FAR = 11  # beyond 11 standard deviations Phi(-x) < exp(-60.5) / 2 < 2^-88 is all that anybody needs to know

Enclosure = tuple[int, int]


def _divide_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _shift_up(value: int) -> int:
    return -(-value >> BITS)


def exp_minus(numerator: int, denominator: int) -> Enclosure:
    """Enclose exp(-numerator / denominator) for integers numerator >= 0, denominator > 0."""
    if numerator > FLAT * denominator:
        return 0, 1
    halvings = (numerator // denominator + 1).bit_length() + 1  # the argument of the series is below 1/2
    z_low = (numerator << BITS) // (denominator << halvings)
    z_high = z_low + 1
    low = high = term_low = term_high = ONE
    n = 0
    while term_high > 1:
        n += 1
        term_low = (term_low * z_low >> BITS) // n
        term_high = -((-term_high * z_high >> BITS) // n)
        low += term_low
        high += term_high
    high += term_high
    for _ in range(halvings):
        low = low * low >> BITS
        high = _shift_up(high * high)
    return (1 << 2 * BITS) // high, _divide_up(1 << 2 * BITS, low)


@cache
def inverse_sqrt_two_pi() -> Enclosure:
    """Enclose 1 / sqrt(2 pi), with pi = 16 arctan(1/5) - 4 arctan(1/239) (Machin, 1706)."""

    def arctan_of_inverse(m: int) -> int:
        """arctan(1 / m) in units of 2^-guarded, off by less than one unit per term and one for the rest."""
        total, power, n = 0, (1 << guarded) // m, 0
        while power:
            total += power // (2 * n + 1) if n % 2 == 0 else -(power // (2 * n + 1))
            power //= m * m
            n += 1
        return total

    guarded = BITS + 40
    pi = 16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)
    # Fewer than 2^8 terms, each off by at most 2 units (power and quotient are rounded down), times 20: below 2^14.
    two_pi = 2 * (pi - (1 << 14)), 2 * (pi + (1 << 14))
    # two_pi is in units of 2^-guarded, so isqrt(two_pi << guarded) is sqrt(2 pi) in the same units.
    root_low, root_high = isqrt(two_pi[0] << guarded), isqrt(two_pi[1] << guarded) + 1
    return (1 << BITS + guarded) // root_high, _divide_up(1 << BITS + guarded, root_low)


def gaussian_tail(numerator: int, denominator: int) -> Enclosure:
    """Enclose Phi(-x), the probability that a standard normal is below -x, for x = numerator / denominator >= 0."""
    if numerator > FAR * denominator:
        return 0, ONE >> 88
    square, square_denominator = numerator * numerator, denominator * denominator
    square_low = (square << BITS) // square_denominator
    square_high = square_low + 1
    term_low = (numerator << BITS) // denominator
    term_high = term_low + 1
    low, high = term_low, term_high
    n = 1
    while term_high > 1 or 2 * square_high > n << BITS:
        n += 2
        term_low = (term_low * square_low >> BITS) // n
        term_high = -((-term_high * square_high >> BITS) // n)
        low += term_low
        high += term_high
    high += term_high
    exp_low, exp_high = exp_minus(square, 2 * square_denominator)
    root_low, root_high = inverse_sqrt_two_pi()
    density_low, density_high = exp_low * root_low >> BITS, _shift_up(exp_high * root_high)
    half = ONE >> 1
    return max(half - _shift_up(density_high * high), 0), half - (density_low * low >> BITS)
