"""Certify a data set: one row per image in a results file, then certified accuracy at radii.

A run that was stopped, however roughly, goes on where it was when the same command is given again.
"""

import argparse
import math
import pathlib
import sys

from intsmooth.commands import options
from intsmooth.noise.stream import format_seed

SUMMARY = "certify the images of a data set"
EXAMPLES = (
    "certify digits",
    "certify digits --max 50 --n 100000 --plot curve.png",
    "certify model.h5 --data cifar10 --every 20 --max 500 --sigma 0.25 --out results.tsv",
    "certify cifar10-resnet20-s0.25 --data cifar10 --every 20 --target-radius 0.5",
    "certify cifar10-resnet20-s0.25 --data cifar10 --every 20 --precision 0.02 --max-n 100000",
    "certify model.h5 --data cifar10 --dask tcp://10.0.0.1:8786",
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
    options.add_sampling_options(parser)
    parser.add_argument(
        "--alpha", type=float, help="probability of a wrong statement, per image (default: 0.001, or that of --table)"
    )
    options.add_engine_options(parser)
    options.add_worker_options(parser)
    parser.add_argument(
        "--skip-wrong",
        action="store_true",
        help="no samples for an image whose selection names a wrong class: the same certified accuracy, sooner",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="results file (default: named after model and samples, in the current folder)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the certified-accuracy curve (needs matplotlib)")
    parser.add_argument(
        "--radii", type=options.radii_list, metavar="R,R,...", help="radii of the summary, in [0, 1] units"
    )


def run(arguments: argparse.Namespace) -> int:
    """Certify, with progress on standard error and the summary on standard output."""
    with options.open_workers(arguments) as executor:
        return _certify(arguments, executor)


def _certify(arguments: argparse.Namespace, executor) -> int:
    from intsmooth.audit.selftest import quick_check
    from intsmooth.certify import format_radius_down
    from intsmooth.commands.watch import Watch
    from intsmooth.curve import check_plot, plot_curves
    from intsmooth.report import check_radii, format_summary, summarize
    from intsmooth.run import certify_dataset, recorded_seed
    from intsmooth.smooth import Smooth

    check_radii(arguments.radii or ())  # what only the end needs should be missed now, not hours later
    if arguments.plot:
        check_plot(arguments.plot)
    path, graph = options.open_model(arguments)
    dataset = options.select_data(arguments, path, graph)
    sigma = options.sigma_of(arguments, graph)
    mode = options.sampling_options(arguments)
    if arguments.n is None and mode.keys() <= {"bound"} and dataset.name.startswith("digits"):
        mode["n"] = _DIGITS_N
    out = pathlib.Path(arguments.out or f"{path.stem}-{_mode_name(mode)}.tsv")
    if arguments.plot:
        options.check_output(arguments.plot, out)
    seed = arguments.seed or recorded_seed(out)
    options.announce_compilation(arguments.backend)
    smooth = Smooth(graph, sigma, law=arguments.law, seed=seed, backend=arguments.backend, threads=arguments.threads)
    quick_check(smooth.table, math.prod(graph.input_shape), smooth.seed, arguments.backend)
    mode["alpha"] = arguments.alpha
    if mode["alpha"] is None:
        mode["alpha"] = mode["table"].alpha if "table" in mode else 0.001
    options.announce_stopping_table()
    plan = smooth.plan(**mode)
    print(_heading(smooth, path, dataset, arguments, plan, out), flush=True)
    samples = (arguments.n0 + (0 if arguments.skip_wrong else plan.start().due), arguments.n0 + plan.most)
    watch = Watch(smooth, dataset, samples, arguments.n0, executor)
    try:
        results = certify_dataset(
            smooth,
            dataset,
            out,
            n0=arguments.n0,
            batch_size=arguments.batch_size,
            skip_wrong=arguments.skip_wrong,
            executor=executor,
            on_start=watch.start,
            on_row=watch.row,
            on_votes=watch.votes,
            **mode,
        )
    except KeyboardInterrupt:
        watch.close()
        print(f"{watch.rows} of {len(dataset)} images are in {out}; the same command goes on there", file=sys.stderr)
        raise
    finally:
        watch.close()
    radii = arguments.radii
    if radii is None and "target_radius" in mode:
        radii = (float(format_radius_down(plan.radius, 6)),)  # as the file has it, cut like every radius
    print(format_summary(summarize(results, radii)))
    print(f"{watch.speed()}\nresults: {out.resolve()}")
    if arguments.plot:
        plot_curves([results], arguments.plot)
        print(f"plot: {arguments.plot}")
    return 0


def _mode_name(mode: dict) -> str:
    """The part of a results file's name that says how it was sampled, for example "n100000" or "r0.5"."""
    if "table" in mode:
        return f"n{mode['table'].n}-table"
    if "target_radius" in mode:
        return f"r{mode['target_radius']}".replace("/", "over")  # a fraction, in the name of a file
    if mode.keys() & {"precision", "largest_radius", "max_n"}:
        return "curve"
    return f"n{mode.get('n', _N)}" + (f"-{mode['bound']}" if "bound" in mode else "")


def _heading(smooth, path: pathlib.Path, dataset, arguments: argparse.Namespace, plan, out: pathlib.Path) -> str:
    """What is going to happen, in a few lines."""
    graph, sigma = smooth.graph, f"{float(smooth.sigma):g} = {float(smooth.table.sigma):g} levels"
    shape, levels = " x ".join(map(str, graph.input_shape)), f"{graph.levels[0]} to {graph.levels[1]}"
    lines = (
        f"model    {path} ({graph.digest[:16]})",
        f"data     {dataset.name}: {len(dataset)} images of {shape}, levels {levels}",
        f"noise    {smooth.law}, sigma {sigma}, seed {format_seed(smooth.seed)}",
        f"samples  {arguments.n0} to select a class{' (the end where it is wrong)' * arguments.skip_wrong}, {plan}",
        f"results  {out}",
    )
    return "\n".join(lines)
