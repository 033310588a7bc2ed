"""The modes of `certify`, driven by Smooth and certify_dataset: same results however computed, sound, and readable."""

import csv
import json
import pathlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import models
import numpy as np
import pytest
from scipy import stats
from small_runs import Images, Recorder, small_dataset, small_smooth, timeless

from intsmooth.certificate_table import build_table, rederive
from intsmooth.certify import certificate_from_counts
from intsmooth.errors import InputError, ResultsError
from intsmooth.fixed_plan import BOUNDS, plan_fixed
from intsmooth.noise.stream import image_digest, stream_key, uniform_integer
from intsmooth.records import ABSTAIN
from intsmooth.results import read_results
from intsmooth.run import certify_dataset
from intsmooth.smooth import Smooth
from intsmooth.vote import ESTIMATION, SELECTION, count_votes


def small_table(n=150, sigma="0.25", **other):
    tv = small_smooth(sigma=sigma).table.tv
    return build_table(n, **{"sigma": sigma, "dimension": 64, "unit": 16, "tv": tv} | other)


MODES = {
    "fixed": lambda: {"n": 150},
    "randomized": lambda: {"n": 150, "bound": "randomized"},
    "two-class": lambda: {"n": 150, "bound": "two-class"},
    "target": lambda: {"target_radius": "0.05", "max_n": 700},
    "curve": lambda: {"max_n": 700, "precision": "0.05", "largest_radius": "0.5"},
    "table": lambda: {"table": small_table()},
}


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    return MODES[request.param]()


@pytest.fixture(scope="module")
def image():
    return Images()(3)


def test_every_way_of_computing_gives_the_same_certificate(mode, image):
    reference = small_smooth().certify(image, n0=20, **mode)
    assert sum(reference.counts) == reference.n <= 700 and reference.counts[reference.top] == reference.hits
    graph = models.tiny_conv(np.random.default_rng(1))
    for threads, batch_size, backend in ((2, 4096, "numba"), (1, 7, "numba"), (1, 64, "numpy")):
        smooth = Smooth(graph, "0.25", seed=11, threads=threads, backend=backend)
        assert smooth.certify(image, n0=20, batch_size=batch_size, **mode) == reference


def test_runs_end_in_the_same_bytes_wherever_they_are_resumed(mode, tmp_path):
    whole, parts = tmp_path / "whole.tsv", tmp_path / "parts.tsv"
    certify_dataset(small_smooth(), small_dataset(), whole, n0=20, **mode)
    certify_dataset(small_smooth(), small_dataset().select(limit=5), parts, n0=20, **mode)
    with ThreadPoolExecutor(2) as pool:
        certify_dataset(small_smooth(), small_dataset(), parts, n0=20, executor=pool, **mode)
    assert timeless(parts) == timeless(whole)
    plan = json.loads(read_results(whole).columns["plan"][0])
    assert plan == small_smooth().plan(**mode).settings
    given = {name: value for name, value in mode.items() if name != "table"}
    assert given.items() <= plan.items()
    with pytest.raises(ResultsError, match="plan is"):
        certify_dataset(small_smooth(), small_dataset(), whole, n0=20, n=151)


def test_locuslab_s_analysis_reads_every_mode(mode, tmp_path):
    path = tmp_path / "a.tsv"
    results = certify_dataset(small_smooth(), small_dataset(), path, n0=20, **mode)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0])[:6] == ["idx", "label", "predict", "radius", "correct", "time"]
    for row, label in zip(rows, results.columns["label"], strict=True):
        assert row["correct"] == str(int(row["predict"] == label)) and float(row["radius"]) >= 0
        assert (row["predict"] == "-1") <= (float(row["radius"]) == 0)
        if "target_radius" in mode:  # their script asks for `correct & (radius >= r)`
            assert row["predict"] == "-1" or float(row["radius"]) >= float(mode["target_radius"])


