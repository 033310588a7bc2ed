"""Smooth and its votes: against a classifier whose certificate is known, and under every way of computing the same."""

import pickle
import subprocess
import sys
import textwrap
from fractions import Fraction

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Recorder

from intsmooth.errors import InputError
from intsmooth.graph import build_graph
from intsmooth.noise.law import noise_table, pmf
from intsmooth.noise.stream import format_seed, image_digest, stream_key
from intsmooth.records import ABSTAIN, Node, Tensor
from intsmooth.smooth import Smooth
from intsmooth.vote import ESTIMATION, PREDICTION, SELECTION, count_votes

ONE = {"multiplier": np.array([2**30], np.int32), "shift": np.array([1], np.int32)}


def half_space(threshold, levels=(0, 16)):
    """Class 1 iff the first of four pixels, noise included, is above `threshold`; its smoothed version is known."""
    weights = np.array([[0, 0, 0, 0], [1, 0, 0, 0]], np.int8)
    constants = {"weights": weights, "bias": np.array([threshold, 0], np.int32)}
    constants |= {name: np.repeat(value, 2) for name, value in ONE.items()}
    nodes = [
        Node("in", "input_requantize", ("x",), "q", {}, ONE),
        Node("out", "fully_connected", ("q",), "y", {"clamp": (-128, 127)}, constants),
    ]
    tensors = [Tensor("x", (2, 2, 1), "int16"), Tensor("q", (2, 2, 1)), Tensor("y", (2,))]
    return build_graph(nodes, tensors, "x", "y", levels, 16, ["low", "high"], {})


def probability_of_high(x0, threshold, sigma="0.25", law="rounded"):
    table = noise_table(Fraction(sigma) * 16, law)
    return float(sum(p for z, p in enumerate(pmf(table), start=table.first) if x0 + z > threshold))


def test_a_half_space_is_certified_nearly_up_to_its_boundary():
    # P[high] at 12 is Phi(3.5 / 4), so R = 3.5 levels at best: B = 12; the class really changes at distance 4.
    smooth = Smooth(half_space(8), 0.25, seed=1)
    x = np.array([[12, 3], [5, 0]])
    certificate = smooth.certify(x, n=100_000)
    assert certificate.prediction == 1 and 11 <= certificate.budget <= 12 and certificate.sigma == "0.25"
    assert 3.4 < certificate.radius_levels < 3.5 and certificate.radius == pytest.approx(certificate.radius_levels / 16)
    assert smooth.predict(np.array([[9, 3], [5, 0]])) == 1  # distance 3: inside the budget
    assert smooth.predict(np.array([[8, 3], [5, 0]])) == 0  # distance 4: squared 16


@pytest.mark.parametrize("law", ["rounded", "discrete"])
def test_votes_have_the_probability_that_the_law_says(law):
    smooth = Smooth(half_space(8), "0.25", law=law, seed=3)
    counts = count_votes(
        smooth.engine, smooth.check_image([[12, 0], [0, 0]]), smooth.table, smooth.seed, 0, 0, 200_000
    ).counts
    p = probability_of_high(12, 8, law=law)
    assert abs(counts[1] - 200_000 * p) < 5 * (200_000 * p * (1 - p)) ** 0.5


def test_the_lower_bound_holds_as_often_as_it_says():
    graph, p = half_space(8), probability_of_high(10, 8)
    wrong = sum(
        Smooth(graph, "0.25", seed=seed, threads=1).certify([[10, 0], [0, 0]], n=60, alpha=0.1).p_lower > p
        for seed in range(300)
    )
    assert wrong <= 56  # P[Bin(300, 0.1) > 56] < 1e-6


def test_it_abstains_near_the_boundary():
    smooth = Smooth(half_space(8), 0.25, seed=6)
    certificate = smooth.certify([[9, 0], [0, 0]], n=50)
    assert (certificate.prediction, certificate.radius, certificate.budget) == (ABSTAIN, 0.0, 0)
    assert smooth.predict([[9, 0], [0, 0]], n=50) == ABSTAIN


def test_every_way_of_computing_gives_the_same_certificate(tiny, image):
    reference = Smooth(tiny, "0.25", seed=7).certify(image, n0=33, n=400)
    assert sum(reference.selection) == reference.n0 == 33 and sum(reference.counts) == reference.n == 400
    for threads, batch_size in ((1, 400), (1, 7), (3, 64), (2, 1)):
        smooth = Smooth(tiny, 0.25, seed=7, threads=threads)
        assert smooth.certify(image, n0=33, n=400, batch_size=batch_size) == reference
    assert Smooth(tiny, Fraction(1, 4), seed=7, backend="numpy").certify(image, n0=33, n=400) == reference
    assert Smooth(tiny, 0.25, seed=8).certify(image, n0=33, n=400) != reference


