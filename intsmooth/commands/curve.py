"""Certified accuracy at radii, from results files of intsmooth or of locuslab/smoothing, side by side."""

import argparse

from intsmooth.commands.options import check_output, radii_list
from intsmooth.curve import curve_table, plot_curves
from intsmooth.errors import InputError
from intsmooth.paired import paired_table
from intsmooth.results import read_results

SUMMARY = "certified-accuracy curves of results files, as a table and a plot"
EXAMPLES = (
    "curve digits-s0.25-n10000.tsv",
    "curve ours.tsv theirs.tsv --radii 0,0.25,0.5,0.75,1 --plot curves.png",
    "curve integer.tsv float.tsv --paired",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="results files (tab-separated)")
    parser.add_argument("--radii", type=radii_list, metavar="R,R,...", help="radii of the table, in [0, 1] units")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the curves into a .png, .svg or .pdf file (needs matplotlib)"
    )
    parser.add_argument(
        "--paired", action="store_true", help="the difference of two files image by image, with its 95 %% interval"
    )
    parser.add_argument("--title", default="", help="title of the plot")


def run(arguments: argparse.Namespace) -> int:
    """Print the table and draw the plot."""
    if arguments.plot:
        check_output(arguments.plot, *arguments.files)
    tables = [read_results(path) for path in arguments.files]
    if arguments.paired:
        if len(tables) != 2:
            raise InputError(f"--paired compares two results files; {len(tables)} given")
        print(paired_table(*tables, arguments.radii))
    else:
        print(curve_table(tables, arguments.radii))
    if arguments.plot:
        plot_curves(tables, arguments.plot, arguments.title)
        print(f"plot: {arguments.plot}")
    return 0
