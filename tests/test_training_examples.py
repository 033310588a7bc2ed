"""Where training examples come from: official layouts in small, and never a test image among them."""

import hashlib
import io

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")

from intsmooth import cli  # noqa: E402
from intsmooth.datasets import caltech101, open_dataset  # noqa: E402
from intsmooth.errors import DataError, InputError  # noqa: E402
from intsmooth.training import command  # noqa: E402
from intsmooth.training.examples import load_examples  # noqa: E402
from intsmooth.training.recipe import load_recipe, parse_recipe  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of one operator spin while they wait for each other, which a busy machine does not forgive."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def caltech(tmp_path):
    """Three classes in the official layout; every image has a colour of its own."""
    Image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(1)
    for name, count in {"accordion": 31, "Faces": 25, "yin_yang": 28, "BACKGROUND_Google": 5}.items():
        folder = tmp_path / "101_ObjectCategories" / name
        folder.mkdir(parents=True)
        for i in range(1, count + 1):
            pixels = np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (120, 112, 3))
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            (folder / f"image_{i:04d}.png").write_bytes(buffer.getvalue())
    return tmp_path


def seen(examples):
    return {hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in examples.images}


def test_caltech101_is_split_by_its_numbers_and_mixed(caltech):
    recipe = load_recipe("caltech101-resnet10-s0.25")
    data = load_examples(recipe, caltech)
    parts = {
        part: open_dataset(caltech, split=part, shape=data.image_shape) for part in ("train", "validation", "test")
    }
    assert data.classes == ("Faces", "accordion", "yin_yang") and data.image_shape == (112, 112, 3)
    assert (len(data.training), len(data.validation)) == (len(parts["train"]), len(parts["validation"]))
    assert len(seen(data.training)) == len(data.training)
    held_out = {hashlib.sha256(item.image.tobytes()).hexdigest() for item in parts["test"]}
    assert len(held_out) == len(parts["test"]) == 5 + 6 + 5
    assert not held_out & (seen(data.training) | seen(data.validation))
    assert not seen(data.training) & seen(data.validation)
    labels = data.training.labels.tolist()
    assert sorted(labels) == parts["train"].labels.tolist() and labels != sorted(labels)
    by_image = {item.image.tobytes(): item.label for item in parts["train"]}
    assert all(by_image[image.numpy().tobytes()] == label for image, label in zip(data.training.images, labels))
    again = load_examples(recipe, caltech)
    assert torch.equal(again.training.images, data.training.images)  # the order is a rule, not a draw
    assert data.facts["split"] == caltech101.SPLIT and (data.levels, data.unit) == ((0, 255), 255)


def test_cifar10_holds_out_the_last_training_images_and_reads_no_test_batch(tmp_path):
    rng = np.random.default_rng(2)
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        records = rng.integers(0, 256, (12, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    whole = open_dataset(tmp_path, split="train")
    (tmp_path / "test_batch.bin").write_bytes(b"no test batch at all")  # training must not even look at it
    recipe = parse_recipe(
        load_recipe("cifar10-resnet20-s0.25").text.replace("validation = 2000", "validation = 7"), "r"
    )
    data = load_examples(recipe, tmp_path)
    assert (len(data.training), len(data.validation)) == (53, 7)
    for i in (0, 52):
        assert np.array_equal(data.training.images[i].numpy(), whole[i].image)
    assert np.array_equal(data.validation.images[6].numpy(), whole[59].image)
    assert data.validation.labels.tolist() == whole.labels[-7:].tolist()
    with pytest.raises(InputError, match=r"it must be in 1\.\.59"):
        load_examples(load_recipe("cifar10-resnet20-s0.25"), tmp_path)


OWN = """
[recipe]
data = own
image = 12 10 3
network = resnet8
sigma = 0.25
validation = 8
batch = 8
[stage float]
epochs = 1
[stage quantized]
quantized = yes
epochs = 1
learning_rate = 0 0.001 0
"""


def test_a_model_of_your_own_images(tmp_path, monkeypatch, capsys):
    """A folder per class, trained on, exported, and certified on another folder of the same classes."""
    Image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    for part, count in (("mine", 40), ("held", 2)):
        for label, name in enumerate(("bright", "dark")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (24, 20, 3), dtype=np.uint8) + np.uint8(150 * (label == 0))
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    (tmp_path / "own.ini").write_text(OWN)
    graph = command.run("own.ini", "mine", "own.h5", say=lambda line: None)
    assert graph.classes == ("bright", "dark") and graph.input_shape == (12, 10, 3)
    assert cli.main("certify own.h5 --data held --n 100 --seed 1 --out own.tsv".split()) == 0
    assert "0.000" in capsys.readouterr().out
    images = np.stack([item.image for item in open_dataset("mine", shape=(12, 10, 3))])
    np.savez("mine.npz", images=images, labels=np.repeat([0, 1], 40))
    recipe = load_recipe("own.ini")
    data = load_examples(recipe, "mine.npz")
    assert (len(data.training), len(data.validation), data.classes) == (72, 8, ("0", "1"))
    assert len(seen(data.training) | seen(data.validation)) == 80


def test_own_images_that_do_not_fit(tmp_path):
    recipe = parse_recipe(OWN, "own")
    with pytest.raises(InputError, match="needs --data"):
        load_examples(recipe, None)
    with pytest.raises(InputError, match="needs --data"):
        load_examples(recipe, "digits")
    np.savez(tmp_path / "small.npz", images=np.zeros((20, 8, 8, 3), np.uint8), labels=np.zeros(20, int))
    with pytest.raises(DataError, match=r"uint8 of shape \(12, 10, 3\), as the recipe says"):
        load_examples(recipe, tmp_path / "small.npz")
    np.savez(tmp_path / "few.npz", images=np.zeros((8, 12, 10, 3), np.uint8), labels=np.zeros(8, int))
    with pytest.raises(InputError, match=r"must be in 1\.\.7"):
        load_examples(recipe, tmp_path / "few.npz")
    (tmp_path / "101_ObjectCategories").mkdir()
    with pytest.raises(InputError, match="test images in it"):
        load_examples(recipe, tmp_path)


def test_an_unknown_data_set_is_named(tmp_path):
    recipe = parse_recipe(load_recipe("digits-s0.25").text.replace("data = digits", "data = mnist"), "r")
    with pytest.raises(InputError, match="mnist is not known; use digits, cifar10, caltech101 or own"):
        load_examples(recipe, tmp_path)
