"""The exported network is its fake-quantized twin: same decisions, and in fact the same integers, on noisy samples."""

from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")

from intsmooth import h5file  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402
from intsmooth.reference.engine import run  # noqa: E402
from intsmooth.training import calibrate, checkpoint  # noqa: E402
from intsmooth.training.calibrate import input_range, quantize, set_bounds  # noqa: E402
from intsmooth.training.export import export  # noqa: E402
from intsmooth.training.fakequant import QuantizedNetwork, _requantize  # noqa: E402
from intsmooth.training.network import FloatNetwork, architecture, place_skip  # noqa: E402
from intsmooth.training.noise import IntegerNoise  # noqa: E402
from intsmooth.training.rounding import mean_of_copies  # noqa: E402

LARGE = [("resnet20", (32, 32, 3)), ("resnet10", (112, 112, 3))]  # as shipped

pytestmark = pytest.mark.usefixtures("one_thread")
CASES = [("digits_cnn", (8, 8, 1), (0, 16), 16, Fraction(4)), ("resnet8", (16, 16, 3), (0, 255), 255, Fraction(64))]


@pytest.fixture
def one_thread():
    """Threads of one operator spin while they wait for each other, which a busy machine does not forgive."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_twin(name, image, levels, unit, sigma, seed=0, classes=10):
    """A float network with random weights and statistics, its twin, and noisy samples (N, C, H, W)."""
    torch.manual_seed(seed)
    network = FloatNetwork(architecture(name, image, classes), unit)
    for norm in network.norms:
        torch.nn.init.uniform_(norm.weight, 0.2, 1.5)
        torch.nn.init.normal_(norm.bias, 0.0, 0.2)
        norm.momentum = None  # the statistics of one pass are those of its batch
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(levels[0], levels[1] + 1, (32, image[2], *image[:2]), generator=generator).float()
    samples = IntegerNoise(sigma, "rounded").add_to(images, generator)
    with torch.no_grad():
        network.linear.bias -= network.train()(samples).mean(0)  # so that every class wins now and then
    return network.eval(), quantize(network, samples, levels, sigma, 3), samples


def logits_range(twin):
    """The least and the largest logit of the integer network, in real units."""
    return (torch.tensor([-128, 127]) - twin.logits_zero) * twin.logits_scale


def centred(logits):
    """Logits less their mean over the classes: nothing else of them decides."""
    return logits - logits.mean(1, keepdim=True)


def nhwc(value):
    return (value.permute(0, 2, 3, 1) if value.dim() == 4 else value).numpy()


OPERATORS = {
    "input_requantize", "conv2d", "conv2d_add", "mean", "reshape", "concat", "fully_connected", "max_pool2d",
}  # fmt: skip


@pytest.mark.parametrize(("name", "image", "levels", "unit", "sigma"), CASES)
def test_exported_integers_are_the_twins(name, image, levels, unit, sigma, tmp_path):
    _, twin, samples = random_twin(name, image, levels, unit, sigma)
    graph = export(twin, tuple("0123456789"), levels, {"source": "test"})
    h5file.save(graph, tmp_path / "model.h5")
    graph = h5file.load(tmp_path / "model.h5")
    with torch.no_grad():
        expected = twin.eval().trace(samples)
    found = run(graph, nhwc(samples).astype(np.int16))
    for tensor in graph.tensors.values():
        if tensor.name in expected:
            values = nhwc(expected[tensor.name]) + tensor.zero_point
            assert np.array_equal(values, found[tensor.name]), tensor.name
    assert set(expected) <= set(found)
    assert len(np.unique(found["logits"].argmax(1))) > 1
    assert {node.op for node in graph.nodes} <= OPERATORS


@pytest.mark.parametrize(("name", "image"), LARGE)
def test_the_engine_computes_the_twins_integers_at_the_size_of_the_shipped_models(name, image):
    _, twin, samples = random_twin(name, image, (0, 255), 255, Fraction("63.75"), classes=101)
    graph = export(twin, tuple(str(i) for i in range(101)), (0, 255), {})
    with torch.no_grad():
        expected = twin.eval().trace(samples)
    found = Engine(graph, threads=1).trace(nhwc(samples).astype(np.int16))
    for name, value in expected.items():
        assert np.array_equal(nhwc(value) + graph.tensors[name].zero_point, found[name]), name
    assert len(np.unique(found["logits"].argmax(1))) > 4  # all scores are equal, so all decisions are


@pytest.mark.parametrize(("name", "image", "levels", "unit", "sigma"), CASES)
def test_training_arithmetic_decides_as_evaluation_does(name, image, levels, unit, sigma):
    _, twin, samples = random_twin(name, image, levels, unit, sigma, seed=1)
    with torch.no_grad():
        trained, evaluated = twin.train()(samples), twin.eval()(samples)
        trained = trained.clamp(*logits_range(twin))
    assert (trained - evaluated).square().mean().sqrt() < 0.07 * evaluated.std()
    assert float((trained.argmax(1) == evaluated.argmax(1)).float().mean()) >= 0.9


@pytest.mark.parametrize(("name", "image", "levels", "unit", "sigma"), CASES)
def test_twin_is_close_to_the_float_network(name, image, levels, unit, sigma):
    network, twin, samples = random_twin(name, image, levels, unit, sigma, seed=2)
    with torch.no_grad():
        logits, found = centred(network(samples)), centred(twin.train()(samples))
    assert (found - logits).square().mean().sqrt() < 0.06 * logits.std()


@pytest.mark.parametrize(("name", "image", "levels", "unit", "sigma"), CASES)
def test_quantization_keeps_the_mean_of_every_sum(name, image, levels, unit, sigma):
    network, twin, samples = random_twin(name, image, levels, unit, sigma, seed=5)
    with torch.no_grad():
        wanted, found = network.trace(samples), twin.eval().trace(samples)
        *convolutions, linear = twin.rescaling()
        for i, scales in enumerate(convolutions):
            real = (twin.accumulator(i, found, scales) * scales.acc[:, None, None]).mean((0, 2, 3))
            step = float(twin.scales[i])
            assert torch.allclose(real, network.before_relu(i, wanted).mean((0, 2, 3)), rtol=0, atol=0.02 * step)
        real = twin.linear_accumulator(found["features"], linear) * linear.acc
        moved = (centred(real) - centred(wanted["logits"])).mean(0)
        assert float(moved.abs().max()) < 2 * float(linear.acc.max())


def test_weights_rounded_together_move_images_less_than_each_to_nearest(monkeypatch):
    """What stays of the error in the mean over draws of the noise, on draws that were not calibrated on."""
    name, image, levels, unit, sigma = CASES[1]
    network, _, _ = random_twin(*CASES[1], seed=6)
    generator = torch.Generator().manual_seed(7)
    colours = torch.randint(levels[0], levels[1] + 1, (128, image[2], 2, 2), generator=generator).float()
    images = torch.nn.functional.interpolate(colours, image[:2], mode="bilinear").round()  # neighbours alike, as in photographs
    noise, copies = IntegerNoise(sigma, "rounded"), 16
    calibration, fresh = (noise.add_to(images.repeat(copies, 1, 1, 1), generator) for _ in range(2))

    def moved():
        twin = quantize(network, calibration, levels, sigma, 3, copies)
        with torch.no_grad():
            difference = centred(twin.train()(fresh)) - centred(network(fresh))
        difference -= difference.mean(0)  # what all images have in common, biases and offsets for ties take care of
        one, two = (mean_of_copies(half, copies // 2) for half in difference.chunk(2))
        return float((one * two).mean())  # of two halves of the draws: what differs from draw to draw is not in it

    together = moved()
    monkeypatch.setattr(calibrate, "round_together", lambda weights, moments, wanted: weights.round())
    assert together < moved() / 2


@pytest.mark.parametrize(("name", "image", "levels", "unit", "sigma"), CASES)
def test_rounding_minds_the_votes(name, image, levels, unit, sigma, monkeypatch):
    """What rounding a filter moves an image's share by, to first order, against rounding by the sums alone."""
    network, twin, samples = random_twin(name, image, levels, unit, sigma, seed=9)
    moments = calibrate.influence(network, [samples], 1)
    folded = QuantizedNetwork(network.architecture, unit)
    folded.fold(network)

    def moved(twin):
        total = 0.0
        for i, layer in enumerate(moments[:-1]):
            error = (twin.weights[i] - folded.weights[i]).detach().flatten(1)
            total += float(torch.einsum("fs,fst,ft->", error, layer, error))
        return total

    by_votes = moved(twin)
    monkeypatch.setattr(calibrate, "influence", lambda *_: [torch.zeros_like(layer) for layer in moments])
    assert by_votes < moved(quantize(network, samples, levels, sigma, 3)) / 2