@pytest.mark.parametrize("name", MODES)
def test_no_sample_serves_twice_and_looks_follow_from_the_number_of_votes(name, image):
    mode = MODES[name]()
    smooth = small_smooth()
    smooth.engine = Recorder(smooth.graph)
    certificate = smooth.certify(image, n0=20, batch_size=10**6, **mode)
    digest = image_digest(smooth.check_image(image))
    keys = [stream_key(smooth.seed, digest, stage).tobytes() for stage in (SELECTION, ESTIMATION)]
    assert smooth.engine.asked[0] == (keys[0], 0, 20)
    at = 0
    for key, first, n in smooth.engine.asked[1:]:
        assert (key, first) == (keys[1], at)
        at += n
    assert at == certificate.n and (name in ("target", "curve")) == (len(smooth.engine.asked) > 2)


def test_target_mode_stops_early_and_says_why(image):
    smooth = small_smooth()
    smooth.engine = Recorder(smooth.graph)  # all votes for class 2
    certificate = smooth.certify(image, target_radius="0.25", max_n=3000)
    assert certificate.prediction == 2 and certificate.radius >= 0.25 and 40 < certificate.n < 80
    assert certificate.radius < 0.2500001 and certificate.budget == 16 and certificate.extra["decision"] == "certify"
    fixed = smooth.certify(image, n=certificate.n)
    assert fixed.radius >= 0.25  # no licence for more than the fixed plan claims
    smooth.engine.count_votes = lambda image, table, key, first, n: np.bincount(np.arange(n) % 2, minlength=10)
    hopeless = smooth.certify(image, target_radius="0.25", max_n=3000)
    assert (hopeless.prediction, hopeless.radius, hopeless.extra["decision"]) == (ABSTAIN, 0.0, "give up")
    assert hopeless.n < 60


