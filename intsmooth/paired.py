"""Two results files about the same images, image by image: how far apart two models' certified accuracies are.

The images that only one of the two certifies are what the difference consists of, and what its uncertainty comes from:
far less than two independent curves would have (McNemar, 1947).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intsmooth.errors import InputError
from intsmooth.report import format_radius, percent, round_radii
from intsmooth.results import Results


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


def paired_differences(first: Results, second: Results, radii: Sequence[float] | None = None) -> list[PairedDifference]:
    """A difference per radius ([0, 1] units; by default the round ones that curves use), over the common images."""
    at = common_images(first, second)
    reach = [
        np.where(table.correct, table.radius, -1.0)[where] for table, where in zip((first, second), at, strict=True)
    ]
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
    return "\n".join(lines)
