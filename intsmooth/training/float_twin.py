"""Certify the float network that an integer model was made from, with the same noise and the same statistics.

    python -m intsmooth.training.float_twin RECIPE WORK/float.pt --data DATA --out results.tsv --n 10000

What quantization costs is the difference between the two curves. The table has locuslab's columns, so that `intsmooth
curve` reads it. Float results depend on the library and the processor in their last bits, and torch's generators are
not the certifier's: these certificates are for comparison only.
"""

import argparse
import datetime
import pathlib
import time

import numpy as np
import torch

from intsmooth.certify import certificate_from_counts
from intsmooth.datasets import open_dataset
from intsmooth.errors import InputError
from intsmooth.records import Certificate
from intsmooth.training import checkpoint
from intsmooth.training.network import FloatNetwork, architecture
from intsmooth.training.noise import IntegerNoise
from intsmooth.training.recipe import Recipe, load_recipe

UNITS = {"digits": 16, "cifar10": 255}


def load_float_network(recipe: Recipe, path: str | pathlib.Path) -> FloatNetwork:
    """The float network of a recipe with the weights of float.pt; InputError where they do not belong together."""
    state = checkpoint.load(pathlib.Path(path))["network"]
    try:
        classes = len(state["linear.bias"])
        channels = state["convolutions.0.weight"].shape[1]
        image = (8, 8, channels) if recipe.data == "digits" else (32, 32, channels)
        network = FloatNetwork(architecture(recipe.network, image, classes), UNITS[recipe.data])
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path} does not hold float weights of {recipe.network}: {error}") from error
    return network.eval().to(memory_format=torch.channels_last)


def count_votes(
    network: FloatNetwork, image: np.ndarray, noise: IntegerNoise, n: int, generator: torch.Generator, batch: int = 1000
) -> np.ndarray:
    """int64 counts per class among n noisy samples of an image, integers in levels (H, W) or (H, W, C)."""
    levels = torch.from_numpy(np.atleast_3d(image).astype(np.float32)).permute(2, 0, 1)
    classes = network.architecture.classes
    counts = np.zeros(classes, dtype=np.int64)
    with torch.no_grad():
        for first in range(0, n, batch):
            copies = levels.repeat(min(batch, n - first), 1, 1, 1).contiguous(memory_format=torch.channels_last)
            counts += np.bincount(network(noise.add_to(copies, generator)).argmax(1).numpy(), minlength=classes)
    return counts


def certify(
    network: FloatNetwork, recipe: Recipe, image: np.ndarray, n0: int, n: int, alpha: float, generator: torch.Generator
) -> Certificate:
    """Cohen, Rosenfeld and Kolter's procedure (2019) in float: n0 samples select a class, n fresh ones certify it."""
    noise = IntegerNoise(recipe.sigma * network.unit, recipe.law)
    selection = count_votes(network, image, noise, n0, generator)
    top = int(selection.argmax())
    counts = count_votes(network, image, noise, n, generator)
    return certificate_from_counts(
        int(counts[top]),
        n,
        sigma=recipe.sigma,
        dimension=image.size,
        alpha=alpha,
        law=recipe.law,
        unit=network.unit,
        top=top,
    )


def main(argv: list[str] | None = None) -> int:
    """Write a table of certificates, one row per image, as they are found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe of the model")
    parser.add_argument("checkpoint", help="float.pt in the work folder of its training")
    parser.add_argument("--data", help="as for intsmooth certify (default: the recipe's data set)")
    parser.add_argument("--out", required=True, help="the table to write")
    parser.add_argument("--every", type=int, default=1, help="only images whose index is a multiple of this")
    parser.add_argument("--max", type=int, help="only the first so many of these")
    parser.add_argument("--n0", type=int, default=100)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    recipe = load_recipe(arguments.recipe)
    network = load_float_network(recipe, arguments.checkpoint)
    generator = torch.Generator().manual_seed(arguments.seed)
    images = open_dataset(arguments.data or recipe.data).select(arguments.every, arguments.max)
    with open(arguments.out, "w", encoding="utf-8") as table:
        print("idx\tlabel\tpredict\tradius\tcorrect\ttime", file=table, flush=True)
        for item in images:
            start = time.monotonic()
            found = certify(network, recipe, item.image, arguments.n0, arguments.n, arguments.alpha, generator)
            correct = int(found.prediction == item.label)
            seconds = datetime.timedelta(seconds=time.monotonic() - start)
            row = (item.index, item.label, found.prediction, repr(found.radius), correct, seconds)
            print(*row, sep="\t", file=table, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
