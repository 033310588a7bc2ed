"""The stopping rule for one radius: its error exactly, its speed against Wald's bound, and the driver's view of it."""

import itertools
from fractions import Fraction
from math import log

import numpy as np
import pytest
from scipy.special import betaln

from intsmooth.binomial import clopper_pearson_lower
from intsmooth.certify import certificate_from_counts
from intsmooth.errors import InputError
from intsmooth.records import ABSTAIN
from intsmooth.sequential import (
    Decision,
    SequentialTest,
    crossing_probability,
    stopping_table,
    walk,
)
from intsmooth.target import plan_target

ALPHA = Fraction(1, 1000)
P = 0.8413447460685429  # what a radius of one sigma needs


def exact_crossing(boundary: np.ndarray, p: Fraction) -> Fraction:
    """P[H_T >= boundary[T] for some T] by the same walk in integers: masses in units of denominator^-T."""
    hit, whole = p.numerator, p.denominator
    alive, crossed = {0: 1}, 0
    for n in range(1, len(boundary)):
        moved: dict[int, int] = {}
        for hits, mass in alive.items():
            moved[hits] = moved.get(hits, 0) + mass * (whole - hit)
            moved[hits + 1] = moved.get(hits + 1, 0) + mass * hit
        crossed = crossed * whole + sum(mass for hits, mass in moved.items() if hits >= boundary[n])
        alive = {hits: mass for hits, mass in moved.items() if hits < boundary[n]}
    return Fraction(crossed, whole ** (len(boundary) - 1))


@pytest.mark.parametrize("p", [0.5, 0.6875, P, 0.95])
@pytest.mark.parametrize("alpha", [Fraction(1, 1000), Fraction(1, 20)])
def test_tables_err_at_most_alpha_in_rational_arithmetic(p, alpha):
    table = stopping_table(p, alpha, Fraction(1, 10), 120)
    for boundary, probability, level, bound in (
        (table.certify, p, alpha, table.alpha_bound),
        (np.arange(121) - table.give_up, 1 - table.hopeful, Fraction(1, 10), table.beta_bound),
    ):
        exact = exact_crossing(boundary, Fraction(probability))
        assert exact <= bound <= level
        assert bound <= float(exact) * (1 + 1e-12) + 1e-18  # the bound is tight, too
        for smaller in (0.999 * probability, 0.9 * probability, 0.1 * probability):
            assert exact_crossing(boundary, Fraction(smaller)) <= exact


def test_the_walk_against_all_sequences_of_votes():
    boundary, p = np.array([1, 2, 3, 3, 4, 5, 5, 6, 6, 7, 8, 8]), Fraction(3, 8)
    crossed = Fraction(0)
    for votes in itertools.product((0, 1), repeat=len(boundary) - 1):
        hits = list(itertools.accumulate(votes))
        if any(h >= b for h, b in zip(hits, boundary[1:], strict=True)):
            crossed += p ** hits[-1] * (1 - p) ** (len(votes) - hits[-1])
    assert exact_crossing(boundary, p) == crossed
    assert crossing_probability(boundary, float(p)) == pytest.approx(float(crossed), rel=1e-12)


def test_the_walk_accounts_for_every_sequence():
    table = stopping_table(P, ALPHA, ALPHA, 2000)
    for p in (0.3, 0.8, P, 0.9, 0.999):
        up, down, mean = walk(table.certify, table.give_up, p)
        assert 0 <= up + down <= 1 + 1e-9 and 0 < mean <= 2000
    rng = np.random.default_rng(3)
    hits = np.cumsum(rng.random((4000, 2000)) < 0.87, axis=1)
    times = np.arange(1, 2001)
    stopped = (hits >= table.certify[1:]) | (hits <= table.give_up[1:])
    votes = np.where(stopped.any(axis=1), stopped.argmax(axis=1) + 1, times[-1])
    _, _, mean = walk(table.certify, table.give_up, 0.87)
    assert abs(votes.mean() - mean) < 5 * votes.std() / 4000**0.5


@pytest.mark.parametrize("p", [0.5, 0.6875, P, 0.9999])
def test_tables_are_what_their_users_rely_on(p):
    table = stopping_table(p, ALPHA, ALPHA, 3000)
    times = np.arange(3001)
    for boundary in (table.certify, table.give_up):
        assert boundary.dtype == np.int32 and not boundary.flags.writeable
        assert set(np.diff(boundary).tolist()) <= {0, 1}
    assert np.all(table.certify > times * p) and np.all(table.give_up < np.minimum(times * table.hopeful, table.certify))
    assert p < table.hopeful <= table.certify[-1] / 3000 < table.hopeful + 1e-15
    assert stopping_table(p, ALPHA, ALPHA, 3000) is table


