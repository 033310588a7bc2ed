"""Compute the map from votes to budgets once, as integers, for certifying without floating point; or check such a file.

A table holds for one number of votes, alpha, sigma, noise law and image size. `intsmooth certify --table FILE` and
`Smooth.decide` use it.
"""

import argparse
import pathlib
import sys
import time

SUMMARY = "certificates as a table of integers: votes to budget"
EXAMPLES = (
    "table --n 10000 --alpha 0.001 --sigma 0.25 -o table.h5",
    "table --n 10000 --sigma 0.25 --model digits -o digits-table.h5",
    "table --check table.h5",
    "table --check table.h5 --entries 100",
)
FAILED = 1
_N = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--n", type=int, default=_N, help=f"samples that certify an image (default: {_N})")
    parser.add_argument("--alpha", default="0.001", help="probability of a wrong statement, per image (default: 0.001)")
    parser.add_argument("--sigma", help="standard deviation of the noise in [0, 1] units (default: --model's)")
    parser.add_argument("--law", choices=("rounded", "discrete"), default="rounded", help="law of the integer noise")
    parser.add_argument("--model", help="a model file (.h5) or a shipped model's name, for image size and unit")
    parser.add_argument("--dimension", type=int, help="numbers in an image (default: --model's, or 3072 as in CIFAR-10)")
    parser.add_argument("--unit", type=int, help="levels per 1.0 (default: --model's, or 255)")
    parser.add_argument("-o", "--out", metavar="FILE", help="the table to write (.h5)")
    parser.add_argument("--check", metavar="FILE", help="derive the entries of a table again instead")
    parser.add_argument("--entries", type=int, metavar="K", help="with --check: only K entries, evenly spaced")


def run(arguments: argparse.Namespace) -> int:
    """Write a table, or check one: 0 if all is well, 1 if an entry is not what it has to be."""
    from intsmooth.errors import InputError

    if arguments.check is not None:
        return _check(arguments.check, arguments.entries)
    if arguments.out is None:
        raise InputError("give the file to write with -o table.h5, or one to check with --check table.h5")
    return _write(arguments)


def _write(arguments: argparse.Namespace) -> int:
    from math import prod

    from intsmooth import h5file
    from intsmooth.certificate_table import LARGEST_N, build_table, save_table
    from intsmooth.certify import checked_alpha, checked_ancestor, checked_integer
    from intsmooth.commands.options import check_output, sigma_of
    from intsmooth.enclosure import exact_fraction
    from intsmooth.errors import InputError, ResourceError
    from intsmooth.noise.law import noise_table
    from intsmooth.shipped import find_model

    dimension, unit, sigma = arguments.dimension, arguments.unit, arguments.sigma
    if arguments.model is not None:
        path = find_model(arguments.model)
        check_output(arguments.out, path)
        graph = h5file.load(path)
        sigma = sigma_of(arguments, graph)
        dimension = prod(graph.input_shape) if dimension is None else dimension
        unit = graph.unit if unit is None else unit
    if sigma is None:
        raise InputError("give --sigma, for example --sigma 0.25, or a --model that says what it was trained with")
    sigma = exact_fraction(sigma, "sigma")
    dimension, unit = 3072 if dimension is None else dimension, 255 if unit is None else unit
    checked_ancestor(sigma, arguments.law, dimension, unit)
    noise = noise_table(sigma * unit, arguments.law)
    start = time.monotonic()
    checked_integer(arguments.n, "n", 1, LARGEST_N)
    checked_alpha(arguments.alpha)
    folder = pathlib.Path(arguments.out).resolve().parent
    if not folder.is_dir():
        raise ResourceError(f"{arguments.out}: there is no folder {folder}; make it first")
    print(f"computing {arguments.n + 1:,} entries; 10,000 take up to a minute", file=sys.stderr)
    table = build_table(
        arguments.n, sigma=sigma, dimension=dimension, alpha=arguments.alpha, law=arguments.law, unit=unit, tv=noise.tv
    )
    save_table(table, arguments.out)
    print(_description(table))
    print(f"computed in {time.monotonic() - start:.1f} s; table: {arguments.out}")
    return 0


def _check(path: str, entries: int | None) -> int:
    from intsmooth.certificate_table import load_table, rederive
    from intsmooth.certify import checked_integer

    table = load_table(path)
    count = table.n + 1 if entries is None else checked_integer(entries, "entries", 1, table.n + 1)
    chosen = sorted({i * table.n // max(count - 1, 1) for i in range(count)})
    print(_description(table))
    wrong = [hits for hits in chosen if rederive(table, hits) != table.budgets[hits]]
    for hits in wrong[:20]:
        print(f"entry {hits} is {table.budgets[hits]}, derived again it is {rederive(table, hits)}")
    print(f"{len(chosen)} of {table.n + 1} entries derived again, {len(wrong)} differ")
    return FAILED if wrong else 0


def _description(table) -> str:
    from intsmooth.records import ABSTAIN

    certified = (table.budgets > ABSTAIN).nonzero()[0]
    first = f"from {certified[0]} hits" if len(certified) else "nothing is certified"
    lines = [f"{name:<10} {value}" for name, value in table.facts().items()]
    lines += [f"certifies  {first}, budgets up to {table.budgets[-1]} squared levels", f"sha-256    {table.digest}"]
    return "\n".join(lines)
