"""Data sets by name or by path: `open_dataset("digits")`, `open_dataset("cifar10")`, `open_dataset("photos/")`.

digits               bundled: the held-out part of scikit-learn's optical digits, (8, 8), levels 0..16
cifar10              fetched from its official address on first use, or a path to its archive or folder
caltech101           a path to its official folder or archive
FILE.npz .npy .h5    images, labels, index
FOLDER               image files, one folder per class or none; also a single image file
"""

import pathlib
from collections.abc import Callable

from intsmooth.datasets import caltech101, cifar10, image_files
from intsmooth.datasets.arrays import SUFFIXES, open_arrays
from intsmooth.datasets.base import Dataset, Item
from intsmooth.datasets.download import data_folder, fetch
from intsmooth.errors import DataError, InputError
from intsmooth.shipped import weights_folder

__all__ = ["Dataset", "Item", "has_parts", "open_dataset"]

NAMES = ("digits", "cifar10", "caltech101")


def open_dataset(
    source: str | pathlib.Path,
    *,
    split: str | None = None,
    shape: tuple[int, ...] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The data set that `source` means, a name of NAMES or a path; a path of that name goes first.

    split:    "test" (default), "validation" or "train" where the data set has one ("all" for Caltech-101)
    shape:    (H, W, C) that image files are scaled and cropped to; arrays are taken as they are
    progress: called with (bytes so far, bytes in all) during a download
    """
    path = pathlib.Path(source)
    if not path.exists():
        return _open_named(str(source), split, shape, progress)
    if cifar10.is_cifar10(path):
        return cifar10.open_cifar10(path, split or "test")
    if caltech101.is_caltech101(path):
        return caltech101.open_caltech101(path, split or "test", shape)
    if split not in (None, "test", "all"):
        raise InputError(f"{source} is one whole without parts; there is no split {split!r} in it")
    if path.is_dir():
        return image_files.open_image_folder(path, shape)
    if path.suffix.lower() in SUFFIXES:
        return open_arrays(path)
    if image_files.is_image(path.name):
        return image_files.open_image_file(path, shape)
    raise DataError(
        f"{source} is no data set that can be read; {', '.join(SUFFIXES)}, the official archives of CIFAR-10 and "
        "Caltech-101, "
        "an image, or a folder of images are"
    )


def has_parts(source: str | pathlib.Path) -> bool:
    """Whether `source` means a data set with a training and a test part."""
    path = pathlib.Path(source)
    if not path.exists():
        return str(source) in ("cifar10", "caltech101")
    return cifar10.is_cifar10(path) or caltech101.is_caltech101(path)


def _open_named(name: str, split: str | None, shape, progress) -> Dataset:
    if name == "digits":
        if split not in (None, "test"):
            raise InputError(f"only the test part of the digits is bundled; there is no split {split!r}")
        return open_arrays(weights_folder() / "digits_test.h5", name="digits-test")
    if name not in NAMES:
        raise InputError(
            f"there is no file or folder {name!r}, and no data set of this name; known are {', '.join(NAMES)}"
        )
    folder = data_folder()
    recognise = cifar10.is_cifar10 if name == "cifar10" else caltech101.is_caltech101
    found = [path for path in (folder, folder / name, *sorted(folder.glob("*"))) if path.exists() and recognise(path)]
    if found and name == "cifar10":
        return cifar10.open_cifar10(found[0], split or "test")
    if found:
        return caltech101.open_caltech101(found[0], split or "test", shape)
    if name == "caltech101":
        raise DataError(
            f"Caltech-101 is not in {folder}: fetch caltech-101.zip from https://data.caltech.edu/records/mzrjq-6wc02 "
            f"and put it there, or name its place with --data (folder {caltech101.FOLDER} or an archive)"
        )
    target = folder / pathlib.PurePosixPath(cifar10.URL).name
    return cifar10.open_cifar10(fetch(cifar10.URL, target, cifar10.SHA256, cifar10.SIZE, progress), split or "test")
