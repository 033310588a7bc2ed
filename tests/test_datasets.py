"""Data sets by name, splits, selections, class names."""

import data_files
import numpy as np
import pytest

from intsmooth.datasets import open_dataset
from intsmooth.datasets.base import Dataset
from intsmooth.errors import DataError, InputError


def test_labels_out_of_the_models_range():
    data = Dataset("d", lambda i: np.zeros((2, 2), np.uint8), np.arange(3), np.array([0, 1, 4]))
    assert data.for_classes(("a", "b", "c", "d", "e")) is data
    with pytest.raises(DataError, match=r"labels 0\.\.4; the model knows the classes 0\.\.2"):
        data.for_classes(("a", "b", "c"))


@pytest.mark.parametrize(("every", "limit"), [(0, None), (-3, None), (1, 0)])
def test_selections_that_make_no_sense(every, limit):
    with pytest.raises(InputError):
        Dataset("d", lambda i: np.zeros((2, 2), np.uint8), np.arange(3)).select(every, limit)


def test_unknown_names_and_splits(tmp_path):
    folder = data_files.binary_folder(tmp_path)
    with pytest.raises(InputError, match="known are digits, cifar10, caltech101"):
        open_dataset("mnist")
    with pytest.raises(InputError, match="it has test, validation, train"):
        open_dataset(folder, split="all")
    np.save(tmp_path / "a.npy", np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(InputError, match="no split 'train'"):
        open_dataset(tmp_path / "a.npy", split="train")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="is no data set that can be read"):
        open_dataset(tmp_path / "a.txt")


def test_bundled_digits():
    data = open_dataset("digits")
    assert len(data) >= 300 and data[0].image.shape == (8, 8) and set(data.labels) == set(range(10))
    stack = np.stack([item.image for item in data])
    assert stack.dtype == np.uint8 and stack.max() == 16
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    assert np.array_equal(stack, sklearn.images[data.indices]) and np.array_equal(
        data.labels, sklearn.target[data.indices]
    )
    with pytest.raises(InputError, match="only the test part"):
        open_dataset("digits", split="train")
