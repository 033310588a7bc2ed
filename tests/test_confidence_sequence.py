"""The adaptive run for the largest radius: its looks, its bounds and its stopping rules."""

from fractions import Fraction
from math import log

import numpy as np
import pytest
from scipy import optimize
from scipy.special import betaln

from intsmooth.binomial import clopper_pearson_lower
from intsmooth.certify import certificate_from_counts
from intsmooth.confidence_sequence import CurvePlan, CurveRun, Stop, geometric_looks, plan_curve
from intsmooth.errors import InputError
from intsmooth.records import ABSTAIN

ALPHA, BETA = Fraction(1, 1000), Fraction(1, 50)
SETTING = {"sigma": 0.5, "dimension": 3072, "max_n": 12_800}


def follow(plan: CurvePlan, share: float) -> CurveRun:
    """A run in which the share of hits is always the same."""
    run = plan.start()
    while run.stopped is None:
        n = run.due
        run.update(round(share * (run.n + n)) - run.hits, n)
    return run


@pytest.mark.parametrize("max_n", [1, 2, 99, 100, 199, 200, 1000, 100_000, 2**31])
def test_looks_double_and_their_errors_add_up(max_n):
    looks = geometric_looks(max_n, ALPHA, BETA)
    assert sum(look.alpha for look in looks) == ALPHA and sum(look.beta for look in looks) == BETA
    times = [look.n for look in looks]
    assert times[-1] == max_n and times == sorted(set(times)) and times[0] >= min(max_n, 100)
    assert all(b in (2 * a, 2 * a - 1) for a, b in zip(times, times[1:], strict=False))
    assert looks[-1].alpha == (ALPHA if len(looks) == 1 else ALPHA / 2)


@pytest.mark.parametrize("share", [0.55, 0.7, 0.9, 0.99, 1.0])
def test_looks_beat_betting_where_one_looks(share):
    """A lower confidence sequence by betting with Jeffreys' mixture pays for all the times in between."""
    for look in geometric_looks(100_000, ALPHA, BETA):
        hits = round(share * look.n)
        misses = look.n - hits

        def excess(p: float, hits: int = hits, misses: int = misses) -> float:
            wealth = betaln(hits + 0.5, misses + 0.5) - betaln(0.5, 0.5) - hits * log(p) - misses * log(1 - p)
            return wealth - log(1000)

        betting = optimize.brentq(excess, 1e-9, min(hits / look.n, 1 - 1e-12))
        assert clopper_pearson_lower(hits, look.n, look.alpha) > betting


def test_without_rules_a_run_ends_with_its_votes_and_half_of_alpha():
    run = follow(plan_curve(**SETTING), 0.9)
    assert run.stopped is Stop.EXHAUSTED and run.n == 12_800 and run.due == 0
    c = run.plan.certificate(run, top=1, selection=[0, 9], counts=[1280, 11_520])
    fixed = certificate_from_counts(11_520, 12_800, sigma=0.5, dimension=3072, alpha=ALPHA / 2)
    assert (c.p_lower, c.radius, c.budget, c.prediction) == (fixed.p_lower, fixed.radius, fixed.budget, 1)
    assert (c.alpha, c.extra["stop"], c.extra["best_look"]) == (0.001, "max_n votes", [12_800, 11_520, "1/2000"])


def test_the_largest_radius_of_interest_ends_a_run():
    run = follow(plan_curve(**SETTING, largest_radius=0.5), 1.0)
    assert run.stopped is Stop.REACHED and run.n == 100
    assert run.plan.certificate(run).radius >= 0.5
    assert follow(plan_curve(**SETTING, largest_radius=0.5), 0.9).n < 2000
    assert follow(plan_curve(**SETTING, largest_radius=0.5), 0.84).stopped is Stop.EXHAUSTED


def test_hopeless_classes_end_a_run():
    for share, votes in ((0.0, 100), (0.2, 100), (0.45, 3200)):
        run = follow(plan_curve(**SETTING), share)
        assert run.stopped is Stop.ABSTAINS and run.n <= votes
        c = run.plan.certificate(run, top=0)
        assert (c.prediction, c.radius, c.budget, c.hits) == (ABSTAIN, 0.0, 0, run.hits)


def test_precision_ends_a_run_when_more_votes_would_add_less():
    exhaustive = follow(plan_curve(**SETTING), 0.9)
    best = exhaustive.plan.certificate(exhaustive).radius
    votes = []
    for precision in (0.2, 0.1, 0.05, 0.02, 0.001):
        run = follow(plan_curve(**SETTING, precision=precision), 0.9)
        votes.append(run.n)
        assert best - precision <= run.plan.certificate(run).radius <= best
        assert run.stopped is (Stop.PRECISE if run.n < 12_800 else Stop.EXHAUSTED)
    assert votes == sorted(votes) and votes[0] < 1000 and votes[-1] == 12_800


def test_the_best_look_counts():
    plan = plan_curve(**SETTING | {"max_n": 400})
    run = plan.start()
    run.update(100, 100)
    early = run.p
    run.update(60, 100)
    run.update(120, 200)
    assert run.stopped is Stop.EXHAUSTED
    c = plan.certificate(run)
    assert c.p_lower == early == clopper_pearson_lower(100, 100, plan.looks[0].alpha)
    assert c.extra["best_look"] == [100, 100, str(ALPHA / 4)] and (c.hits, c.n) == (280, 400)


def test_votes_come_in_any_chunks_but_not_across_a_look():
    plan = plan_curve(**SETTING)
    run, whole = plan.start(), plan.start()
    for _ in range(20):
        assert run.update(4, 5) is None or run.n == 100
    whole.update(80, 100)
    assert (run.p, run.n, run.looked) == (whole.p, 100, 1)
    with pytest.raises(InputError, match="draw them in two parts"):
        run.update(100, 101)
    for hits, n in ((2, 1), (-1, 1), (0, 0), (0.5, 1)):
        with pytest.raises(InputError):
            run.update(hits, n)
    with pytest.raises(InputError, match="draw 100 more first"):
        plan.certificate(run)
    with pytest.raises(InputError, match="another plan"):
        plan_curve(**SETTING).certificate(whole)
    stopped = follow(plan, 0.1)
    with pytest.raises(InputError, match="the run has stopped"):
        stopped.update(1, 1)


def test_plans():
    assert plan_curve(**SETTING, simultaneous=10).looks[-1].alpha == Fraction(1, 20_000)
    run = follow(plan_curve(**SETTING, simultaneous=10, law="discrete"), 0.99)
    assert run.plan.certificate(run).extra["simultaneous"] == 10
    for wrong in ({"precision": 0}, {"precision": -1}, {"largest_radius": "no"}, {"max_n": 0}, {"alpha": 1}):
        with pytest.raises(InputError):
            plan_curve(**SETTING | wrong)


def test_a_precision_saves_most_of_the_votes():
    rng = np.random.default_rng(5)
    plan = plan_curve(sigma=0.5, dimension=3072, max_n=100_000, precision=0.05)
    votes = []
    for p in rng.beta(3, 0.6, 20):
        run = plan.start()
        while run.stopped is None:
            run.update(int(rng.binomial(run.due, p)), run.due)
        votes.append(run.n)
    assert np.mean(votes) < 35_000
