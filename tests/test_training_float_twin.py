"""The float network: certified under the integer model's own noise, written as ONNX, quantized after training."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from places import ENVIRONMENT

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")
pytest.importorskip("sklearn", reason="scikit-learn (extra [train]) brings the digits")

from intsmooth import cli  # noqa: E402
from intsmooth.errors import InputError, MissingExtraError, ResourceError  # noqa: E402
from intsmooth.noise.law import noise_table  # noqa: E402
from intsmooth.noise.sampler import sample_noise  # noqa: E402
from intsmooth.noise.stream import image_digest, parse_seed, stream_key  # noqa: E402
from intsmooth.paired import paired_differences  # noqa: E402
from intsmooth.results import read_results  # noqa: E402
from intsmooth.training import agreement, checkpoint, command, float_onnx, float_twin  # noqa: E402
from intsmooth.training.calibrate import set_bounds  # noqa: E402
from intsmooth.training.network import FloatNetwork, architecture  # noqa: E402
from intsmooth.training.recipe import load_recipe  # noqa: E402
from intsmooth.vote import SELECTION  # noqa: E402

RECIPE = """
[recipe]
data = digits
network = digits_cnn
sigma = 0.25
batch = 64
precision = float32
[stage gaussian]
epochs = 4
learning_rate = 0.02 0.1 0.01
[stage quantized]
quantized = yes
epochs = 1
learning_rate = 0 0.001 0
"""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads of one operator spin while they wait for each other, which a busy machine does not forgive."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A few seconds of training on the digits: the folder with recipe, model and float.pt."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.ini").write_text(RECIPE)
    command.run(folder / "tiny.ini", None, folder / "model.h5", folder, say=lambda line: None)
    return folder


def random_network(name, image, classes):
    torch.manual_seed(5)
    network = FloatNetwork(architecture(name, image, classes), 255)
    for norm in network.norms:
        torch.nn.init.uniform_(norm.weight, 0.2, 1.5)
        torch.nn.init.normal_(norm.bias, 0.0, 0.2)
        torch.nn.init.normal_(norm.running_mean, 0.0, 0.2)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "image", "classes"),
    [("digits_cnn", (8, 8, 1), 10), ("resnet20", (32, 32, 3), 10), ("resnet10", (48, 48, 3), 101)],
)
@pytest.mark.parametrize("bounded", [False, True])
def test_folded_and_written_as_onnx_it_is_the_same_function(name, image, classes, bounded):
    pytest.importorskip("onnx", reason="needs onnx")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    network = random_network(name, image, classes)
    levels = np.random.default_rng(1).integers(-100, 355, (6, *image)).astype(np.float32)
    if bounded:
        free = network(torch.from_numpy(levels).permute(0, 3, 1, 2)).detach().numpy()
        set_bounds(network, torch.from_numpy(levels).permute(0, 3, 1, 2), (0, 255), Fraction(20), 3, 0.05)
        assert np.abs(network(torch.from_numpy(levels).permute(0, 3, 1, 2)).detach().numpy() - free).max() > 1e-2
    with torch.no_grad():
        expected = network(torch.from_numpy(levels).permute(0, 3, 1, 2)).numpy()
    network = float_twin.folded(network)
    for engine in float_twin.ENGINES:
        if engine == "cuda" and not torch.cuda.is_available():
            with pytest.raises(InputError, match="no GPU"):
                float_twin.logits_of(network, engine)
            continue
        found = float_twin.logits_of(network, engine)(levels)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), engine


def test_its_noise_is_the_certifiers_own():
    seen = []

    def logits(levels):
        seen.append(levels)
        return np.eye(3)[levels[:, 0, 0, 0].astype(int) % 3]

    image = np.random.default_rng(2).integers(0, 256, (48, 48, 300), dtype=np.int16)  # big enough for several batches
    table, seed = noise_table(255 * load_recipe("cifar10-resnet20-s0.25").sigma, "rounded"), parse_seed(9)
    counts = float_twin.count_votes(logits, 3, image, table, seed, SELECTION, 5)
    assert len(seen) > 1
    key = stream_key(seed, image_digest(image), SELECTION)
    noisy = image + sample_noise(table, key, 0, 5, image.size, "numpy").reshape(5, *image.shape)
    assert np.array_equal(np.concatenate(seen), noisy)
    assert counts.tolist() == np.bincount(noisy[:, 0, 0, 0] % 3, minlength=3).tolist()


def test_its_table_stands_beside_the_integer_models(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    run = ["--max", "30", "--n", "300", "--seed"]
    assert cli.main(["certify", "model.h5", *run, "1", "--out", "integer.tsv"]) == 0
    for name, seed, *engine in (*((name, "1", "--engine", name) for name in ("onnxruntime", "torch")), ("other", "2")):
        assert float_twin.main(["tiny.ini", "float.pt", *run, seed, "--out", f"{name}.tsv", *engine]) == 0
    integer, first, second, other = (read_results(f"{n}.tsv") for n in ("integer", "onnxruntime", "torch", "other"))
    assert integer.columns["idx"] == first.columns["idx"] and set(first.columns["n"]) == {"300"}
    hits = [np.array(table.columns["hits"], dtype=int) for table in (integer, first, second, other)]
    assert np.abs(hits[1] - hits[2]).max() <= 1  # two float libraries, the same noise
    assert np.abs(hits[0] - hits[1]).mean() < 0.5 * np.abs(hits[0] - hits[3]).mean()  # other noise: other votes
    # The same votes are the same radius to the last digit written, or one table would seem behind at its largest radii.
    votes = [list(zip(table.columns["top"], table.columns["hits"], strict=True)) for table in (integer, first)]
    alike = [i for i in range(30) if votes[0][i] == votes[1][i]]
    assert alike and all(integer.columns["radius"][i] == first.columns["radius"][i] for i in alike)
    assert paired_differences(integer, first, [0.0])[0].images == 30
    assert float_twin.main(["tiny.ini", "float.pt", *run, "1", "--out", "quick.tsv", "--skip-wrong"]) == 0
    quick = read_results("quick.tsv")
    assert np.array_equal(quick.radius * quick.correct, first.radius * first.correct)
    wrong = np.array(first.columns["top"]) != np.array(first.columns["label"])
    assert np.array_equal(np.array(quick.columns["n"]) == "0", wrong)
    assert cli.main(["curve", "integer.tsv", "onnxruntime.tsv", "--paired"]) == 0
    assert "30 images in common" in capsys.readouterr().out


def test_the_float_checkpoint_is_quantized_after_training(trained, monkeypatch, capsys):
    """The second way to an integer model: calibrate, quantize, and a report of what every layer lost."""
    pytest.importorskip("onnx", reason="needs onnx")
    monkeypatch.chdir(trained)
    assert float_onnx.main(["tiny.ini", "float.pt", "float.onnx"]) == 0
    arguments = "--calibrate digits --max 60 --sigma 0.25 --levels 0,16 -o after.h5".split()
    assert cli.main(["quantize", "float.onnx", *arguments]) == 0
    report = capsys.readouterr().out
    assert report.count(" dB ") >= 5 and "same class as the float model" in report
    run = ["--data", "digits", "--sigma", "0.25", "--max", "12", "--n", "300", "--seed", "1"]
    assert cli.main(["certify", "after.h5", *run, "--out", "after.tsv"]) == 0
    assert float_twin.main(["tiny.ini", "float.pt", *run[4:], "--out", "twin.tsv"]) == 0
    assert abs(paired_differences(read_results("after.tsv"), read_results("twin.tsv"), [0.0])[0].points) < 20


def test_the_exported_model_decides_as_its_twin(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    run = ["--max", "30", "--samples", "10"]
    assert agreement.main(["tiny.ini", "checkpoint.pt", "model.h5", *run]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["scores equal: 300 of 300, 100.00 %", "decisions equal: 300 of 300, 100.00 %"]
    assert float(lines[2].split()[-2]) >= 98
    content = checkpoint.load(trained / "checkpoint.pt")
    content["network"]["biases.0"] += 5.0  # no longer the model's twin
    checkpoint.save(trained / "other.pt", content)
    assert agreement.main(["tiny.ini", "other.pt", "model.h5", *run]) == 1
    with pytest.raises(InputError, match="not hold a fake-quantized digits_cnn"):
        agreement.main(["tiny.ini", "float.pt", "model.h5", *run])


def test_bad_numbers_and_another_runs_table_are_refused(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(trained)
    with pytest.raises(InputError, match="samples"):
        agreement.main(["tiny.ini", "checkpoint.pt", "model.h5", "--samples", "0"])
    out = tmp_path / "rows.tsv"
    out.write_text("hours of work")
    for wrong in (["--n0", "0"], ["--n", "0"], ["--alpha", "2"]):
        with pytest.raises(InputError):
            float_twin.main(["tiny.ini", "float.pt", "--max", "1", "--out", str(tmp_path / "new.tsv"), *wrong])
    with pytest.raises(ResourceError, match="rows.tsv cannot be written"):
        float_twin.main(["tiny.ini", "float.pt", "--max", "1", "--out", str(out)])
    assert out.read_text() == "hours of work" and not (tmp_path / "new.tsv").exists()


def test_what_is_missing_or_does_not_belong_together_is_said(trained, tmp_path, monkeypatch):
    out = ["--out", str(tmp_path / "t.tsv")]
    with pytest.raises(InputError, match="float weights"):
        float_twin.main(["digits-s0.25", str(trained / "checkpoint.pt"), *out])
    with pytest.raises(InputError, match="float weights of resnet20"):
        float_twin.main(["cifar10-resnet20-s0.25", str(trained / "float.pt"), *out])
    (tmp_path / "other.pt").write_bytes((trained / "float.pt").read_bytes()[:-100])
    with pytest.raises(InputError, match="not a checkpoint"):
        float_twin.main(["digits-s0.25", str(tmp_path / "other.pt"), *out])
    network = float_twin.load_float_network(load_recipe(trained / "tiny.ini"), trained / "float.pt")
    assert "linear.weight" in checkpoint.load(trained / "float.pt")["network"]
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        float_twin.logits_of(network, "onnxruntime")
    assert float_twin.logits_of(network)(np.zeros((2, 8, 8, 1), np.float32)).shape == (2, 10)


@pytest.mark.parametrize("program", ["agreement", "float_twin", "float_onnx"])
def test_the_programs_end_in_one_line(program, tmp_path):
    last = ["--out", "none.tsv"] if program == "float_twin" else ["none.h5"]
    command = [sys.executable, "-m", f"intsmooth.training.{program}", "none.ini", "none.pt", *last]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == InputError.exit_code and not list(tmp_path.iterdir())
    assert done.stderr.startswith("intsmooth: error: recipe") and done.stderr.count("\n") == 1
