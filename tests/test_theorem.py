"""The theorem against exact enumeration, and against the shortcuts that look like it and are wrong."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from exact_noise import inner_product_law, law_pmf, small_deltas, worst_case
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize
from scipy.special import ndtr, ndtri

from intsmooth.certify import budget_of_radius
from intsmooth.enclosure import GRID
from intsmooth.errors import InputError
from intsmooth.theorem import TAU_GRID, ancestor, default_tau, density_ratio

ROUNDING = 1e-12  # what the floats of the enumeration may be off by
PROBABILITIES = [0.51, 0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 0.99999, 0.9999999]

# Every law where it can be certified at all: (law, sigma, tau); tau None is the default, which small sigmas do not
# allow.
SETTINGS = [("rounded", s, None) for s in (1, 2, 3, 5)] + [
    ("discrete", 1, Fraction(5, 10)),
    ("discrete", 1, Fraction(7, 10)),
    ("discrete", 1, Fraction(9, 10)),
    ("discrete", 2, None),
    ("discrete", 3, None),
    ("discrete", 5, None),
]


def model(law: str, sigma: float, dimension: int, tau: Fraction | None = None, tv: Fraction = Fraction(0)):
    return ancestor(law, Fraction(sigma), dimension, tv, tau)


@pytest.mark.parametrize(
    "law, sigma, tau, dimension",
    [
        # In three dimensions the rounded law is listed outcome by outcome: only for small sigma is that quick.
        pytest.param(*setting, n, marks=pytest.mark.slow if (setting[:2], n) == (("rounded", 3), 3) else ())
        for setting in SETTINGS
        for n in (1, 2, 3)
        if (setting[:2], n) != (("rounded", 5), 3)
    ],
)
def test_no_certificate_lies_above_the_exact_worst_case(law, sigma, tau, dimension):
    theorem = model(law, sigma, dimension, tau)
    budgets = [budget_of_radius(float(theorem.radius(p))) for p in PROBABILITIES]
    checked = 0
    for delta in small_deltas(dimension, 3 * sigma + 1, max(budgets)):
        here, there = worst_case(law, sigma, delta)
        squared = sum(d * d for d in delta)
        exact = np.interp(PROBABILITIES, here, there)
        for p, budget, probability in zip(PROBABILITIES, budgets, exact, strict=True):
            if squared <= budget:
                assert probability > 0.5 - ROUNDING, (delta, p, budget)
                checked += 1
        # More than the radius: the bound that the theorem gives for this delta, at every probability.
        inside = (here > 1e-12) & (here < 1 - 1e-12)
        z, shift = ndtri(here[inside] * float(theorem.shrink)), math.sqrt(squared) / float(theorem.scale)
        bound = float(theorem.shrink) * ndtr(z - shift)
        # A rounding error of `here` grows by the ratio of the densities at z - shift and z.
        allowed = ROUNDING + 1e-15 * np.exp(z * shift - shift**2 / 2)
        assert np.all(bound - there[inside] < allowed), delta
    assert checked >= 1


@pytest.mark.parametrize("law, sigma, tau", SETTINGS)
def test_certificates_are_within_a_level_of_the_exact_worst_case(law, sigma, tau):
    theorem = model(law, sigma, 1, tau)
    for p in PROBABILITIES:
        # The discrete law loses s / sigma, and with a tau as small as 1/2 a large eta on top.
        beyond = math.floor(float(theorem.radius(p)) * sigma / float(theorem.scale) + 1) + (2 if tau == 0.5 else 1)
        here, there = worst_case(law, sigma, (beyond,))
        assert np.interp(p, here, there) < 0.5, (p, beyond)


@pytest.mark.parametrize("law, sigma", [("rounded", 4), ("discrete", 4), ("discrete", 5)])
def test_a_sampler_that_is_off_its_law_costs_its_distance(law, sigma):
    """Half-space classifiers under a sampler whose mass was moved in the worst way: down at x and up at x + delta."""
    t = Fraction(1, 200)
    k, pmf = law_pmf(law, sigma)
    theorem = model(law, sigma, 1, tv=t)
    ideal = model(law, sigma, 1)
    wrong = 0
    for edge in range(12):  # class 0 is {z <= edge}
        true = float(pmf[k <= edge].sum())
        bad = true + float(t)  # the sampler puts t more into class 0 at x, but t less at x + delta
        if bad >= 1:
            continue
        for delta in range(1, 30):
            at_delta = float(pmf[k + delta <= edge].sum()) - float(t)
            if delta * delta <= budget_of_radius(float(theorem.radius(bad))):
                assert at_delta > 0.5 - ROUNDING
            if delta * delta <= budget_of_radius(float(ideal.radius(bad))):
                wrong += at_delta <= 0.5
    assert wrong > 0  # who leaves the distance out certifies what is not so
    p = 0.9
    shrink = float(theorem.shrink)
    expected = float(theorem.scale) * (ndtri((p - 0.005) * shrink) - ndtri(0.505 / shrink))
    assert float(theorem.radius(p)) == pytest.approx(expected, rel=1e-12)


def test_shortcut_the_discrete_gaussians_own_quantile():
    k, pmf = law_pmf("discrete", 1)
    claimed = int(k[np.searchsorted(np.cumsum(pmf), 0.95)])
    assert claimed == 2
    here, there = worst_case("discrete", 1, (1, 1, 1))  # norm 1.73 < 2
    assert np.interp(0.95, here, there) < 0.5
    for tau in np.arange(0.4, 1, 0.05).round(2):
        theorem = model("discrete", 1, 3, Fraction(str(tau)))
        assert budget_of_radius(float(theorem.radius(0.95))) < 3


def test_shortcut_the_continuous_two_class_radius_with_sigma_itself():
    k, pmf = law_pmf("discrete", 1)
    p_top, p_other = float(pmf[k <= 1].sum()), float(pmf[k >= 3].sum())
    assert (round(p_top, 6), round(p_other, 6)) == (0.941442, 0.004567)
    assert round((ndtri(p_top) - ndtri(p_other)) / 2, 3) == 2.087
    # At delta = 2, within the claim, classes {z <= 1} and {z >= 3} tie.
    assert pmf[k + 2 <= 1].sum() == pytest.approx(pmf[k + 2 >= 3].sum(), abs=1e-15)
    for tau in np.arange(0.4, 1, 0.05).round(2):
        assert model("discrete", 1, 1, Fraction(str(tau))).two_class_radius(p_top, p_other) < 2


@pytest.mark.parametrize("sigma, delta, excess", [(1, 1, 1.6e-2), (64, 5, 3e-7)])
def test_shortcut_the_continuous_bound_on_a_probability(sigma, delta, excess):
    here, there = worst_case("discrete", sigma, (delta,))
    here, there = here[1:-1], there[1:-1]
    claim = ndtr(ndtri(np.clip(here, 1e-300, 1 - 1e-16)) - delta / sigma)
    assert np.max(claim - there) == pytest.approx(excess, rel=0.2)
    theorem = model("discrete", sigma, 1, Fraction(6, 10) if sigma == 1 else None)
    s, shrink = float(theorem.scale), float(theorem.shrink)
    ours = shrink * ndtr(ndtri(np.clip(here, 1e-300, 1 - 1e-16) * shrink) - delta / s)
    assert np.max(ours - there) < ROUNDING


def test_shortcut_inner_products_as_one_dimensional_discrete_gaussians():
    def distance(delta: tuple[int, ...]) -> float:
        t, pmf = inner_product_law("discrete", 1, delta)
        step = math.gcd(*delta)
        norm = math.sqrt(sum(d * d for d in delta))
        grid = np.where(t % step == 0, np.exp(-(t**2) / (2 * norm**2)), 0.0)
        return float(np.abs(pmf - grid / grid.sum()).sum() / 2)

    assert distance((1, 0)) < 1e-13 and distance((3, 0)) < 1e-13
    assert min(distance(delta) for delta in [(1, 1), (2, 1), (1, 1, 1), (2, 2, 1)]) > 1e-6


def test_float_noise_certifies_a_lie_that_integers_cannot_tell():
    """Voracek and Hein (2023): ((z - a) + a) == z sees by the rounding of floats whether the noise was added to a."""
    rng = np.random.default_rng(0)
    a = np.float32(210 / 255)
    noise = (0.5 * rng.standard_normal(100_000)).astype(np.float32)

    def share(x: np.float32) -> float:
        z = x + noise
        return float(np.mean((z - a) + a == z))

    assert share(a) == 1.0 and 0.44 < share(np.float32(0)) < 0.48
    claimed = 0.5 * ndtri(0.001 ** (1 / 100_000))
    assert claimed > 1.9 and a < 0.83  # so the loop certifies the class at 0, where it has no majority
    # The same function of integers: no rounding, nothing to tell, and the certificate is true.
    levels = np.rint(127.5 * rng.standard_normal(100_000)).astype(np.int64)
    for x in (210, 0):
        z = x + levels
        assert np.all((z - 210) + 210 == z)


@pytest.mark.parametrize("sigma", [2, 4, 64, 255])
@pytest.mark.parametrize("dimension", [1, 64, 3072, 150_528])
def test_the_default_tau_is_the_smallest_on_its_grid(dimension, sigma):
    tau, sigma = default_tau(Fraction(sigma), dimension), Fraction(sigma)
    step = Fraction(1, TAU_GRID)
    assert density_ratio(tau, sigma, dimension) <= Decimal("1e-9") < density_ratio(tau - step, sigma, dimension)
    assert 0.7 < tau < 1.1


@pytest.mark.parametrize("sigma, tau", [(1.0, 0.5), (1.0, 0.9), (1.5, 0.5), (1.5, 0.6), (2.0, 0.4), (2.0, 0.55)])
def test_eta_bounds_the_ratio_of_the_densities(sigma, tau):
    """The ancestor, rounded at random, against the discrete Gaussian, by numerical integration."""
    s = math.sqrt(sigma**2 - tau**2)
    k = np.arange(-40, 41)

    def randomly_rounded(z: int) -> float:
        def density(y: float) -> float:
            weights = np.exp(-((k - y) ** 2) / (2 * tau**2))
            own = math.exp(-((z - y) ** 2) / (2 * tau**2))
            return math.exp(-(y**2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi)) * own / weights.sum()

        return integrate.quad(density, z - 9 * tau, z + 9 * tau, epsabs=0, epsrel=1e-12, limit=400)[0]

    _, pmf = law_pmf("discrete", sigma)
    middle = len(pmf) // 2
    eta = float(density_ratio(Fraction(str(tau)), Fraction(str(sigma)), 1))
    ratios = [abs(math.log(randomly_rounded(z) / pmf[middle + z])) for z in range(6)]
    assert 0 < max(ratios) <= eta + 1e-11 and max(ratios) > eta / 8


def test_the_plain_bound_on_the_ratio_is_much_larger():
    """n ln((1 + e) / (1 - e)), e = theta(tau^2), does not use that the ancestor's phase averages out."""
    plain = 3072 * 4 * math.exp(-2 * math.pi**2 * 1.25**2)
    assert float(density_ratio(Fraction(5, 4), Fraction(255, 4), 3072)) < plain / 1000


