"""Folders of images and Caltech-101: layouts, parts, scaling, broken and oversized pictures."""

import zipfile

import numpy as np
import pytest
from data_files import caltech_files, image_bytes, tar_of
from places import SHARED

from intsmooth.datasets import caltech101, image_files, open_dataset
from intsmooth.errors import DataError, MissingExtraError

RNG = np.random.default_rng(20240607)


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


@pytest.mark.skipif(
    not (SHARED / "data/caltech101").is_dir(), reason="needs Caltech-101 in INTSMOOTH_SHARED/data/caltech101"
)
def test_every_class_of_caltech101_has_images_in_every_part():
    for split in ("train", "validation", "test"):
        data = open_dataset(SHARED / "data/caltech101", split=split, shape=(112, 112, 3))
        assert len(data.classes) == 101 and len(set(data.labels.tolist())) == 101
        assert data[5].image.shape == (112, 112, 3)
