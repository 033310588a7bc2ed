"""Small data sets for tests: random ones in the official layouts, and a hostile object for pickles."""

import io
import os
import struct
import tarfile

import numpy as np
import pytest


def binary_folder(folder):
    """CIFAR-10's binary folder with 7 test images and 3 in each training batch."""
    place = folder / "cifar-10-batches-bin"
    place.mkdir()
    (place / "test_batch.bin").write_bytes(cifar_records(7, 0)[2])
    for i in range(1, 6):
        (place / f"data_batch_{i}.bin").write_bytes(cifar_records(3, i)[2])
    return place


def cifar_records(count, seed):
    """`count` random records: labels, images (N, 32, 32, 3), and their bytes in the official binary layout."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    rows = np.concatenate([labels[:, None].astype(np.uint8), images.transpose(0, 3, 1, 2).reshape(count, -1)], axis=1)
    return labels, images, rows.tobytes()


def python2_pickle(labels, pixels):
    """A batch as the official archive holds it: protocol 2 of Python 2, byte strings, numpy's `_reconstruct`."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def number(value):
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    data = pixels.tobytes()
    return b"".join(
        [b"\x80\x02}q\x01(", text(b"batch_label"), b"q\x02", text(b"testing batch 1 of 1"), text(b"labels"), b"]q\x04("]
        + [number(int(label)) for label in labels]
        + [b"e", text(b"data"), b"q\x05cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07"]
        + [number(0), b"\x85", text(b"b"), b"\x87Rq\x08(", number(1), number(pixels.shape[0]), number(pixels.shape[1])]
        + [b"\x86cnumpy\ndtype\nq\x09", text(b"u1"), number(0), number(1), b"\x87Rq\x0a("]
        + [number(3), text(b"|"), b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff", number(0), b"tb\x89"]
        + [b"T" + struct.pack("<i", len(data)) + data, b"tb", text(b"filenames"), b"]q\x0b("]
        + [text(f"{i}.png".encode()) for i in range(len(labels))]
        + [b"eu."]
    )


def tar_of(path, files):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def image_bytes(array, kind="PNG"):
    Image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def caltech_files():
    classes = {"accordion": 12, "Faces": 9, "yin_yang": 10, "BACKGROUND_Google": 3}
    return {
        f"101_ObjectCategories/{name}/image_{i:04d}.jpg": image_bytes(np.full((8, 9, 3), 3 * i, np.uint8), "JPEG")
        for name, count in classes.items()
        for i in range(1, count + 1)
    }


class Bomb:
    """What a hostile pickle would make `pickle.load` run."""

    def __reduce__(self):
        return os.system, ("touch executed",)
