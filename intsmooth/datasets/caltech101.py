"""Caltech-101 (Li, Andreeto, Ranzato and Perona) from its official folders or archives. Needs pillow (extra `images`).

The official layout is 101_ObjectCategories/CLASS/image_NNNN.jpg; the folder BACKGROUND_Google is no class and is left
out. The data set has no official split. Here an image's part follows from its official number alone (70 % training,
10 % validation, 20 % test of each class), so it does not change when files are missing, and no test image can slip
into training.
"""

import pathlib
import re
import tarfile
import zipfile
import zlib

import numpy as np

from intsmooth.datasets.base import Dataset
from intsmooth.datasets.image_files import ImageFiles, class_folders, is_image
from intsmooth.errors import DataError, InputError

SOURCE = "Caltech-101, Li, Andreeto, Ranzato and Perona, https://data.caltech.edu/records/mzrjq-6wc02"
LICENCE = "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/"
SPLIT = "image_NNNN.jpg of every class: test where NNNN % 5 == 0, validation where NNNN % 10 == 3, all others training"
FOLDER = "101_ObjectCategories"
BACKGROUND = "BACKGROUND_Google"
SPLITS = ("test", "validation", "train", "all")
_MOST_BYTES = 16 << 20  # of one image file inside an archive; the largest official one has 50 kB


def split_of(file_name: str) -> str:
    """Of image_NNNN.jpg: "test" if NNNN % 5 == 0, "validation" if NNNN % 10 == 3, otherwise "train"."""
    number = re.fullmatch(r"image_(\d+)\.\w+", file_name)
    if number is None:
        raise DataError(
            f"Caltech-101 holds a file {file_name!r}; its images are named image_NNNN.jpg: remove that file"
        )
    n = int(number[1])
    return "test" if n % 5 == 0 else "validation" if n % 10 == 3 else "train"


def is_caltech101(path: pathlib.Path) -> bool:
    """Whether `path` looks like Caltech-101: the official folder, one that holds it, or an archive by its name."""
    if path.is_file():
        return path.name in ("caltech-101.zip", FOLDER + ".tar.gz", FOLDER + ".tar")
    return path.resolve().name == FOLDER or any(folder.is_dir() for folder in _inner(path))


def open_caltech101(path: str | pathlib.Path, split: str = "test", shape: tuple[int, ...] | None = None) -> Dataset:
    """Part "test", "validation", "train" or "all" of Caltech-101 at `path`, labels in the order of class names.

    Items are numbered over all images at `path`, in the order of class and file names. shape: the (H, W, C) that
    images are scaled and cropped to.
    """
    if split not in SPLITS:
        raise InputError(f"Caltech-101 has no split {split!r}; it has {', '.join(SPLITS)}")
    path = pathlib.Path(path)
    if path.is_file():
        by_class = _read_archive(path)
    else:
        folder = next((folder for folder in _inner(path) if folder.is_dir()), path)
        by_class = {name: {file.name: file for file in files} for name, files in class_folders(folder).items()}
    by_class.pop(BACKGROUND, None)
    classes = tuple(sorted(by_class))
    entries = [(label, name, file) for label, name in enumerate(classes) for file in sorted(by_class[name])]
    if not entries:
        raise DataError(
            f"{path} holds no Caltech-101 images; {FOLDER}/CLASS/image_NNNN.jpg are required: unpack the archive there"
        )
    chosen = np.array([i for i, entry in enumerate(entries) if split in ("all", split_of(entry[2]))], dtype=np.int64)
    return Dataset(
        name="caltech101" if split == "all" else f"caltech101-{split}",
        read=ImageFiles(
            [by_class[name][file] for _, name, file in entries], [f"{n}/{f}" for _, n, f in entries], shape
        ),
        indices=chosen,
        labels=np.array([entries[i][0] for i in chosen], dtype=np.int64),
        classes=classes,
        positions=chosen,
    )


def _inner(path: pathlib.Path) -> tuple[pathlib.Path, ...]:
    return path / FOLDER, path / "caltech-101" / FOLDER


def _read_archive(path: pathlib.Path) -> dict[str, dict[str, bytes]]:
    """class -> file name -> the file's bytes, still compressed: about 130 MB in memory for the whole data set."""
    try:
        if path.suffix != ".zip":
            return _read_tar(tarfile.open(path, "r:*"), path)
        with zipfile.ZipFile(path) as outer:
            inner = [name for name in outer.namelist() if name.endswith(FOLDER + ".tar.gz")]
            if not inner:
                raise DataError(f"{path} holds no {FOLDER}.tar.gz; fetch the official caltech-101.zip again")
            with outer.open(inner[0]) as stream:
                return _read_tar(tarfile.open(fileobj=stream, mode="r|gz"), path)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path} is not a whole Caltech-101 archive ({error}); fetch it again") from error


def _read_tar(archive: tarfile.TarFile, path: pathlib.Path) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    with archive:
        for member in archive:
            parts = pathlib.PurePosixPath(member.name).parts
            if not member.isreg() or len(parts) < 2 or not is_image(parts[-1]):
                continue
            if member.size > _MOST_BYTES:
                raise DataError(
                    f"{path}: {member.name} has {member.size} bytes; an image of Caltech-101 has about 15,000"
                )
            found.setdefault(parts[-2], {})[parts[-1]] = archive.extractfile(member).read()
    return found
