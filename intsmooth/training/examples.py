"""Training examples by data set name: arrays for training and validation, batches out of them.

No test image is ever touched here. CIFAR-10's validation part is the last images of the official training set; the
digits' three parts come from digits_data.py, those of Caltech-101 from the numbers in its file names
(datasets/caltech101.py).
"""

import hashlib
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from intsmooth.datasets import Dataset, caltech101, cifar10, open_dataset
from intsmooth.errors import DataError, InputError
from intsmooth.progress import DownloadProgress
from intsmooth.training import digits_data
from intsmooth.training.recipe import Recipe

_CALTECH101_SHAPE = (112, 112, 3)  # scaled and cropped to, as for certification


@dataclass(frozen=True)
class Examples:
    """images: uint8 (N, H, W, C) in levels; labels: int64 (N,)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "Examples":
        return Examples(self.images[:count], self.labels[:count])

    def to(self, device: torch.device) -> "Examples":
        return Examples(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on and chosen by, with what the exported model says about its input."""

    training: Examples
    validation: Examples
    classes: tuple[str, ...]
    levels: tuple[int, int]
    unit: int
    facts: dict[str, str]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return tuple(self.training.images.shape[1:])

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of all images, labels and class names."""
        content = hashlib.sha256(repr((self.classes, self.image_shape, len(self.training))).encode())
        for part in (self.training, self.validation):
            content.update(part.images.cpu().numpy().tobytes())
            content.update(part.labels.cpu().numpy().tobytes())
        return content.hexdigest()

    def smoke(self) -> "TrainingData":
        """A few images, enough to see that everything runs."""
        return replace(self, training=self.training.first(256), validation=self.validation.first(64))


def load_examples(recipe: Recipe, source: str | pathlib.Path | None) -> TrainingData:
    """The data that the recipe names; source: its folder or archive, None for its usual place."""
    if recipe.data == "digits":
        digits = digits_data.load_digits()
        parts = {
            part: Examples(torch.tensor(digits.images[chosen][..., None]), torch.tensor(digits.labels[chosen]))
            for part, chosen in digits.parts.items()
            if part != "test"
        }
        facts = {"data": digits_data.SOURCE, "data licence": digits_data.LICENCE, "split": digits_data.SPLIT}
        classes = tuple(str(label) for label in range(10))
        return TrainingData(parts["train"], parts["validation"], classes, (0, 16), 16, facts)
    if recipe.data == "cifar10":
        with DownloadProgress() as progress:
            data = open_dataset(source if source is not None else "cifar10", split="train", progress=progress)
        whole = _stack(data)
        held = recipe.validation
        if not 0 < held < len(whole):
            raise InputError(f"recipe {recipe.name}: validation = {held}; it must be in 1..{len(whole) - 1}")
        facts = {
            "data": "CIFAR-10, Krizhevsky, Learning multiple layers of features from tiny images, 2009",
            "split": f"the last {held} of the {len(whole)} official training images are the validation part",
        }
        kept = whole.first(len(whole) - held)
        rest = Examples(whole.images[-held:], whole.labels[-held:])
        return TrainingData(kept, rest, cifar10.CLASSES, (0, 255), 255, facts)
    if recipe.data == "caltech101":
        return _caltech101(source)
    if recipe.data == "own":
        return _own(recipe, source)
    raise InputError(f"recipe {recipe.name}: data = {recipe.data} is not known; use digits, cifar10, caltech101 or own")


def _own(recipe: Recipe, source: str | pathlib.Path | None) -> TrainingData:
    """An array file, or a folder with a folder of images per class; all of it is training or validation images."""
    path = pathlib.Path(source) if source is not None else None
    if path is None or not path.exists():
        raise InputError(
            f"recipe {recipe.name}: data = own needs --data, a .npz, .npy or .h5 file or a folder of images"
        )
    if cifar10.is_cifar10(path) or caltech101.is_caltech101(path):
        raise InputError(f"{path} is a data set with test images in it: use data = cifar10 or data = caltech101")
    dataset = open_dataset(path, shape=recipe.image)
    whole = _stack(dataset)
    images = whole.images if whole.images.dim() == 4 else whole.images[..., None]
    if images.dtype != torch.uint8 or images.shape[1:] != recipe.image:
        found = f"{images.dtype} of shape {tuple(images.shape[1:])}"
        raise DataError(f"{path}: images are {found}; uint8 of shape {recipe.image}, as the recipe says, are required")
    held = recipe.validation
    if not 0 < held < len(whole):
        raise InputError(f"recipe {recipe.name}: validation = {held}; it must be in 1..{len(whole) - 1}")
    if int(whole.labels.min()) < 0:
        raise DataError(f"{path}: labels from {int(whole.labels.min())}; 0, 1, 2, ... are required")
    mixed = torch.randperm(len(whole), generator=torch.Generator().manual_seed(recipe.seed))
    parts = [Examples(images[chosen], whole.labels[chosen]) for chosen in (mixed[:-held], mixed[-held:])]
    classes = dataset.classes or tuple(str(label) for label in range(int(whole.labels.max()) + 1))
    facts = {
        "data": dataset.name,
        "split": f"{held} of {len(whole)} images, drawn by the seed, are the validation part",
    }
    return TrainingData(*parts, classes, (0, 255), 255, facts)


def _caltech101(source: str | pathlib.Path | None) -> TrainingData:
    parts = {}
    for part in ("train", "validation"):
        dataset = open_dataset(source if source is not None else "caltech101", split=part, shape=_CALTECH101_SHAPE)
        examples = _stack(dataset)
        mixed = torch.randperm(len(examples), generator=torch.Generator().manual_seed(101))  # files come class by class
        parts[part] = Examples(examples.images[mixed], examples.labels[mixed])
    facts = {"data": caltech101.SOURCE, "data licence": caltech101.LICENCE, "split": caltech101.SPLIT}
    return TrainingData(parts["train"], parts["validation"], dataset.classes, (0, 255), 255, facts)


def _stack(dataset: Dataset) -> Examples:
    if dataset.labels is None:
        raise DataError(f"{dataset.name} has no labels; training needs them")
    if not len(dataset):
        raise DataError(f"{dataset.name} holds no images; training needs them")
    images = dataset.stack()
    return Examples(torch.from_numpy(images), torch.from_numpy(np.asarray(dataset.labels, dtype=np.int64)))


def batches(
    examples: Examples, size: int, generator: torch.Generator, shift: int, flip: bool, zoom: float = 0.0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch of shuffled batches: (float32 levels, NCHW in channels-last memory; labels), whole ones only.

    Augmentation comes before the noise: a translation by up to `shift` pixels, black moving in, a mirror image for
    every second one on average, and an enlargement by up to 1 + zoom, rounded to whole levels.
    """
    device = examples.images.device
    padded = functional.pad(examples.images, (0, 0, shift, shift, shift, shift)) if not zoom else examples.images
    order = torch.randperm(len(examples), generator=generator)
    for start in range(0, len(examples) - size + 1, size):
        chosen = order[start : start + size]
        corner = torch.randint(0, 2 * shift + 1, (2, size, 1), generator=generator)
        mirrored = torch.rand(size, 1, generator=generator) < 0.5 if flip else torch.zeros(size, 1, dtype=torch.bool)
        if zoom:
            factors = 1 + zoom * torch.rand(size, generator=generator)
            places = 2 * torch.rand(2, size, generator=generator) - 1
            images = examples.images[chosen.to(device)].permute(0, 3, 1, 2).float()
            images = _enlarged(images, factors, places, corner[:, :, 0] - shift, mirrored[:, 0])
        else:
            images = _cut_out(padded, chosen, corner, examples.images.shape[1:3], mirrored)
        yield images, examples.labels[chosen.to(device)]