@settings(max_examples=150, deadline=None)
@given(st.floats(0.01, 7.9), st.sampled_from(["rounded", "discrete"]), st.sampled_from([0, 1e-9, 1e-4]))
def test_the_probability_of_a_radius_is_the_inverse_of_the_radius_of_a_probability(ratio, law, tv):
    theorem = model(law, Fraction(255, 4), 3072, tv=Fraction(tv) / 3072)
    radius = Fraction(ratio) * Fraction(theorem.scale)
    try:
        p = theorem.probability(radius)
    except InputError:
        assert tv == 1e-4 and ratio > 3 or ratio > 5.5
        return
    assert (p * GRID).is_integer()
    assert Fraction(theorem.radius(p)) >= radius
    assert Fraction(theorem.radius(p - 2 / GRID)) < radius


@settings(max_examples=100, deadline=None)
@given(st.floats(0.4, 1 - 2**-53), st.floats(0, 0.6), st.sampled_from([0, 1e-6, 1e-2]))
def test_two_class_radii_solve_their_equation(p_top, p_other, distance):
    p_other = min(p_other, 1 - p_top)
    theorem = model("rounded", 60, 3072, tv=Fraction(distance) / 3072)
    found = float(theorem.two_class_radius(p_top, p_other)) / 60

    def gap(r: float) -> float:
        top = ndtr(ndtri(p_top - distance) - r) - distance
        return top - ndtr(ndtri(min(max(p_other + distance, 2**-53), 1)) + r) - distance

    if gap(0) <= 0:
        assert found <= 1e-6
    else:
        assert found == pytest.approx(optimize.brentq(gap, 0, 20, xtol=1e-13), abs=1e-6)
        assert gap(found) > -1e-9
    if p_other == 1 - p_top and distance == 0:
        assert found == pytest.approx(float(theorem.radius(p_top)) / 60, abs=1e-9)


