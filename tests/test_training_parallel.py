"""Parts of a batch: the gradient of the mean, statistics merged, and the same compiled as not."""

import shutil

import pytest

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")

from intsmooth.training.calibrate import quantize  # noqa: E402
from intsmooth.training.network import FloatNetwork, architecture  # noqa: E402
from intsmooth.training.parallel import Parts  # noqa: E402


def float_network():
    torch.manual_seed(3)
    return FloatNetwork(architecture("resnet8", (8, 8, 3), 10), 255)


def quantized_network():
    return quantize(float_network(), samples(64), (0, 255), 64, 3.0)


def samples(count):
    return torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(5)).float()


def gradients(network, fuse, count=2):
    """Gradients of one step on `count` parts, and what merge_statistics leaves."""
    pieces = samples(32).chunk(count)
    labels = (torch.arange(32) % 10).chunk(count)
    with Parts(network.train(), count, fuse) as parts:
        for replica in parts.copies:
            replica.train()
        for _ in range(2):  # the second step meets what the first compiled
            parts.differentiate(lambda f, i: torch.nn.functional.cross_entropy(f(pieces[i]), labels[i]))
        parts.merge_statistics()
    return [parameter.grad.clone() for parameter in network.parameters()], [b.clone() for b in network.buffers()]


def test_parts_have_the_gradient_of_the_whole_without_batch_norm():
    network = quantized_network()
    whole, parts = gradients(network, False, 1)[0], gradients(network, False, 4)[0]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_one_part_is_the_network_itself():
    network = float_network()
    with Parts(network, 1) as parts:
        assert parts.copies == [network]
        parts.differentiate(lambda f, _: f(samples(8)).square().mean())
        first = [parameter.grad.clone() for parameter in network.parameters()]
        parts.differentiate(lambda f, _: f(samples(8)).square().mean())
    for one, parameter in zip(first, network.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)  # not added to those of the first time


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("build", [float_network, quantized_network])
def test_a_compiled_step_is_the_eager_one(build):
    eager, compiled = gradients(build(), False), gradients(build(), True)
    for one, other in zip(eager[0], compiled[0], strict=True):
        scale = float(one.abs().max())
        # fused multiplications round once, which moves a quantized activation by a step here and there
        assert float((one - other).abs().max()) <= 0.02 * scale
    for one, other in zip(eager[1], compiled[1], strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-5)