def _cut_out(
    padded: torch.Tensor, chosen: torch.Tensor, corner: torch.Tensor, size: tuple[int, int], mirrored: torch.Tensor
) -> torch.Tensor:
    """The chosen images (N, C, H, W) of `size` (H, W), cut out of the padded ones at `corner` (2, N, 1)."""
    rows = corner[0] + torch.arange(size[0])
    columns = corner[1] + torch.arange(size[1])
    columns = torch.where(mirrored, columns.flip(1), columns)
    index = (chosen[:, None, None], rows[:, :, None], columns[:, None, :])
    return padded[tuple(part.to(padded.device) for part in index)].permute(0, 3, 1, 2).float()


def _enlarged(
    images: torch.Tensor, factors: torch.Tensor, places: torch.Tensor, moves: torch.Tensor, mirrored: torch.Tensor
) -> torch.Tensor:
    """Images (N, C, H, W) enlarged by `factors` >= 1, cut to their size at `places` (2, N) in [-1, 1] (the extremes
    are the edges), moved by `moves` (2, N) pixels and mirrored; bilinear, in whole levels."""
    size = 1 / factors
    pixels = torch.tensor(images.shape[3:1:-1])[:, None] / 2  # affine_grid counts in half widths and half heights
    centre = places * (1 - size) + moves.flip(0) / pixels
    none = torch.zeros_like(size)
    across = torch.where(mirrored, -size, size)
    maps = torch.stack([across, none, centre[0], none, size, centre[1]], 1).reshape(-1, 2, 3).to(images.device)
    grid = functional.affine_grid(maps, images.shape, align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False).round_()
