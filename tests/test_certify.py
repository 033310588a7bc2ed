"""From counts to certificates: reference values, roundings, options, and everything that is refused."""

import dataclasses
import json
import subprocess
import sys
from decimal import ROUND_CEILING, Decimal, getcontext, localcontext
from fractions import Fraction
from math import nextafter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaincinv, ndtri

from intsmooth.certify import (
    budget_of_radius,
    certificate_from_counts,
    certificate_from_two_classes,
    format_radius_down,
    prediction_from_counts,
)
from intsmooth.enclosure import exact_fraction, exact_text, float_below, precise
from intsmooth.errors import InputError
from intsmooth.normal import PI, normal_cdf, quantile_above, quantile_below
from intsmooth.records import ABSTAIN

# k, n, sigma in levels, law, dimension, radius in levels, budget: alpha = 0.001, T = 0, computed with 40 digits.
REFERENCE = [
    (100_000, 100_000, "63.75", "rounded", 3072, "242.980355916", 59039),
    (99_000, 100_000, "63.75", "rounded", 3072, "145.987497145", 21312),
    (99_000, 100_000, "63.75", "discrete", 3072, "145.959429606", 21304),
    (51_000, 100_000, "63.75", "rounded", 3072, "0.816483825457", 0),
    (50_100, 100_000, "63.75", "rounded", 3072, None, 0),
    (9_990, 10_000, "30.6", "rounded", 3072, "86.2491079922", 7438),
    (900, 1_000, "4", "rounded", 64, "4.45793264912", 19),
    (900, 1_000, "4", "discrete", 64, "4.23466939428", 17),
    (10, 10, "4", "rounded", 64, "0.0119038310855", 0),
    (9, 9, "4", "rounded", 64, None, 0),
]


def twelve_digits(number: float | Decimal) -> str:
    with localcontext() as context:
        context.prec = 12
        return str((+Decimal(number)).normalize())


@pytest.mark.parametrize("k, n, sigma, law, dimension, radius, budget", REFERENCE)
def test_reference_values(k, n, sigma, law, dimension, radius, budget):
    tau = "1.25" if law == "discrete" else None
    certificate = certificate_from_counts(k, n, sigma=sigma, law=law, dimension=dimension, unit=1, tau=tau, top=3)
    assert certificate.budget == budget
    if radius is None:
        assert (certificate.prediction, certificate.radius, certificate.radius_levels) == (ABSTAIN, 0.0, 0.0)
        return
    assert certificate.prediction == 3
    if law == "rounded":
        assert twelve_digits(certificate.radius_levels) == twelve_digits(radius)
    else:
        # These references use eta = n ln((1+e)/(1-e)); the smaller eta of docs/theory.md gives a little more.
        assert twelve_digits(radius_with_plain_eta(certificate.p_lower, sigma, dimension)) == twelve_digits(radius)
        assert 0 < certificate.radius_levels / float(radius) - 1 < 1e-8


@precise
def radius_with_plain_eta(p: float, sigma: str, dimension: int) -> Decimal:
    tau = Decimal("1.25")
    e = 2 * sum((-2 * PI**2 * tau**2 * m**2).exp() for m in range(1, 5))
    eta = dimension * ((1 + e) / (1 - e)).ln()
    top, half = quantile_below(Decimal(p) * (-eta).exp()), quantile_above(eta.exp() / 2)
    return (Decimal(sigma) ** 2 - tau**2).sqrt() * (top - half)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([64, 3072]))
def test_agreement_with_the_usual_float_computation(count, dimension):
    k, n = count
    certificate = certificate_from_counts(k, n, sigma=0.25, dimension=dimension)
    usual = 0.25 * ndtri(betaincinv(k, n - k + 1, 0.001)) if k else -1
    assert certificate.radius == pytest.approx(max(usual, 0), abs=1e-11)
    assert (certificate.prediction == ABSTAIN) == (certificate.radius == 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 200), st.sampled_from(["rounded", "discrete"]), st.sampled_from([1, 16, 255]))
def test_every_step_rounds_down_and_is_checked_with_integers(k, law, unit):
    c = certificate_from_counts(k, 200, sigma=Fraction(30, unit), law=law, dimension=100, unit=unit)
    radius = Fraction(c.radius_levels)
    assert c.budget <= radius**2 < c.budget + 1
    assert Fraction(c.radius) * unit <= radius < Fraction(nextafter(c.radius, 1e9)) * unit


def test_more_hits_or_fewer_doubts_never_certify_less():
    def radius(**changes):
        arguments = {"top_hits": 950, "n": 1000, "sigma": 0.25, "dimension": 3072} | changes
        return certificate_from_counts(arguments.pop("top_hits"), arguments.pop("n"), **arguments).radius_levels

    base = radius()
    radii = [radius(top_hits=k) for k in range(900, 1001)]
    assert sorted(set(radii)) == radii
    assert radius(alpha=0.01) > base > radius(alpha=0.0001)
    assert radius(tv=Fraction(1, 10**9)) < base and radius(law="discrete") < base
    assert radius(law="discrete", tau=2) < radius(law="discrete")
    assert radius(simultaneous=10) == radius(alpha="0.0001")
    assert radius(uniform=2**64 - 1) == base < radius(uniform=2**63) < radius(uniform=0)


