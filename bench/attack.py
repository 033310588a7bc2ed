"""Try to break certificates: look for integer perturbations within the certified budget that change the class.

    python bench/attack.py digits --images 50
    python bench/attack.py cifar10-resnet20-s0.25 --data cifar10 --every 20 --images 50 --targets 3 --screen 128

For every certified image, perturbations of squared norm at most the budget are made from gradients of a float twin
(gradients.py), averaged over noise, towards other classes, in several steps, spread over all pixels or concentrated
on a few, and at random; each is a trial. All are evaluated with --screen votes of fresh noise, the most dangerous ones
again with --votes. A flip is a perturbed image on which the certified class has less than half of these votes,
significantly (1e-6).

Rows with a factor above 1 repeat the search with the budget times this factor, where nothing is certified: a search
that flips nothing there would show nothing where it counts. Their images can be fewer (--control).
"""

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from gradients import FloatTwin
from scipy.stats import beta

from intsmooth import h5file
from intsmooth.commands.options import data_name, sigma_of
from intsmooth.datasets import open_dataset
from intsmooth.noise.stream import format_seed, image_digest, parse_seed, stream_key
from intsmooth.shipped import find_model
from intsmooth.smooth import Smooth
from intsmooth.vote import PREDICTION, count_votes

LEVEL = 1e-6
SOFTNESS = 8.0  # scores, in int8 steps, over which a sample's weight fades


@dataclass(frozen=True)
class Effort:
    """How hard to look. targets: classes to move towards, those with most votes first (None: all); steps: gradient
    steps per target; samples: noisy images per gradient; random: random directions, three trials each; screened: votes
    of the first evaluation of every trial; kept: trials evaluated again, at least; votes: of each second evaluation."""

    targets: int | None = None
    steps: int = 4
    samples: int = 32
    random: int = 10
    screened: int = 256
    kept: int = 8
    votes: int = 10_000


@dataclass
class Outcome:
    """What the attack on one image found: trials, flips among them, the lowest share of votes seen with fresh noise."""

    trials: int
    flips: int
    lowest: float


def fit(direction: np.ndarray, budget: int) -> np.ndarray:
    """The longest integer vector, rounded from a multiple of `direction`, whose squared norm is at most `budget`."""
    low, high = 0.0, (math.sqrt(budget) + 1) * 2 / max(float(np.abs(direction).max()), 1e-30)
    best = np.zeros(direction.shape, np.int64)
    for _ in range(60):
        middle = (low + high) / 2
        rounded = np.rint(middle * direction).astype(np.int64)
        if int((rounded**2).sum()) <= budget:
            low, best = middle, rounded
        else:
            high = middle
    return best


