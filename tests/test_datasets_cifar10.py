"""CIFAR-10 in its official archives, truncated and hostile ones included: no pickle is executed."""

import pickle

import data_files
import numpy as np
import pytest
from data_files import Bomb, cifar_records, python2_pickle, tar_of
from places import SHARED

from intsmooth.datasets import cifar10, open_dataset
from intsmooth.datasets.pickles import Call, byte_array, read_plain_pickle
from intsmooth.errors import DataError
from intsmooth.training.recipe import load_recipe


def test_cifar10_binary_folder_in_channel_row_column_order(tmp_path):
    folder = data_files.binary_folder(tmp_path)
    labels, images, _ = cifar_records(7, 0)
    for place in (folder, folder.parent):
        data = open_dataset(place)
        assert (data.name, len(data), data.classes[3]) == ("cifar10-test", 7, "cat")
        for i, item in enumerate(data):
            assert (item.index, item.label) == (i, labels[i])
            assert item.image.dtype == np.uint8 and np.array_equal(item.image, images[i])


def test_cifar10_training_batches_follow_each_other(tmp_path):
    folder = data_files.binary_folder(tmp_path)
    data = open_dataset(folder, split="train")
    assert len(data) == 15 and [item.index for item in data] == list(range(15))
    assert np.array_equal(data[4].image, cifar_records(3, 2)[1][1])


def test_the_validation_part_is_the_end_of_the_training_images(tmp_path, monkeypatch):
    folder = data_files.binary_folder(tmp_path)
    whole = open_dataset(folder, split="train")
    monkeypatch.setattr(cifar10, "VALIDATION", 2)
    monkeypatch.setattr(cifar10, "_BEFORE_LAST", 12)  # three images in each batch
    held = open_dataset(folder, split="validation")
    assert held.name == "cifar10-validation" and [item.index for item in held] == [13, 14]
    for item in held:
        assert item.label == whole[item.index].label and np.array_equal(item.image, whole[item.index].image)


def test_the_shipped_recipes_hold_out_the_validation_part():
    recipes = [load_recipe(f"cifar10-resnet20-s{sigma}") for sigma in ("0.12", "0.25", "0.5", "1.0")]
    assert {recipe.validation for recipe in recipes} == {cifar10.VALIDATION}


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


def test_a_truncated_archive_or_batch_is_named(tmp_path):
    folder = data_files.binary_folder(tmp_path)
    whole = tar_of(tmp_path / "cifar-10-binary.tar.gz", {"x/test_batch.bin": cifar_records(40, 0)[2]}).read_bytes()
    broken = tmp_path / "cifar-10-broken.tar.gz"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole CIFAR-10 archive"):
        open_dataset(broken)
    batch = folder / "test_batch.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DataError, match="not a multiple of 3073"):
        open_dataset(folder)
    batch.write_bytes(b"\x0b" + bytes(3072))
    with pytest.raises(DataError, match=r"labels must be 0\.\.9"):
        open_dataset(folder)


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


@pytest.mark.skipif(not (SHARED / "data/cifar10").is_dir(), reason="needs CIFAR-10 in INTSMOOTH_SHARED/data/cifar10")
def test_every_20th_test_image_of_cifar10():
    data = open_dataset(SHARED / "data/cifar10/test_every_20th.npz")
    assert len(data.select(every=20)) == 500 and data[499].index == 9980
    assert data[0].image.shape == (32, 32, 3) and cifar10.CLASSES[data[0].label] == "cat"


def _doubling(levels: int) -> bytes:
    """A dictionary with one key, a tuple that holds itself-alikes 2^levels deep: little to read, for ever to hash."""
    key = b")q\x00" + b"h\x00\x86q\x00" * levels
    return b"\x80\x02}" + key + b"Ns."


@pytest.mark.parametrize("content", [_doubling(60), b"\x80\x02})" + b"\x85" * 2_000_000 + b"Ns."], ids=["doubling", "deep"])
def test_keys_that_would_take_for_ever_to_hash_are_not_hashed(content):
    with pytest.raises(DataError, match="a key that is neither text nor a number"):
        read_plain_pickle(content, "batch")