def test_two_classes_beat_one_where_the_other_votes_are_scattered():
    theorem = model("rounded", 60, 3072)
    assert theorem.two_class_radius(0.6, 0.1) > theorem.radius(0.6) > 0
    assert theorem.two_class_radius(0.4, 0.1) > 0 == theorem.radius(0.4)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 0.5 + 2**-53])
def test_what_is_not_above_one_half_certifies_nothing(p):
    for law in ("rounded", "discrete"):
        radius = model(law, 60, 3072).radius(p)
        assert radius == 0 or (law == "rounded" and p > 0.5 and radius < 1e-13)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("normal", Fraction(4), 64), "law is 'normal'"),
        (("discrete", Fraction(1), 64), "too small for the law"),
        (("discrete", Fraction(4), 64, Fraction(0), Fraction(5)), "0 < tau < sigma"),
        (("discrete", Fraction(4), 64, Fraction(0), Fraction(1, 10)), "too small for the theorem"),
        (("discrete", Fraction(4), 64, Fraction(0), Fraction(3, 10)), "nothing can be certified"),
        (("rounded", Fraction(4), 64, Fraction(0), Fraction(1)), "leave it out"),
        (("rounded", Fraction(4), 64, Fraction(1, 100)), "nothing can be certified"),
    ],
)
def test_where_the_theorem_says_nothing_there_is_an_error(arguments, message):
    with pytest.raises(InputError, match=message):
        ancestor(*arguments)
    with pytest.raises(InputError, match="larger sigma"):
        model("rounded", 4, 64).probability(Fraction(34))
