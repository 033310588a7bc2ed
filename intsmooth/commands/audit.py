"""Prove on this machine what is claimed about a model's arithmetic; see docs/audit.md.

Integer tensors only, no overflow, no floating-point arithmetic in noise, inference and counting, compiled kernels
equal to naive ones, noise that follows its law. Fails if any of this cannot be shown.
"""

import argparse

import numpy as np

from intsmooth.commands import options

SUMMARY = "prove that a model runs on integers alone, without overflow, on this machine"
EXAMPLES = ("audit digits", "audit digits --json > audit.json", "audit model.h5 --data cifar10 --max 8 --sigma 0.25")
FAILED = 1
_IMAGES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help=options.MODEL_HELP)
    options.add_data_options(parser)
    options.add_input_options(parser)
    options.add_noise_options(parser)
    parser.add_argument("--table", metavar="FILE", help="the certificate table in use (default: a small one, made here)")
    parser.add_argument("--json", action="store_true", help="all details, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print the report; 0 if every check passed, 1 if one failed."""
    from intsmooth.audit import audit
    from intsmooth.certificate_table import load_table
    from intsmooth.enclosure import exact_fraction
    from intsmooth.noise.stream import parse_seed

    path, graph = options.open_model(arguments)
    sigma = exact_fraction(options.sigma_of(arguments, graph), "sigma")
    seed = parse_seed(arguments.seed) if arguments.seed is not None else None
    table = load_table(arguments.table) if arguments.table is not None else None
    report = audit(graph, sigma, arguments.law, _images(arguments, path, graph), seed, table)
    print(report.json() if arguments.json else report.text())
    return 0 if report.passed else FAILED


def _images(arguments: argparse.Namespace, path, graph) -> np.ndarray | None:
    """Images of --data; of the bundled digits for models made for them; else None, for random ones."""
    if arguments.data is None and graph.facts.get("dataset", path.stem.split("-")[0]) != "digits":
        return None
    arguments.max = _IMAGES if arguments.max is None else arguments.max
    from intsmooth.smooth import check_image

    return np.stack([check_image(graph, item.image) for item in options.select_data(arguments, path, graph)])
