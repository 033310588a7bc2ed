"""docs/accuracy.py: its two accuracies, by hand, and what it prints."""

import importlib.util
import pathlib

import numpy as np
import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
if not (DOCS / "accuracy.py").exists():
    pytest.skip("docs/ is not part of this installation", allow_module_level=True)
from intsmooth import Smooth, open_dataset


@pytest.fixture(scope="module")
def accuracy():
    spec = importlib.util.spec_from_file_location("accuracy", DOCS / "accuracy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_accuracies_are_what_the_engine_says(accuracy):
    smooth, data = Smooth("digits", "0.25", seed=1), open_dataset("digits").select(limit=30)
    labels, clean, votes = accuracy.accuracies(smooth, data, 5)
    images = np.stack([item.image for item in data])[..., None].astype(np.int16)
    assert np.array_equal(clean, smooth.engine.classify(images) == labels)
    assert 0 <= votes.min() and votes.max() <= 5 and votes.mean() > 3
    assert accuracy.class_mean(np.array([0, 0, 0, 7]), np.array([1.0, 1.0, 0.4, 0.0])) == pytest.approx(0.4)


def test_what_it_prints(accuracy, capsys):
    assert accuracy.main(["digits", "--data", "digits", "--max", "50", "--samples", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits-test: 50 images of 10 classes"
    assert lines[1].startswith("clean: ") and lines[2].startswith("sigma = 0.25: ")
    assert accuracy.main(["no-model", "--data", "digits"]) == 2
    assert "no-model" in capsys.readouterr().err
