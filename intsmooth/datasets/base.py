"""What every data set looks like from outside: items with an index, an image in levels and a label, decoded when
asked for.

A data set knows the label and the index of each item without touching an image, so that a selection (every 20th image,
the first 500) costs nothing, and a resumed run reads only what it still needs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from intsmooth.errors import DataError, InputError


@dataclass(frozen=True)
class Item:
    """One image: `index` in the official data set, `image` integers in levels (H, W, C) or (H, W), `label` or None."""

    index: int
    image: np.ndarray
    label: int | None


@dataclass(frozen=True)
class Dataset:
    """A sequence of items, lazily read.

    read:      position in the source -> image, integers in levels, (H, W, C) or (H, W)
    indices:   int64 [N], the index of each item in the official data set
    labels:    int64 [N], or None where the source has no labels
    classes:   names in label order, or None where the source has none
    positions: int64 [N], the position in the source of each item; all of them, in order, unless a selection was made
    """

    name: str
    read: Callable[[int], np.ndarray]
    indices: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    positions: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self):
        if self.positions is None:
            object.__setattr__(self, "positions", np.arange(len(self.indices), dtype=np.int64))
        if self.labels is not None and len(self.labels) != len(self.indices):
            raise DataError(
                f"{self.name}: {len(self.indices)} images but {len(self.labels)} labels; both must be as many"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Item:
        """Read item i; DataError where its image is missing, broken or not made of integers."""
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        image = check_levels(self.read(int(self.positions[i])), f"{self.name}, image {self.indices[i]}")
        return Item(int(self.indices[i]), image, None if self.labels is None else int(self.labels[i]))

    def __iter__(self) -> Iterator[Item]:
        return (self[i] for i in range(len(self)))

    def stack(self) -> np.ndarray:
        """All images as one array (N, H, W, C) or (N, H, W); DataError where their shapes differ."""
        images = [item.image for item in self]
        if len(shapes := {image.shape for image in images}) > 1:
            found = " and ".join(map(str, sorted(shapes)[:2]))
            raise DataError(f"{self.name} holds images of shapes {found}; images of one shape are required here")
        return np.stack(images)

    def select(self, every: int = 1, limit: int | None = None) -> "Dataset":
        """The items whose official index is a multiple of `every`, and of these the first `limit`."""
        if every < 1:
            raise InputError(f"every is {every}; it must be at least 1 (1 takes all images)")
        if limit is not None and limit < 1:
            raise InputError(f"the number of images is {limit}; it must be at least 1")
        return self._take(np.flatnonzero(self.indices % every == 0)[:limit])

    def pick(self, indices) -> "Dataset":
        """The items with these official indices, in the order given; InputError names the ones that are not there."""
        position = {int(index): i for i, index in enumerate(self.indices)}
        missing = [str(index) for index in indices if index not in position]
        if missing:
            raise InputError(f"{self.name} has no image {', '.join(missing)}; it has {len(self)}, {self._range()}")
        return self._take(np.array([position[index] for index in indices], dtype=np.int64))

    def for_classes(self, classes: tuple[str, ...]) -> "Dataset":
        """The same items with labels in a model's order of `classes`.

        Class names are matched where both sides have them; a model whose classes are only numbers takes labels as
        they are. DataError names the classes that the model does not know.
        """
        if self.labels is None or not len(self):
            return self
        if self.classes is None or classes == tuple(str(i) for i in range(len(classes))):
            low, high = int(self.labels.min()), int(self.labels.max())
            if low < 0 or high >= len(classes):
                raise DataError(f"{self.name}: labels {low}..{high}; the model knows the classes 0..{len(classes) - 1}")
            return self
        known = {name: i for i, name in enumerate(classes)}
        unknown = [name for name in self.classes if name not in known]
        if unknown:
            some = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            raise DataError(
                f"{self.name} has {len(unknown)} classes that the model does not know ({some}); "
                f"the model's are {', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}: rename the folders "
                "or use another model"
            )
        order = np.array([known[name] for name in self.classes], dtype=np.int64)
        return replace(self, labels=order[self.labels], classes=tuple(classes))

    def _take(self, chosen: np.ndarray) -> "Dataset":
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, indices=self.indices[chosen], labels=labels, positions=self.positions[chosen])

    def _range(self) -> str:
        return f"index {self.indices.min()} to {self.indices.max()}" if len(self) else "none at all"


def check_levels(image: np.ndarray, where: str) -> np.ndarray:
    """The image, if it is an array of integers with two or three axes; DataError otherwise."""
    if image.dtype.kind not in "iu":
        raise DataError(
            f"{where}: the values are {image.dtype}; stored integers (levels, 0..255 for 8-bit images) are required. "
            "Rounding a float image is for you to decide: save it as integers first"
        )
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise DataError(f"{where}: shape {image.shape}; (height, width) or (height, width, channels) is required")
    return image
