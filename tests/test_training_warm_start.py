"""A training that starts from an integer model computes what that model computes, and says what it cannot start from."""

from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")

from intsmooth import h5file  # noqa: E402
from intsmooth.errors import FormatError, InputError  # noqa: E402
from intsmooth.training.calibrate import quantize  # noqa: E402
from intsmooth.training.export import export  # noqa: E402
from intsmooth.training.network import FloatNetwork, architecture  # noqa: E402
from intsmooth.training.noise import IntegerNoise  # noqa: E402
from intsmooth.training.warm_start import take_weights  # noqa: E402

IMAGE, SIGMA = (16, 16, 3), Fraction(64)
CLASSES = tuple("0123456789")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(path of an exported resnet8, the float network it was made from, noisy samples)."""
    torch.manual_seed(3)
    network = FloatNetwork(architecture("resnet8", IMAGE, 10), 255)
    for norm in network.norms:
        torch.nn.init.uniform_(norm.weight, 0.2, 1.5)
        torch.nn.init.normal_(norm.bias, 0.0, 0.2)
        norm.momentum = None  # the statistics of one pass are those of its batch
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (64, 3, 16, 16), generator=generator).float()
    samples = IntegerNoise(SIGMA, "rounded").add_to(images, generator)
    with torch.no_grad():
        network.train()(samples)
    twin = quantize(network.eval(), samples, (0, 255), SIGMA, 3)
    path = tmp_path_factory.mktemp("warm") / "model.h5"
    h5file.save(export(twin, CLASSES, (0, 255), {}), path)
    return path, network, samples


def test_the_float_network_computes_the_models_function(model):
    path, source, samples = model
    started = FloatNetwork(architecture("resnet8", IMAGE, 10), 255).eval()
    take_weights(started, path, samples)
    with torch.no_grad():
        expected, found = source(samples), started(samples)
        in_training = started.train()(samples)
    # What differs is the rounding of the weights to 8 bits, and what was taken off all logits alike.
    expected, difference = (part - part.mean(1, keepdim=True) for part in (expected, found - expected))
    assert float(difference.abs().max()) < 0.05 * float(expected.abs().max())
    # Statistics of these very samples: batch norm does the same in training as in evaluation.
    torch.testing.assert_close(in_training, found, rtol=1e-3, atol=1e-3)
    norms = [convolution.weight.flatten(1).norm(dim=1) for convolution in started.convolutions]
    torch.testing.assert_close(torch.cat(norms), torch.ones(sum(map(len, norms))))


def test_channels_that_are_constant_do_not_divide_by_zero(model, tmp_path):
    path, _, samples = model
    graph = h5file.load(path)
    dead = next(node for node in graph.nodes if node.name == "stage2.block1.conv1")
    weights = dead.constants["weights"].copy()
    weights[0] = 0
    dead.constants["weights"] = weights
    h5file.save(graph, tmp_path / "dead.h5")
    started = FloatNetwork(architecture("resnet8", IMAGE, 10), 255).eval()
    take_weights(started, tmp_path / "dead.h5", samples)
    with torch.no_grad():
        assert bool(torch.isfinite(started(samples)).all())
        assert bool(torch.isfinite(started.train()(samples)).all())


@pytest.mark.parametrize(
    ("name", "image", "classes", "found"),
    [
        ("resnet20", IMAGE, 10, "has no node stage1.block2.conv1"),
        ("resnet8", IMAGE, 7, r"logits has shape \(10, 64\), this recipe's network \(7, 64\)"),
        ("resnet8", (16, 16, 1), 10, r"stem has shape \(16, 3, 3, 3\), this recipe's network \(16, 1, 3, 3\)"),
    ],
)
def test_other_architectures_are_refused(model, name, image, classes, found):
    path, _, samples = model
    network = FloatNetwork(architecture(name, image, classes), 255)
    with pytest.raises(InputError, match=found):
        take_weights(network, path, samples[:, : image[2]])


def test_files_that_are_no_start_are_refused(model, tmp_path):
    _, network, samples = model
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(FormatError):
        take_weights(network, tmp_path / "damaged.h5", samples)
    (tmp_path / "damaged.pt").write_bytes(np.arange(100, dtype=np.uint8).tobytes())
    with pytest.raises(InputError, match="not a checkpoint"):
        take_weights(network, tmp_path / "damaged.pt", samples)
