"""Certifies a whole data set into a results file: resumable, on any executor, with one writer.

Votes are a pure function of seed, image and sample, so the rows are the same whoever computes them and in whatever
order; this module only sees to it that they are written in the order of the data set, one by one, by this process.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

import numpy as np

from intsmooth import __version__
from intsmooth.certify import checked_alpha
from intsmooth.datasets.base import Dataset
from intsmooth.dispatch import certify_on
from intsmooth.enclosure import exact_text
from intsmooth.errors import DataError, InputError, ResultsError, within_memory
from intsmooth.noise.stream import format_seed, image_digest
from intsmooth.records import Certificate
from intsmooth.results import Results, is_ours, read_results, result_row
from intsmooth.results_writer import ResultsWriter
from intsmooth.sampling import Plan
from intsmooth.smooth import BATCH_SIZE, Smooth, check_samples
from intsmooth.tasks import Job, measure_rate
from intsmooth.workers import Workers


def run_settings(smooth: Smooth, n0: int, alpha: float, plan: Plan, skip_wrong: bool = False) -> dict[str, str]:
    """What every row of one run says, and a resumed run must say again (results.SETTINGS)."""
    return {
        "n0": str(n0),
        "alpha": exact_text(checked_alpha(alpha)),
        "sigma": exact_text(smooth.sigma),
        "law": smooth.law,
        "seed": "0x" + format_seed(smooth.seed),
        "plan": json.dumps(plan.settings | ({"skip_wrong": True} if skip_wrong else {})),
        "model": "0x" + smooth.graph.digest,
        "unit": str(smooth.graph.unit),
    }


def recorded_seed(path: str | pathlib.Path) -> str | None:
    """The seed that the rows of a results file were made with, None where there is no file, or none of ours, or no row yet.

    ResultsError where it is one of ours, but damaged.
    """
    if not pathlib.Path(path).exists():
        return None
    try:
        return next(iter(read_results(path).columns.get("seed", ())), None)
    except ResultsError:
        if is_ours(path):
            raise
        return None


@within_memory
def certify_dataset(
    smooth: Smooth,
    dataset: Dataset,
    path: str | pathlib.Path,
    *,
    n0: int = 100,
    n: int | None = None,
    alpha: float = 0.001,
    batch_size: int = BATCH_SIZE,
    skip_wrong: bool = False,
    executor: Executor | None = None,
    on_start: Callable[[list[dict[str, str]]], None] | None = None,
    on_row: Callable[[dict[str, str]], None] | None = None,
    on_votes: Callable[[int, int], None] | None = None,
    **mode,
) -> Results:
    """Certify every item of `dataset` into the results file `path` and return its rows.

    A file that holds the first rows of this very run already is continued; all that it says about images, labels,
    model, seed and settings must agree. Without an executor images are certified one after another on the threads of
    `smooth`; with one, any of concurrent.futures' kind, its workers share them, one thread each, and large images are
    split (docs/scale.md). n0, n, alpha, batch_size and `mode` are those of `Smooth.certify`.

    skip_wrong: an image whose selection names a wrong class abstains without an estimation (`label` of `Smooth.certify`):
    certified accuracy and average certified radius are those of the whole run, in less time.

    on_start(rows found there) is called once, on_row(row) after each new row is on disk, and, with an executor,
    on_votes(samples counted so far, workers) whenever a task is back.

    ResultsError, ResourceError: the file cannot be continued or written, or a worker was lost. DataError: an image
    cannot be read. InputError: an argument of `certify`, or an image that does not fit the model. Rows on disk stay there
    whatever happens.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(f"dataset is a {type(dataset).__name__}; what open_dataset returns is required")
    if dataset.labels is None:
        raise DataError(f"{dataset.name} has no labels; a results file needs them (predict and Smooth.certify do not)")
    check_samples(n0, 1, alpha, batch_size)
    plan = smooth.plan(n=n, alpha=alpha, **mode)  # wrong arguments, and slow plans, come before a file is made
    job = Job(smooth, plan, {"n0": n0, "n": n, "alpha": alpha, "batch_size": batch_size, **mode})
    if len(dataset):
        smooth.check_image(dataset[0].image)  # before a file is made for images that do not fit
    settings = run_settings(smooth, n0, alpha, plan, skip_wrong)
    with ResultsWriter(path, settings) as writer:
        for i, row in enumerate(writer.rows[: len(dataset)]):
            _check_row(smooth, dataset, i, row, writer.path)
        if on_start is not None:
            on_start(writer.rows[: len(dataset)])
        numbers = range(len(writer.rows), len(dataset))
        with contextlib.closing(_certificates(job, dataset, numbers, skip_wrong, executor, on_votes)) as certified:
            for i, digest, certificate, seconds in certified:
                label = int(dataset.labels[i])
                index = int(dataset.indices[i])
                row = result_row(index, label, digest, certificate, seconds, settings, __version__)
                writer.append(row)
                if on_row is not None:
                    on_row(row)
    return read_results(path).first(len(dataset))


def _check_row(smooth: Smooth, dataset: Dataset, i: int, row: dict[str, str], path: pathlib.Path) -> None:
    """ResultsError unless row i of the file is about item i of the data set."""
    here = {
        "idx": str(dataset.indices[i]),
        "label": str(dataset.labels[i]),
        "image": "0x" + image_digest(smooth.check_image(dataset[i].image)).hex(),
    }
    for name, value in here.items():
        if row[name] != value:
            raise ResultsError(
                f"{path} belongs to another run: its row {i + 1} has {name} {row[name]}, the data set {value}; "
                "give another file with --out"
            )


def _certificates(
    job: Job, dataset: Dataset, numbers: range, skip_wrong: bool, executor: Executor | None, on_votes
) -> Iterator[tuple[int, bytes, Certificate, float]]:
    """(number, image digest, certificate, seconds) of the items `numbers`, in that order."""
    levels = (job.smooth.check_image(dataset[i].image) for i in numbers)
    labels = (int(dataset.labels[i]) if skip_wrong else None for i in numbers)
    images = (
        (i, image_digest(image), image, label) for i, image, label in zip(numbers, levels, labels, strict=True)
    )
    if executor is not None:
        yield from certify_on(executor, job, images, len(numbers), on_votes)
        return
    for i, digest, image, label in images:
        yield i, digest, *certify_image(job.smooth, image, {"label": label, **job.arguments})


def certify_image(smooth: Smooth, image: np.ndarray, arguments: dict) -> tuple[Certificate, float]:
    """One task: the certificate of an image, and the seconds it took."""
    start = time.perf_counter()
    certificate = smooth.certify(image, **arguments)
    return certificate, max(0.0, time.perf_counter() - start)  # a virtual machine's clock has been seen to step back


def rehearse(smooth: Smooth, image: np.ndarray, seconds: float = 0.05, executor: Executor | None = None) -> float:
    """Samples per second of all threads, or of all workers of an executor; the first call compiles the kernels.

    Measured on samples that no result uses.
    """
    image = smooth.check_image(image)
    if executor is None:
        return measure_rate(smooth, image, seconds)
    with contextlib.closing(Workers(executor, Job(smooth, None, {}))) as workers:
        return workers.rehearse(image) * workers.count
