"""Two results files about the same images, image by image: how far apart two models' certified accuracies are.

The images that only one of the two certifies are what the difference consists of, and what its uncertainty comes from:
far less than two independent curves would have (McNemar, 1947). The largest loss at any radius is the largest of many
numbers, and never small: `losses_by_chance` tells how large it is for two models of which neither is better.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intsmooth.errors import InputError
from intsmooth.report import format_radius, percent, round_radii
from intsmooth.results import Results

_DRAWS, _AT_ONCE = 2000, 100


@dataclass(frozen=True)
class PairedDifference:
    """At one radius: how many of `images` both certify right, only the first, only the second."""

    radius: float
    images: int
    both: int
    only_first: int
    only_second: int

    @property
    def points(self) -> float:
        """Certified accuracy of the first less that of the second, in percentage points."""
        return 100 * (self.only_first - self.only_second) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Where that difference lies over images like these, 95 %, in points (Agresti and Min, 2005, half a count
        added to each of the four cells)."""
        a, b, images = self.only_first + 0.5, self.only_second + 0.5, self.images + 2
        centre = (a - b) / images
        spread = 1.96 * (a + b - (a - b) ** 2 / images) ** 0.5 / images
        return 100 * max(centre - spread, -1.0), 100 * min(centre + spread, 1.0)


def common_images(first: Results, second: Results) -> tuple[np.ndarray, np.ndarray]:
    """Positions in both tables of the images that they share, in the first one's order.

    InputError where there are none, where an image stands twice in a table, or where their labels differ.
    """
    places = []
    for table in (first, second):
        place = {index: i for i, index in enumerate(table.columns["idx"])}
        if len(place) != len(table):
            raise InputError(f"{table.name} has an image twice; give a table of one run")
        places.append(place)
    shared = [index for index in places[0] if index in places[1]]
    if not shared:
        raise InputError(f"{first.name} and {second.name} have no image in common; certify the same images with both")
    chosen = tuple(np.array([place[index] for index in shared]) for place in places)
    labels = [np.array(table.columns["label"])[at] for table, at in zip((first, second), chosen, strict=True)]
    if (labels[0] != labels[1]).any():
        raise InputError(f"{first.name} and {second.name} label the same images differently: they are of two data sets")
    return chosen


def _reach(first: Results, second: Results) -> list[np.ndarray]:
    """Per table, up to which radius each of the common images is certified right: -1 where it is at none."""
    at = common_images(first, second)
    return [np.where(table.correct, table.radius, -1.0)[where] for table, where in zip((first, second), at, strict=True)]


def paired_differences(first: Results, second: Results, radii: Sequence[float] | None = None) -> list[PairedDifference]:
    """A difference per radius ([0, 1] units; by default the round ones that curves use), over the common images."""
    reach = _reach(first, second)
    grid = round_radii(np.concatenate(reach)) if radii is None else radii
    found = []
    for radius in grid:
        one, two = reach[0] >= radius, reach[1] >= radius
        counts = (int((one & two).sum()), int((one & ~two).sum()), int((two & ~one).sum()))
        found.append(PairedDifference(float(radius), len(one), *counts))
    return found


def everywhere(first: Results, second: Results) -> list[PairedDifference]:
    """The difference at 0 and at every radius of either table: at a radius between two, it is that of the larger one."""
    radii = np.unique(np.concatenate([[0.0], first.radius, second.radius]))
    return paired_differences(first, second, radii)


def largest_loss(first: Results, second: Results) -> PairedDifference:
    """The difference at the radius, of all there are, where the first falls furthest behind the second."""
    return min(everywhere(first, second), key=lambda difference: difference.points)


def losses_by_chance(first: Results, second: Results, draws: int = _DRAWS, seed: int = 0) -> np.ndarray:
    """Largest losses at any radius, in points, not positive, float64 (draws,), were neither of the two the better one:
    for every image a fair coin tells which of the two results is the first one's (Fisher's test for matched pairs, 1935).
    """
    one, two = _reach(first, second)
    differ = one != two
    low, high = np.minimum(one, two)[differ], np.maximum(one, two)[differ]
    # Between the two radii one model leads by this image. Seen from above, it does so from the higher to the lower one.
    ends = np.concatenate([high, low])
    order = np.argsort(-ends, kind="stable")
    last = np.flatnonzero(np.append(np.diff(ends[order]) != 0, True)[: len(order)])  # of the ends that are equal
    generator = np.random.default_rng(seed)
    found = np.zeros(draws)
    for start in range(0, draws, _AT_ONCE):
        leads = generator.integers(0, 2, (min(_AT_ONCE, draws - start), len(high)), dtype=np.int8) * 2 - 1
        behind = np.cumsum(np.concatenate([leads, -leads], 1)[:, order], 1, dtype=np.int32)[:, last]
        found[start : start + len(behind)] = -100 * behind.max(1, initial=0) / len(one)
    return found


def usual_and_share(first: Results, second: Results) -> tuple[float, float]:
    """The median of `losses_by_chance`, in points, and the share of them that are as large as the largest loss found."""
    chance = losses_by_chance(first, second)
    return float(np.median(chance)), float((chance <= largest_loss(first, second).points + 1e-9).mean())


def share_behind(first: Results, second: Results, points: float) -> float:
    """On how much of the way from radius 0 to the largest of either table the first is behind by more than `points`."""
    found = everywhere(first, second)
    steps = [(after.radius - before.radius, after.points) for before, after in zip(found, found[1:], strict=False)]
    whole = sum(step for step, _ in steps)
    return sum(step for step, difference in steps if difference < -points - 1e-9) / whole if whole else 0.0


def paired_table(first: Results, second: Results, radii: Sequence[float] | None = None) -> str:
    """The differences as text, for reading."""
    rows = [("radius", first.name, second.name, "difference", "95 %", "only the first", "only the second")]
    for found in paired_differences(first, second, radii):
        low, high = found.interval
        shares = (percent(found.both + only, found.images) for only in (found.only_first, found.only_second))
        counts = (f"{found.only_first}", f"{found.only_second}")
        rows.append((format_radius(found.radius), *shares, f"{found.points:+.2f}", f"{low:+.2f} to {high:+.2f}", *counts))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    worst = largest_loss(first, second)
    lines.append(f"{worst.images} images in common; {first.name} is furthest behind at radius {format_radius(worst.radius)}: ")
    lines[-1] += f"{worst.points:+.2f} points"
    usual, share = usual_and_share(first, second)
    lines.append(f"were neither the better one, {usual:+.2f} would be usual, and as much as this come about ")
    lines[-1] += f"in {100 * share:.0f} % of cases"
    return "\n".join(lines)
