"""The summary: certified accuracy, average certified radius, and numbers that are cut, never rounded up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_tables import table

from intsmooth.errors import InputError
from intsmooth.report import (
    certified_counts,
    format_radius,
    format_summary,
    percent,
    round_radii,
    summarize,
    wilson_interval,
)


def test_a_radius_met_exactly_counts_and_wrong_images_never_do():
    radius, correct = np.array([0.25, 0.5, 0.7, 0.9]), np.array([True, True, False, True])
    assert certified_counts(radius, correct, [0.0, 0.25, 0.2500001, 0.5, 0.9, 0.91]) == [3, 3, 2, 2, 1, 0]


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=30), st.lists(st.floats(0, 3), max_size=10))
def test_counts_are_what_the_definition_says(rows, radii):
    radius, correct = np.array([r for r, _ in rows]), np.array([c for _, c in rows], dtype=bool)
    assert certified_counts(radius, correct, radii) == [sum(c and r >= at for r, c in rows) for at in radii]


def test_summary_of_a_small_table():
    summary = summarize(table([(3, 0.5, 1), (3, 0.25, 0), (-1, 0.0, 0), (1, 1.0, 1)], unit=16), [0, 0.5, 1.0, 1.5])
    assert (summary.images, summary.abstentions, summary.counts) == (4, 1, (2, 2, 1, 0))
    assert summary.acr == 0.375 and summary.unit == 16
    text = format_summary(summary)
    assert " 0.500       8.00     50.0 %   2 of 4" in text.splitlines()
    assert "average certified radius 0.375 (6.00 levels)" in text and "abstained on 1 of 4 images (25.0 %)" in text


def test_an_empty_table_has_a_summary_too():
    summary = summarize(table([]))
    assert (summary.images, summary.acr, summary.counts) == (0, 0.0, (0,)) and "of 0" in format_summary(summary)


@pytest.mark.parametrize("radii", [[-0.1], [float("nan")], [float("inf")]])
def test_radii_that_make_no_sense(radii):
    with pytest.raises(InputError, match="at least 0"):
        summarize(table([(1, 0.5, 1)]), radii)


@pytest.mark.parametrize(
    ("largest", "grid"),
    [
        (0.0, (0.0,)),
        (0.2, (0.0, 0.05, 0.1, 0.15, 0.2)),
        (0.45, (0.0, 0.1, 0.2, 0.3, 0.4)),
        (0.95, (0.0, 0.25, 0.5, 0.75)),
        (3.7, (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)),
    ],
)
def test_round_grids(largest, grid):
    assert round_radii(np.array([0.0, largest])) == grid


@pytest.mark.parametrize("largest", [0.15, 0.25, 0.3, 0.5, 0.75, 2.75])
def test_the_largest_radius_is_met_where_it_is_a_round_one(largest):
    summary = summarize(table([(3, largest, 1)] * 2))
    assert summary.radii[-1] == largest and summary.counts[-1] == 2


@pytest.mark.parametrize(("radius", "text"), [(0.25, "0.250"), (0.3, "0.300"), (0.4996, "0.4996"), (1 / 3, repr(1 / 3))])
def test_a_radius_is_never_printed_as_a_larger_one(radius, text):
    assert format_radius(radius) == text and float(text) == radius
    (line,) = (line for line in format_summary(summarize(table([(3, 0.5, 1)], unit=255), [radius])).splitlines() if " of 1" in line and "%  " in line)
    assert line.split()[0] == text and float(line.split()[1]) <= radius * 255 + 1e-12


def test_percentages_are_cut():
    assert (
        percent(999, 1000) == "99.9"
        and percent(1999, 2000) == "99.9"
        and percent(2, 3) == "66.6"
        and percent(0, 0) == "-"
    )


@pytest.mark.parametrize(("count", "images"), [(0, 10), (10, 10), (343, 360), (1, 1)])
def test_the_interval_holds_the_shares_that_make_the_count_likely(count, images):
    low, high = wilson_interval(count, images)
    assert 0 <= low <= count / images <= high <= 1
    for edge in (low, high):  # at both ends the count lies 1.96 standard deviations away, unless the end was cut
        deviation = abs(count - images * edge) / max((images * edge * (1 - edge)) ** 0.5, 1e-12)
        assert edge in (0.0, 1.0) or deviation == pytest.approx(1.96)
