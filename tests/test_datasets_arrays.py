"""Arrays in .npy, .npz and .h5 files: official indices, labels, what does not fit, truncated files."""

import pickle

import h5py
import numpy as np
import pytest
from data_files import Bomb

from intsmooth.datasets import open_dataset
from intsmooth.datasets.arrays import open_arrays
from intsmooth.datasets.base import Dataset
from intsmooth.errors import DataError, InputError

RNG = np.random.default_rng(20240607)


def test_npz_with_official_indices(tmp_path):
    images = RNG.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "part.npz", images=images, labels=np.arange(5) % 3, index=np.arange(5) * 20)
    data = open_dataset(tmp_path / "part.npz")
    assert [item.index for item in data] == [0, 20, 40, 60, 80]
    assert len(data.select(every=20)) == 5  # the file holds every 20th image already
    assert [item.index for item in data.select(every=40, limit=2)] == [0, 40]
    assert np.array_equal(data.pick([80, 20])[0].image, images[4])
    with pytest.raises(InputError, match="has no image 7, 9; it has 5, index 0 to 80"):
        data.pick([0, 7, 9])


def test_npy_takes_its_labels_from_the_file_beside_it(tmp_path):
    np.save(tmp_path / "test.npy", RNG.integers(0, 17, (4, 8, 8), dtype=np.uint8))
    assert open_dataset(tmp_path / "test.npy").labels is None
    np.save(tmp_path / "test_labels.npy", np.array([[3], [1], [2], [0]]))
    data = open_dataset(tmp_path / "test.npy")
    assert data.labels.tolist() == [3, 1, 2, 0] and data[-1].label == 0
    assert isinstance(data.read.images, np.memmap)
    copy = pickle.loads(pickle.dumps(data))
    assert np.array_equal(copy[2].image, data[2].image)


def test_h5_is_read_image_by_image_and_survives_pickling(tmp_path):
    images = RNG.integers(0, 256, (3, 5, 6), dtype=np.uint8)
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["images"], file["labels"] = images, [2, 0, 1]
    data = open_dataset(tmp_path / "set.h5")
    assert not isinstance(data.read.images, np.ndarray)
    for source in (data, pickle.loads(pickle.dumps(data))):
        assert np.array_equal(source[1].image, images[1]) and source[1].label == 0


def test_h5_links_to_other_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros((2, 3, 3), np.uint8)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["images"] = h5py.ExternalLink("other.h5", "images")
    with pytest.raises(DataError, match="a plain data set is required"):
        open_dataset(tmp_path / "link.h5")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 3, 3), np.float32)}, "integers of shape"),
        ({"images": np.full((2, 3, 3), np.nan)}, "integers of shape"),
        ({"images": np.zeros((2, 3), np.uint8)}, "integers of shape"),
        ({"x": np.zeros((2, 3, 3), np.uint8)}, "arrays `images` and `labels` are required"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": np.zeros(3, int)}, "2 integers are required"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": np.zeros(2)}, "labels is float64"),
        ({"images": np.array([[[Bomb()]]], dtype=object)}, "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "bad.npz")


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5"])
def test_truncated_array_files(tmp_path, suffix):
    path = tmp_path / f"set{suffix}"
    images = np.zeros((50, 8, 8), np.uint8)
    if suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["images"] = images
    else:
        (np.savez if suffix == ".npz" else np.save)(
            path, *[images] * (suffix == ".npy"), **{"images": images} if suffix == ".npz" else {}
        )
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(DataError, match="cannot be read"):
        open_arrays(path)


@pytest.mark.parametrize(("wrong", "right"), [(".npz", ".npy"), (".npy", ".npz")])
def test_a_file_with_the_other_ones_suffix(tmp_path, wrong, right):
    images = np.zeros((3, 4, 4), np.uint8)
    np.save(tmp_path / "a.npy", images) if right == ".npy" else np.savez(tmp_path / "a.npz", images=images)
    (tmp_path / f"a{right}").rename(tmp_path / f"b{wrong}")
    with pytest.raises(DataError, match=f"it is a {right} .*; give it that suffix"):
        open_dataset(tmp_path / f"b{wrong}")


def test_images_of_one_shape_stack(tmp_path):
    data = Dataset("mixed", lambda i: np.zeros((4, 4 + i // 2), np.uint8), np.arange(3))
    assert data.select(limit=2).stack().shape == (2, 4, 4)
    with pytest.raises(DataError, match=r"mixed holds images of shapes \(4, 4\) and \(4, 5\)"):
        data.stack()