@pytest.mark.parametrize(
    "same",
    [
        lambda x: x[..., None],
        lambda x: x.astype(">i4"),
        lambda x: x.astype(np.int64),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.tolist(),
    ],
)
def test_how_an_image_is_stored_does_not_matter(tiny, image, same):
    smooth = Smooth(tiny, 0.25, seed=7, threads=1)
    assert smooth.certify(same(image), n=50) == smooth.certify(image, n=50)
    assert smooth.predict(same(image), n=50) == smooth.predict(image, n=50)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.integers(0, 2), st.integers(0, 2**40))
def test_blocks_of_votes_add_up(tiny, image, blocks, stage, first):
    smooth = Smooth(tiny, 0.25, seed=7, threads=2)
    x, n = smooth.check_image(image), sum(blocks)
    whole = count_votes(smooth.engine, x, smooth.table, smooth.seed, stage, first, n)
    assert (whole.n, whole.first, whole.stage, whole.counts.sum()) == (n, first, stage, n)
    total = 0
    for block in blocks:
        total = total + count_votes(smooth.engine, x, smooth.table, smooth.seed, stage, first, block).counts
        first += block
    assert np.array_equal(total, whole.counts)
    assert np.array_equal(
        count_votes(smooth.engine, x, smooth.table, smooth.seed, stage, whole.first, n, block=13).counts, whole.counts
    )


def test_no_sample_serves_twice(tiny, image):
    smooth = Smooth(tiny, 0.25, seed=7)
    smooth.engine = Recorder(tiny)
    certificate = smooth.certify(image, n0=100, n=1000, batch_size=300)
    smooth.predict(image, n=10)
    digest = image_digest(smooth.check_image(image))
    key = {stage: stream_key(smooth.seed, digest, stage).tobytes() for stage in (SELECTION, ESTIMATION, PREDICTION)}
    assert len(set(key.values())) == 3 and certificate.top == 2
    assert smooth.engine.asked == [
        (key[SELECTION], 0, 100),
        *((key[ESTIMATION], start, min(300, 1000 - start)) for start in range(0, 1000, 300)),
        (key[PREDICTION], 0, 10),
    ]


def test_the_class_is_chosen_by_the_selection_stage_alone(tiny, image):
    smooth = Smooth(tiny, 0.25, seed=7)
    smooth.engine = Recorder(tiny)
    smooth.engine.count_votes = lambda image, table, key, first, n: n * np.eye(10, dtype=np.int64)[3 if n == 5 else 4]
    certificate = smooth.certify(image, n0=5, n=90)
    assert (certificate.prediction, certificate.top, certificate.hits) == (ABSTAIN, 3, 0)


def test_a_seed_is_fresh_unless_given_and_always_recorded(tiny, image):
    first, second = Smooth(tiny, 0.25), Smooth(tiny, 0.25)
    assert first.seed != second.seed and len(first.seed) == 32
    again = Smooth(tiny, 0.25, seed=format_seed(first.seed))
    assert again.certify(image, n=100) == first.certify(image, n=100)


def test_classes_are_where_scikit_learn_has_them():
    smooth = Smooth(half_space(8), 0.25, seed=1)
    assert smooth.classes_.tolist() == ["low", "high"]
    assert smooth.classes_[smooth.predict([[16, 0], [0, 0]])] == "high"


def test_a_pickled_smooth_is_planned_once_per_process(tiny, image):
    smooth = Smooth(tiny, 0.25, seed=9, threads=1)
    copies = [pickle.loads(pickle.dumps(smooth)) for _ in range(2)]
    assert copies[0] is copies[1] is not smooth
    assert copies[0].certify(image, n=100) == smooth.certify(image, n=100)
    assert pickle.loads(pickle.dumps(Smooth(tiny, 0.5, seed=9, threads=1))).sigma == Fraction(1, 2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((8, 8)), "float64 values; integers in levels 0 to 16"),
        (np.full((8, 8), np.nan), "float64 values"),
        (np.zeros((8, 8), np.float32), "float32 values"),
        (np.zeros((8, 8), bool), "bool values"),
        (np.array([["a"] * 8] * 8), "integers in levels"),
        (np.zeros((8, 7), np.uint8), r"shape \(8, 7\); the model needs \(8, 8, 1\)"),
        (np.zeros((1, 8, 8), np.uint8), r"shape \(1, 8, 8\)"),
        (np.zeros((2, 8, 8, 1), np.uint8), r"shape \(2, 8, 8, 1\)"),
        (np.zeros(0, np.uint8), r"shape \(0,\)"),
        (np.full((8, 8), 17), "levels 17 to 17; the model needs 0 to 16"),
        (np.full((8, 8), -1), "levels -1 to -1"),
        (np.full((8, 8), 2**63, np.uint64), "the model needs 0 to 16"),
        (None, "object values"),
    ],
)
def test_images_that_do_not_fit(tiny, x, message):
    smooth = Smooth(tiny, 0.25, seed=7)
    with pytest.raises(InputError, match=message):
        smooth.certify(x, n=10)
    with pytest.raises(InputError, match=message):
        smooth.predict(x, n=10)


