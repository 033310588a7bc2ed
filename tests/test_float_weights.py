"""The float networks of weights/float/ are what the shipped integers were made from."""

import numpy as np
import pytest
from places import ROOT

torch = pytest.importorskip("torch", reason="needs the extra train")

from intsmooth import h5file  # noqa: E402
from intsmooth.fixedpoint import real_multiplier  # noqa: E402
from intsmooth.shipped import find_model  # noqa: E402
from intsmooth.training.float_twin import load_float_network  # noqa: E402
from intsmooth.training.recipe import load_recipe  # noqa: E402

NETWORKS = sorted((ROOT / "weights" / "float").glob("*.pt"))


def steps_of(graph, node):
    """The real size of one step of each channel's weights: what a multiplier stands for is input * step / output."""
    scales = [graph.tensors[name].scale for name in (node.inputs[0], node.output)]
    pairs = zip(node.constants["multiplier"], node.constants["shift"], strict=True)
    return np.array([float(real_multiplier(*pair)) for pair in pairs]) * scales[1] / scales[0]


def test_there_are_some():
    assert NETWORKS


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_every_integer_weight_is_the_float_one_rounded(path):
    graph = h5file.load(find_model(path.stem))
    network = load_float_network(load_recipe(path.stem), path)
    layers = [layer.name for layer in network.architecture.convolutions]
    nodes = {node.name: node for node in graph.nodes}
    for name, layer in zip([*layers, "logits"], [*network.convolutions, network.linear], strict=True):
        real = layer.weight.detach().double().numpy()
        if real.ndim == 4:
            real = real.transpose(0, 2, 3, 1)
        weights, steps = nodes[name].constants["weights"], steps_of(graph, nodes[name])
        in_steps = real / steps.reshape(-1, *(1,) * (real.ndim - 1))
        assert np.abs(in_steps - weights).max() < 0.5 + 1e-3, name
        assert np.abs(weights).max() == 127, name
