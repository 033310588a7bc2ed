"""Data sets held in one array file: .npy, .npz and .h5.

`images` (N, H, W) or (N, H, W, C) of integers, `labels` (N,), and optionally `index` (N,), the number of each image in
the official data set it comes from. A .npy file holds images alone; its labels are looked for in NAME_labels.npy beside
it. Images of .npy and .h5 files are read one at a time. Nothing pickled is ever loaded.
"""

import math
import pathlib
import zipfile
import zlib

import numpy as np

from intsmooth.datasets.base import Dataset
from intsmooth.errors import DataError, ResourceError

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
LARGEST_IMAGE = 2**26  # values; no model takes more
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def open_arrays(path: str | pathlib.Path, name: str | None = None) -> Dataset:
    """The data set in the array file `path`; DataError where it cannot be read or its arrays do not fit together.

    ResourceError where a .npz file does not fit into memory.
    """
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    reader = {".npy": _read_npy, ".npz": _read_npz}.get(suffix, _read_h5)
    try:
        images, labels, index = reader(path)
    except _UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read as {suffix}: {error}; it may be truncated: fetch or write it again"
        ) from error
    except MemoryError as error:
        raise ResourceError(f"{path} does not fit into memory; keep the images in a .npy or .h5 file") from error
    if images.ndim not in (3, 4) or 0 in images.shape or images.dtype.kind not in "iu":
        raise DataError(
            f"{path}: images are {images.dtype} of shape {images.shape}; "
            "integers of shape (N, H, W) or (N, H, W, C) are required"
        )
    if math.prod(images.shape[1:]) > LARGEST_IMAGE:
        raise DataError(
            f"{path}: images are of shape {images.shape[1:]}; at most {LARGEST_IMAGE} values each are supported"
        )
    return Dataset(
        name=name or path.stem,
        read=_ImageReader(path, images),
        indices=np.arange(len(images)) if index is None else _numbers(path, "index", index, len(images)),
        labels=None if labels is None else _numbers(path, "labels", labels, len(images)),
    )


class _ImageReader:
    """position -> image, out of an array-like; opens an .h5 file again where the reader was sent to another process."""

    def __init__(self, path: pathlib.Path, images):
        self.path, self.images = path, images

    def __call__(self, position: int) -> np.ndarray:
        if self.images is None:
            self.images = _read_h5(self.path)[0]
        try:
            return np.array(self.images[position])
        except OSError as error:
            raise DataError(
                f"{self.path}, image {position} cannot be read: {error}; fetch or write the file again"
            ) from error

    def __reduce__(self):
        return type(self), (self.path, self.images if isinstance(self.images, np.ndarray) else None)


def _numbers(path: pathlib.Path, name: str, values: np.ndarray, count: int) -> np.ndarray:
    """`values` as int64 [count]; a column (count, 1), as Keras saves labels, is taken too."""
    values = np.asarray(values)
    if values.shape == (count, 1):
        values = values[:, 0]
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {name} is {values.dtype} of shape {values.shape}; {count} integers are required, one per image"
        )
    return values.astype(np.int64)


def _read_npy(path: pathlib.Path):
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(images, np.ndarray):
        raise ValueError("it is a .npz archive; give it that suffix")
    beside = path.with_name(path.stem + "_labels.npy")
    return images, np.load(beside, allow_pickle=False) if beside.is_file() else None, None


def _read_npz(path: pathlib.Path):
    arrays = np.load(path, allow_pickle=False)
    if isinstance(arrays, np.ndarray):
        raise ValueError("it is a .npy array; give it that suffix")
    with arrays:
        if "images" not in arrays:
            raise DataError(
                f"{path} holds {', '.join(arrays.files) or 'nothing'}; arrays `images` and `labels` are required"
            )
        return (*(arrays[name] if name in arrays else None for name in ("images", "labels", "index")),)


def _read_h5(path: pathlib.Path):
    import h5py

    file = h5py.File(path, "r")
    found = []
    for name in ("images", "labels", "index"):
        link = file.get(name, getlink=True)
        if link is None:
            found.append(None)
            continue
        data = file[name] if isinstance(link, h5py.HardLink) else None
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise DataError(f"{path}: {name} is a link, a group or kept in another file; a plain data set is required")
        found.append(data)
    images, labels, index = found
    if images is None:
        raise DataError(f"{path} holds {', '.join(file) or 'nothing'}; data sets `images` and `labels` are required")
    return images, *(None if data is None else data[()] for data in (labels, index))
