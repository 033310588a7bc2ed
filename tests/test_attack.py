"""The attack on certificates: it stays within the budget, it is strong beyond it, and it breaks nothing within."""

import math
import pathlib
import sys

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intsmooth import h5file
from intsmooth.errors import DataError, UnsupportedError
from intsmooth.reference import engine as reference
from intsmooth.shipped import find_model
from intsmooth.smooth import Smooth

BENCH = pathlib.Path(__file__).parents[1] / "bench"
if not (BENCH / "attack.py").exists():
    pytest.skip("bench/ is not part of this installation", allow_module_level=True)
pytest.importorskip("numba")
pytest.importorskip("scipy")
sys.path.insert(0, str(BENCH))
import attack  # noqa: E402
from gradients import FloatTwin  # noqa: E402

directions = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([(8, 8, 1), (3, 2, 3)]), st.integers(0, 5000))


@settings(max_examples=60, deadline=None)
@given(directions, st.sampled_from([1, 2, 4]))
def test_perturbations_stay_within_the_budget(drawn, size):
    seed, shape, budget = drawn
    direction = np.random.default_rng(seed).normal(0, 1, shape)
    for made in (
        attack.fit(direction, budget),
        attack.steps_of(direction, budget, size),
        attack.concentrated(direction, budget),
    ):
        assert made.shape == shape and made.dtype == np.int64
        assert int((made**2).sum()) <= budget
        assert (made * direction >= 0).all()
    assert int(attack.concentrated(direction, budget).max(initial=0)) <= math.isqrt(budget)


@pytest.mark.parametrize("name", ["tiny_conv", "residual"])
def test_the_twin_follows_the_integer_network(name):
    graph = models.ALL[name](np.random.default_rng(4))
    rng = np.random.default_rng(5)
    levels = rng.integers(graph.levels[0], graph.levels[1] + 1, (64, *graph.input_shape)).astype(np.int16)
    zero = graph.tensors[graph.output].zero_point
    integers = reference.run(graph, levels)[graph.output].astype(float) - zero
    floats = FloatTwin(graph).scores(levels).clip(-128 - zero, 127 - zero)
    assert np.abs(floats - integers).max() < 8 and np.corrcoef(floats.ravel(), integers.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", ["tiny_conv", "residual", "random"])
def test_gradients_are_slopes(name):
    """Against differences of the twin's own scores, in float32, along random directions."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        graph = models.random_graph(rng) if name == "random" else models.ALL[name](rng)
        try:
            twin = FloatTwin(graph)
        except UnsupportedError:
            continue
        levels = rng.integers(graph.levels[0], graph.levels[1] + 1, (1, *graph.input_shape)).astype(np.float64)
        weights = rng.normal(0, 1, (1, len(graph.classes)))
        gradient = twin.gradient(levels, lambda scores, weights=weights: weights.astype(np.float32))
        assert gradient.shape == levels.shape
        direction = gradient / max(np.abs(gradient).max(), 1e-12)  # where kinks matter least
        step = 0.02
        ends = [float((twin.scores(levels + sign * step * direction) * weights).sum()) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        expected = float((gradient * direction).sum())
        assert slope == pytest.approx(expected, rel=0.1, abs=0.05), (name, seed)


def test_operators_without_a_gradient_are_named():
    with pytest.raises(UnsupportedError, match="average_pool2d, .*lookup"):
        FloatTwin(models.every_operator(np.random.default_rng(0)))


def test_a_class_far_behind_has_a_gradient():
    """The shipped models' scores saturate there."""
    graph = h5file.load(find_model("cifar10-resnet20-s0.25"))
    levels = np.random.default_rng(6).integers(0, 256, (4, *graph.input_shape)).astype(np.int16)
    scores = reference.run(graph, levels)[graph.output]
    twin = FloatTwin(graph)
    assert (twin.scores(levels).argmax(1) == scores.argmax(1)).mean() >= 0.75
    behind = (scores == -128) & (np.cumsum(scores == -128, 1) == 1)
    assert behind.any(1).all()
    gradient = twin.gradient(levels, lambda scores: behind.astype(np.float32) - np.eye(10)[scores.argmax(1)])
    assert (np.abs(gradient).max((1, 2, 3)) > 0).all()


def digits():
    try:
        return h5file.load(find_model("digits"))
    except (DataError, ValueError):
        pytest.skip("the shipped digits model is missing")


def test_certificates_hold_and_the_attack_is_not_idle():
    """Three certified digits: no flip within the budget, flips of every image at four times the budget."""
    from intsmooth.datasets import open_dataset

    graph = digits()
    smooth = Smooth(graph, graph.facts.get("sigma", "0.25"), seed=1)
    images = [item.image for item in open_dataset("digits").select(40, 3)]
    rng = np.random.default_rng(2)
    found = attack.run(smooth, images, [1, 4], rng, attack.Effort(steps=2, random=3, votes=2000), n=2000)
    assert len(found[1]) >= 2
    assert all(outcome.flips == 0 and outcome.lowest > 0.5 and outcome.trials > 30 for outcome in found[1])
    assert sum(outcome.flips > 0 for outcome in found[4]) == len(found[4])
    assert "x 4" in attack.table(found)


def test_a_flip_is_counted(monkeypatch):
    """A class that never wins is flipped by every trial that is evaluated again."""
    graph = models.tiny_conv(np.random.default_rng(3))
    smooth = Smooth(graph, "0.25", seed=1)
    image = np.full(graph.input_shape, 8, np.int64)
    votes = smooth.engine.count_votes(image, smooth.table, np.zeros(8, np.uint32), 0, 500)
    effort = attack.Effort(steps=1, random=2, votes=500)
    outcome = attack.attack(smooth, image, int(votes.argmin()), 2, np.random.default_rng(0), effort)
    assert outcome.flips == outcome.trials > 0 and outcome.lowest < 0.1
