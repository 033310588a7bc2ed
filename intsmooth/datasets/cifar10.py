"""CIFAR-10 (Krizhevsky, 2009) from its official archives, binary or Python, unpacked or not.

    cifar-10-binary.tar.gz   cifar-10-batches-bin/test_batch.bin, data_batch_1.bin ... data_batch_5.bin
    cifar-10-python.tar.gz   cifar-10-batches-py/test_batch, data_batch_1 ... data_batch_5

A binary record is one byte of label and 3,072 bytes of pixels in channel, row, column order; the Python batches are
pickles of the same array, read without executing them. Images come out as uint8 (32, 32, 3).

The last images of the training batches are the part "validation": those that the shipped models' recipes hold out.
"""

import pathlib
import tarfile
import zlib

import numpy as np

from intsmooth.datasets.base import Dataset
from intsmooth.datasets.pickles import byte_array, read_plain_pickle
from intsmooth.errors import DataError, InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
SIZE = 170_052_171
_RECORD = 3073
_BEFORE_LAST = 40_000  # training images in the batches before the last
_MOST_BYTES = 64 << 20  # an official batch has 31 MB; no more than this is ever unpacked for one file
VALIDATION = 2_000  # of the last training batch
_STEMS = {
    "test": ("test_batch",),
    "validation": ("data_batch_5",),
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
}


def is_cifar10(path: pathlib.Path) -> bool:
    """Whether `path` looks like CIFAR-10: an official archive by its name, or a folder with an unpacked one."""
    if path.is_file():
        return path.name.startswith("cifar-10-") and path.suffix in (".gz", ".tar", ".tgz")
    return any((folder / name).is_file() for folder in _folders(path) for name in _names("test") + _names("train"))


def open_cifar10(path: str | pathlib.Path, split: str = "test") -> Dataset:
    """The "test", "train" or "validation" part of CIFAR-10 at `path`, an official archive or a folder with one unpacked.

    Items have the index of the official order: 0..9999 of the test batch, 0..49999 of the five training batches in
    turn, the validation part's last.
    """
    if split not in _STEMS:
        raise InputError(f"CIFAR-10 has no split {split!r}; it has {', '.join(_STEMS)}")
    path = pathlib.Path(path)
    batches = _read_archive(path, split) if path.is_file() else _read_folder(path, split)
    pixels = np.concatenate([batch[0] for batch in batches])
    labels = np.concatenate([batch[1] for batch in batches]).astype(np.int64)
    index = np.arange(len(labels))
    if split == "validation":
        index, pixels, labels = index[-VALIDATION:] + _BEFORE_LAST, pixels[-VALIDATION:], labels[-VALIDATION:]
    return Dataset(f"cifar10-{split}", _Images(pixels), index, labels, CLASSES)


class _Images:
    """position -> uint8 (32, 32, 3), out of rows of pixels in channel, row, column order."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels

    def __call__(self, position: int) -> np.ndarray:
        return np.ascontiguousarray(self.pixels[position].reshape(3, 32, 32).transpose(1, 2, 0))


def _names(split: str) -> tuple[str, ...]:
    return tuple(stem + suffix for stem in _STEMS[split] for suffix in (".bin", ""))


def _folders(path: pathlib.Path) -> tuple[pathlib.Path, ...]:
    return path, *(path / name for name in FOLDERS)


def _read_folder(path: pathlib.Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    for folder in _folders(path):
        for suffix in (".bin", ""):
            files = [folder / (stem + suffix) for stem in _STEMS[split]]
            if any(file.is_file() for file in files):
                return [_read_batch(str(file), _file_bytes(file)) for file in files]
    raise DataError(
        f"{path} holds no CIFAR-10 {split} batch ({', '.join(_names(split)[:2])}); unpack the official archive there"
    )


def _file_bytes(file: pathlib.Path) -> bytes:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise DataError(f"{file} has {file.stat().st_size} bytes; a CIFAR-10 batch has about 31 million")
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; unpack the official archive again") from error


def _read_archive(path: pathlib.Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches of `split`, read out of the archive in memory; nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    wanted = _names(split)
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = pathlib.PurePosixPath(member.name).name
                if not member.isreg() or name not in wanted:
                    continue
                if member.size > _MOST_BYTES:
                    raise DataError(
                        f"{path}: {member.name} has {member.size} bytes; a CIFAR-10 batch has about 31 million"
                    )
                found[name] = archive.extractfile(member).read()
                if len(found) == len(_STEMS[split]):
                    break
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is not a whole CIFAR-10 archive ({error}); fetch it again from {URL}") from error
    missing = [stem for stem in _STEMS[split] if stem not in found and stem + ".bin" not in found]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; fetch it again from {URL}")
    return [_read_batch(f"{path}: {name}", found[name]) for name in wanted if name in found]


def _read_batch(where: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (N, 3072) and labels uint8 (N,) of one batch; pickles of protocol 2 begin with the byte 0x80."""
    if content[:1] == b"\x80":
        batch = read_plain_pickle(content, where)
        if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
            raise DataError(f"{where} holds no `data` and `labels`; fetch the archive again from {URL}")
        pixels, labels = byte_array(batch["data"], where), batch["labels"]
    elif not content or len(content) % _RECORD:
        raise DataError(
            f"{where} has {len(content)} bytes, not a multiple of {_RECORD}: it is truncated, fetch it again"
        )
    else:
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD)
        pixels, labels = records[:, 1:], records[:, 0].tolist()
    if pixels.ndim != 2 or pixels.shape[1] != 3072 or not isinstance(labels, list) or len(labels) != len(pixels):
        raise DataError(f"{where}: pixels of shape {pixels.shape}; (N, 3072) and N labels are required")
    if not all(isinstance(label, int) and 0 <= label <= 9 for label in labels):
        raise DataError(f"{where}: labels must be 0..9; this is not CIFAR-10, or it is damaged")
    return pixels, np.array(labels, dtype=np.uint8)
