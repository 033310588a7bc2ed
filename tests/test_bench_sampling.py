"""The programs that compare stopping rules and measure what stopping early saves; their figures are not looked at."""

import pathlib
import sys
from fractions import Fraction
from math import log

import numpy as np
import pytest

from intsmooth import sequential
from intsmooth.binomial import clopper_pearson_lower, clopper_pearson_upper
from intsmooth.sequential import stopping_table

FOLDER = pathlib.Path(__file__).parents[1] / "bench"
sys.path.append(str(FOLDER))

import adaptive  # noqa: E402
import stopping  # noqa: E402

P = 0.75


def test_the_walk_is_the_package_s_own():
    table = stopping_table(P, stopping.ALPHA, stopping.ALPHA, 400)
    upper, lower = stopping.ours(table)
    everywhere = np.ones(401, bool)
    for p in (0.3, 0.76, 0.9):
        certified, mean = stopping.walk(upper.astype(np.int64), lower.astype(np.int64), everywhere, p)
        up, _, expected = sequential.walk(upper, lower, p)
        assert certified == pytest.approx(up, abs=1e-9) and mean == pytest.approx(expected, rel=1e-6)
    rare = np.zeros(401, bool)
    rare[::50] = True
    assert stopping.walk(upper.astype(np.int64), lower.astype(np.int64), rare, 0.9)[1] >= 50


def test_steps_are_where_a_run_looks():
    looks = np.flatnonzero(stopping.steps(2000))
    assert looks[0] == 8 and looks[-1] == 2000 and set(np.diff(looks[:100])) == {8} and max(np.diff(looks)) <= 24


def test_betting_is_the_product_of_its_predictions():
    """Krichevsky and Trofimov's predictions, one vote after the other, on all-hits and all-misses and a mixture."""
    upper, lower = stopping.betting(P, 300)

    def wealth(votes):
        total = hits = 0.0
        for n, vote in enumerate(votes):
            q = (hits + 0.5) / (n + 1)
            total += log((q if vote else 1 - q) / (P if vote else 1 - P))
            hits += vote
        return total

    for n in (20, 45, 100, 300):
        for hits, inside in ((int(upper[n]), True), (int(upper[n]) - 1, False)):
            if hits <= n and upper[n] == min(upper[n:]) and upper[n] > max(upper[n - 1], P * n):
                assert (wealth([1] * hits + [0] * (n - hits)) > log(500)) == inside
    assert (lower < upper).all() and lower[300] > 100


def test_stages_are_clopper_and_pearson():
    upper, lower, looks = stopping.stages(P)
    assert np.flatnonzero(looks).tolist() == list(stopping.STAGES)
    share = Fraction(1, 4000)
    for n in (100, 1000):
        assert clopper_pearson_lower(int(upper[n]), n, share) > P >= clopper_pearson_lower(int(upper[n]) - 1, n, share)
        assert clopper_pearson_upper(int(lower[n]), n, share) < P <= clopper_pearson_upper(int(lower[n]) + 1, n, share)


def test_published_radii_become_probabilities(tmp_path):
    rows = ["idx\tlabel\tpredict\tradius\tcorrect\ttime", "0\t1\t1\t0.5\t1\t1", "20\t1\t-1\t0.0\t0\t1", "30\t1\t1\t1\t1\t1"]
    (tmp_path / "a.tsv").write_text("\n".join(rows) + "\n")
    p = stopping.probabilities(tmp_path / "a.tsv", 0.5, 20)
    assert len(p) == 2 and p[1] == stopping.UNKNOWN and 0.8413 < p[0] < 0.8455
    values, shares = stopping.grouped(np.array([0.5, 0.5001, 0.84, 0.9]), 0.8413)
    assert len(values) == 3 and shares.sum() == 1


def test_adaptive_writes_its_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INTSMOOTH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(adaptive, "MAX_N", 300)
    arguments = "digits --data digits --every 1 --curve-every 1 --max 2 --n 200 --radii 0.25".split()
    monkeypatch.setattr(sys, "argv", ["adaptive.py", *arguments, "--folder", str(tmp_path)])
    adaptive.main()
    page = (tmp_path / "ADAPTIVE.md").read_text()
    assert page.strip() == capsys.readouterr().out.strip() and "digits-s0.25, sigma 0.25" in page
    assert "| 0.25 |" in page and "two-class" in page and "Published means" in page