def test_logits_saturate_in_evaluation_only():
    """Where they saturate there is no gradient, and a loss that does not see by how much a class wins."""
    _, twin, samples = random_twin(*CASES[0], seed=3)
    with torch.no_grad():
        twin.linear_bias[0] += 20 * twin.peak_scale
        evaluated = twin.eval().trace(samples)["logits"] + twin.logits_zero
    assert 0.5 < float((evaluated == -128).float().mean()) < 1
    logits = twin.train()(samples)
    assert float((logits.detach() / twin.logits_scale + twin.logits_zero).min()) < -1000
    logits[:, 1].sum().backward()
    assert twin.linear_bias.grad[1] > 0


@pytest.mark.parametrize(("name", "image", "levels", "unit", "sigma"), CASES)
def test_logits_are_less_their_peak_and_hardly_ever_equal(name, image, levels, unit, sigma):
    network, twin, samples = random_twin(name, image, levels, unit, sigma, seed=8)
    with torch.no_grad():
        found = twin.eval().trace(samples)
    assert torch.equal(found["peak"], found["coarse"].amax(1, keepdim=True))
    largest, second = (found["logits"] + twin.logits_zero).topk(2, 1).values.unbind(1)
    assert float(largest.max()) < 127 and float(largest.min()) > -128
    assert float((largest == second).float().mean()) < 0.05


