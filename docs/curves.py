"""Our models' certified accuracy beside the published one: docs/models.md and a plot per sigma, from results files.

    python docs/curves.py --published FOLDER                     writes docs/models.md and docs/curves-s*.png
    python docs/curves.py --published FOLDER --ours docs/results --out docs

Ours: MODEL.tsv as `intsmooth certify --out` writes it, and beside it, where it was made, MODEL-float.tsv of the float
network that the model comes from (intsmooth.training.float_twin). Where that was made with fewer samples, say 1,000,
MODEL-n1000.tsv holds the integer model's certificates at the same n, for the comparison of the two. The same two with
-validation before -float and -nN are of other held-out images, a larger number of which tells more about what integers
cost; with -seed2 they are of the test images under other noise. Of these tables it is enough to keep the columns up to
time, top, hits and n. Published: per-image tables of github.com/locuslab/smoothing (data/certify/cifar10) and
github.com/jh-jeong/smoothing-consistency, named METHOD_NETWORK_sigma_S.tsv; they are other people's and not part of this
package.

The published tables were made with n = 100,000 samples; published.py brings them to the n of ours. Needs scipy, and
matplotlib for the plots.
"""

import argparse
import pathlib
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from published import ALPHA, PUBLISHED_N, converted
from two_classes import with_two_classes

from intsmooth.certify import format_radius_down
from intsmooth.curve import plot_curves
from intsmooth.errors import InputError, IntsmoothError, ResourceError
from intsmooth.paired import largest_loss, paired_differences, share_behind, usual_and_share
from intsmooth.report import percent, summarize
from intsmooth.results import Results, read_results

DOCS = pathlib.Path(__file__).parent
RADII = {0.12: (0, 0.1, 0.2, 0.3), 0.25: (0, 0.25, 0.5, 0.75), 0.5: (0, 0.25, 0.5, 0.75, 1.0, 1.5)}
LARGE = (0, 0.5, 1.0, 1.5, 2.0)  # of every larger sigma
PUBLISHED = {
    "cohen": "Cohen et al. (2019)",
    "gaussian": "Gaussian augmentation",
    "stability_lbd2": "stability training",
    "smoothadv_pgd255": "SmoothAdv",
    "macer": "MACER",
    "consistency_lbd10": "consistency",
}
NETWORKS = {"resnet110": "ResNet-110", "resnet20": "ResNet-20", "resnet10": "ResNet-10"}
DATA = {"cifar10": "CIFAR-10", "caltech101": "Caltech-101"}
HEAD = """# Our models beside the published ones

Written by `python docs/curves.py --published FOLDER` from the results files in `docs/results/`. Ours (bold) are int8
networks of integer operators; all others are float32. Certified accuracy in percent at L2 radii in [0, 1] units, and the
average certified radius (ACR), {alpha}.

The published per-image results (Cohen, Rosenfeld and Kolter, 2019; Jeong and Shin, 2020) were made with n = 100,000
samples. They stand here at the n of ours: the radius gives the bound on p, the bound the share of votes, the share at
the smaller n (fractions of a vote are kept) a new bound and a new radius; images on which they abstained stay so. All
numbers are cut, not rounded up. A dash: the run skipped images whose selection was wrong, which changes no other number.

All rows but the second of each table have the one-sided bound on the top class, which the literature reports. The second
has what the votes of the first give under the bound on two classes at the same alpha ([theory.md](theory.md), section 2;
`certify --bound two-class`). The published tables hold no counts of the other classes, so it cannot be computed for them.

What integers cost is the difference to the float network that was quantized. The largest loss at any radius is the largest
of many numbers, and one of 500 images is 0.2 points; how large it would be, were neither network the better one, stands
beside it. Many images have all votes or nearly all, where a single vote is much: with 9,999 of 10,000 instead of all, a
radius at sigma = 0.25 is 0.778 instead of 0.799. So a run shows the luck of its noise, too. Where both networks were
certified a second time, under other noise, the largest loss of that run stands there, and that of the mean of both, which
is nearer to what integers cost. Where there are validation images, held out in training, it is measured on them, too:
they are more, but how to quantize CIFAR-10's models was worked out on every second one.
"""


@dataclass(frozen=True)
class Curve:
    """A results table with what it is about. network: as people write it."""

    results: Results
    data: str
    network: str
    method: str
    sigma: float
    n: int
    role: str = "published"  # "ours", "twin" (our float network), "partner" (ours once more, at the twin's n)
    part: str = "test"  # of the data set
    seed: int = 1  # of the noise

    @property
    def label(self) -> str:
        return f"{self.network}, {self.method}"


def restricted(results: Results, images: Sequence[str]) -> Results:
    """The rows about these images (text of `idx`), in the table's own order."""
    wanted = set(images)
    keep = [i for i, index in enumerate(results.columns["idx"]) if index in wanted]
    return Results(results.name, {name: tuple(values[i] for i in keep) for name, values in results.columns.items()})


