"""int8 logits decide as float ones: their range, what is taken off all of them, and what makes ties fair."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")

from intsmooth.training.decision import closeness, common_part, deciding_range, tie_offsets  # noqa: E402


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.floats(0.01, 50), st.floats(-40, 40))
def test_values_outside_the_deciding_range_decide_nothing(seed, classes, spread, offset):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(64, classes, generator=generator) * spread + offset
    lowest, highest = deciding_range(logits)
    assert lowest <= 0 <= highest and lowest < highest
    assert torch.equal(logits.clamp(lowest, highest).argmax(1), logits.argmax(1))
    if classes > 5 and offset == 0:
        assert highest - lowest < 0.9 * (logits.max() - logits.min())


def test_closeness_falls_with_the_margin():
    logits = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [9.0, 1.0, 0.0]])
    found = closeness(logits)
    assert found[0] == 1 and found[1] == pytest.approx(2.718281828**-3) and found[2] < 1e-9


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 20))
def test_the_common_part_changes_no_decision_and_narrows_the_range(seed, classes, features):
    values, weights = drawn(seed, 400, features).abs(), drawn(seed + 1, classes, features)
    level = drawn(seed + 2, features)
    logits = values @ (weights + 5 * level).T  # what all classes share is most of it
    shared, bias = common_part(values, logits)
    left = logits - (values @ shared + bias)[:, None]
    assert float((left.argmax(1) == logits.argmax(1)).double().mean()) > 0.99  # but for ties within rounding
    widths = [highest - lowest for lowest, highest in (deciding_range(left), deciding_range(logits))]
    assert widths[0] < 1.05 * widths[1]
    middle, middle_before = (part.topk(2, 1).values.mean(1) for part in (left, logits))
    share = closeness(logits)
    assert (share * middle.square()).sum() <= (share * (middle_before - middle_before.mean()).square()).sum() * 1.05


def shares(logits, step):
    """How often each class wins, ties to the lowest index."""
    return torch.bincount((logits / step).round().argmax(1), minlength=logits.shape[1]) / len(logits)


@pytest.mark.parametrize("step", [0.05, 0.2])
def test_two_classes_share_ties_evenly(step):
    logits = drawn(4, 200_000, 2)
    unfair, fair = shares(logits, step), shares(logits + tie_offsets(logits, step), step)
    assert unfair[0] - 0.5 > step / 12  # a tie in about 0.28 * step of the samples; 0.002 is the luck of the draw
    assert abs(fair[0] - 0.5) < 0.003


def test_many_classes_win_more_nearly_as_often_as_unrounded():
    logits, step = drawn(5, 200_000, 10), 0.2
    wanted = torch.bincount(logits.argmax(1), minlength=10) / len(logits)
    before = (shares(logits, step) - wanted).abs().max()
    after = (shares(logits + tie_offsets(logits, step), step) - wanted).abs().max()
    assert after < before / 3


def test_offsets_depend_on_the_pairs_that_are_near_each_other():
    """Classes 1 and 3 meet, the others never come close: half a step between these two, whatever else."""
    logits = torch.full((1000, 4), -50.0)
    logits[:, [1, 3]] = drawn(6, 1000, 2)
    offsets = tie_offsets(logits, 1.0)
    assert offsets[3] - offsets[1] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("classes", [2, 10, 101])
def test_samples_without_any_margin_do_not_break_anything(classes):
    logits = torch.zeros(8, classes)
    for found in (closeness(logits), tie_offsets(logits, 0.1), *common_part(torch.zeros(8, 3), logits)):
        assert torch.isfinite(found).all()
    lowest, highest = deciding_range(logits)
    assert lowest < highest
