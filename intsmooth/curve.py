"""The certified-accuracy curve of one or more results files, ours or locuslab's, as a table and as a plot.

The curve falls by 1/N at the radius of each image that is certified right, so it is drawn as the step function it is.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from intsmooth.certify import format_radius_down
from intsmooth.errors import InputError, MissingExtraError, ResourceError
from intsmooth.report import format_radius, percent, round_radii, summarize
from intsmooth.results import Results


def certified_accuracy_curve(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """Radii (ascending, from 0, [0, 1] units) and certified accuracies: the accuracy at r is that of the first radius
    >= r.

    Both float64 [M]; behind the last radius the accuracy is 0. InputError for an empty table.
    """
    if not len(results):
        raise InputError(f"{results.name} holds no rows yet; certify some images first")
    certified = results.radius[results.correct]
    radii = np.unique(np.concatenate([[0.0], certified]))
    above = len(certified) - np.searchsorted(np.sort(certified), radii, side="left")
    return radii, above / len(results)


def curve_table(tables: Sequence[Results], radii: Sequence[float] | None = None) -> str:
    """Certified accuracy in percent at `radii`, a column per results file, with ACR, abstentions and size below."""
    if radii is None:
        radii = round_radii(np.concatenate([table.radius for table in tables]))
    summaries = [summarize(table, radii) for table in tables]
    rows = [["radius", *(table.name for table in tables)]]
    for i, radius in enumerate(radii):
        rows.append([format_radius(radius), *(percent(summary.counts[i], summary.images) for summary in summaries)])
    rows.append(["ACR", *(format_radius_down(summary.acr, 3) for summary in summaries)])
    rows.append(["abstained", *(percent(summary.abstentions, summary.images) for summary in summaries)])
    rows.append(["images", *(str(summary.images) for summary in summaries)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def figure_class():
    """matplotlib's Figure, used without pyplot and its global state; MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "drawing curves") from error
    return Figure


def check_plot(path: str | pathlib.Path) -> None:
    """MissingExtraError without matplotlib, InputError where the suffix of `path` is no format that it draws, ResourceError
    where there is no such folder.
    """
    formats = figure_class()().canvas.get_supported_filetypes()
    suffix = pathlib.Path(path).suffix.removeprefix(".").lower()
    if not (folder := pathlib.Path(path).resolve().parent).is_dir():
        raise ResourceError(f"cannot draw into {path}: there is no folder {folder}; make it first")
    if suffix not in formats:
        raise InputError(f"cannot draw into {path}: give a name that ends in one of .{', .'.join(sorted(formats))}")


def plot_curves(tables: Sequence[Results], path: str | pathlib.Path, title: str = "", thick: int = 0) -> None:
    """Draw the curves of `tables` into the file `path`, whose suffix (.png, .svg, .pdf) names the format.

    The first `thick` of them stand out from the others.

    Needs matplotlib (extra `plot`). InputError for an unknown format, ResourceError where the file cannot be written.
    """
    check_plot(path)
    figure = figure_class()(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for i, table in enumerate(tables):
        radii, accuracy = certified_accuracy_curve(table)
        width = 2.6 if i < thick else 1.2 if thick else 1.5
        acr = format_radius_down(summarize(table, (0.0,)).acr, 3)
        label = f"{table.name} (ACR {acr})"
        axes.step([*radii, radii[-1]], [*(100 * accuracy), 0.0], where="pre", label=label, linewidth=width)
    axes.set(xlabel="L2 radius, [0, 1] units", ylabel="certified accuracy, %", ylim=(0, 100), title=title)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    units = {table.unit for table in tables}
    if len(units) == 1 and None not in units:
        unit = units.pop()
        top = axes.secondary_xaxis("top", functions=(lambda r: r * unit, lambda levels: levels / unit))
        top.set_xlabel("L2 radius, levels")
    axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror}; give another file") from error