def test_a_record_says_what_it_follows_from():
    c = certificate_from_counts(
        np.int64(98), np.int32(100), sigma="0.25", dimension=np.int64(64), unit=16, law="discrete",
        tv=Fraction(1, 10**15), alpha=0.001, simultaneous=5, top=np.int64(2), selection=np.array([1, 2, 7]),
        counts=[1, 1, 98],
    )  # fmt: skip
    assert (c.prediction, c.top, c.hits, c.n, c.n0, c.selection, c.counts) == (2, 2, 98, 100, 10, (1, 2, 7), (1, 1, 98))
    assert (c.alpha, c.sigma, c.law) == (0.001, "0.25", "discrete")
    json.dumps(dict(c.extra))
    kept = {name: c.extra[name] for name in ("dimension", "unit", "tv", "tau", "simultaneous")}
    again = certificate_from_counts(
        c.hits, c.n, alpha=c.alpha, sigma=c.sigma, law=c.law, top=c.top, selection=c.selection, counts=c.counts, **kept
    )
    assert again == c
    assert all(type(value) in (int, float, str, tuple, dict) for value in dataclasses.asdict(c).values())


def test_the_callers_decimal_context_changes_nothing():
    expected = certificate_from_counts(901, 1000, sigma=0.5, dimension=77, law="discrete", unit=254)
    with localcontext() as context:
        context.prec, context.rounding = 3, ROUND_CEILING
        assert certificate_from_counts(901, 1000, sigma=0.5, dimension=77, law="discrete", unit=254) == expected
        assert getcontext().prec == 3


def test_float_sigmas_have_their_decimal_meaning():
    by_text = certificate_from_counts(95, 100, sigma="0.12", dimension=10)
    for sigma in (0.12, Fraction(12, 100), np.float64(0.12), np.float32(0.12), Decimal("0.12")):
        assert certificate_from_counts(95, 100, sigma=sigma, dimension=10) == by_text
    assert by_text.sigma == "0.12"


def test_two_classes_help_where_the_other_votes_are_scattered():
    setting = {"sigma": 0.25, "dimension": 64, "unit": 16}
    scattered, gathered = [900, *[20] * 5], [900, 100, 0, 0, 0, 0]
    one = certificate_from_counts(900, 1000, **setting)
    two = certificate_from_two_classes(scattered, top=0, **setting)
    assert two.extra["top_share"] == "19/20"
    assert two.radius > one.radius > certificate_from_two_classes(gathered, top=0, **setting).radius > 0
    # The worst that two classes can do is the one-sided bound at 19/20 of alpha: p_other is never above 1 - p_top.
    worst = certificate_from_counts(900, 1000, alpha="0.00095", **setting)
    assert certificate_from_two_classes(gathered, top=0, **setting).radius == pytest.approx(worst.radius, rel=1e-12)
    # A class without a majority can be certified against many weak ones.
    assert certificate_from_two_classes([450, *[55] * 10], top=0, **setting).prediction == 0
    assert certificate_from_two_classes([450, *[55] * 10], top=1, **setting).prediction == ABSTAIN
    p, q = betaincinv(900, 101, 0.00095), betaincinv(21, 980, 1 - 0.00001)
    assert two.radius_levels == pytest.approx(4 * (ndtri(p) - ndtri(q)) / 2, rel=1e-10)


@pytest.mark.parametrize(
    "counts, alpha, predicted",
    [
        ([0, 0], 0.001, ABSTAIN),
        ([5, 5], 0.001, ABSTAIN),
        ([10, 0], 0.001, ABSTAIN),  # p-value 2 / 2^10
        ([11, 0], 0.001, 0),  # 2 / 2^11 = 0.00098
        ([3, 400, 2, 90], 0.001, 1),
        ([100], 0.001, 0),
        ([49_400, 50_600], "0.0002", 1),
        ([49_500, 50_500], 0.001, ABSTAIN),  # p-value 0.00158
        ([49_500, 50_500], 0.002, 1),
    ],
)
def test_predictions(counts, alpha, predicted):
    assert prediction_from_counts(counts, alpha) == predicted
    assert prediction_from_counts(np.array(counts), alpha) == predicted


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1e300), st.integers(0, 20))
def test_printed_radii_do_not_overstate(radius, digits):
    text = format_radius_down(radius, digits)
    assert Fraction(text) <= Fraction(radius) < Fraction(text) + Fraction(1, 10**digits)
    assert float(text) <= radius
    assert len(text.partition(".")[2]) == digits


def test_printing_to_nearest_would_overstate():
    certificate = certificate_from_counts(9_990, 10_000, sigma=0.12, dimension=3072)
    assert f"{certificate.radius:.2f}" == "0.34" and certificate.radius < 0.34
    assert format_radius_down(certificate.radius, 2) == "0.33" and format_radius_down(0.0) == "0.000"
    assert format_radius_down(0.9999999999999999, 3) == "0.999"


