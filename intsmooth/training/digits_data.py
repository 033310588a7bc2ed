"""The digits: UCI's optical recognition of handwritten digits as scikit-learn ships them, and their fixed split.

    python -m intsmooth.training.digits_data FOLDER

writes FOLDER/digits_test.h5, the test part, which the package bundles so that certification needs no scikit-learn. The
split is a rule, not a draw: among the images of one class, in scikit-learn's order, position p belongs to the test part
where p % 5 == 0, to the validation part where p % 10 == 3, to the training part otherwise.
"""

import pathlib
import sys
from dataclasses import dataclass

import numpy as np

from intsmooth.errors import InputError, MissingExtraError
from intsmooth.outcome import exit_code

SOURCE = (
    "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, 1998), UCI Machine Learning Repository, "
    "https://doi.org/10.24432/C50P49; its test file, 1797 images of 8 x 8 in levels 0..16, as in scikit-learn's "
    "load_digits"
)
LICENCE = "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/"
SPLIT = (
    "position p among the images of a class, in scikit-learn's order: p % 5 == 0 test, p % 10 == 3 validation, "
    "all others training"
)


@dataclass(frozen=True)
class Digits:
    """images uint8 (1797, 8, 8), labels int64 (1797,), parts: "train", "validation", "test" -> ascending indices."""

    images: np.ndarray
    labels: np.ndarray
    parts: dict[str, np.ndarray]


def split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of the three parts, ascending, by the rule of this module's docstring."""
    position = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        chosen = np.flatnonzero(labels == label)
        position[chosen] = np.arange(len(chosen))
    test, validation = position % 5 == 0, position % 10 == 3
    return {
        "train": np.flatnonzero(~test & ~validation),
        "validation": np.flatnonzero(validation),
        "test": np.flatnonzero(test),
    }


def load_digits() -> Digits:
    """All 1,797 images with their split; MissingExtraError without scikit-learn."""
    try:
        from sklearn import datasets
    except ImportError:
        raise MissingExtraError("scikit-learn", "train", "the digits' training images") from None
    bunch = datasets.load_digits()
    labels = bunch.target.astype(np.int64)
    return Digits(bunch.images.astype(np.uint8), labels, split(labels))


def write_test_part(path: pathlib.Path) -> int:
    """Write the test part as HDF5 (images, labels, index; source and licence as attributes); its number of images."""
    import h5py

    digits = load_digits()
    chosen = digits.parts["test"]
    with h5py.File(path, "w", track_order=False) as file:
        options = {"track_times": False, "compression": "gzip", "shuffle": False}
        file.create_dataset("images", data=digits.images[chosen], **options)
        file.create_dataset("labels", data=digits.labels[chosen].astype(np.uint8), **options)
        file.create_dataset("index", data=chosen.astype(np.int32), **options)
        file.attrs["source"], file.attrs["licence"], file.attrs["split"] = SOURCE, LICENCE, f"test part: {SPLIT}"
        file.attrs["levels"], file.attrs["unit"] = np.array([0, 16]), 16
    return len(chosen)


def main() -> None:
    """Write digits_test.h5 into the folder that the command line names, weights/ by default."""
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "weights")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give one to write digits_test.h5 into")
    print(f"{folder / 'digits_test.h5'}: {write_test_part(folder / 'digits_test.h5')} images")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
