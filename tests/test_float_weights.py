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


def reals_and_steps(path):
    """(name, float weights with outputs first and channels last, integers, real size of a step per output), per layer."""
    graph = h5file.load(find_model(path.stem))
    network = load_float_network(load_recipe(path.stem), path)
    names = [layer.name for layer in network.architecture.convolutions]
    nodes = {node.name: node for node in graph.nodes}
    for name, layer in zip([*names, "logits"], [*network.convolutions, network.linear], strict=True):
        real = layer.weight.detach().double().numpy()
        real = real.transpose(0, 2, 3, 1) if real.ndim == 4 else real
        steps = steps_of(graph, nodes[name]).reshape(-1, *(1,) * (real.ndim - 1))
        integers = nodes[name].constants["weights"].astype(np.int64)
        if name == "logits":  # the features are read twice, with integers whose sum counts, then comes the peak
            integers = integers[:, : 2 * real.shape[1]].reshape(len(real), 2, -1).sum(1)
        yield name, real, integers, steps


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_every_integer_weight_is_a_neighbour_of_the_float_one(path):
    nodes = {node.name: node for node in h5file.load(find_model(path.stem)).nodes}
    for name, real, integers, steps in reals_and_steps(path):
        if name == "logits":
            assert 250 <= np.abs(integers).max() <= 254
        else:
            skip = np.asarray(nodes[name].constants.get("skip_multiplier", 0))
            # a block that hardly adds to its residual has steps as small as the residual's multiplier allows
            assert np.abs(integers).max() == 127 or (skip == 32767).all(), name
            distance = np.abs(real / steps - integers)
            assert distance.max() < 1 + 1e-3, name
            assert np.mean(distance <= 0.5) > 0.6, name


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_the_last_layers_integers_are_neighbours_but_for_what_all_classes_share(path):
    name, real, integers, steps = list(reals_and_steps(path))[-1]
    assert name == "logits"
    shared = real - integers * steps  # what was taken off, within a step of each class: there is a value within all
    lowest, highest = (shared - steps).max(0), (shared + steps).min(0)
    assert (lowest < highest + 1e-3 * steps.max()).all()
    assert np.ptp(shared, axis=0).max() < 0.05 * np.abs(real).max()
