"""The normal distribution and its quantiles in decimals with known errors."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from intsmooth.normal import PI, normal_cdf, quantile_above, quantile_below


@pytest.mark.parametrize(
    "z, value",  # mpmath, 60 digits
    [
        ("0.1", "0.539827837277028981465404618239182083014062283689771"),
        ("1", "0.8413447460685429485852325456320379224779129667266044"),
        ("-2.5", "0.006209665325776135166978104574192221127897746923092768"),
        ("8.2", "0.9999999999999998798064845726421289030415871672090459"),
        ("4", "0.9999683287581668800787462292432778487015561666245197"),
    ],
)
def test_the_normal_distribution_to_50_digits(z, value):
    assert abs(Fraction(normal_cdf(Decimal(z))) - Fraction(value)) < Fraction(1, 10**50)


def test_the_normal_distribution_against_mpmath():
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed; four values are tested without it")
    with mpmath.workdps(70):
        for z in np.linspace(-11.9, 11.9, 60):
            exact = mpmath.ncdf(mpmath.mpf(float(z)))
            assert abs(mpmath.mpf(str(normal_cdf(Decimal(float(z))))) - exact) < mpmath.mpf("1e-52")


def test_pi_by_machins_formula():
    scale = 10**90

    def arctan_of_inverse(x: int) -> int:
        term = total = scale // x
        for k in range(1, 140):
            term //= -x * x
            total += term // (2 * k + 1)
        return total

    machin = 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))
    assert abs(Fraction(PI) * scale - machin) < Fraction(scale, 10**79)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.floats(2**-53, 1 - 2**-53), st.sampled_from([0.5, 2**-53, 1 - 2**-53])))
def test_quantiles_enclose_the_truth(p):
    below, above = quantile_below(Decimal(p)), quantile_above(Decimal(p))
    assert 0 < Fraction(above) - Fraction(below) < Fraction(1, 10**28)
    assert normal_cdf(below) < Decimal(p) < normal_cdf(above)
    assert float(below) == pytest.approx(ndtri(p), rel=1e-13, abs=1e-13)


def test_quantiles_are_close_in_both_tails():
    for exponent in range(1, 54):
        for p in (Decimal(2.0**-exponent), Decimal(1 - 2.0**-exponent)):
            assert 0 < Fraction(quantile_above(p)) - Fraction(quantile_below(p)) < Fraction(1, 10**28), p