def test_requantization_is_that_of_the_integer_engine():
    from intsmooth.fixedpoint import multiply_by_quantized_multiplier, nearest_result_multiplier

    generator = torch.Generator().manual_seed(4)
    acc = torch.randint(-(2**23), 2**23, (4000, 6, 1, 1), generator=generator).float()
    acc[:9, :, 0, 0] = torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 2.0**23, -(2.0**23)])[:, None]
    factor = torch.tensor([0.5, 0.25, 1.5, 3.1e-5, 7.7e-6, 0.0123], dtype=torch.float64)
    found = _requantize(acc, factor, torch.tensor(-(2**31)), torch.tensor(2**31 - 1), exact=True)[:, :, 0, 0].double().numpy()
    for channel, real in enumerate(factor.tolist()):
        multiplier, shift = nearest_result_multiplier(real)
        expected = multiply_by_quantized_multiplier(acc[:, channel, 0, 0].long().numpy(), multiplier, shift)
        assert np.array_equal(found[:, channel], expected.astype(np.float32))


def test_gradient_is_that_of_the_clamped_scaling():
    acc = torch.tensor([[-10.0, 3.0, 100.0, 900.0]], requires_grad=True)
    _requantize(acc, torch.tensor(0.5, dtype=torch.float64), torch.tensor(0), torch.tensor(255), exact=False).sum().backward()
    assert acc.grad.tolist() == [[0.0, 0.5, 0.5, 0.0]]


def test_small_weights_and_large_biases_keep_their_integers_in_range():
    twin = QuantizedNetwork(architecture("resnet8", (8, 8, 3), 10), 255)
    with torch.no_grad():
        for weight, bias in zip(twin.weights, twin.biases, strict=True):
            weight.fill_(1e-12)
            bias.fill_(50.0)
    graph = export(twin, tuple("0123456789"), (0, 255), {})
    for node in graph.nodes:
        if "skip_multiplier" in node.constants:
            assert 0 <= node.constants["skip_multiplier"].min() <= node.constants["skip_multiplier"].max() <= 32767
        if node.op.startswith("conv2d"):
            assert np.abs(node.constants["bias"].astype(np.int64)).max() <= 2**28


@pytest.mark.parametrize(("levels", "sigma"), [((0, 16), Fraction(4)), ((0, 255), Fraction(255, 4)), ((0, 255), 255)])
def test_input_range_covers_levels_and_noise(levels, sigma):
    step, zero = input_range(levels, Fraction(sigma), 3.0)
    assert (-128 - zero) * step <= levels[0] - 3 * sigma + step
    assert (127 - zero) * step >= levels[1] + 3 * sigma - step
    assert step > 1 or step.numerator == 1


def test_bounds_are_those_of_the_integers():
    name, image, levels, unit, sigma = CASES[1]
    network, _, samples = random_twin(*CASES[1], seed=10)
    set_bounds(network, samples, levels, sigma, 3, 0.005)
    twin = quantize(network, samples, levels, sigma, 3)
    assert torch.allclose(255 * twin.scales, network.ceilings.double(), rtol=1e-6)
    lowest, highest = ((q - twin.input_zero) * twin.input_scale for q in (-128, 127))
    assert network.reach.tolist() == pytest.approx([float(lowest), float(highest)])
    with torch.no_grad():
        values, beyond = network.trace(samples), network.trace(4 * samples)
    assert float(beyond["input"].max()) * unit == pytest.approx(float(network.reach[1]))
    for i, layer in enumerate(network.architecture.convolutions):
        assert float(beyond[layer.name].max()) == float(network.ceilings[i])
    assert 0.002 < float((values["stem"] >= network.ceilings[0]).float().mean()) < 0.008


