"""The recipe of docs/importing.md for a network that has never seen noise, on the digits: it gets far more certificates."""

import io
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("sklearn", reason="scikit-learn brings the digits")

from intsmooth import Smooth, h5file, open_dataset  # noqa: E402
from intsmooth.convert.quantize import quantize  # noqa: E402
from intsmooth.run import certify_dataset  # noqa: E402
from intsmooth.training.digits_data import load_digits  # noqa: E402

UNIT = 16
SIGMA = 0.5


def trained(network, levels, labels, epochs, rate, sigma):
    """Train on levels (N, 1, 8, 8) with rounded noise of sigma, in [0, 1] units, that is not clipped."""
    optimizer = torch.optim.Adam(network.train().parameters(), rate)
    for _ in range(epochs):
        for chosen in torch.randperm(len(levels)).split(64):
            noisy = levels[chosen] + torch.round(sigma * UNIT * torch.randn(levels[chosen].shape))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(noisy / UNIT), labels[chosen]).backward()
            optimizer.step()
    return network.eval()


def certified(network, images, folder, name):
    """(share of test images with a certificate, mean radius) of the network as integers."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(network, torch.zeros(1, 1, 8, 8), file, dynamo=False)
    result = quantize(file.getvalue(), images[:200], levels=(0, UNIT), sigma=SIGMA)
    h5file.save(result.graph, folder / f"{name}.h5")
    smooth = Smooth(folder / f"{name}.h5", sigma=SIGMA, seed=1)
    results = certify_dataset(smooth, open_dataset("digits").select(every=4), folder / f"{name}.tsv", n=1000)
    return np.mean(results.correct), np.mean(np.where(results.correct, results.radius, 0))


@pytest.mark.slow
def test_fine_tuning_on_noise_multiplies_the_certificates(tmp_path):
    torch.manual_seed(3)
    digits = load_digits()
    images, labels = (array[digits.parts["train"]] for array in (digits.images, digits.labels))
    levels = torch.from_numpy(images).float()[:, None]
    targets = torch.from_numpy(labels)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, stride=2, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(512, 10),
    )  # fmt: skip
    trained(network, levels, targets, 12, 0.003, 0.0)
    before = certified(network, images, tmp_path, "clean")
    trained(network, levels, targets, 12, 0.001, SIGMA)
    after = certified(network, images, tmp_path, "noisy")
    assert after[0] > before[0] + 0.15 and after[1] > 1.5 * before[1]
