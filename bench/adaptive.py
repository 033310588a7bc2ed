"""What stopping early saves, on real images and a real model.

    python bench/adaptive.py [MODEL ...] [--every 20] [--radii 0.5] [--curve-every 100] [--n 10000]

For each model (default: all shipped CIFAR-10 models), on every 20th CIFAR-10 test image:

- samples until a target radius is decided, next to the fixed plan of 100,000 and to the literature;
- the largest radius by one adaptive run, next to the fixed plan of n samples, image by image, on every --curve-every-th
  image: samples saved, radius lost. Both see the same votes, so that the difference is the rule's alone. The three bounds
  of the fixed plan are compared on these votes, too.

Writes ADAPTIVE.md and adaptive.png (matplotlib) next to this program. Images are handed to one thread per processor.
"""

import argparse
import os
import pathlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from harness import FOLDER, Report, machine_facts, optional, say

from intsmooth.datasets import Dataset, open_dataset
from intsmooth.engine import available_cpus
from intsmooth.fixed_plan import BOUNDS
from intsmooth.records import Certificate
from intsmooth.report import certified_counts
from intsmooth.shipped import find_model, shipped_models
from intsmooth.smooth import Smooth
from intsmooth.vote import ESTIMATION, SELECTION

SHARED = pathlib.Path(os.environ.get("INTSMOOTH_SHARED", FOLDER.parents[1] / "shared"))
SEED, N0, FIXED_N, MAX_N, PRECISION = 2024, 100, 100_000, 100_000, "0.02"
# Mean samples to decide, published; their models differ from ours, so STOPPING.md has the rules on the same images.
LITERATURE = {
    "betting, Voracek (2024), sigma 1, r = 0.5": 531,
    "betting, Voracek (2024), sigma 1, r = 1.25": 2169,
    "stages, Horvath et al. (2022), as measured there, r = 0.5": 1976,
    "stages, Horvath et al. (2022), as measured there, r = 1.25": 3593,
}


@dataclass(frozen=True)
class Curve:
    """One image: certificates of the fixed plan by each bound, and of the adaptive run, from the same votes."""

    label: int
    fixed: dict[str, Certificate]
    adaptive: Certificate


