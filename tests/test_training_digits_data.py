"""The digits' split: a rule that anyone can check, and the bundled file that follows from it."""

import numpy as np
import pytest

from intsmooth.shipped import weights_folder
from intsmooth.training import digits_data


def test_split_is_a_partition_by_position_within_the_class():
    labels = np.random.default_rng(5).integers(0, 10, 500)
    parts = digits_data.split(labels)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(500))
    for label in range(10):
        members = np.flatnonzero(labels == label)
        for position, index in enumerate(members):
            part = "test" if position % 5 == 0 else "validation" if position % 10 == 3 else "train"
            assert index in parts[part]


def test_bundled_test_part_is_what_the_rule_gives(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn (extra [train]) brings the digits")
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "digits_test.h5"
    count = digits_data.write_test_part(path)
    with h5py.File(path) as written, h5py.File(weights_folder() / "digits_test.h5") as shipped:
        assert count == len(shipped["labels"]) == 364
        for name in ("images", "labels", "index"):
            assert np.array_equal(written[name][...], shipped[name][...])
        assert {name: str(value) for name, value in written.attrs.items()} == {
            name: str(value) for name, value in shipped.attrs.items()
        }
        assert "CC BY 4.0" in shipped.attrs["licence"]
        images, labels, index = (shipped[name][...] for name in ("images", "labels", "index"))
    digits = digits_data.load_digits()
    assert np.array_equal(images, digits.images[index])
    assert np.array_equal(labels, digits.labels[index])
    assert not set(index) & set(digits.parts["train"]) and not set(index) & set(digits.parts["validation"])
