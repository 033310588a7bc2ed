"""Runs that take milliseconds: a tiny model, random images, and what of their results has to be the same."""

import pathlib

import models
import numpy as np

from intsmooth.datasets.base import Dataset
from intsmooth.h5file import save
from intsmooth.run import certify_dataset
from intsmooth.smooth import Smooth

COUNT = 12


class Images:
    """position -> a random image; a class, so that it can go to other processes."""

    def __call__(self, position):
        return np.random.default_rng(position).integers(0, 17, (8, 8), dtype=np.uint8)


def small_dataset(count=COUNT, read=None, labels=True):
    numbers = np.arange(count)
    return Dataset("small", read or Images(), 5 * numbers, numbers % 10 if labels else None)


def small_smooth(seed=11, sigma="0.25", threads=1):
    return Smooth(models.tiny_conv(np.random.default_rng(1)), sigma, seed=seed, threads=threads)


def timeless(path):
    """A results file's lines without the column of times."""
    return [line.split("\t")[:5] + line.split("\t")[6:] for line in pathlib.Path(path).read_text().splitlines()]


def lines_of_run(folder, n):
    """The lines of a whole run, in one process and without a pause."""
    certify_dataset(small_smooth(), small_dataset(), folder / "whole.tsv", n=n)
    return timeless(folder / "whole.tsv")


def certify_command(folder, **options) -> list[str]:
    """Arguments of a command line that certifies two images; the model and the images are put into `folder`."""
    save(models.tiny_conv(np.random.default_rng(1)), folder / "model.h5")
    np.savez(folder / "data.npz", images=np.zeros((2, 8, 8), np.uint8), labels=[0, 1])
    command = ["certify", str(folder / "model.h5"), "--data", str(folder / "data.npz"), "--sigma", "0.25"]
    command += ["--seed", "5"]
    return command + [word for name, value in options.items() for word in (f"--{name}", str(value))]


class Recorder:
    """An engine that votes for class 2 and writes down which samples it was asked for."""

    def __init__(self, graph):
        self.graph, self.asked = graph, []

    def count_votes(self, image, table, key, first, n):
        self.asked.append((key.tobytes(), first, n))
        return n * np.eye(len(self.graph.classes), dtype=np.int64)[2]