def test_a_network_with_bounds_and_cut_weights_loses_less_as_integers():
    def lost(bounded):
        network, _, samples = random_twin(*CASES[1], seed=11)
        if bounded:
            network.cut_weights(2)
            set_bounds(network, samples, (0, 255), CASES[1][4], 3, 0.005)
        twin = quantize(network, samples, (0, 255), CASES[1][4], 3)
        with torch.no_grad():
            logits, found = centred(network(samples)), centred(twin.train()(samples))
        return float((found - logits).square().mean() / logits.square().mean())

    assert lost(True) < lost(False) / 1.5


def test_cut_weights_are_no_larger_than_told_and_the_others_stay():
    torch.manual_seed(2)
    network = FloatNetwork(architecture("resnet8", (8, 8, 3), 10), 255)
    before = [convolution.weight.detach().clone() for convolution in network.convolutions]
    network.cut_weights(2)
    cut = 0
    for convolution, weight in zip(network.convolutions, before, strict=True):
        limit = 2 * weight.square().mean((1, 2, 3), keepdim=True).sqrt()
        assert torch.equal(convolution.weight, weight.clamp(-limit, limit))
        cut += int((convolution.weight != weight).sum())
    assert 0.02 < cut / sum(weight.numel() for weight in before) < 0.08  # 4.6 % of a normal distribution


def test_a_checkpoint_from_before_there_were_bounds_has_none():
    network = FloatNetwork(architecture("resnet8", (8, 8, 3), 10), 255)
    state = {name: value for name, value in network.state_dict().items() if name not in ("ceilings", "reach")}
    network.ceilings.fill_(1.0)
    fresh = FloatNetwork(network.architecture, 255)
    checkpoint.take_state(fresh, {"network": state}, "old.pt", "weights")
    assert torch.isinf(fresh.ceilings).all() and torch.isinf(fresh.reach).all()
    checkpoint.take_state(fresh, {"network": network.state_dict()}, "new.pt", "weights")
    assert (fresh.ceilings == 1).all()


def test_option_a_shortcut_takes_every_second_pixel_and_centres_the_channels():
    layer = next(c for c in architecture("resnet20", (32, 32, 3), 10).convolutions if c.skip_stride == 2)
    skip = torch.arange(2 * 16 * 4 * 4.0).reshape(2, 16, 4, 4)
    placed = place_skip(skip, layer)
    assert placed.shape == (2, 32, 2, 2)
    assert torch.equal(placed[:, 8:24], skip[:, :, ::2, ::2])
    assert not placed[:, :8].any() and not placed[:, 24:].any()


def test_resnet10_is_what_its_card_says():
    network = architecture("resnet10", (112, 112, 3), 101)
    shapes = [network.shape_of(layer.name) for layer in network.convolutions]
    assert shapes[0] == (28, 28, 16) and shapes[-1] == (4, 4, 192) and len(shapes) == 9
    work = sum(
        height * width * channels * layer.kernel**2 * layer.inputs
        for layer, (height, width, channels) in zip(network.convolutions, shapes, strict=True)
    )
    assert work + network.features * network.classes == 24_954_048
    assert sum(p.numel() for p in FloatNetwork(network, 255).parameters()) == 677_621


def test_resnet20_is_the_published_network():
    network = FloatNetwork(architecture("resnet20", (32, 32, 3), 10), 255)
    parameters = {name: value.numel() for name, value in network.named_parameters()}
    assert sum(parameters.values()) == 269_722  # akamaster/pytorch_resnet_cifar10, option A: 0.27 M
    assert len(network.convolutions) == 19


@pytest.mark.parametrize("sigma", ["30.6", "63.75", "127.5", "255"])
def test_rounding_the_input_moves_no_image(sigma):
    """In the mean over draws of the noise, by the engine's own integers: a level's error cancels with its neighbours'."""
    from intsmooth.fixedpoint import multiply_by_quantized_multiplier, nearest_result_multiplier

    sigma = Fraction(sigma)
    step, zero = input_range((0, 255), sigma, 3.0)
    assert step > 1 and step.numerator % 2 == 1
    multiplier, shift = nearest_result_multiplier(1 / step)
    noise = np.arange(int(-2 * sigma), int(2 * sigma) + 1)  # so that nothing saturates
    density = np.exp(-((noise / float(sigma)) ** 2) / 2) * (1 - (noise / float(2 * sigma + 1)) ** 2)
    for level in range(0, 256, 5):
        found = multiply_by_quantized_multiplier(level + noise, multiplier, shift)
        assert -128 <= found.min() + zero and found.max() + zero <= 127
        error = float(step) * found - (level + noise)
        assert abs(np.average(error, weights=density)) < 0.005 * float(step), level