def read_ours(folder: pathlib.Path) -> list[Curve]:
    """Every table in the folder by sigma: DATA-NETWORK-sSIGMA.tsv, ...-float.tsv and ...-nN.tsv, with -validation or
    -seedK before these two where they are of that part or of other noise."""
    curves = []
    for path in sorted(folder.glob("*.tsv")):
        name = re.fullmatch(r"(\w+)-(\w+)-s([\d.]+?)(?:(?:-(validation)|-seed(\d+))?(-float|-n\d+))?", path.stem)
        if name is None:
            raise InputError(
                f"{path} is not named DATA-NETWORK-sSIGMA.tsv, ...-float.tsv or ...-nN.tsv, with -validation or -seedK "
                "before the last two where it is of that; rename it"
            )
        data, network, sigma, part, seed, suffix = name.groups()
        results = read_results(path)
        if not len(results):
            raise InputError(f"{path} holds no rows yet; certify some images first")
        n = {int(value) for value in results.columns.get("n", ())} - {0}  # 0: certify --skip-wrong
        if len(n) != 1:
            raise InputError(f"{path} does not say one number of samples n for all rows; certify again")
        role = "twin" if suffix == "-float" else "partner" if suffix else "ours"
        method = "float twin of ours" if role == "twin" else "int8, ours"
        subject = data, NETWORKS.get(network, network), method, float(sigma)
        curves.append(Curve(results, *subject, n.pop(), role, part or "test", int(seed or 1)))
    return sorted(curves, key=lambda curve: (curve.sigma, curve.data, curve.role, curve.part, curve.seed))


def read_published(folder: pathlib.Path, data: str = "cifar10") -> list[Curve]:
    """Every METHOD_NETWORK_sigma_S.tsv in the folder, as published."""
    curves = []
    for path in sorted(folder.glob("*_sigma_*.tsv")):
        name = re.fullmatch(r"(\w+)_(resnet\d+)_sigma_([\d.]+)", path.stem)
        if name is None:
            raise InputError(f"{path} is not named METHOD_resnetN_sigma_S.tsv; rename it")
        method, network, sigma = name.groups()
        results = read_results(path)
        curves.append(
            Curve(
                results, data, NETWORKS.get(network, network), PUBLISHED.get(method, method), float(sigma), PUBLISHED_N
            )
        )
    if not curves:
        raise InputError(f"{folder} holds no tables METHOD_NETWORK_sigma_S.tsv; give the folder of the published ones")
    return curves


def beside(ours: Curve, published: Sequence[Curve]) -> list[Curve]:
    """The published curves of ours' data and sigma, on the images of ours and at its n."""
    found = []
    for curve in published:
        if (curve.data, curve.sigma) == (ours.data, ours.sigma):
            results = restricted(curve.results, ours.results.columns["idx"])
            if len(results):
                found.append(replace(curve, results=converted(results, curve.sigma, ours.n), n=ours.n))
    return found


def accuracy_table(curves: Sequence[Curve], radii: Sequence[float]) -> list[str]:
    """Lines of a Markdown table, a row per curve, ours in bold."""
    lines = [
        f"| model | {' | '.join(f'{radius:g}' for radius in radii)} | ACR | abstained | images |",
        "| :-- |" + " --: |" * (len(radii) + 3),
    ]
    for curve in curves:
        summary = summarize(curve.results, radii)
        cells = [curve.label, *(percent(count, summary.images) for count in summary.counts)]
        abstained = "-" if summary.skipped else percent(summary.abstentions, summary.images)
        cells += [format_radius_down(summary.acr, 3), abstained, f"{summary.images}"]
        lines.append(f"| {' | '.join(f'**{cell}**' if curve.role == 'ours' else cell for cell in cells)} |")
    return lines


def loss_table(ours: Curve, twin: Curve, radii: Sequence[float]) -> list[str]:
    """What going to integers cost at each radius, as lines of Markdown."""
    differences = paired_differences(ours.results, twin.results, radii)
    lines = [
        f"Integer less float, in points, image by image under the same noise (n = {twin.n:,}, {differences[0].images:,} "
        f"{twin.part} images):",
        "",
        f"| radius | {' | '.join(f'{found.radius:g}' for found in differences)} |",
        "| :-- |" + " --: |" * len(differences),
        f"| difference | {' | '.join(f'{found.points:+.1f}' for found in differences)} |",
    ]
    intervals = (f"{low:+.1f} to {high:+.1f}" for low, high in (found.interval for found in differences))
    lines.append(f"| 95 % | {' | '.join(intervals)} |")
    lines.append("")
    usual, share = usual_and_share(ours.results, twin.results)
    lines.append(f"Largest loss at any radius: {largest(ours.results, twin.results)}")
    lines.append(f"Were neither the better one, {usual:+.2f} points would be usual, and as much as this come about in")
    lines.append(f"{100 * share:.0f} % of cases (results exchanged by coin, image by image).")
    return lines


