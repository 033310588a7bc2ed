"""How often an exported model decides as its fake-quantized twin, on noisy samples of real images.

    python -m intsmooth.training.agreement RECIPE WORK/checkpoint.pt MODEL.h5 --data DATA --every 20 --samples 20

The twin is looked at twice: as it is evaluated (the engine's own arithmetic, so that its scores should be the engine's,
integer for integer) and as it is trained (requantization rounded to nearest, what gradients are taken of).
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch

from intsmooth import h5file
from intsmooth.certify import checked_integer
from intsmooth.datasets import Dataset, open_dataset
from intsmooth.engine import Engine
from intsmooth.noise.law import noise_table
from intsmooth.noise.sampler import sample_noise
from intsmooth.noise.stream import image_digest, parse_seed, stream_key
from intsmooth.outcome import exit_code
from intsmooth.records import Graph
from intsmooth.shipped import find_model
from intsmooth.training import checkpoint
from intsmooth.training.fakequant import QuantizedNetwork
from intsmooth.training.network import architecture
from intsmooth.training.recipe import Recipe, load_recipe
from intsmooth.vote import REHEARSAL

LEAST = 0.995  # share of equal decisions that an exported model must have


@dataclass(frozen=True)
class Agreement:
    """Of `samples` noisy samples: how many have equal scores, equal decisions, and a decision equal to that of the
    twin in its training arithmetic."""

    samples: int
    scores: int
    decisions: int
    trained: int

    def text(self) -> str:
        """Three lines for reading."""
        rows = [("scores equal", self.scores), ("decisions equal", self.decisions)]
        rows.append(("decisions equal to the twin's in training", self.trained))
        return "\n".join(f"{what}: {n} of {self.samples}, {100 * n / self.samples:.2f} %" for what, n in rows)


def load_twin(recipe: Recipe, path: str, graph: Graph) -> QuantizedNetwork:
    """The twin in a checkpoint of the quantized stage; InputError where it is none, or of another network."""
    content = checkpoint.load(path)
    twin = QuantizedNetwork(architecture(recipe.network, graph.input_shape, len(graph.classes)), graph.unit)
    checkpoint.take_state(twin, content, path, f"a fake-quantized {recipe.network} for this model")
    return twin.to(memory_format=torch.channels_last)


def agreement(twin: QuantizedNetwork, graph: Graph, images: Dataset, sigma, law: str, samples: int, seed) -> Agreement:
    """Compare the twin and the graph on `samples` noisy samples of each image; sigma in [0, 1] units."""
    engine, table = Engine(graph), noise_table(sigma * graph.unit, law)
    scale, zero = float(twin.logits_scale), int(twin.logits_zero)
    counts = np.zeros(4, dtype=np.int64)
    for item in images:
        image = np.ascontiguousarray(item.image.reshape(graph.input_shape), dtype=np.int16)
        key = stream_key(parse_seed(seed), image_digest(image), REHEARSAL)
        noisy = image + sample_noise(table, key, 0, samples, image.size).reshape(samples, *image.shape)
        ours = engine.forward(noisy)
        levels = torch.from_numpy(noisy.astype(np.float32)).permute(0, 3, 1, 2)
        with torch.no_grad():
            evaluated, trained = twin.eval()(levels).numpy(), twin.train()(levels).numpy()
        theirs = np.rint(evaluated / scale).astype(np.int64) + zero
        classes = ours.argmax(1)
        equal = (ours == theirs).all(1), classes == theirs.argmax(1), classes == trained.argmax(1)
        counts += (samples, *(int(part.sum()) for part in equal))
    return Agreement(*(int(count) for count in counts))


def main(argv: list[str] | None = None) -> int:
    """Print the agreement; 1 where decisions agree less often than LEAST, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe of the model")
    parser.add_argument("checkpoint", help="checkpoint.pt in the work folder of its training, which is finished")
    parser.add_argument("model", help="the model file that it was exported to")
    parser.add_argument("--data", help="as for intsmooth certify (default: the recipe's data set)")
    parser.add_argument("--every", type=int, default=1, help="only images whose index is a multiple of this")
    parser.add_argument("--max", type=int, help="only the first so many of these")
    parser.add_argument("--samples", type=int, default=20, help="noisy samples of each image (default: 20)")
    parser.add_argument("--seed", default="1", help="of the noise (default: 1)")
    arguments = parser.parse_args(argv)
    checked_integer(arguments.samples, "--samples", 1)
    recipe, graph = load_recipe(arguments.recipe), h5file.load(find_model(arguments.model))
    twin = load_twin(recipe, arguments.checkpoint, graph)
    images = open_dataset(arguments.data or recipe.data, shape=graph.input_shape)
    images = images.select(arguments.every, arguments.max)
    found = agreement(twin, graph, images, recipe.sigma, recipe.law, arguments.samples, arguments.seed)
    print(found.text())
    return int(found.decisions < LEAST * found.samples)


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
