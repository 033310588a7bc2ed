"""Coverage of what Smooth does in every mode, from votes of known probability."""

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from small_runs import small_smooth

from intsmooth.records import ABSTAIN
from intsmooth.theorem import ancestor


class Coin:
    """An engine whose samples vote for class 0 with a known probability, the same vote for the same sample, and else for
    the others in turn."""

    def __init__(self, graph, probability):
        self.graph, self.probability = graph, probability
        self.uniforms: dict[bytes, np.ndarray] = {}

    def count_votes(self, image, table, key, first, n):
        name = key.tobytes()
        if name not in self.uniforms:
            if len(self.uniforms) > 4:
                self.uniforms.clear()
            self.uniforms[name] = np.random.default_rng(np.frombuffer(name, np.uint32)).random(2000)
        u = self.uniforms[name][first : first + n]
        hits = int((u < self.probability).sum())
        others = np.bincount((u[u >= self.probability] * 1e6).astype(int) % 9 + 1, minlength=10)
        return others + hits * np.eye(10, dtype=np.int64)[0]


COVERAGE = {
    "fixed": {"n": 100},
    "randomized": {"n": 100, "bound": "randomized"},
    "two-class": {"n": 100, "bound": "two-class"},
    "target": {"target_radius": "0.25", "max_n": 600},
    "precision": {"precision": "0.05", "max_n": 800},
    "largest": {"largest_radius": "0.25", "max_n": 800},
}
# tests/test_coverage.py has 100,000 runs of each rule; here it is what Smooth makes of them. Bounds that depend on more
# than one count are slow to compute.
RUNS = {"two-class": 200, "randomized": 600}


def simulate(name, runs, alpha=0.05):
    """Certificates above what the true probability guarantees; class 0 is chosen or nothing is claimed about it."""
    smooth = small_smooth()
    true = ancestor("rounded", smooth.table.sigma, 64, smooth.table.tv)
    p = true.probability(Fraction(4)) - 1e-9  # just short of radius 0.25, where a wrong claim is likeliest
    smooth.engine = Coin(smooth.graph, p)
    other = (1 - p) / 9
    limit = float(true.two_class_radius(p, other) if name == "two-class" else true.radius(p))
    wrong = certified = 0
    for i in range(runs):
        smooth.seed = i.to_bytes(32, "big")
        certificate = smooth.certify(np.zeros((8, 8), np.uint8), n0=10, alpha=alpha, **COVERAGE[name])
        wrong += certificate.radius_levels > limit
        certified += certificate.prediction != ABSTAIN
    return wrong, certified


@pytest.mark.parametrize("name", COVERAGE)
def test_coverage(name):
    runs = RUNS.get(name, 1000)
    wrong, certified = simulate(name, runs)
    assert wrong <= stats.binom.isf(1e-6, runs, 0.05), f"{wrong} of {runs} claim too much"
    assert certified > (0 if name == "target" else runs // 2)
    if name == "randomized":
        assert wrong >= stats.binom.ppf(1e-6, runs, 0.05)  # it spends all of alpha


@pytest.mark.slow
@pytest.mark.parametrize("name", COVERAGE)
def test_coverage_of_many_runs(name):
    runs = 20 * RUNS.get(name, 1000)
    wrong, _ = simulate(name, runs)
    assert wrong <= stats.binom.isf(1e-6, runs, 0.05), f"{wrong} of {runs} claim too much"
