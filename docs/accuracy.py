"""A model's accuracy without any certificate: on clean images, and on noisy ones, over all images and as class means.

    python docs/accuracy.py caltech101-resnet10-s0.25 --data FOLDER
    python docs/accuracy.py MODEL --data DATA --split validation --samples 10

The integer network itself is asked, not the smoothed classifier. Class means count every class alike, which matters where
some classes have twenty times as many images as others.
"""

import argparse
import sys

import numpy as np

from intsmooth.certify import checked_integer
from intsmooth.datasets import open_dataset
from intsmooth.errors import DataError, IntsmoothError
from intsmooth.h5file import load
from intsmooth.report import percent
from intsmooth.shipped import find_model
from intsmooth.smooth import Smooth
from intsmooth.vote import REHEARSAL, count_votes


def accuracies(smooth: Smooth, dataset, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """labels int64 [N], whether the clean image is classified right bool [N], votes for the label int64 [N]."""
    if dataset.labels is None:
        raise DataError(f"{dataset.name} has no labels; an accuracy needs them")
    clean, votes = np.zeros(len(dataset), dtype=bool), np.zeros(len(dataset), dtype=np.int64)
    for i, item in enumerate(dataset):
        image = smooth.check_image(item.image)
        clean[i] = smooth.engine.classify(image[np.newaxis])[0] == item.label
        counts = count_votes(smooth.engine, image, smooth.table, smooth.seed, REHEARSAL, 0, samples).counts
        votes[i] = counts[item.label]
    return np.asarray(dataset.labels), clean, votes


def class_mean(labels: np.ndarray, right: np.ndarray) -> float:
    """The mean over the classes of the mean of `right` over a class's images."""
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def main(argv: list[str] | None = None) -> int:
    """Print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model file or the name of a shipped model")
    parser.add_argument("--data", required=True, help="as for intsmooth certify")
    parser.add_argument("--split", help="part of the data set (default: test)")
    parser.add_argument("--every", type=int, default=1, help="only images whose index is a multiple of this")
    parser.add_argument("--max", type=int, help="only the first so many of these")
    parser.add_argument("--samples", type=int, default=10, help="noisy samples of each image (default: 10)")
    parser.add_argument("--sigma", help="of the noise, in [0, 1] units (default: the model's own)")
    arguments = parser.parse_args(argv)
    try:
        checked_integer(arguments.samples, "--samples", 1)
        graph = load(find_model(arguments.model))
        smooth = Smooth(graph, arguments.sigma or graph.facts.get("sigma", "0.25"), seed=1)
        data = open_dataset(arguments.data, split=arguments.split, shape=graph.input_shape)
        data = data.for_classes(graph.classes).select(arguments.every, arguments.max)
        labels, clean, votes = accuracies(smooth, data, arguments.samples)
    except IntsmoothError as error:
        print(error, file=sys.stderr)
        return 2
    number, classes = len(labels), len(np.unique(labels))
    print(f"{data.name}: {number} images of {classes} classes")
    noisy = votes / arguments.samples
    for what, count, total, right in (
        ("clean", int(clean.sum()), number, clean),
        (f"sigma = {float(smooth.sigma):g}", int(votes.sum()), number * arguments.samples, noisy),
    ):
        print(f"{what}: {percent(count, total)} % right, mean over classes {100 * class_mean(labels, right):.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
