"""int8 logits that decide as the float ones: the peak's range, and what is taken off all classes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")

from intsmooth.training.decision import LOGITS_ZERO, PEAK_STEPS, peak_range, shared_weights  # noqa: E402


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.floats(0.01, 50), st.floats(-40, 40))
def test_the_peaks_range_has_room_on_either_side(seed, classes, spread, offset):
    logits = torch.randn(64, classes, generator=torch.Generator().manual_seed(seed)) * spread + offset
    lowest, highest = peak_range(logits)
    largest = logits.amax(1)
    width = float(largest.max() - largest.min())
    assert lowest == pytest.approx(float(largest.min()) - width / 2, abs=1e-4)
    assert highest == pytest.approx(float(largest.max()) + width / 2, abs=1e-4)


def test_a_range_of_equal_peaks_is_not_empty():
    lowest, highest = peak_range(torch.ones(8, 3))
    assert lowest < 1 < highest


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 20))
def test_shared_weights_change_no_difference_and_nothing_makes_the_largest_smaller(seed, classes, features):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(classes, features, generator=generator, dtype=torch.float64)
    weights += 5 * torch.randn(features, generator=generator, dtype=torch.float64)
    shared = shared_weights(weights)
    assert shared.shape == (features,)
    left = weights - shared
    assert torch.allclose(left.amax(0), -left.amin(0))  # equally far on both sides: moving it makes one side longer


def test_int8_holds_the_largest_logit_whichever_way_the_peak_was_rounded():
    """In logit steps: the largest is within half a peak step of the peak, and what saturates is below that."""
    lowest, highest = -128 - LOGITS_ZERO, 127 - LOGITS_ZERO
    assert highest > PEAK_STEPS / 2 and lowest < -PEAK_STEPS
