"""Certify a data set: one row per image in a results file, then certified accuracy at radii.

A run that was stopped, however roughly, goes on where it was when the same command is given again.
"""

import argparse
import math
import pathlib
import sys
import time

from intsmooth.commands import options
from intsmooth.noise.stream import format_seed
from intsmooth.progress import Progress, duration
from intsmooth.report import percent, wilson_interval

SUMMARY = "certify the images of a data set"
EXAMPLES = (
    "certify digits",
    "certify digits --max 50 --n 100000 --plot curve.png",
    "certify model.h5 --data cifar10 --every 20 --max 500 --sigma 0.25 --out results.tsv",
)
_DIGITS_N, _N = 10_000, 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help=options.MODEL_HELP)
    options.add_data_options(parser)
    options.add_input_options(parser)
    options.add_noise_options(parser)
    parser.add_argument("--n0", type=int, default=100, help="samples that select the class (default: 100)")
    parser.add_argument(
        "--n", type=int, help=f"samples that certify it (default: {_N}; {_DIGITS_N} for the bundled digits)"
    )
    parser.add_argument(
        "--alpha", type=float, default=0.001, help="probability of a wrong statement, per image (default: 0.001)"
    )
    options.add_engine_options(parser)
    parser.add_argument(
        "--out", metavar="FILE", help="results file (default: named after model and n, in the current folder)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the certified-accuracy curve (needs matplotlib)")
    parser.add_argument(
        "--radii", type=options.radii_list, metavar="R,R,...", help="radii of the summary, in [0, 1] units"
    )


def run(arguments: argparse.Namespace) -> int:
    """Certify, with progress on standard error and the summary on standard output."""
    from intsmooth.audit.selftest import quick_check
    from intsmooth.curve import figure_class, plot_curves
    from intsmooth.report import format_summary, summarize
    from intsmooth.run import certify_dataset, recorded_seed
    from intsmooth.smooth import Smooth

    if arguments.plot:
        figure_class()  # what the plot needs should be missed now, not hours later
    path, graph = options.open_model(arguments)
    dataset = options.select_data(arguments, path, graph)
    sigma = options.sigma_of(arguments, graph)
    n = arguments.n if arguments.n is not None else _DIGITS_N if dataset.name.startswith("digits") else _N
    out = pathlib.Path(arguments.out or f"{path.stem}-n{n}.tsv")
    seed = arguments.seed or recorded_seed(out)
    options.announce_compilation(arguments.backend)
    smooth = Smooth(graph, sigma, law=arguments.law, seed=seed, backend=arguments.backend, threads=arguments.threads)
    quick_check(smooth.table, math.prod(graph.input_shape), smooth.seed, arguments.backend)
    print(_heading(smooth, path, dataset, arguments.n0, n, arguments.alpha, out), flush=True)
    watch = _Watch(smooth, dataset, arguments.n0 + n)
    try:
        results = certify_dataset(
            smooth,
            dataset,
            out,
            n0=arguments.n0,
            n=n,
            alpha=arguments.alpha,
            batch_size=arguments.batch_size,
            on_start=watch.start,
            on_row=watch.row,
        )
    except KeyboardInterrupt:
        watch.close()
        print(f"{watch.rows} of {len(dataset)} images are in {out}; the same command goes on there", file=sys.stderr)
        raise
    finally:
        watch.close()
    print(format_summary(summarize(results, arguments.radii)))
    print(f"{watch.speed()}\nresults: {out.resolve()}")
    if arguments.plot:
        plot_curves([results], arguments.plot)
        print(f"plot: {arguments.plot}")
    return 0


def _heading(smooth, path: pathlib.Path, dataset, n0: int, n: int, alpha: float, out: pathlib.Path) -> str:
    """What is going to happen, in a few lines."""
    graph, sigma = smooth.graph, f"{float(smooth.sigma):g} = {float(smooth.table.sigma):g} levels"
    shape, levels = " x ".join(map(str, graph.input_shape)), f"{graph.levels[0]} to {graph.levels[1]}"
    lines = (
        f"model    {path} ({graph.digest[:16]})",
        f"data     {dataset.name}: {len(dataset)} images of {shape}, levels {levels}",
        f"noise    {smooth.law}, sigma {sigma}, seed {format_seed(smooth.seed)}",
        f"samples  {n0} to select a class, {n} to certify it, alpha {alpha:g} per image",
        f"results  {out}",
    )
    return "\n".join(lines)


class _Watch:
    """Tells what a run does while it runs: an estimate first, then a line of progress."""

    def __init__(self, smooth, dataset, samples: int):
        self.smooth, self.dataset, self.samples = smooth, dataset, samples
        self.rows = self.found = self.right = 0
        self.progress = None
        self.elapsed = 0.0

    def start(self, rows: list[dict[str, str]]) -> None:
        """Called when the results file is open; `rows` are in it already."""
        self.rows = self.found = len(rows)
        self.right = sum(row["correct"] == "1" for row in rows)
        left = len(self.dataset) - len(rows)
        if rows:
            print(f"{len(rows)} images are in the results file already, {max(left, 0)} are left", file=sys.stderr)
        if left > 0:
            from intsmooth.run import rehearse

            rate = rehearse(self.smooth, self.dataset[len(rows)].image)
            expected = duration(left * self.samples / rate)
            print(f"expected time {expected}, at {rate:,.0f} samples/s", file=sys.stderr)
            self.progress = Progress(len(self.dataset), done=len(rows))
            self.begin = time.monotonic()

    def row(self, row: dict[str, str]) -> None:
        """Called when one more row is on disk."""
        self.rows += 1
        self.right += row["correct"] == "1"
        low, high = wilson_interval(self.right, self.rows)
        samples = self.progress.rate() * self.samples
        note = (
            f"{samples:,.0f} samples/s, right {percent(self.right, self.rows)} % ({100 * low:.1f} to {100 * high:.1f})"
        )
        self.progress.advance(self.rows, note)
        self.elapsed = time.monotonic() - self.begin

    def speed(self) -> str:
        """Images and samples per second of what this run did."""
        new = self.rows - self.found
        if not new:
            return "nothing was left to do: all of these images were in the results file already"
        return (
            f"{new} images in {duration(self.elapsed)}: {new / self.elapsed:,.1f} images/s, "
            f"{new * self.samples / self.elapsed:,.0f} samples/s"
        )

    def close(self) -> None:
        """End the line of progress."""
        if self.progress is not None:
            self.progress.close()