@pytest.mark.parametrize("radius, budget", [(0.0, 0), (1.0, 1), (3.0, 9), (nextafter(3, 0), 8), (1e9, 10**18)])
def test_budgets(radius, budget):
    assert budget_of_radius(radius) == budget


GOOD = {"sigma": 0.25, "dimension": 64}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"alpha": 0}, "alpha is 0"),
        ({"alpha": 0.5}, "alpha is 0.5"),
        ({"alpha": -0.1}, "above 0 and below 0.5"),
        ({"alpha": float("nan")}, "alpha is 'nan'"),
        ({"alpha": "tiny"}, "a finite number is required"),
        ({"alpha": None}, "alpha is 'None'"),
        ({"alpha": True}, "alpha is True"),
        ({"alpha": "1e-999999999"}, "alpha is '1e-999999999'"),
        ({"sigma": 0}, "sigma is 0"),
        ({"sigma": -0.25}, "above 0"),
        ({"sigma": float("inf")}, "sigma is 'inf'"),
        ({"sigma": "1/0"}, "sigma is '1/0'"),
        ({"sigma": [0.25]}, "sigma is"),
        ({"n": 0}, "n is 0; it must be between 1 and"),
        ({"n": -5}, "n is -5"),
        ({"n": 2**41}, "between 1 and"),
        ({"n": 100.0}, "n is 100.0; an integer is required"),
        ({"n": True}, "n is True"),
        ({"top_hits": 101}, "top_hits is 101; it must be between 0 and 100"),
        ({"top_hits": -1}, "top_hits is -1"),
        ({"top_hits": "90"}, "an integer is required"),
        ({"dimension": 0}, "dimension is 0"),
        ({"dimension": 3.5}, "dimension is 3.5"),
        ({"unit": 0}, "unit is 0"),
        ({"law": "gaussian"}, "law is 'gaussian'; it must be one of rounded, discrete"),
        ({"law": None}, "law is None"),
        ({"tv": -1}, "tv is -1"),
        ({"tv": 2}, "between 0 and 1"),
        ({"tv": 0.1}, "nothing can be certified"),
        ({"tau": 1}, "leave it out"),
        ({"law": "discrete", "tau": 100}, "0 < tau < sigma"),
        ({"law": "discrete", "tau": -1}, "0 < tau < sigma"),
        ({"simultaneous": 0}, "simultaneous is 0"),
        ({"uniform": 2**64}, "uniform is"),
        ({"uniform": 0.5}, "an integer is required"),
        ({"top": -1}, "top is -1"),
        ({"counts": [90, 9]}, "counts sum to 99"),
        ({"counts": [10, 90]}, "they must agree"),
        ({"counts": [90, 10], "top": 2}, "give class 2 nothing"),
        ({"selection": [1.5]}, "a count of selection is 1.5"),
        ({"n0": -1}, "n0 is -1"),
    ],
)
def test_bad_arguments(changes, message):
    arguments = {"top_hits": 90, "n": 100} | GOOD | changes
    with pytest.raises(InputError) as caught:
        certificate_from_counts(arguments.pop("top_hits"), arguments.pop("n"), **arguments)
    assert message in str(caught.value) and len(str(caught.value)) < 400
    assert isinstance(caught.value, ValueError)


def test_bad_arguments_elsewhere():
    for call in (
        lambda: certificate_from_two_classes([100], top=0, **GOOD),
        lambda: certificate_from_two_classes([60, 40], top=2, **GOOD),
        lambda: certificate_from_two_classes([0, 0], top=0, **GOOD),
        lambda: certificate_from_two_classes([60.5, 40], top=0, **GOOD),
        lambda: prediction_from_counts([]),
        lambda: prediction_from_counts([5, -1]),
        lambda: prediction_from_counts([5, 1], alpha=1),
        lambda: format_radius_down(-0.1),
        lambda: format_radius_down(float("nan")),
        lambda: format_radius_down(float("inf")),
        lambda: format_radius_down(1.0, -1),
        lambda: normal_cdf(Decimal(13)),
    ):
        with pytest.raises(InputError):
            call()


@settings(max_examples=200, deadline=None)
@given(st.fractions(max_denominator=10**6))
def test_exact_numbers_survive_their_text(value):
    assert exact_fraction(exact_text(value), "value") == value
    below = float_below(value)
    assert Fraction(below) <= value < Fraction(nextafter(below, float("inf")))


def test_numbers_as_people_write_them():
    written = {"1/4": "0.25", "0.12": "0.12", "30": "30", "1/3": "1/3", "-1/8": "-0.125", "1e-3": "0.001"}
    assert {text: exact_text(exact_fraction(text, "value")) for text in written} == written


def test_the_certifier_needs_nothing_heavy():
    code = "import sys, intsmooth.certify as c; c.certificate_from_counts(9, 9, sigma=1, dimension=1)"
    code += "; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "intsmooth.certify" in loaded
    assert not {"scipy", "numba", "h5py"} & set(loaded)