def test_a_ragged_list_is_no_image(tiny):
    with pytest.raises(InputError, match="not an array"):
        Smooth(tiny, 0.25, seed=7).predict([[1, 2], [3]], n=10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"n": -5}, "n is -5"),
        ({"n": 10.5}, "n is 10.5; an integer is required"),
        ({"n": True}, "n is True"),
        ({"n0": 0}, "n0 is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"alpha": 0}, "alpha is 0"),
        ({"alpha": 0.5}, "alpha is 0.5"),
        ({"alpha": -1}, "alpha is -1"),
        ({"alpha": float("nan")}, "alpha is 'nan'"),
        ({"alpha": "small"}, "alpha is 'small'"),
    ],
)
def test_arguments_out_of_their_domain(tiny, image, arguments, message):
    smooth = Smooth(tiny, 0.25, seed=7)
    with pytest.raises(InputError, match=message):
        smooth.certify(image, **arguments)
    if "n0" not in arguments:
        with pytest.raises(InputError, match=message):
            smooth.predict(image, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0}, "sigma is 0; it must be above 0"),
        ({"sigma": -0.25}, "sigma is -0.25"),
        ({"sigma": float("inf")}, "sigma is 'inf'"),
        ({"sigma": float("nan")}, "sigma is 'nan'"),
        ({"sigma": "much"}, "sigma is 'much'"),
        ({"sigma": None}, "sigma is 'None'"),
        ({"sigma": 1e6}, "does not fit int16"),
        ({"sigma": 0.25, "law": "laplace"}, "law is 'laplace'"),
        ({"sigma": 0.25, "seed": -1}, "seed is -1"),
        ({"sigma": 0.25, "seed": "x"}, "seed is 'x'"),
        ({"sigma": 0.25, "backend": "cuda"}, "backend is 'cuda'"),
        ({"sigma": 0.25, "threads": 0}, "threads is 0"),
    ],
)
def test_constructors_out_of_their_domain(tiny, arguments, message):
    with pytest.raises(InputError, match=message):
        Smooth(tiny, **arguments)


def test_noise_beyond_16_bits_is_refused():
    with pytest.raises(InputError, match="beyond 16 bits"):
        Smooth(half_space(8, levels=(0, 20_000)), 90)


def test_sigma_means_what_is_written():
    assert Smooth(half_space(8), 0.12).table.sigma == Fraction(12, 100) * 16
    assert Smooth(half_space(8), np.float32(0.12)).table.sigma == Fraction(12, 100) * 16
    assert Smooth(half_space(8), "0.12").sigma == Fraction(3, 25)


def test_the_numpy_backend_needs_neither_numba_nor_scipy(tiny, image, tmp_path):
    from intsmooth.h5file import save

    save(tiny, tmp_path / "tiny.h5")
    np.save(tmp_path / "image.npy", image)
    script = textwrap.dedent("""
        import sys
        for name in ("numba", "scipy", "llvmlite"):
            sys.modules[name] = None
        import numpy, intsmooth
        smooth = intsmooth.Smooth("tiny.h5", 0.25, seed=7, backend="numpy")
        print(smooth.certify(numpy.load("image.npy"), n=200))
        try:
            intsmooth.Smooth("tiny.h5", 0.25)
        except intsmooth.errors.ResourceError as error:
            print(error)
    """)
    environment = {"PYTHONPATH": str(models.__file__).rpartition("/tests/")[0], "PATH": ""}
    out = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert out[0] == repr(Smooth(tiny, 0.25, seed=7).certify(image, n=200))
    assert "backend" in out[1]


@pytest.mark.parametrize("table", [None, "table.h5", 3])
def test_what_is_no_table_is_refused(table):
    with pytest.raises(InputError, match="a CertificateTable is required"):
        Smooth(half_space(3), 0.25).decide(np.zeros((2, 2, 1), int), table)


@pytest.mark.parametrize("model", [None, 3])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(InputError, match="a path, the name of a shipped model or a Graph"):
        Smooth(model, 0.25)
