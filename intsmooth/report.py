"""What a results table amounts to: certified accuracy at radii, abstentions, average certified radius.

    certified accuracy at r   share of images that are classified right with radius >= r      (Cohen et al., 2019)
    ACR                       mean over all images of radius * correct                         (Zhai et al., 2020)

Whatever is printed about a radius or an accuracy is cut, never rounded up.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from intsmooth.certify import format_radius_down
from intsmooth.enclosure import exact_fraction
from intsmooth.errors import InputError
from intsmooth.records import ABSTAIN


def certified_counts(radius: np.ndarray, correct: np.ndarray, radii) -> list[int]:
    """How many images are certified right at each of `radii` (same unit); radius float64 [N], correct bool [N]."""
    certified = np.sort(radius[correct])
    return [int(len(certified) - position) for position in np.searchsorted(certified, radii, side="left")]


@dataclass(frozen=True)
class Summary:
    """counts[i] of `images` are certified right at radii[i]; radii and acr in [0, 1] units; unit: levels or None.

    skipped: how many of the abstentions had no estimation, as their selection named a wrong class (--skip-wrong).
    """

    images: int
    abstentions: int
    acr: float
    radii: tuple[float, ...]
    counts: tuple[int, ...]
    skipped: int = 0
    unit: int | None = None


def summarize(results, radii=None) -> Summary:
    """Sum up a table with `radius`, `correct`, `predict`, `unit`, `columns` (results.Results); radii default to a round grid."""
    radius, correct = results.radius, results.correct
    grid = round_radii(radius) if radii is None else tuple(float(r) for r in radii)
    check_radii(grid)
    return Summary(
        images=len(radius),
        abstentions=int((results.predict == ABSTAIN).sum()),
        acr=float((radius * correct).sum() / len(radius)) if len(radius) else 0.0,
        radii=grid,
        counts=tuple(certified_counts(radius, correct, grid)),
        skipped=results.columns.get("n", ()).count("0"),
        unit=results.unit,
    )


def check_radii(radii) -> None:
    """InputError unless all are finite and at least 0."""
    if not all(np.isfinite(r) and r >= 0 for r in radii):
        raise InputError(f"radii are {tuple(radii)}; finite numbers of at least 0 are required, in [0, 1] units")


def round_radii(radius: np.ndarray) -> tuple[float, ...]:
    """Multiples of a round step up to the largest radius: 0.25 as in the literature unless too coarse or too fine."""
    largest = float(radius.max(initial=0.0))
    coarse = (s * 10.0**power for power in range(309) for s in (0.25, 0.5, 1.0))
    step = next(s for s in itertools.chain((0.05, 0.1), coarse) if largest / s < (6 if s < 0.25 else 13))
    grid = (round(step * i, 6) for i in range(int(largest / step) + 2))  # the floats that 0.3 and 0.35 are read as
    return tuple(radius for radius in grid if radius <= largest)


def format_radius(radius: float, digits: int = 3) -> str:
    """A radius that was asked for, with `digits` decimals, or with all it takes not to name another one."""
    text = f"{radius:.{digits}f}"
    return text if float(text) == radius else repr(float(radius))


def percent(count: int, images: int) -> str:
    """100 * count / images with one decimal, cut; "-" where there are no images."""
    return f"{1000 * count // images / 10:.1f}" if images else "-"


def wilson_interval(count: int, images: int) -> tuple[float, float]:
    """Where the share behind `count` of `images` lies, 95 % (Wilson, 1927): for people, no part of any certificate."""
    z2 = 1.96**2
    centre, spread = count + z2 / 2, (z2 * (count * (images - count) / images + z2 / 4)) ** 0.5
    return max(0.0, (centre - spread) / (images + z2)), min(1.0, (centre + spread) / (images + z2))


def format_summary(summary: Summary) -> str:
    """The table that the command line prints, without a final line feed."""
    lines = ["radius     levels   certified accuracy"]
    for radius, count in zip(summary.radii, summary.counts, strict=True):
        levels = "-" if summary.unit is None else format_radius_down(exact_fraction(radius, "radius") * summary.unit, 2)
        share = f"{percent(count, summary.images):>6} %   {count} of {summary.images}"
        lines.append(f"{format_radius(radius):>6} {levels:>10}   {share}")
    acr_levels = "" if summary.unit is None else f" ({format_radius_down(summary.acr * summary.unit, 2)} levels)"
    lines.append(f"average certified radius {format_radius_down(summary.acr, 3)}{acr_levels}")
    lines.append(
        f"abstained on {summary.abstentions} of {summary.images} images "
        f"({percent(summary.abstentions, summary.images)} %)"
    )
    if summary.skipped:
        lines[-1] += f", {summary.skipped} of them because their selection named a wrong class"
    return "\n".join(lines)
