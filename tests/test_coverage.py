"""Coverage by simulation: with a base classifier whose probabilities are known, certificates that claim too much are
at most as frequent as alpha allows, in every mode and under every stopping rule.

Each test fails by chance with probability 1e-6 or less. `at_most` prints what it saw when it fails.
"""

import dataclasses
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from exact_noise import law_pmf
from scipy import stats

from intsmooth.binomial import UNIFORM, clopper_pearson_lower
from intsmooth.certify import certificate_from_counts, certificate_from_two_classes, prediction_from_counts
from intsmooth.confidence_sequence import CurvePlan, geometric_looks, plan_curve
from intsmooth.records import ABSTAIN
from intsmooth.sequential import Decision, SequentialTest
from intsmooth.target import plan_target
from intsmooth.theorem import ancestor

RUNS = 100_000
CHANCE = 1e-6
ALPHA = 0.001
LAWS = [("rounded", 4), ("discrete", 4)]


def at_most(errors: int, level: float, runs: int = RUNS) -> bool:
    limit = stats.binom.isf(CHANCE, runs, level)
    if errors > limit:
        print(f"n = {runs}, k = {errors}: {errors / runs:.6f} observed, {level:.6f} allowed, limit {limit / runs:.6f}")
    return errors <= limit


def hardest_probabilities(n: int) -> list[float]:
    """Just below bounds that the votes can give: there the chance of overstating comes closest to alpha."""
    hits = sorted({n, n - 1, n - n // 20, (3 * n) // 4})
    return [clopper_pearson_lower(k, n, Fraction(1, 1000)) * (1 - 1e-9) for k in hits] + [0.5, 0.9]


@pytest.mark.parametrize("law, sigma", LAWS)
@pytest.mark.parametrize("n", [1, 10, 50, 1000])
def test_fixed_plan(law, sigma, n):
    """Few certificates state a radius above the one that the true probability guarantees."""
    rng = np.random.default_rng(n)
    true = ancestor(law, Fraction(sigma), 64)
    radii: dict[int, float] = {}
    closest = 0.0
    for p in hardest_probabilities(n):
        hits, times = np.unique(rng.binomial(n, p, RUNS), return_counts=True)
        for k in set(hits.tolist()) - set(radii):
            radii[k] = certificate_from_counts(k, n, sigma=sigma, law=law, dimension=64, unit=1).radius_levels
        limit = float(true.radius(p))
        errors = sum(int(t) for k, t in zip(hits.tolist(), times, strict=True) if radii[k] > limit)
        assert at_most(errors, ALPHA), p
        closest = max(closest, errors / RUNS)
    if n >= 50:
        assert closest > ALPHA / 2  # the test sees errors where it looks for them


@pytest.mark.parametrize("law, sigma", LAWS)
def test_fixed_plan_on_noise_and_a_classifier(law, sigma):
    """Votes of the half space z_1 <= edge on integer noise, whose exact budget is (edge + 1)^2 - 1."""
    rng = np.random.default_rng(7)
    n, alpha = 20, 0.05
    outcomes, pmf = law_pmf(law, sigma)
    cdf = np.cumsum(pmf)
    noise = outcomes[np.minimum(np.searchsorted(cdf, rng.random((RUNS, n)), side="right"), len(cdf) - 1)]
    certificates = [
        certificate_from_counts(k, n, sigma=sigma, law=law, dimension=1, unit=1, alpha=alpha) for k in range(n + 1)
    ]
    budgets = np.array([-1 if c.prediction == ABSTAIN else c.budget for c in certificates])
    for edge in range(-1, 8):
        hits = (noise <= edge).sum(axis=1)
        assert at_most(int((budgets[hits] > (edge + 1) ** 2 - 1).sum()), alpha), edge


@pytest.mark.parametrize("n", [3, 30])
def test_randomized_bound_errs_exactly_as_often_as_allowed(n):
    rng = np.random.default_rng(n)
    for p in (0.3, 0.8, 0.99):
        hits = rng.binomial(n, p, RUNS)
        uniforms = rng.integers(0, UNIFORM, RUNS, dtype=np.uint64)
        errors = 0
        for k in np.unique(hits).tolist():
            # The bound falls as `uniform` grows: it is above p for all uniform < high.
            low, high = -1, UNIFORM
            while high - low > 1:
                middle = (low + high) // 2
                above = clopper_pearson_lower(k, n, Fraction(1, 1000), middle) > p
                low, high = (middle, high) if above else (low, middle)
            errors += int((uniforms[hits == k] < min(high, UNIFORM - 1)).sum())
        assert at_most(errors, ALPHA)
        assert errors >= stats.binom.ppf(CHANCE, RUNS, ALPHA), (p, errors)


@pytest.mark.parametrize("probabilities", [(0.7, 0.1, 0.1, 0.1), (0.6, 0.4, 0, 0), (0.4, 0.2, 0.2, 0.2)])
def test_two_classes(probabilities):
    rng = np.random.default_rng(4)
    alpha, n, sigma = 0.02, 40, 4
    true = ancestor("rounded", Fraction(sigma), 64)
    limit = float(true.two_class_radius(probabilities[0], max(probabilities[1:])))
    rows, times = np.unique(rng.multinomial(n, probabilities, RUNS), axis=0, return_counts=True)
    # The radius depends on the top count and the largest of the others only.
    pairs, which = np.unique(np.c_[rows[:, 0], rows[:, 1:].max(axis=1)], axis=0, return_inverse=True)
    radii = []
    for top, other in pairs.tolist():
        counts = [top, other, (n - top - other) // 2, n - top - other - (n - top - other) // 2]
        radii.append(
            certificate_from_two_classes(counts, top=0, sigma=sigma, dimension=64, unit=1, alpha=alpha).radius_levels
        )
    assert at_most(int(times[np.array(radii)[which.ravel()] > limit].sum()), alpha)


@pytest.mark.parametrize("probabilities", [(0.51, 0.49, 0), (0.4, 0.35, 0.25), (0.34, 0.33, 0.33)])
@pytest.mark.parametrize("n", [15, 60])
def test_predictions(probabilities, n):
    rng = np.random.default_rng(n)
    alpha = 0.05
    rows, times = np.unique(rng.multinomial(n, probabilities, RUNS), axis=0, return_counts=True)
    predicted = np.array([prediction_from_counts(row, alpha) for row in rows])
    assert at_most(int(times[(predicted != 0) & (predicted != ABSTAIN)].sum()), alpha)


@pytest.mark.parametrize("law", ["rounded", "discrete"])
@pytest.mark.parametrize(
    "chunk, runs", [(1, RUNS // 10), (16, RUNS), pytest.param(1, RUNS, marks=pytest.mark.slow)]
)
def test_target_radius(law, chunk, runs):
    """At the probability that the radius needs, and below, certificates are rare; where max_n votes would more likely than
    not certify, giving up is."""
    max_n = 512
    plan = plan_target("0.5", sigma="0.5", dimension=64, unit=16, law=law, max_n=max_n, alpha=ALPHA, beta=0.01)
    looks = np.arange(chunk, max_n + 1, chunk)
    assert plan.table.alpha_bound <= ALPHA and plan.table.beta_bound <= 0.01
    for p in (plan.table.p, plan.table.p - 0.01, plan.table.hopeful, plan.table.hopeful + 0.01):
        rng = np.random.default_rng(chunk)
        hits = np.zeros(runs, np.int32)
        fate = np.zeros(runs, np.int8)
        for n in looks:
            hits += rng.binomial(chunk, p, runs).astype(np.int32)
            going = fate == 0
            fate[going & (hits >= plan.table.certify[n])] = 1
            fate[going & (hits <= plan.table.give_up[n])] = -1
        if p <= plan.table.p:
            assert at_most(int((fate == 1).sum()), ALPHA, runs), p
        if p >= plan.table.hopeful:
            assert at_most(int((fate == -1).sum()), 0.01, runs), p
        if p == plan.table.p and chunk == 1 and runs == RUNS:
            assert (fate == 1).sum() > runs * ALPHA / 2  # looking after every vote, the level is used


def test_target_radius_by_its_driver():
    """The same with the objects that a driver uses, and with its futility rule."""
    plan = plan_target("0.5", sigma="0.5", dimension=64, unit=16, max_n=64, alpha="0.01", beta="0.05")
    uniforms = np.random.default_rng(11).random((RUNS // 5, 64))

    def fates(p: float) -> list[SequentialTest]:
        runs = []
        for row in (uniforms < p).reshape(-1, 16, 4).sum(axis=2).tolist():
            runs.append(SequentialTest(plan.table))
            for hits in row:
                if runs[-1].update(hits, 4) is not Decision.CONTINUE:
                    break
        return runs

    assert at_most(sum(plan.certificate(run).prediction != ABSTAIN for run in fates(plan.table.p)), 0.01, RUNS // 5)
    assert at_most(sum(run.decision is Decision.GIVE_UP for run in fates(plan.table.hopeful)), 0.05, RUNS // 5)


def stops(plan: CurvePlan, paths: np.ndarray) -> list[float]:
    """The radius in levels that each path of hits, look by look, ends with."""
    radii = []
    for path in paths.tolist():
        run = plan.start()
        for before, after in pairwise([0, *path]):
            if run.update(after - before, run.due) is not None:
                break
        radii.append(plan.certificate(run).radius_levels)
    return radii


@pytest.mark.parametrize(
    "law, rules",
    [
        ("rounded", {}),
        ("rounded", {"precision": "0.3"}),
        ("rounded", {"largest_radius": "0.2"}),
        ("discrete", {"precision": "0.3", "largest_radius": "0.4"}),
    ],
)
def test_confidence_sequence_under_its_stopping_rules(law, rules):
    alpha = Fraction(1, 50)
    plan = plan_curve(sigma="0.5", dimension=64, unit=16, law=law, alpha=alpha, beta="0.05", **rules)
    plan = dataclasses.replace(plan, looks=geometric_looks(24, alpha, Fraction(1, 20), first=6))
    times = np.diff([0, *(look.n for look in plan.looks)])
    assert len(times) == 3
    for p in (0.5, clopper_pearson_lower(11, 12, plan.looks[1].alpha) - 1e-9):
        rng = np.random.default_rng(int(100 * p))
        hits = np.cumsum([rng.binomial(n, p, RUNS) for n in times], axis=0).T
        paths, number = np.unique(hits, axis=0, return_counts=True)
        limit = float(plan.model.radius(p))
        errors = int(number[np.array(stops(plan, paths)) > limit].sum())
        assert at_most(errors, float(alpha)), p


@pytest.mark.parametrize("max_n", [12, 400, 3000])
def test_confidence_sequence_under_the_worst_of_all_stopping_rules(max_n):
    """Whoever knew p could stop at the first bound above it: all bounds must hold at once."""
    alpha = Fraction(1, 100)
    plan = plan_curve(sigma="0.5", dimension=64, unit=16, max_n=max_n, alpha=alpha)
    last = plan.looks[-1]
    for p in (0.5, 0.9, clopper_pearson_lower(last.n - 3, last.n, last.alpha) - 1e-9):
        rng = np.random.default_rng(max_n)
        hits, before = np.zeros(RUNS, np.int64), 0
        wrong = np.zeros(RUNS, bool)
        for look in plan.looks:
            hits += rng.binomial(look.n - before, p, RUNS)
            before = look.n
            # Bounds grow with the hits: find the first count whose bound is above p.
            low, high = 0, look.n + 1
            while high - low > 1:
                middle = (low + high) // 2
                above = clopper_pearson_lower(middle, look.n, look.alpha) > p
                low, high = (low, middle) if above else (middle, high)
            wrong |= hits >= high
        assert at_most(int(wrong.sum()), float(alpha)), p


def test_many_images_at_once():
    """With alpha / m for each of m images, all m certificates hold together."""
    rng = np.random.default_rng(9)
    m, n, alpha = 20, 100, 0.02
    radii = [
        certificate_from_counts(k, n, sigma=4, dimension=64, unit=1, alpha=alpha, simultaneous=m).radius_levels
        for k in range(n + 1)
    ]
    p = clopper_pearson_lower(90, n, Fraction("0.001")) - 1e-9
    hits = rng.binomial(n, p, (RUNS, m))
    limit = float(ancestor("rounded", Fraction(4), 64).radius(p))
    errors = int((np.array(radii)[hits] > limit).any(axis=1).sum())
    assert at_most(errors, alpha) and errors > RUNS * alpha / 4