def test_the_largest_radius_stops_at_what_is_of_interest(image):
    smooth = small_smooth()
    smooth.engine = Recorder(smooth.graph)
    reached = smooth.certify(image, largest_radius="0.3", max_n=10_000)
    assert reached.radius >= 0.3 and reached.n < 1000 and reached.extra["stop"] == "largest useful radius reached"
    exhausted = smooth.certify(image, max_n=500)
    assert exhausted.n == 500 and exhausted.extra["stop"] == "max_n votes"
    fixed = smooth.certify(image, n=500)
    assert fixed.radius > exhausted.radius > 0.95 * fixed.radius  # the price of having looked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_radius": "0.5", "n": 100}, "n cannot be combined with target_radius"),
        ({"target_radius": "0.5", "precision": "0.1"}, "precision cannot be combined with target_radius"),
        ({"target_radius": "0.5", "bound": "randomized"}, "bound cannot be combined"),
        ({"n": 100, "max_n": 100}, "n cannot be combined with max_n"),
        ({"n": 100, "beta": 0.1}, "beta cannot be combined with n"),
        ({"beta": 0.1}, "beta cannot be combined with the fixed plan"),
        ({"bound": "betting"}, "required: one of clopper-pearson, randomized, two-class"),
        ({"target_radius": -1}, "radius is -1"),
        ({"target_radius": 5}, "Ask for less than"),
        ({"precision": 0}, "precision is 0"),
        ({"largest_radius": "far"}, "largest_radius is 'far'"),
        ({"max_n": 0}, "max_n is 0"),
        ({"target_radius": "0.5", "beta": 0.7}, "beta is 0.7"),
        ({"table": "table.h5"}, "a CertificateTable is required"),
    ],
)
def test_arguments_that_do_not_fit(image, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        small_smooth().certify(image, **arguments)
    with pytest.raises(InputError, match=message):
        certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", **arguments)
    assert not (tmp_path / "a.tsv").exists()


@pytest.mark.parametrize(
    ("other", "arguments", "message"),
    [
        ({"sigma": "0.5"}, {}, "sigma is 0.5 in the table, 0.25 here"),
        ({"dimension": 3072}, {}, "dimension is 3072 in the table, 64 here"),
        ({"unit": 255}, {}, "unit is 255 in the table, 16 here"),
        ({"law": "discrete"}, {}, "law is discrete in the table, rounded here"),
        ({"alpha": 0.01}, {}, "alpha is 0.01 in the table, 0.001 here"),
        ({}, {"n": 99}, "n is 150 in the table, 99 here"),
        ({"tv": 0}, {}, "its tv 0 is less than the sampler's"),
    ],
)
def test_tables_for_something_else_are_refused(image, other, arguments, message):
    table = small_table(**other)
    with pytest.raises(InputError, match=message):
        small_smooth().certify(image, table=table, **arguments)


def test_a_table_decides_what_the_chain_of_bounds_does():
    table, smooth = small_table(), small_smooth()
    for i in range(12):
        x = Images()(i)
        chain, certificate = smooth.certify(x, n=150), smooth.certify(x, table=table)
        assert smooth.decide(x, table) == (certificate.prediction, certificate.budget) == (chain.prediction, chain.budget)
        assert Fraction(certificate.radius_levels) ** 2 <= certificate.budget
        assert certificate.radius_levels <= chain.radius_levels and certificate.counts == chain.counts
    with pytest.raises(InputError, match="alpha is 0.01 in the table"):
        smooth.certify(x, table=small_table(alpha="0.01"))
    assert smooth.certify(x, alpha="0.01", table=small_table(alpha="0.01")).alpha == 0.01


@pytest.mark.parametrize(("law", "sigma"), [("rounded", "0.25"), ("discrete", "0.25")])
def test_entries_derive_again(law, sigma):
    tv = Smooth(models.tiny_conv(np.random.default_rng(1)), sigma, law=law).table.tv
    table = small_table(n=400, law=law, sigma=sigma, tv=tv)
    for hits in range(0, 401, 7):
        assert rederive(table, hits) == table.budgets[hits]
        c = certificate_from_counts(hits, 400, sigma=sigma, law=law, dimension=64, unit=16, tv=tv)
        assert table.decide(hits, 0) == (c.prediction, c.budget)


# the randomized bound


def test_the_uniform_integer_is_a_function_of_seed_and_image():
    """Golden values: the first 8 bytes of keyed BLAKE2b over digest and stage 4, little-endian."""
    seed, digest = bytes(range(32)), bytes(32)
    key = stream_key(seed, digest, 4).tobytes()
    assert uniform_integer(seed, digest) == int.from_bytes(key[:8], "little") == 17_252_130_798_474_958_389
    assert uniform_integer(seed, bytes(31) + b"\1") != uniform_integer(seed, digest)
    values = [uniform_integer(i.to_bytes(32, "big"), digest) for i in range(20_000)]
    assert stats.kstest(np.array(values) / 2**64, "uniform").pvalue > 1e-6


def test_the_randomized_bound_is_never_below_the_plain_one(image):
    smooth = small_smooth()
    for n in (50, 300):
        plain, randomized = smooth.certify(image, n=n), smooth.certify(image, n=n, bound="randomized")
        assert randomized.p_lower >= plain.p_lower and randomized.counts == plain.counts
        assert randomized.extra["uniform"] == uniform_integer(smooth.seed, image_digest(smooth.check_image(image)))


def test_fixed_plans_by_hand():
    plan = plan_fixed(10, sigma=1, dimension=64, bound="randomized")
    run = plan.start()
    with pytest.raises(InputError, match="draw 10 more"):
        plan.certificate(run)
    run.update(4, 4)
    with pytest.raises(InputError):
        run.update(1, 7)
    run.update(6, 6)
    with pytest.raises(InputError, match="needs `uniform`"):
        plan.certificate(run)
    assert plan.certificate(run, uniform=0).p_lower > plan_fixed(10, sigma=1, dimension=64).certificate(run).p_lower
    assert {plan_fixed(10, sigma=1, dimension=64, bound=bound).randomized for bound in BOUNDS} == {True, False}


def test_the_names_of_the_streams_stay_apart():
    """The estimation votes of every mode are those of the fixed plan: a prefix of the same stream."""
    smooth, x = small_smooth(), Images()(1)
    certificate = smooth.certify(x, target_radius="0.05", max_n=600)
    votes = count_votes(smooth.engine, smooth.check_image(x), smooth.table, smooth.seed, ESTIMATION, 0, certificate.n)
    assert tuple(votes.counts) == certificate.counts


def test_the_documented_line_for_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    certify_dataset(small_smooth(), small_dataset(), tmp_path / "results.tsv", n=50)
    table = pandas.read_csv(tmp_path / "results.tsv", sep="\t")
    assert len(table) == 12 and (table.correct & (table.radius >= 0)).mean() <= 1
    text = (pathlib.Path(__file__).parents[1] / "docs" / "sampling.md").read_text()
    assert 'pandas.read_csv("results.tsv", sep="\\t")' in text
