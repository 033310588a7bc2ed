"""Weights rounded together: the objective is what it says, and never worse than rounding each to nearest."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")
from torch.nn import functional  # noqa: E402

from intsmooth.training.rounding import mean_of_copies, round_together, terms_and_sums  # noqa: E402


def problem(seed, outputs, terms, rows=200):
    """(weights, inputs, lacking): inputs that share a direction, as those of neighbouring pixels do."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, terms, generator=generator, dtype=torch.float64)
    direction = torch.rand(terms, generator=generator, dtype=torch.float64)
    inputs += 6 * torch.randn(rows, 1, generator=generator, dtype=torch.float64) * direction
    weights = 20 * torch.randn(outputs, terms, generator=generator, dtype=torch.float64)
    return weights, inputs, torch.randn(rows, outputs, generator=generator, dtype=torch.float64)


def rounded(weights, inputs, lacking):
    moments = (inputs.T @ inputs / len(inputs)).expand(len(weights), -1, -1)
    return round_together(weights, moments, lacking.T @ inputs / len(inputs))


def loss(integers, weights, inputs, lacking):
    """Per output, the mean square of what the sums lack afterwards."""
    return (inputs @ (integers - weights).T - lacking).square().mean(0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 12))
def test_neighbours_only_and_no_change_of_one_or_two_is_better(seed, outputs, terms):
    weights, inputs, lacking = problem(seed, outputs, terms)
    found = rounded(weights, inputs, lacking)
    assert torch.equal(found, found.round()) and ((found - weights).abs() < 1).all()
    best = loss(found, weights, inputs, lacking)
    assert (best <= loss(weights.round(), weights, inputs, lacking) + 1e-9).all()
    turned = weights.floor() + weights.ceil() - found
    for one, two in itertools.combinations_with_replacement(range(terms), 2):
        other = found.clone()
        other[:, [one, two]] = turned[:, [one, two]]
        assert (loss(other, weights, inputs, lacking) >= best - 1e-6).all()


@pytest.mark.parametrize("seed", range(5))
def test_close_to_the_best_of_all_choices(seed):
    weights, inputs, lacking = problem(seed, 1, 8)
    choices = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)), dtype=torch.float64) + weights.floor()
    least = min(float(loss(choice[None], weights, inputs, lacking)) for choice in choices)
    found, nearest = (float(loss(w, weights, inputs, lacking)) for w in (rounded(weights, inputs, lacking), weights.round()))
    assert found <= least + 0.2 * (nearest - least) + 1e-9


def test_what_the_inputs_share_is_nearly_left_out_of_the_error():
    weights, inputs, _ = problem(1, 16, 144, rows=4000)
    direction = inputs.T @ inputs / len(inputs)
    direction = torch.linalg.eigh(direction).eigenvectors[:, -1]
    found = rounded(weights, inputs, torch.zeros(4000, 16, dtype=torch.float64))
    left, nearest = (((integers - weights) @ direction).square().mean() for integers in (found, weights.round()))
    assert float(left) < float(nearest) / 100


def test_integers_stay_and_inputs_without_variance_are_rounded_to_nearest():
    weights = torch.tensor([[127.0 - 1e-6, -3.0, 2.4, 0.6]], dtype=torch.float64)
    moments = torch.zeros(4, 4, dtype=torch.float64)
    assert round_together(weights, [moments], torch.zeros(1, 4, dtype=torch.float64)).tolist() == [[127, -3, 2, 1]]
    strong = torch.tensor([[-9.0, 9.0, 0, 0]], dtype=torch.float64)  # wishes that only the first two could fulfil
    assert round_together(weights, [moments], strong)[0, :2].tolist() == [127, -3]


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 6), (3, 2, 8), (1, 1, 5), (7, 4, 16)])
def test_terms_times_weights_are_the_convolution(kernel, stride, size):
    generator = torch.Generator().manual_seed(kernel)
    values = torch.randn(4, 2, size, size, generator=generator, dtype=torch.float64)
    weights = torch.randn(3, 2, kernel, kernel, generator=generator, dtype=torch.float64)
    sums = functional.conv2d(values, weights, None, stride, kernel // 2)
    terms, rows = terms_and_sums(values, sums, kernel, stride)
    torch.testing.assert_close(terms @ weights.flatten(1).T, rows)


def test_copies_are_averaged_image_by_image():
    values = torch.arange(6.0).view(3, 2).repeat(2, 1) + torch.tensor([-1.0, 1.0]).repeat_interleave(3)[:, None]
    assert torch.equal(mean_of_copies(values, 2), torch.arange(6.0).view(3, 2))
