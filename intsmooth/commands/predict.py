"""Predict classes with the smoothed classifier: one line per image, -1 where it abstains."""

import argparse

from intsmooth.commands import options
from intsmooth.records import ABSTAIN

SUMMARY = "predict the classes of images"
EXAMPLES = (
    "predict digits --max 10",
    "predict model.h5 --data photos/ --n 10000",
    "predict model.h5 --data photo.png --sigma 0.25",
    "predict model.tflite --data cifar10 --max 10 --sigma 0.05",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help=options.MODEL_HELP)
    options.add_data_options(parser)
    options.add_input_options(parser)
    parser.add_argument("--index", type=int, nargs="+", metavar="I", help="only the images with these indices")
    options.add_noise_options(parser)
    parser.add_argument("--n", type=int, default=1000, help="samples per image (default: 1000)")
    parser.add_argument("--alpha", type=float, default=0.001, help="probability of a wrong answer (default: 0.001)")
    options.add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a tab-separated table: index, label (empty where unknown), predicted index, its name."""
    from intsmooth.smooth import Smooth

    path, graph = options.open_model(arguments)
    dataset = options.select_data(arguments, path, graph)
    if arguments.index:
        dataset = dataset.pick(arguments.index)
    options.announce_compilation(arguments.backend)
    smooth = Smooth(
        graph,
        options.sigma_of(arguments, graph),
        law=arguments.law,
        seed=arguments.seed,
        backend=arguments.backend,
        threads=arguments.threads,
    )
    print("idx\tlabel\tpredict\tclass")
    for item in dataset:
        found = smooth.predict(item.image, n=arguments.n, alpha=arguments.alpha, batch_size=arguments.batch_size)
        label = "" if item.label is None else item.label
        print(item.index, label, found, "abstain" if found == ABSTAIN else graph.classes[found], sep="\t", flush=True)
    return 0