def largest(first: Results, second: Results) -> str:
    """The largest loss at any radius, and how far along the radii it is too large."""
    worst, behind = largest_loss(first, second), 100 * share_behind(first, second, 0.5)
    return f"{worst.points:+.2f} points, at {worst.radius:.3f}; more than 0.5 points at {behind:.2f} % of all radii."


def noise_lines(pairs: Sequence[tuple[Curve, Curve]]) -> list[str]:
    """What going to integers cost under each noise but the first, and on average over all, as lines of Markdown.

    pairs: ours and its float twin, a pair per seed.
    """
    lines = [f"Under other noise (seed {ours.seed}): {largest(ours.results, twin.results)}" for ours, twin in pairs[1:]]
    first, second = (stacked(curves) for curves in zip(*pairs, strict=True))
    return [*lines, f"Mean of the {len(pairs)} runs: {largest(first, second)}"]


def stacked(curves: Sequence[Curve]) -> Results:
    """The tables under each other: what is certified of all rows is the mean of what is certified in each, where they are
    of the same images."""
    names = ("idx", "label", "predict", "radius", "correct")
    columns = {name: tuple(value for curve in curves for value in curve.results.columns[name]) for name in names}
    seeds = (curve.seed for curve in curves for _ in range(len(curve.results)))
    columns["idx"] = tuple(f"{index}, seed {seed}" for index, seed in zip(columns["idx"], seeds, strict=True))
    return Results(curves[0].label, columns)


def write(
    ours: Sequence[Curve], published: Sequence[Curve], out: pathlib.Path, plots: bool = True
) -> list[pathlib.Path]:
    """models.md and a plot per data set and sigma; the files written."""
    written, counts = [], sorted({curve.n for curve in ours})
    said = " or ".join(f"n = {n:,}" for n in counts)
    lines = [HEAD.format(alpha=f"{said}, alpha = {ALPHA}")]
    for curve in (curve for curve in ours if curve.role == "ours"):
        radii = RADII.get(curve.sigma, LARGE)
        same = [other for other in ours if (other.data, other.network, other.sigma) == _subject(curve)]
        twins = [other for other in same if other.role == "twin"]
        others = [*(twin for twin in twins if _like(twin, curve)), *beside(curve, published)]
        table = accuracy_table([curve, *_two_classes(curve), *others], radii)
        data = DATA.get(curve.data, curve.data)
        name = f"curves-{'' if curve.data == 'cifar10' else curve.data + '-'}s{curve.sigma:g}.png"
        lines += [f"## {data}, sigma = {curve.sigma:g}, n = {curve.n:,}", "", *table, ""]
        runs = defaultdict(list)  # of the same images with as many samples: a pair per seed
        for twin in twins:
            runs[twin.n, twin.part] += [(one, twin) for one in same if one.role != "twin" and _like(one, twin)]
        for pairs in filter(None, runs.values()):
            lines += [*loss_table(*pairs[0], radii), ""]
            lines += [*noise_lines(pairs), ""] if len(pairs) > 1 else []
        if plots:
            lines += [f"![certified accuracy, {data}, sigma = {curve.sigma:g}]({name})", ""]
            named = [_named(one) for one in (curve, *others)]
            title = f"{data}, sigma = {curve.sigma:g}, n = {curve.n:,}, alpha = {ALPHA}"
            plot_curves(named, out / name, title, thick=1)
            written.append(out / name)
    target = out / "models.md"
    try:
        target.write_text("\n".join(lines), encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{target} cannot be written ({error.strerror}); give another --out") from error
    return [*written, target]


def _two_classes(curve: Curve) -> list[Curve]:
    """The curve of the same votes under the other bound, where the file has them."""
    if "counts" not in curve.results.columns:
        return []
    results, method = with_two_classes(curve.results), f"{curve.method}, two-class bound"
    return [replace(curve, results=results, method=method)]


def _subject(curve: Curve) -> tuple[str, str, float]:
    return curve.data, curve.network, curve.sigma


def _like(one: Curve, other: Curve) -> bool:
    """Whether the two were made with as many samples, of the same part of the data set, under the same noise."""
    return (one.n, one.part, one.seed) == (other.n, other.part, other.seed)


def _named(curve: Curve) -> Results:
    """The curve's table under the name that the plot's legend shows."""
    return Results(curve.label, curve.results.columns)


def main(argv: list[str] | None = None) -> int:
    """Write the document and the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=pathlib.Path, required=True, help="folder of the published tables")
    parser.add_argument("--ours", type=pathlib.Path, default=DOCS / "results", help="folder of our results files")
    parser.add_argument("--out", type=pathlib.Path, default=DOCS, help="folder of models.md and the plots")
    parser.add_argument("--no-plots", action="store_true", help="the document alone")
    arguments = parser.parse_args(argv)
    try:
        ours = read_ours(arguments.ours)
        if not ours:
            raise InputError(f"{arguments.ours} holds no results files; certify a model with --out there first")
        for path in write(ours, read_published(arguments.published), arguments.out, not arguments.no_plots):
            print(path)
    except IntsmoothError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