@pytest.mark.parametrize("max_n", [40, 700, 3000])
def test_no_table_certifies_where_the_fixed_plan_would_not(max_n):
    """Crossing at T is one way of crossing, so H*(T) hits among T are significant by themselves."""
    table = stopping_table(0.75, ALPHA, ALPHA, max_n)
    reachable = [n for n in range(1, max_n + 1) if table.certify[n] <= n]
    for n in reachable[:: max(1, len(reachable) // 15)]:
        assert clopper_pearson_lower(int(table.certify[n]), n, ALPHA) >= table.p


def test_too_few_votes_for_any_decision():
    table = stopping_table(0.95, ALPHA, ALPHA, 60)  # 0.95^60 = 0.046 > alpha
    assert np.array_equal(table.certify, np.arange(1, 62)) and table.alpha_bound == 0
    assert SequentialTest(table).update(1, 1) is Decision.UNDECIDED


def jeffreys_wealth(hits: int, n: int, p: float) -> float:
    """ln of the wealth of the two-sided bet with Krichevsky and Trofimov's predictions."""
    misses = n - hits
    return betaln(hits + 0.5, misses + 0.5) - betaln(0.5, 0.5) - hits * log(p) - misses * log(1 - p)


def test_shortcut_betting_on_both_sides_certifies_the_hopeless():
    """`W >= 1/alpha` rejects p = p0, not p <= p0: W grows as well when there are too few hits."""
    assert jeffreys_wealth(50, 100, P) > log(1000)  # half of the votes, where 84 % are needed
    table = stopping_table(P, ALPHA, ALPHA, 1000)
    assert table.decide(50, 100) is Decision.GIVE_UP


@pytest.mark.parametrize(("alpha", "beta"), [(Fraction(1, 10**400), Fraction(1, 100)), (Fraction(1, 100), Fraction(1, 10**400))])
def test_errors_too_small_for_floats_are_refused(alpha, beta):
    with pytest.raises(InputError, match="below 1e-300"):
        stopping_table(0.5, alpha, beta, 1000)


def test_decisions_come_fast():
    """Mean votes against Wald's lower bound for any test, ln(1/alpha) / KL, and against two-sided betting."""
    max_n = 8_000
    table = stopping_table(P, ALPHA, ALPHA, max_n)
    two_sided, hits = np.zeros(max_n + 1, np.int64), 0
    for n in range(max_n + 1):
        above = itertools.count(max(hits, int(n * P)))
        hits = next(h for h in above if h > n or jeffreys_wealth(h, n, P) >= log(1000))
        two_sided[n] = hits
    for p, limit, saving in ((0.87, 1.2, 0.85), (0.9, 1.25, 0.9), (0.95, 1.4, 1), (0.9999, 1.5, 1)):
        divergence = p * log(p / P) + (1 - p) * log((1 - p) / (1 - P))
        ours = walk(table.certify, None, p)[2]
        assert ours < limit * log(1000) / divergence
        assert ours < saving * walk(two_sided, None, p)[2]


def test_a_run_in_chunks_is_a_run_looked_at_less_often():
    table = stopping_table(P, ALPHA, ALPHA, 2000)
    rng = np.random.default_rng(1)
    for p in (0.5, 0.8, P, 0.88, 0.999):
        votes = rng.random(2000) < p
        for chunk in (1, 7, 100):
            run = SequentialTest(table)
            while run.decision is Decision.CONTINUE:
                part = votes[run.n : run.n + min(chunk, run.remaining)]
                run.update(int(part.sum()), len(part))
            assert run.hits == votes[: run.n].sum() and (run.n % chunk == 0 or run.n == 2000)
            assert run.decision is table.decide(run.hits, run.n)
            earlier = [table.decide(int(votes[:n].sum()), n) for n in range(chunk, run.n, chunk)]
            assert set(earlier) <= {Decision.CONTINUE}
            with pytest.raises(InputError, match="start a new one"):
                run.update(1, 1)


def test_hopeless_runs_end_early():
    table = stopping_table(P, ALPHA, Fraction(1, 10**6), 200)
    needed = int(table.certify[200])
    hits, n = needed - 41, 160
    assert table.decide(hits, n) is Decision.UNDECIDED  # 40 more hits would not do
    assert table.decide(hits + 1, n) in (Decision.CONTINUE, Decision.CERTIFY)
    assert table.decide(needed - 1, 200) is Decision.UNDECIDED
    assert table.decide(needed, 200) is Decision.CERTIFY


def test_impossible_votes_are_refused():
    run = SequentialTest(stopping_table(P, ALPHA, ALPHA, 2000))
    for hits, n in ((3, 2), (-1, 2), (0, 0), (1, 2001), (0.5, 1), (True, 1)):
        with pytest.raises(InputError):
            run.update(hits, n)
    assert (run.hits, run.n, run.decision) == (0, 0, Decision.CONTINUE)
    for p in (0.0, 1.0, 0.1, float("nan")):  # 0.1 is no multiple of 2^-53
        with pytest.raises(InputError, match="multiple of 2\\^-53"):
            stopping_table(p, ALPHA, ALPHA, 10)
    with pytest.raises(InputError, match="max_n is 0"):
        stopping_table(0.5, ALPHA, ALPHA, 0)


SETTING = {"sigma": 0.5, "dimension": 3072, "max_n": 3000}


@pytest.mark.parametrize("asked", [0.5, "0.3", 0.1, Fraction(1, 3), 0.7])
def test_a_certified_target_is_the_radius_asked_for(asked):
    plan = plan_target(asked, **SETTING)
    assert plan.model.radius(plan.table.p) >= Fraction(plan.radius_levels) >= Fraction(asked) * 255
    run = plan.start()
    while run.decision is Decision.CONTINUE:
        run.update(25, 25)
    c = plan.certificate(run, top=4, selection=[0, 0, 0, 0, 10], counts=[0, 0, 0, 0, run.n])
    assert (c.prediction, c.top, c.hits, c.n, c.n0) == (4, 4, run.n, run.n, 10)
    assert c.radius >= float(asked) and c.radius == pytest.approx(float(Fraction(asked)), rel=1e-14)
    assert c.budget == int(Fraction(plan.radius_levels) ** 2) and c.p_lower == plan.table.p
    assert (c.alpha, c.extra["decision"], c.extra["max_n"]) == (0.001, "certify", 3000)
    # A fixed plan of as many votes certifies it as well: the sequential rule is no licence for more.
    assert certificate_from_counts(run.n, run.n, sigma=0.5, dimension=3072).radius >= c.radius


def test_runs_that_fail_abstain():
    plan = plan_target(0.5, **SETTING)
    run = plan.start()
    with pytest.raises(InputError, match="draw more first"):
        plan.certificate(run)
    run.update(10, 60)
    c = plan.certificate(run)
    assert (c.prediction, c.radius, c.budget, c.p_lower, c.extra["decision"]) == (ABSTAIN, 0.0, 0, 0.0, "give up")
    with pytest.raises(InputError, match="another plan"):
        plan_target(0.7, **SETTING).certificate(run)


def test_targets_at_the_ends_of_what_is_possible():
    assert plan_target(0, **SETTING).table.p > 0.5
    assert plan_target(1, **SETTING).table.p > plan_target(1, **SETTING | {"law": "rounded", "sigma": 1}).table.p
    assert plan_target(0.5, **SETTING, law="discrete").table.p > plan_target(0.5, **SETTING).table.p
    assert plan_target(0.5, **SETTING, simultaneous=100).table.alpha == Fraction(1, 100_000)
    for wrong in ({"radius": 4.2}, {"radius": -1}, {"radius": "far"}, {"beta": 0}, {"max_n": 0}, {"simultaneous": 0}):
        with pytest.raises(InputError):
            plan_target(wrong.pop("radius", 0.5), **SETTING | wrong)


def test_the_mean_number_of_votes_can_be_told_in_advance():
    plan = plan_target(0.5, **SETTING)
    means = [plan.mean_votes(p) for p in (0.2, 0.8, plan.table.p, 0.9, 0.9999)]
    assert means[0] < 20 < means[4] < 70 < means[1] < means[2] and means[3] < means[2] < 3000


@pytest.mark.slow
def test_a_table_of_full_size():
    table = stopping_table(P, ALPHA, ALPHA, 100_000)
    assert 0.00095 < table.alpha_bound <= 0.001 and 0.00095 < table.beta_bound <= 0.001
    # Giving up early takes fewer votes than any test of p could: it is one of `hopeful`.
    for p, wald, limit in ((P - 0.01, 18_751, 0.7), (P + 0.01, 18_122, 1.2), (P + 0.03, 1_939, 1.25)):
        assert walk(table.certify, table.give_up, p)[2] < limit * wald
