"""Data sets: official formats in small, hostile files, selection, class names, and downloads from a local server."""

import hashlib
import http.server
import io
import os
import pathlib
import pickle
import struct
import tarfile
import threading
import zipfile

import h5py
import numpy as np
import pytest

from intsmooth import cli
from intsmooth.datasets import caltech101, cifar10, image_files, open_dataset
from intsmooth.datasets.arrays import open_arrays
from intsmooth.datasets.base import Dataset
from intsmooth.datasets.download import data_folder, fetch
from intsmooth.datasets.pickles import Call, byte_array, read_plain_pickle
from intsmooth.errors import DataError, InputError, MissingExtraError, ResourceError

SHARED = pathlib.Path(os.environ.get("INTSMOOTH_SHARED", pathlib.Path(__file__).parents[2] / "shared"))
RNG = np.random.default_rng(20240607)


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


@pytest.fixture
def binary_folder(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(cifar_records(7, 0)[2])
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(cifar_records(3, i)[2])
    return folder


def test_cifar10_binary_folder_in_channel_row_column_order(binary_folder):
    labels, images, _ = cifar_records(7, 0)
    for place in (binary_folder, binary_folder.parent):
        data = open_dataset(place)
        assert (data.name, len(data), data.classes[3]) == ("cifar10-test", 7, "cat")
        for i, item in enumerate(data):
            assert (item.index, item.label) == (i, labels[i])
            assert item.image.dtype == np.uint8 and np.array_equal(item.image, images[i])


def test_cifar10_training_batches_follow_each_other(binary_folder):
    data = open_dataset(binary_folder, split="train")
    assert len(data) == 15 and [item.index for item in data] == list(range(15))
    assert np.array_equal(data[4].image, cifar_records(3, 2)[1][1])


def test_the_python_batches_made_here_are_what_pickle_reads_too():
    labels, images, _ = cifar_records(5, 0)
    content = python2_pickle(labels, images.transpose(0, 3, 1, 2).reshape(5, -1))
    ours, theirs = read_plain_pickle(content, "batch"), pickle.loads(content, encoding="latin1")
    assert np.array_equal(byte_array(ours["data"], "batch"), theirs["data"])
    assert {key: value for key, value in ours.items() if key != "data"} == {
        k: v for k, v in theirs.items() if k != "data"
    }


@pytest.mark.parametrize("kind", ["binary", "python"])
@pytest.mark.parametrize("suffix", [".tar.gz", ".tar"])
def test_cifar10_official_archives(tmp_path, kind, suffix):
    labels, images, records = cifar_records(6, 3)
    if kind == "binary":
        files = {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n", "cifar-10-batches-bin/test_batch.bin": records}
    else:
        files = {"cifar-10-batches-py/test_batch": python2_pickle(labels, images.transpose(0, 3, 1, 2).reshape(6, -1))}
    archive = tar_of(tmp_path / f"cifar-10-{kind}{suffix}", files)
    data = open_dataset(archive)
    assert data.labels.tolist() == labels.tolist()
    assert all(np.array_equal(item.image, image) for item, image in zip(data, images, strict=True))
    with pytest.raises(DataError, match="lacks data_batch_1"):
        open_dataset(archive, split="train")


def test_a_truncated_archive_or_batch_is_named(tmp_path, binary_folder):
    whole = tar_of(tmp_path / "cifar-10-binary.tar.gz", {"x/test_batch.bin": cifar_records(40, 0)[2]}).read_bytes()
    broken = tmp_path / "cifar-10-broken.tar.gz"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole CIFAR-10 archive"):
        open_dataset(broken)
    batch = binary_folder / "test_batch.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DataError, match="not a multiple of 3073"):
        open_dataset(binary_folder)
    batch.write_bytes(b"\x0b" + bytes(3072))
    with pytest.raises(DataError, match=r"labels must be 0\.\.9"):
        open_dataset(binary_folder)


class Bomb:
    """What a hostile pickle would make `pickle.load` run."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_in_a_pickle_is_executed(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"data": Bomb(), "labels": [1]}, protocol=protocol)
    try:
        value = read_plain_pickle(content, "batch")
    except DataError:
        pass  # an opcode that plain data does not need
    else:
        assert isinstance(value["data"], Call) and value["data"].symbol.endswith(" system")
        with pytest.raises(DataError, match="an array of bytes is required"):
            byte_array(value["data"], "batch")
    assert not (tmp_path / "executed").exists()


def test_every_truncation_of_a_pickle_is_a_data_error():
    labels, images, _ = cifar_records(1, 0)
    content = python2_pickle(labels, images.reshape(1, -1)[:, :60])
    for length in range(len(content)):
        with pytest.raises(DataError):
            read_plain_pickle(content[:length], "batch")


@pytest.mark.parametrize(
    "content", [b".", b"\x80\x02e.", b"\x80\x02]K\x01u.", b"\x80\x02K\x01K\x02s.", b"\x80\x02h\x09.", b"(t"]
)
def test_a_pickle_that_makes_no_sense_is_a_data_error(content):
    with pytest.raises(DataError):
        read_plain_pickle(content, "batch")


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


def image_bytes(array, kind="PNG"):
    Image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def test_a_folder_per_class(tmp_path):
    pictures = {}
    for name in ("cat", "ant"):
        (tmp_path / name).mkdir()
        for i in range(2):
            pictures[name, i] = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            (tmp_path / name / f"{i}.png").write_bytes(image_bytes(pictures[name, i]))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    data = open_dataset(tmp_path)
    assert data.classes == ("ant", "cat") and data.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(data[3].image, pictures["cat", 1])
    model_order = data.for_classes(("dog", "cat", "ant"))
    assert model_order.labels.tolist() == [2, 2, 1, 1]
    with pytest.raises(DataError, match=r"1 classes that the model does not know \(ant\)"):
        data.for_classes(("dog", "cat"))


def test_a_flat_folder_and_a_single_file_have_no_labels(tmp_path):
    picture = RNG.integers(0, 256, (4, 4), dtype=np.uint8)
    (tmp_path / "b.png").write_bytes(image_bytes(picture))
    data = open_dataset(tmp_path, shape=(4, 4, 1))
    assert data.labels is None and np.array_equal(data[0].image[..., 0], picture)
    assert np.array_equal(open_dataset(tmp_path / "b.png", shape=(4, 4, 1))[0].image[..., 0], picture)


def test_images_are_scaled_to_cover_and_cropped_in_the_middle():
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 200
    out = image_files.decode_image(image_bytes(wide), (5, 5, 3), "wide")
    assert out.shape == (5, 5, 3) and (out[:, 1:4] > 150).all()
    exact = RNG.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    assert np.array_equal(image_files.decode_image(image_bytes(exact), (5, 5, 3), "exact"), exact)
    assert image_files.decode_image(image_bytes(wide), (12, 7, 1), "grey").shape == (12, 7, 1)


def test_broken_and_oversized_images_are_named(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(image_bytes(np.zeros((30, 30, 3), np.uint8))[:60])
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image"):
        open_dataset(tmp_path)[0]
    from PIL import Image

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    (tmp_path / "a.png").write_bytes(image_bytes(np.zeros((30, 30, 3), np.uint8)))
    with pytest.raises(DataError, match="decompression bomb"):
        open_dataset(tmp_path)[0]


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"intsmooth\[images\]"):
        open_dataset(tmp_path)[0]


def test_an_empty_folder_says_what_it_needs(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_dataset(tmp_path)


def caltech_files():
    classes = {"accordion": 12, "Faces": 9, "yin_yang": 10, "BACKGROUND_Google": 3}
    return {
        f"101_ObjectCategories/{name}/image_{i:04d}.jpg": image_bytes(np.full((8, 9, 3), 3 * i, np.uint8), "JPEG")
        for name, count in classes.items()
        for i in range(1, count + 1)
    }


@pytest.mark.parametrize("kind", ["folder", "parent", "tar", "zip"])
def test_caltech101_official_layouts(tmp_path, kind):
    files = caltech_files()
    if kind in ("folder", "parent"):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        place = tmp_path / "101_ObjectCategories" if kind == "folder" else tmp_path
    else:
        place = tar_of(tmp_path / "101_ObjectCategories.tar.gz", files)
        if kind == "zip":
            with zipfile.ZipFile(tmp_path / "caltech-101.zip", "w") as outer:
                outer.write(place, "caltech-101/101_ObjectCategories.tar.gz")
            place = tmp_path / "caltech-101.zip"
    whole = open_dataset(place, split="all", shape=(4, 4, 3))
    assert whole.classes == ("Faces", "accordion", "yin_yang") and len(whole) == 31  # no background
    parts = [open_dataset(place, split=split, shape=(4, 4, 3)) for split in ("train", "validation", "test")]
    assert sorted(np.concatenate([part.indices for part in parts])) == list(range(31))
    for part in parts:
        for item in part:
            assert item.label == whole[item.index].label
            assert np.array_equal(item.image, whole[item.index].image) and item.image.shape == (4, 4, 3)


def test_an_image_stays_in_its_part_of_caltech101():
    parts = [caltech101.split_of(f"image_{i:04d}.jpg") for i in range(1, 31)]
    assert [i for i, part in enumerate(parts, start=1) if part == "test"] == [5, 10, 15, 20, 25, 30]
    assert [i for i, part in enumerate(parts, start=1) if part == "validation"] == [3, 13, 23]
    with pytest.raises(DataError, match="named image_NNNN.jpg"):
        caltech101.split_of("IMG_0001.jpg")


def test_a_broken_caltech101_archive(tmp_path):
    whole = tar_of(tmp_path / "101_ObjectCategories.tar.gz", caltech_files())
    whole.write_bytes(whole.read_bytes()[:900])
    with pytest.raises(DataError, match="not a whole Caltech-101 archive"):
        open_dataset(whole)


def test_labels_out_of_the_models_range():
    data = Dataset("d", lambda i: np.zeros((2, 2), np.uint8), np.arange(3), np.array([0, 1, 4]))
    assert data.for_classes(("a", "b", "c", "d", "e")) is data
    with pytest.raises(DataError, match=r"labels 0\.\.4; the model knows the classes 0\.\.2"):
        data.for_classes(("a", "b", "c"))


@pytest.mark.parametrize(("every", "limit"), [(0, None), (-3, None), (1, 0)])
def test_selections_that_make_no_sense(every, limit):
    with pytest.raises(InputError):
        Dataset("d", lambda i: np.zeros((2, 2), np.uint8), np.arange(3)).select(every, limit)


def test_unknown_names_and_splits(tmp_path, binary_folder):
    with pytest.raises(InputError, match="known are digits, cifar10, caltech101"):
        open_dataset("mnist")
    with pytest.raises(InputError, match="it has test and train"):
        open_dataset(binary_folder, split="validation")
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


# Downloads: a server on this machine that can be told to stop early.

CONTENT = bytes(RNG.integers(0, 256, 700_000, dtype=np.uint8))
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    ranges, sent_at_most, asked, content = True, None, [], CONTENT

    def do_GET(self):
        header = self.headers.get("Range")
        self.asked.append(header)
        start = int(header[6:-1]) if header and self.ranges else 0
        body = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.sent_at_most])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("FreshHandler", (Handler,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        handler.url = f"http://127.0.0.1:{running.server_port}/file.bin"
        yield handler
        running.shutdown()
        thread.join()


def test_a_broken_download_continues_where_it_stopped(server, tmp_path):
    target, seen = tmp_path / "deep" / "file.bin", []
    server.sent_at_most = 300_000
    with pytest.raises(DataError, match="300000 of 700000 bytes are kept"):
        fetch(server.url, target, DIGEST, len(CONTENT))
    assert not target.exists()
    server.sent_at_most = None
    assert fetch(server.url, target, DIGEST, len(CONTENT), lambda done, size: seen.append((done, size))) == target
    assert target.read_bytes() == CONTENT and server.asked == [None, "bytes=300000-"]
    assert seen[0][0] > 300_000 and seen[-1] == (700_000, 700_000)
    assert list(target.parent.iterdir()) == [target]
    fetch(server.url, target, DIGEST, len(CONTENT))
    assert len(server.asked) == 2  # what is there is not fetched again


def test_the_command_line_downloads_cifar10_once_and_shows_how_far_it_is(tmp_path, monkeypatch, capsys):
    """From an interrupted first attempt to certificates, all through `intsmooth certify --data cifar10`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTSMOOTH_DATA", str(tmp_path / "data"))
    labels, images, records = cifar_records(90, 4)
    archive = tar_of(tmp_path / "served.tar.gz", {"cifar-10-batches-bin/test_batch.bin": records}).read_bytes()
    handler = type("ArchiveHandler", (Handler,), {"asked": [], "content": archive, "sent_at_most": 100_000})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{running.server_port}/cifar-10-binary.tar.gz")
        monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(archive).hexdigest())
        monkeypatch.setattr(cifar10, "SIZE", len(archive))
        certify = "certify cifar10-resnet20-s0.25 --data cifar10 --max 2 --n 20 --seed 1 --out r.tsv".split()
        assert cli.main(certify) == DataError.exit_code
        assert f"100000 of {len(archive)} bytes are kept" in capsys.readouterr().err
        handler.sent_at_most = None
        assert cli.main(certify) == 0
        err = capsys.readouterr().err
        assert "MB, 100 %" in err and "downloading" in err
        running.shutdown()
        thread.join()
    assert handler.asked == [None, "bytes=100000-"]
    assert [row.split("\t")[:2] for row in (tmp_path / "r.tsv").read_text().splitlines()[1:]] == [
        [str(i), str(labels[i])] for i in range(2)
    ]
    assert cli.main([*certify[:-1], "again.tsv"]) == 0  # the server is gone, the file is there
    assert np.array_equal(open_dataset("cifar10")[1].image, images[1])


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert fetch(server.url, tmp_path / "file.bin", DIGEST, len(CONTENT)).read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_removed(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"\0" * 1000)
    with pytest.raises(DataError, match="required is"):
        fetch(server.url, tmp_path / "file.bin", DIGEST, len(CONTENT))
    assert list(tmp_path.iterdir()) == []


def test_without_network_the_message_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/cifar-10-binary.tar.gz")
    monkeypatch.setenv("INTSMOOTH_DATA", str(tmp_path / "data"))
    place = tmp_path / "data" / "cifar-10-binary.tar.gz"
    with pytest.raises(DataError, match="Without network: get cifar-10-binary.tar.gz elsewhere and put it at") as error:
        open_dataset("cifar10")
    assert str(place) in str(error.value)
    labels, _, records = cifar_records(4, 0)
    tar_of(place, {"cifar-10-batches-bin/test_batch.bin": records})
    assert open_dataset("cifar10").labels.tolist() == labels.tolist()
    with pytest.raises(DataError, match=r"Caltech-101 is not in"):
        open_dataset("caltech101")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="set INTSMOOTH_DATA"):
        fetch("http://127.0.0.1:9/x", tmp_path / "file" / "x", DIGEST, 1)


def test_where_data_is_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("INTSMOOTH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "intsmooth"


# Other people's data, where it is at hand.


@pytest.mark.skipif(not (SHARED / "data/cifar10").is_dir(), reason="needs CIFAR-10 in INTSMOOTH_SHARED/data/cifar10")
def test_every_20th_test_image_of_cifar10():
    data = open_dataset(SHARED / "data/cifar10/test_every_20th.npz")
    assert len(data.select(every=20)) == 500 and data[499].index == 9980
    assert data[0].image.shape == (32, 32, 3) and cifar10.CLASSES[data[0].label] == "cat"


@pytest.mark.skipif(
    not (SHARED / "data/caltech101").is_dir(), reason="needs Caltech-101 in INTSMOOTH_SHARED/data/caltech101"
)
def test_every_class_of_caltech101_has_images_in_every_part():
    for split in ("train", "validation", "test"):
        data = open_dataset(SHARED / "data/caltech101", split=split, shape=(112, 112, 3))
        assert len(data.classes) == 101 and len(set(data.labels.tolist())) == 101
        assert data[5].image.shape == (112, 112, 3)
