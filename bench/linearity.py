"""Is the cost linear in the number of samples, in the image's size and in the network's depth?

    python bench/linearity.py

Noise, inference and vote with residual networks of random weights, two threads at most; the slope of a straight line
through the logarithms of time against n, pixels and depth. A slope of 1 is linear, one below 1 means that something is
paid once. Depth counts as multiply-adds: blocks that halve the image are cheaper than the others, so that layers, which
have a row too, do not all cost the same. Writes linearity.png where matplotlib is installed.
"""

from fractions import Fraction

import numpy as np
from harness import Contender, Effort, Report, Spread, main, optional, require, say, take_turns
from resnet import SIGMA, noisy_levels, quantize, random_resnet

from intsmooth.commands.bench import multiply_adds
from intsmooth.engine import Engine, available_cpus
from intsmooth.noise.law import noise_table
from intsmooth.noise.stream import image_digest, stream_key

SAMPLES = (500, 1000, 2000, 4000, 8000, 16000)
SIZES = (16, 24, 32, 48, 64, 96, 128)
DEPTHS = (8, 14, 20, 32, 44, 56, 80, 110)
TOLERANCE = 0.1  # a slope within 1 +- this counts as linear
JUDGED = ("samples n", "pixels", "multiply-adds, by depth")


class Voter:
    """A network and an image; seconds per vote come from runs of it."""

    def __init__(self, depth: int, size: int, threads: int):
        self.graph = quantize(random_resnet(depth, size, batch=16)).graph
        self.image = np.clip(noisy_levels(1, size)[0], 0, 255)
        self.table = noise_table(Fraction(SIGMA) * 255)
        self.key = stream_key(bytes(32), image_digest(self.image), 0)
        self.engine, self.work = Engine(self.graph, threads=threads), multiply_adds(self.graph)

    def count(self, n: int) -> np.ndarray:
        return self.engine.count_votes(self.image, self.table, self.key, 0, n)

    def check(self) -> None:
        twin = Engine(self.graph, "numpy").count_votes(self.image, self.table, self.key, 0, 4)
        require((self.count(4) == twin).all(), "votes differ from the naive twin's")


def fit(x: list[float], times: list[Spread]) -> tuple[float, np.ndarray]:
    """Slope of a least-squares line through the logarithms, and the line's times at x."""
    line = np.polyfit(np.log(x), np.log([time.median for time in times]), 1)
    return float(line[0]), np.exp(np.polyval(line, np.log(x)))


def inverse(rate: Spread) -> Spread:
    return Spread(tuple(1 / value for value in rate.values))


def measure(effort: Effort) -> dict[str, tuple[list[float], list[Spread]]]:
    """Axis title -> (values on the axis, seconds)."""
    threads = min(2, available_cpus())
    samples, sizes, depths = (part[:3] if effort.quick else part for part in (SAMPLES, SIZES, DEPTHS))
    base = Voter(8 if effort.quick else 20, 32, threads)
    base.check()
    by_n = take_turns({n: Contender(lambda k, n=n: [base.count(n) for _ in range(k)]) for n in samples}, effort)

    def networks(shapes: list[tuple[int, int]]) -> tuple[list[Voter], list[Spread]]:
        voters = [Voter(depth, size, threads) for depth, size in shapes]
        for voter in voters:
            voter.check()
        rates = take_turns({i: Contender(voter.count) for i, voter in enumerate(voters)}, effort)
        return voters, [inverse(rates[i]) for i in range(len(voters))]

    say("image sizes and depths")
    _, by_size = networks([(20 if not effort.quick else 8, size) for size in sizes])
    deep, by_depth = networks([(depth, 32) for depth in depths])
    return {
        "samples n": (list(samples), [inverse(by_n[n]) for n in samples]),
        "pixels": ([size * size for size in sizes], by_size),
        "layers": (list(depths), by_depth),
        "multiply-adds, by depth": ([voter.work for voter in deep], by_depth),
    }


def plot(curves: dict, path) -> None:
    """One panel per axis, both axes logarithmic, the fitted line and its slope."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(JUDGED)), JUDGED, strict=True):
        x, times = curves[name]
        slope, line = fit(x, times)
        axes.loglog(x, line, "-", color="0.6", label=f"slope {slope:.3f}")
        axes.loglog(x, [time.median for time in times], "o", color="C0", markersize=4)
        axes.set_xlabel(name)
        axes.set_ylabel("seconds" if name == "samples n" else "seconds per sample")
        axes.grid(True, which="major", color="0.9")
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def question(effort: Effort) -> Report:
    report, curves = Report("Linearity"), measure(effort)
    rows, slopes = [], {}
    for name, (x, times) in curves.items():
        slopes[name], line = fit(x, times)
        farthest = max(abs(time.median / fitted - 1) for time, fitted in zip(times, line, strict=True))
        ends = [f"{times[i].median * 1e3:,.3f} ms" for i in (0, -1)]
        line_facts = (f"{slopes[name]:.3f}", f"{100 * farthest:.0f} %")
        rows.append((name, f"{x[0]:,} to {x[-1]:,}", " to ".join(ends), *line_facts))
    report.table(("against", "range", "time", "slope", "farthest from the line"), rows)
    report.text(
        "Time of noise, inference and vote: of n samples of ResNet-20 in the first row, of one sample in the others "
        f"(square images of {SIZES[0]} to {SIZES[-1]} pixels a side; depths {DEPTHS[0]} to {DEPTHS[-1]} on 32 x 32)."
    )
    if optional("matplotlib"):
        plot(curves, effort.folder / "linearity.png")
        report.blocks.append("![time against samples, pixels and depth](linearity.png)")
    else:
        report.text("matplotlib is not installed: no plot.")
    for name in JUDGED:
        report.target(f"linear in {name}: fitted slope", f"1 +- {TOLERANCE}", f"{slopes[name]:.3f}",
                      abs(slopes[name] - 1) <= TOLERANCE)  # fmt: skip
    return report


if __name__ == "__main__":
    main(question, __doc__)