def steps_of(direction: np.ndarray, budget: int, size: int) -> np.ndarray:
    """+-size, by the sign of `direction`, on as many of its largest coordinates as the budget pays for."""
    result = np.zeros(direction.size, np.int64)
    chosen = np.argsort(-np.abs(direction), axis=None)[: budget // size**2]
    result[chosen] = size * np.sign(direction.ravel()[chosen])
    return result.reshape(direction.shape)


def concentrated(direction: np.ndarray, budget: int) -> np.ndarray:
    """As much as possible on the coordinate where `direction` is largest, what is left on the next, and so on."""
    result = np.zeros(direction.size, np.int64)
    for place in np.argsort(-np.abs(direction), axis=None):
        size = math.isqrt(budget)
        if size == 0:
            break
        result[place] = size * (1 if direction.ravel()[place] >= 0 else -1)
        budget -= size * size
    return result.reshape(direction.shape)


def towards(twin: FloatTwin, image, noise, top: int, target: int) -> np.ndarray:
    """The direction that moves votes from class `top` to `target` at `image`, averaged over noise (N, *shape)."""

    def loss(scores):
        margin = (scores[:, top] - scores[:, target]) / SOFTNESS
        weight = 1 / (1 + np.exp(np.clip(margin, -30, 30)))
        slope = np.zeros_like(scores)
        slope[:, target], slope[:, top] = weight, -weight
        return slope

    return twin.gradient(image + noise, loss).mean(axis=0)


def trials(twin, smooth: Smooth, image, top: int, others, budget: int, rng, effort: Effort) -> Iterator[np.ndarray]:
    """Integer perturbations of squared norm at most `budget`, towards the classes `others` and at random."""
    shape, sigma = image.shape, float(smooth.table.sigma)
    for target in others:
        position = np.zeros(shape)
        for step in range(effort.steps):
            noise = rng.normal(0, sigma, (effort.samples, *shape)).round()
            direction = towards(twin, image + np.rint(position), noise, top, target)
            if not direction.any():
                break
            if step == 0:
                yield from (steps_of(direction, budget, size) for size in (1, 2, 4) if size * size <= budget)
                yield concentrated(direction, budget)
            length = np.linalg.norm(direction)
            position = position + direction / length * math.sqrt(budget) * (1 if step == 0 else 0.5)
            norm = np.linalg.norm(position)
            position *= min(1.0, math.sqrt(budget) / max(norm, 1e-30))
            yield fit(position, budget)
    for _ in range(effort.random):
        direction = rng.normal(0, 1, shape)
        yield fit(direction, budget)
        yield fit(np.where(rng.random(shape) < 0.1, direction, 0), budget)
        yield concentrated(direction, budget)


def attack(smooth: Smooth, image, top: int, budget: int, rng, effort: Effort = Effort()) -> Outcome:
    """Attack class `top` at `image` (integer levels) with all `trials`."""
    twin, seed = FloatTwin(smooth.graph), rng.bytes(32)

    def screen(levels):
        key = stream_key(seed, image_digest(levels), PREDICTION)
        return smooth.engine.count_votes(levels, smooth.table, key, 0, effort.screened)

    others = [int(target) for target in np.argsort(-screen(image), kind="stable") if target != top]
    tried: list[tuple[float, np.ndarray]] = []
    for delta in trials(twin, smooth, image, top, others[: effort.targets], budget, rng, effort):
        if int((delta**2).sum()) > budget:
            raise RuntimeError("a trial left the budget")  # a fault of this script: its result would mean nothing
        tried.append((screen(image + delta)[top] / effort.screened, delta))
    tried.sort(key=lambda pair: pair[0])
    flips, lowest, n = 0, 1.0, effort.votes
    for number, (share, delta) in enumerate(tried):
        if number >= effort.kept and share >= 0.5:
            break
        fresh = count_votes(smooth.engine, image + delta, smooth.table, rng.bytes(32), PREDICTION, 0, n)
        hits = int(fresh.counts[top])
        lowest = min(lowest, hits / n)
        flips += hits < n and beta.ppf(1 - LEVEL, hits + 1, n - hits) < 0.5
    return Outcome(len(tried), flips, lowest)


def run(
    smooth: Smooth, images, factors, rng, effort: Effort = Effort(), *, n0=100, n=10_000, control=None, progress=None
) -> dict[int, list[Outcome]]:
    """Certify `images` with n0 and n votes and attack those that are certified: factor of the budget -> an Outcome per
    image, for factors above 1 of the first `control` images only (None: all). progress(found) after each image.
    """
    found: dict[int, list[Outcome]] = {factor: [] for factor in factors}
    for image in images:
        image = smooth.check_image(image).astype(np.int64)
        certificate = smooth.certify(image, n0=n0, n=n)
        if certificate.prediction < 0 or certificate.budget == 0:
            continue
        for factor, outcomes in found.items():
            if factor == 1 or control is None or len(outcomes) < control:
                outcomes.append(attack(smooth, image, certificate.prediction, factor * certificate.budget, rng, effort))
        if progress:
            progress(found)
    return found


def table(found: dict[int, list[Outcome]]) -> str:
    """A row per factor."""
    lines = [f"{'budget':>8} {'images':>7} {'trials':>8} {'flips':>7} {'images flipped':>15} {'lowest share':>13}"]
    for factor, outcomes in found.items():
        flipped = sum(outcome.flips > 0 for outcome in outcomes)
        lowest = min((outcome.lowest for outcome in outcomes), default=float("nan"))
        lines.append(
            f"{'x ' + str(factor):>8} {len(outcomes):>7} {sum(o.trials for o in outcomes):>8} "
            f"{sum(o.flips for o in outcomes):>7} {flipped:>15} {lowest:>13.4f}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 if a certificate was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model file (.h5), or the name of a shipped model")
    parser.add_argument("--data", help="as for intsmooth certify (default: the model's data set)")
    parser.add_argument("--sigma", help="noise in [0, 1] units (default: the model's)")
    parser.add_argument("--law", choices=("rounded", "discrete"), default="rounded")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--images", type=int, default=50, help="images to certify")
    parser.add_argument("--n", type=int, default=10_000, help="votes per certificate")
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 4, 9, 16])
    parser.add_argument("--control", type=int, help="certified images to attack beyond the budget (default: all)")
    parser.add_argument("--targets", type=int, help="classes to move towards, those with most votes (default: all)")
    parser.add_argument("--steps", type=int, default=4, help="gradient steps per class")
    parser.add_argument("--samples", type=int, default=32, help="noisy images per gradient")
    parser.add_argument("--random", type=int, default=10, help="random directions, three trials each")
    parser.add_argument("--screen", type=int, default=256, help="votes of the first evaluation of every trial")
    parser.add_argument("--kept", type=int, default=8, help="trials per image that are evaluated again, at least")
    parser.add_argument("--votes", type=int, default=10_000, help="votes of each second evaluation")
    parser.add_argument("--progress", action="store_true", help="print the table so far after every image")
    parser.add_argument("--seed", default="0", help="of search and noise")
    arguments = parser.parse_args(argv)
    path = find_model(arguments.model)
    graph = h5file.load(path)
    images = open_dataset(data_name(arguments, path, graph), shape=graph.input_shape).for_classes(graph.classes)
    seed = parse_seed(arguments.seed)
    smooth = Smooth(graph, sigma_of(arguments, graph), law=arguments.law, seed=seed)
    print(f"model {graph.digest[:16]}, sigma {smooth.sigma}, {smooth.law}, n {arguments.n}, seed {format_seed(seed)}")
    chosen = [item.image for item in images.select(arguments.every, arguments.images)]
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
    effort = Effort(
        arguments.targets,
        arguments.steps,
        arguments.samples,
        arguments.random,
        arguments.screen,
        arguments.kept,
        arguments.votes,
    )
    progress = (lambda so_far: print(table(so_far), file=sys.stderr, flush=True)) if arguments.progress else None
    found = run(
        smooth,
        chosen,
        arguments.factors,
        rng,
        effort,
        n=arguments.n,
        control=arguments.control,
        progress=progress,
    )
    print(table(found))
    return 1 if sum(outcome.flips for outcome in found.get(1, [])) else 0


if __name__ == "__main__":
    sys.exit(main())