def each(dataset: Dataset, what, work) -> list:
    """work(image, label) for every image, one thread per processor, in order."""
    with ThreadPoolExecutor(available_cpus()) as pool:
        done, start = [], time.monotonic()
        items = [(dataset[i].image, int(dataset.labels[i])) for i in range(len(dataset))]
        for result in pool.map(lambda item: work(*item), items):
            done.append(result)
            if len(done) % max(1, len(items) // 10) == 0:
                say(f"{what}: {len(done)} of {len(items)} images, {time.monotonic() - start:.0f} s")
    return done


def decide(smooth: Smooth, dataset: Dataset, radius: str) -> list[tuple[Certificate, int]]:
    """The certificate and the label of every image."""
    mode = {"n0": N0, "target_radius": radius, "max_n": MAX_N}
    smooth.certify(dataset[0].image, **mode)  # makes the stopping table, once
    return each(dataset, f"radius {radius}", lambda x, label: (smooth.certify(x, **mode), label))


def target_row(radius: str, decided: list[tuple[Certificate, int]]) -> list[str]:
    votes = np.array([certificate.n for certificate, _ in decided])
    error = votes.std() / len(votes) ** 0.5
    outcomes = [certificate.extra["decision"] for certificate, _ in decided]
    right = sum(certificate.prediction == label for certificate, label in decided)
    return [
        radius,
        f"{votes.mean():,.0f} +- {error:,.0f}",
        *(f"{np.percentile(votes, q):,.0f}" for q in (50, 90, 100)),
        f"{FIXED_N / votes.mean():,.0f} x",
        *(f"{100 * outcomes.count(name) / len(votes):.1f} %" for name in ("certify", "give up", "undecided")),
        f"{100 * right / len(votes):.1f} %",
    ]


def curves(smooth: Smooth, dataset: Dataset, n: int) -> list[Curve]:
    """Count the votes of the fixed plan once, in the adaptive run's looks, and replay both plans on them."""
    plan = smooth.plan(max_n=n, precision=PRECISION)
    ends = [look.n for look in plan.looks]

    def work(x, label: int) -> Curve:
        image = smooth.check_image(x)
        selection = smooth._counts(image, SELECTION, 0, N0, N0)
        top = int(np.argmax(selection))
        parts = [smooth._counts(image, ESTIMATION, a, b - a, b - a) for a, b in pairwise([0, *ends])]
        counts, run = np.zeros(len(selection), np.int64), plan.start()
        for part in parts:
            if run.due:
                counts += part
                run.update(part[top], run.due)
        votes = {"top": top, "selection": selection}
        adaptive = plan.certificate(run, counts=counts.tolist(), **votes)
        total = np.sum(parts, axis=0).tolist()
        certificates = {}
        for bound in BOUNDS:
            fixed = smooth.plan(n=n, bound=bound)
            whole = fixed.start()
            whole.update(total[top], n)
            uniform = {"uniform": smooth.uniform(image)} if fixed.randomized else {}
            certificates[bound] = fixed.certificate(whole, counts=total, **votes, **uniform)
        return Curve(label, certificates, adaptive)

    return each(dataset, "curve", work)


def curve_report(report: Report, found: list[Curve], n: int) -> None:
    fixed = [curve.fixed["clopper-pearson"] for curve in found]
    radius = np.array([certificate.radius for certificate in fixed])
    lost = radius - [curve.adaptive.radius for curve in found]
    votes = np.array([curve.adaptive.n for curve in found])
    changed = sum(a.prediction != curve.adaptive.prediction for a, curve in zip(fixed, found, strict=True))
    report.text(
        f"The largest radius with at most {n:,} votes and precision {PRECISION} on {len(found)} images: {votes.mean():,.0f} "
        f"votes on average, {100 * (1 - votes.mean() / n):.0f} % fewer than the fixed plan's; radius lost {lost.mean():.4f} "
        f"on average, {lost.max():.4f} at most, more than {PRECISION} on {int((lost > float(PRECISION)).sum())} images; "
        f"{changed} predictions changed."
    )
    correct = np.array([curve.label == c.prediction for curve, c in zip(found, fixed, strict=True)])
    grid = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    rows = [["fixed plan", f"{n:,}", *shares(radius, correct, grid)]]
    adaptive = np.array([curve.adaptive.radius for curve in found])
    right = np.array([curve.label == curve.adaptive.prediction for curve in found])
    rows.append(["adaptive", f"{votes.mean():,.0f}", *shares(adaptive, right, grid)])
    report.table(["certified accuracy, %, at", "votes", *(f"{r:g}" for r in grid)], rows)
    report.table(
        ["bound of the fixed plan", "mean radius", "larger than clopper-pearson", "smaller"],
        [
            [bound, f"{np.mean([curve.fixed[bound].radius for curve in found]):.4f}",
             *(f"{sum(sign * (curve.fixed[bound].radius - curve.fixed['clopper-pearson'].radius) > 0 for curve in found)}"
               for sign in (1, -1))]
            for bound in BOUNDS
        ],
    )  # fmt: skip


def shares(radius: np.ndarray, correct: np.ndarray, grid: list[float]) -> list[str]:
    return [f"{100 * count / len(radius):.1f}" for count in certified_counts(radius, correct, grid)]


def plot(found: dict[str, list[Curve]], n: int, path: pathlib.Path) -> None:
    """Per model: votes against the fixed plan's radius, and the radius lost, one dot per image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4 * len(found)), layout="constrained")
    for (name, found_here), (left, right) in zip(found.items(), figure.subplots(len(found), 2, squeeze=False), strict=True):
        radius = [curve.fixed["clopper-pearson"].radius for curve in found_here]
        left.semilogy(radius, [curve.adaptive.n for curve in found_here], "o", markersize=3, alpha=0.6)
        left.axhline(n, color="0.6", linewidth=1)
        left.set(title=name, ylabel=f"votes of the adaptive run (line: {n:,})")
        lost = [r - curve.adaptive.radius for r, curve in zip(radius, found_here, strict=True)]
        right.plot(radius, lost, "o", markersize=3, alpha=0.6)
        right.axhline(float(PRECISION), color="0.6", linewidth=1)
        right.set(ylabel=f"radius lost (line: precision {PRECISION})")
        for axes in (left, right):
            axes.set_xlabel("radius of the fixed plan, [0, 1] units")
            axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def model_report(name: str, arguments: argparse.Namespace, found: dict[str, list[Curve]]) -> Report:
    from intsmooth.h5file import load

    graph = load(find_model(name))
    smooth = Smooth(graph, graph.facts["sigma"], seed=SEED, threads=1)
    dataset = open_dataset(arguments.data).for_classes(graph.classes)
    report = Report(f"{find_model(name).stem}, sigma {float(smooth.sigma):g}")
    images = dataset.select(arguments.every, arguments.max)
    rows = [target_row(radius, decide(smooth, images, radius)) for radius in arguments.radii.split(",")]
    report.table(
        ["radius", "votes to decide", "median", "90 %", "most", f"fewer than {FIXED_N:,}", "certified", "given up",
         "undecided", "certified right"],
        rows,
    )  # fmt: skip
    report.text(f"{len(images)} images; each takes {N0} more samples to select the class. +- is one standard error.")
    if arguments.curve_every:
        found[name] = curves(smooth, dataset.select(arguments.curve_every, arguments.max), arguments.n)
        curve_report(report, found[name], arguments.n)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="default: all shipped CIFAR-10 models")
    parser.add_argument("--data", default=str(SHARED / "data" / "cifar10" / "test_every_20th.npz"))
    parser.add_argument("--every", type=int, default=20, help="target radii: every which image (default: 20)")
    parser.add_argument("--curve-every", type=int, default=100, help="curves: every which image; 0: none (default: 100)")
    parser.add_argument("--radii", default="0.5", help="target radii (default: 0.5)")
    parser.add_argument("--max", type=int, help="only the first so many of these images")
    parser.add_argument("--n", type=int, default=10_000, help="of the fixed plan that the curve is compared with")
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER, help="where ADAPTIVE.md and the plot go")
    arguments = parser.parse_args()
    names = arguments.models or [name for name in shipped_models() if name.startswith("cifar10-")]
    found: dict[str, list[Curve]] = {}
    blocks = [model_report(name, arguments, found).markdown() for name in names]
    literature = Report("Published means")
    literature.table(["rule, CIFAR-10", "votes to decide"], [[name, f"{n:,}"] for name, n in LITERATURE.items()])
    literature.text("Other models, other images near the radius: for the rules alone see [STOPPING.md](STOPPING.md).")
    blocks.append(literature.markdown())
    if found and optional("matplotlib"):
        plot(found, arguments.n, arguments.folder / "adaptive.png")
        blocks.append("![votes and radius lost, image by image](adaptive.png)\n")
    facts = machine_facts()
    head = (
        "# What stopping early saves\n\n`python bench/adaptive.py` writes this page. "
        f"Seed {SEED}; counts do not depend on the machine (this one: {facts['processor']}, {facts['kernels']}).\n"
    )
    page = "\n".join([head, *blocks])
    (arguments.folder / "ADAPTIVE.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
