"""A fresh installation in an empty folder, run in processes of its own: for start-up times and memory.

The package and weights/ are copied without anything compiled, so the first process compiles the Python files and the
kernels as on a user's first day; what it compiles stays in the copy for the next. A ResNet-20 with random weights
and one image lie beside it.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
from harness import ROOT
from resnet import SIGMA, quantize, random_resnet

from intsmooth.h5file import save

RESNET, IMAGE = "resnet20.h5", "image.npz"


@dataclass(frozen=True)
class Finished:
    """seconds: from start to end of the process; text: all that it printed."""

    seconds: float
    text: str


class Installation:
    """The copy; every run is a fresh process in `folder`."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        for name in ("intsmooth", "weights"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        save(quantize(random_resnet()).graph, folder / RESNET)
        image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
        np.savez(folder / IMAGE, images=image, labels=[0])

    def run(self, *arguments: str) -> Finished:
        """A fresh Python process; stops the benchmark if it fails."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
        environment["PYTHONPATH"] = str(self.folder)
        command = [sys.executable, *arguments]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return Finished(seconds, done.stdout + done.stderr)


def certify_one(model: str, n: int | None = None) -> list[str]:
    """Arguments of the command line that certify one image into a new results file; model: "digits" or RESNET."""
    chosen = ["--data", IMAGE, "--sigma", str(SIGMA)] if model == RESNET else []
    samples = [] if n is None else ["--n", str(n)]
    return ["certify", model, *chosen, *samples, "--max", "1", "--out", f"{time.time_ns()}.tsv"]


def has_digits(installation: Installation) -> bool:
    """Whether the digits model is in weights/ (a checkout made before it was trained lacks it)."""
    return any((installation.folder / "weights").glob("digits-*.h5"))
