"""Paired differences of two results files, by hand and against the definition of the curves."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_tables import table

from intsmooth import cli
from intsmooth.errors import InputError
from intsmooth.paired import (
    PairedDifference,
    largest_loss,
    losses_by_chance,
    paired_differences,
    paired_table,
    share_behind,
)
from intsmooth.results import Results, read_results

ONE = [(0, 0.5, 1), (0, 0.3, 1), (1, 0.9, 0), (-1, 0.0, 0)]
TWO = [(0, 0.4, 1), (0, 0.6, 1), (0, 0.2, 1), (-1, 0.0, 0)]


def test_counts_by_hand():
    found = paired_differences(table(ONE), table(TWO), [0.0, 0.35, 0.45, 0.7])
    assert [(d.both, d.only_first, d.only_second) for d in found] == [(2, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 0)]
    assert [d.points for d in found] == [-25.0, -25.0, 0.0, 0.0]


ROW = st.just((-1, 0.0, 0)) | st.tuples(st.just(3), st.sampled_from([0.1, 0.25, 0.5, 0.8]), st.integers(0, 1))


@given(st.lists(st.tuples(ROW, ROW), min_size=1, max_size=30))
def test_differences_are_those_of_the_curves(rows):
    one, two = (table(list(side)) for side in zip(*rows, strict=True))
    radii = [0.0, 0.1, 0.2, 0.5, 0.9]
    accuracy = [[np.mean(t.correct & (t.radius >= r)) for r in radii] for t in (one, two)]
    found = paired_differences(one, two, radii)
    assert np.allclose([d.points for d in found], 100 * (np.array(accuracy[0]) - accuracy[1]))
    back = paired_differences(two, one, radii)
    for there, again in zip(found, back, strict=True):
        assert there.points == -again.points and there.interval == tuple(-end for end in reversed(again.interval))
        assert there.interval[0] < there.interval[1]
    last = max(one.radius.max(), two.radius.max())  # beyond it both curves are 0
    assert largest_loss(one, two).points <= min(d.points for d in found if d.radius <= last)


@given(st.lists(st.tuples(ROW, ROW), min_size=1, max_size=30), st.sampled_from([0.0, 3.0, 10.0, 40.0]))
def test_the_share_of_radii_behind_is_that_of_a_fine_grid(rows, points):
    one, two = (table(list(side)) for side in zip(*rows, strict=True))
    largest = max(one.radius.max(), two.radius.max())
    grid = (np.arange(160) + 0.5) * 0.005  # between all radii above
    grid = grid[grid < largest]
    behind = [100 * (np.mean(t.correct & (t.radius >= radius))) for t in (two, one) for radius in grid]
    behind = np.array(behind[: len(grid)]) - behind[len(grid) :]
    expected = np.mean(behind > points + 1e-9) if len(grid) else 0.0
    assert share_behind(one, two, points) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(ROW, ROW), min_size=1, max_size=6))
def test_losses_by_chance_are_those_of_all_exchanges(rows):
    exchanges = itertools.product(*([pair, pair[::-1]] for pair in rows))
    every = [largest_loss(*(table(list(side)) for side in zip(*pairs, strict=True))).points for pairs in exchanges]
    found = losses_by_chance(*(table(list(side)) for side in zip(*rows, strict=True)), draws=4000)
    every = np.minimum(every, 0)  # ahead at every radius: no loss
    values = np.unique(np.round(every, 9))
    assert np.isin(np.round(found, 9), values).all()
    for value in values:
        expected, seen = np.mean(np.isclose(every, value)), np.mean(np.isclose(found, value))
        assert abs(expected - seen) < 5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9


def test_a_model_that_is_behind_on_most_images_is_not_so_by_chance():
    ahead = [(0, 0.1 + 0.01 * i, 1) for i in range(40)]
    behind = [(0, radius - 0.1, 1) for _, radius, _ in ahead]
    one, two = table(behind), table(ahead)
    assert np.mean(losses_by_chance(one, two) <= largest_loss(one, two).points + 1e-9) < 0.05
    same = losses_by_chance(two, two)
    assert same.shape == (2000,) and not same.any()


def test_the_interval_covers_as_often_as_it_says():
    """Pairs drawn with 3 % and 5 % of discordant images: n = 1,000 tables of 500 images, 95 % nominal."""
    rng, truth, covered, tables = np.random.default_rng(8), -2.0, 0, 1000
    for only_first, only_second, _ in rng.multinomial(500, [0.03, 0.05, 0.92], tables):
        low, high = PairedDifference(0.0, 500, 0, int(only_first), int(only_second)).interval
        covered += low <= truth <= high
    assert 0.93 <= covered / tables <= 0.975, f"n = {tables}, k = {covered}, required 0.93 to 0.975"


def test_only_common_images_are_compared_in_whatever_order():
    one = table(ONE)
    two = Results("other", {**table(TWO).columns, "idx": ("7", "1", "0", "9")})
    found = paired_differences(one, two, [0.0])[0]
    assert (found.images, found.both, found.only_first, found.only_second) == (2, 2, 0, 0)
    for columns, complaint in (
        ({"idx": ("4", "5", "6", "7")}, "no image in common"),
        ({"idx": ("0", "1", "1", "2")}, "an image twice"),
        ({"label": ("1", "0", "0", "0")}, "label the same images differently"),
    ):
        with pytest.raises(InputError, match=complaint):
            paired_differences(one, Results("other", {**one.columns, **columns}))


def test_the_command_line_shows_the_table(tmp_path, capsys):
    for name, rows in (("integer", ONE), ("float", TWO)):
        lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
        lines += [f"{i}\t0\t{predict}\t{radius}\t{correct}\t1" for i, (predict, radius, correct) in enumerate(rows)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    files = [str(tmp_path / f"{name}.tsv") for name in ("integer", "float")]
    assert cli.main(["curve", *files, "--paired", "--radii", "0,0.45"]) == 0
    out = capsys.readouterr().out
    assert out.strip() == paired_table(*(read_results(file) for file in files), (0.0, 0.45))
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["radius", "integer", "float"]
    assert lines[1].split()[:4] == ["0.000", "50.0", "75.0", "-25.00"] and lines[1].split()[-2:] == ["0", "1"]
    assert lines[3] == "4 images in common; integer is furthest behind at radius 0.000: -25.00 points"
    assert cli.main(["curve", files[0], "--paired"]) == 2
    assert "two results files" in capsys.readouterr().err
