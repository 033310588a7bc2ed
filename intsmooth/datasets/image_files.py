"""Folders of images: one folder per class, or one flat folder without labels. Needs pillow (extra `images`).

A file is decoded when its item is asked for. An image of another size than the model's is scaled until it just covers
that size and cropped around its centre; this happens before the input exists for the certificate, which is about the
integers that come out of it.
"""

import io
import pathlib
import warnings

import numpy as np

from intsmooth.datasets.base import Dataset
from intsmooth.errors import DataError, MissingExtraError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff", ".webp")


def is_image(name: str) -> bool:
    """Whether a file name ends like an image's and is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def decode_image(source: pathlib.Path | bytes, shape: tuple[int, ...] | None, where: str) -> np.ndarray:
    """uint8 (H, W, C) of an image file or its bytes, C = 3 or 1, scaled and cropped to `shape` (H, W[, C]) if given."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "images", "reading image files") from error
    channels = 3 if shape is None or len(shape) < 3 else shape[2]
    if channels not in (1, 3):
        raise DataError(f"{where}: image files give 1 or 3 channels, the model needs {channels}; use an .npz file")
    if shape is not None and len(shape) == 2:
        channels = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                pixels = image.convert("RGB" if channels == 3 else "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} cannot be read as an image: {error}; remove or replace it") from error
    if shape is not None:
        pixels = _cover(pixels, shape[0], shape[1], Image)
    return np.asarray(pixels, dtype=np.uint8).reshape(pixels.height, pixels.width, channels)


def _cover(pixels, height: int, width: int, image_module):
    """Scale so that the image just covers height x width, and crop around the centre."""
    if (pixels.height, pixels.width) == (height, width):
        return pixels
    scale = max(height / pixels.height, width / pixels.width)
    size = max(width, round(pixels.width * scale)), max(height, round(pixels.height * scale))
    pixels = pixels.resize(size, image_module.Resampling.BICUBIC)
    left, top = (pixels.width - width) // 2, (pixels.height - height) // 2
    return pixels.crop((left, top, left + width, top + height))


class ImageFiles:
    """position -> uint8 (H, W, C), from paths or the bytes of image files."""

    def __init__(self, sources: list, names: list[str], shape: tuple[int, ...] | None):
        self.sources, self.names, self.shape = sources, names, shape

    def __call__(self, position: int) -> np.ndarray:
        return decode_image(self.sources[position], self.shape, self.names[position])


def class_folders(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Class names and their image files, both sorted: the sub-folders that hold images."""
    found = {}
    for sub in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(file for file in sub.iterdir() if is_image(file.name))
        if files:
            found[sub.name] = files
    return found


def open_image_folder(folder: str | pathlib.Path, shape: tuple[int, ...] | None = None) -> Dataset:
    """The images under `folder`: FOLDER/CLASS/FILE with a label per class, or FOLDER/FILE without labels.

    Items are numbered in the order of class and file names. shape: the (H, W, C) that images are scaled and cropped to.
    """
    folder = pathlib.Path(folder)
    by_class = class_folders(folder)
    if by_class:
        files = [file for group in by_class.values() for file in group]
        labels = np.repeat(np.arange(len(by_class)), [len(group) for group in by_class.values()])
    else:
        files, labels = sorted(file for file in folder.iterdir() if is_image(file.name)), None
    if not files:
        raise DataError(
            f"{folder} holds no images ({', '.join(SUFFIXES)}), neither in it nor in folders below it, one per class"
        )
    return Dataset(
        name=folder.resolve().name,
        read=ImageFiles(files, [str(file) for file in files], shape),
        indices=np.arange(len(files)),
        labels=labels,
        classes=tuple(by_class) or None,
    )


def open_image_file(path: pathlib.Path, shape: tuple[int, ...] | None = None) -> Dataset:
    """One image file as a data set of one item without a label."""
    return Dataset(path.stem, ImageFiles([path], [str(path)], shape), np.arange(1))
