"""Certify the float network that an integer model was made from, under the very noise that the integer model met.

    python -m intsmooth.training.float_twin RECIPE WORK/float.pt --data DATA --every 20 --seed 1 --out float.tsv
    intsmooth curve integer.tsv float.tsv --paired

Images, seed and law of the integer model's run give the same integers of noise, sample for sample, so that what the two
tables differ by is quantization (and training after it), not the luck of the draw. The table has locuslab's columns
first. Float results depend on the library and the processor in their last bits: these certificates are for comparison.

The network runs on a GPU where torch sees one, else in ONNX Runtime where that and onnx are installed, else in torch.
"""

import argparse
import datetime
import pathlib
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from intsmooth.certify import certificate_from_counts, format_radius_down, unestimated_certificate
from intsmooth.datasets import open_dataset
from intsmooth.errors import InputError, MissingExtraError, ResourceError
from intsmooth.noise.law import NoiseTable, noise_table
from intsmooth.noise.sampler import sample_noise
from intsmooth.noise.stream import image_digest, parse_seed, stream_key
from intsmooth.outcome import exit_code
from intsmooth.records import Certificate
from intsmooth.results import LOCUSLAB
from intsmooth.smooth import check_samples
from intsmooth.training import checkpoint
from intsmooth.training.network import FloatNetwork, architecture
from intsmooth.training.recipe import Recipe, load_recipe
from intsmooth.vote import ESTIMATION, SELECTION

ENGINES = ("cuda", "onnxruntime", "torch")
Logits = Callable[[np.ndarray], np.ndarray]
_IMAGES = {"digits": (8, 8, 16), "cifar10": (32, 32, 255), "caltech101": (112, 112, 255)}  # height, width, unit
_VALUES = 1 << 20  # of the input, per batch


def load_float_network(recipe: Recipe, path: str | pathlib.Path) -> FloatNetwork:
    """The float network of a recipe with the weights of float.pt, batch norm folded into the convolutions.

    InputError where they do not belong together.
    """
    content = checkpoint.load(pathlib.Path(path))
    state = content["network"]
    try:
        height, width, unit = (*recipe.image[:2], 255) if recipe.image else _IMAGES[recipe.data]
        image = (height, width, state["convolutions.0.weight"].shape[1])
        network = FloatNetwork(architecture(recipe.network, image, len(state["linear.bias"])), unit)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path} does not hold float weights of {recipe.network}") from error
    checkpoint.take_state(network, content, path, f"float weights of {recipe.network}")
    return folded(network.eval()).to(memory_format=torch.channels_last)


def folded(network: FloatNetwork) -> FloatNetwork:
    """The network itself, its batch norms (with running statistics) made part of the convolutions before them."""
    for i, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
        network.convolutions[i] = fuse_conv_bn_eval(convolution, norm)
        network.norms[i] = torch.nn.Identity()
    return network


def logits_of(network: FloatNetwork, engine: str | None = None) -> Logits:
    """The function from float32 levels (N, H, W, C) to logits (N, classes) that an engine of ENGINES computes.

    None takes the first that is installed. MissingExtraError where the one asked for is not.
    """
    if engine == "cuda" or engine is None and torch.cuda.is_available():
        return _cuda_logits(network)
    if engine in (None, "onnxruntime"):
        try:
            return _onnxruntime_logits(network)
        except MissingExtraError:
            if engine is not None:
                raise
    layout = torch.channels_last

    def logits(levels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(levels).permute(0, 3, 1, 2).contiguous(memory_format=layout)).numpy()

    return logits


def _cuda_logits(network: FloatNetwork) -> Logits:
    if not torch.cuda.is_available():
        raise InputError("torch sees no GPU; leave out --engine cuda, or choose another engine")
    torch.backends.cudnn.allow_tf32 = False  # or products would be of eleven bits
    network = network.to("cuda")

    def logits(levels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            values = torch.from_numpy(levels).to("cuda").permute(0, 3, 1, 2).float()
            return network(values).cpu().numpy()

    return logits


def _onnxruntime_logits(network: FloatNetwork) -> Logits:
    from intsmooth.training.float_onnx import float_onnx

    content = float_onnx(network)
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "bench", "running float networks faster") from None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    unit = np.float32(network.unit)

    def logits(levels: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(levels.transpose(0, 3, 1, 2)) / unit
        return session.run(None, {"input": values})[0]

    return logits


def count_votes(
    logits: Logits, classes: int, image: np.ndarray, table: NoiseTable, seed: bytes, stage: int, n: int
) -> np.ndarray:
    """int64 counts per class among samples 0 .. n - 1 of one stage: vote.count_votes for a float network.

    image: int16 levels (H, W, C).
    """
    key = stream_key(seed, image_digest(image), stage)
    counts = np.zeros(classes, dtype=np.int64)
    batch = max(1, _VALUES // image.size)
    for first in range(0, n, batch):
        noise = sample_noise(table, key, first, min(batch, n - first), image.size)
        noisy = (noise.reshape(-1, *image.shape) + image).astype(np.float32)
        counts += np.bincount(logits(noisy).argmax(1), minlength=classes)
    return counts


def certify(
    network: FloatNetwork,
    logits: Logits,
    recipe: Recipe,
    image: np.ndarray,
    seed: bytes,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    label: int | None = None,
) -> Certificate:
    """Cohen, Rosenfeld and Kolter's procedure (2019) in float: n0 samples select a class, n fresh ones certify it.

    label: as for `Smooth.certify`.
    """
    classes, shape = network.architecture.classes, network.architecture.image
    if image.size != np.prod(shape):
        raise InputError(f"the image has shape {image.shape}; {network.architecture.name} takes {shape}")
    levels = np.ascontiguousarray(image.reshape(shape), dtype=np.int16)
    table = noise_table(recipe.sigma * network.unit, recipe.law)
    selection = count_votes(logits, classes, levels, table, seed, SELECTION, n0)
    top = int(selection.argmax())
    setting = {
        "sigma": recipe.sigma, "dimension": image.size, "law": recipe.law, "unit": network.unit, "tv": table.tv,
    }  # fmt: skip
    if label is not None and top != label:
        return unestimated_certificate(top, selection, alpha=alpha, **setting)
    counts = count_votes(logits, classes, levels, table, seed, ESTIMATION, n)
    return certificate_from_counts(
        int(counts[top]), n, alpha=alpha, top=top, selection=selection, counts=counts, **setting
    )


def main(argv: list[str] | None = None) -> int:
    """Write a table of certificates, one row per image, as they are found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe of the model")
    parser.add_argument("checkpoint", help="float.pt in the work folder of its training")
    parser.add_argument("--data", help="as for intsmooth certify (default: the recipe's data set)")
    parser.add_argument("--out", required=True, help="the table to write")
    parser.add_argument("--split", help="as for intsmooth certify (default: test)")
    parser.add_argument("--every", type=int, default=1, help="only images whose index is a multiple of this")
    parser.add_argument("--max", type=int, help="only the first so many of these")
    parser.add_argument("--n0", type=int, default=100, help="as in the integer model's run (default: 100)")
    parser.add_argument("--n", type=int, default=10_000, help="as in the integer model's run (default: 10000)")
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--skip-wrong", action="store_true", help="as for intsmooth certify")
    parser.add_argument("--seed", default="1", help="that of the integer model's run (default: 1)")
    parser.add_argument("--engine", choices=ENGINES, help="what runs the network (default: the first that is there)")
    arguments = parser.parse_args(argv)
    check_samples(arguments.n0, arguments.n, arguments.alpha, 1)
    recipe, seed = load_recipe(arguments.recipe), parse_seed(arguments.seed)
    network = load_float_network(recipe, arguments.checkpoint)
    logits = logits_of(network, arguments.engine)
    images = open_dataset(arguments.data or recipe.data, split=arguments.split, shape=network.architecture.image)
    try:
        table = open(arguments.out, "x", encoding="utf-8")  # another run's rows are hours of work
    except OSError as error:
        raise ResourceError(f"{arguments.out} cannot be written ({error.strerror}); choose another file") from error
    with table:
        print(*LOCUSLAB, "top", "hits", "n", sep="\t", file=table, flush=True)
        for item in images.select(arguments.every, arguments.max):
            start = time.monotonic()
            label = item.label if arguments.skip_wrong else None
            found = certify(
                network, logits, recipe, item.image, seed, arguments.n0, arguments.n, arguments.alpha, label
            )
            correct = int(found.prediction == item.label)
            seconds = datetime.timedelta(seconds=time.monotonic() - start)
            row = (item.index, item.label, found.prediction, format_radius_down(found.radius, 6), correct, seconds)
            print(*row, found.top, found.hits, found.n, sep="\t", file=table, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
