"""Bias correction: planted shifts are found and taken back, and what says nothing about a bias leaves it alone."""

from dataclasses import replace

import models
import numpy as np
import pytest
from graphs import rebuild

from intsmooth.convert.bias_correction import correct_biases
from intsmooth.engine import Engine

RNG = np.random.default_rng(7)


def trace_on(images):
    return lambda graph: Engine(graph, backend="numpy").trace(images)


def biased(graph):
    return [node for node in graph.nodes if "bias" in node.constants]


def with_bias(graph, name, bias):
    nodes = [
        replace(node, constants={**node.constants, "bias": np.asarray(bias, np.int32)}) if node.name == name else node
        for node in graph.nodes
    ]
    return rebuild(graph, nodes=nodes)


def reals_of(graph, images):
    """What every node holds, in reals."""
    trace, found = trace_on(images)(graph), {}
    for node in graph.nodes:
        tensor = graph.tensors[node.output]
        found[node.name] = tensor.scale * (trace[node.output].astype(float) - tensor.zero_point)
    return found


@pytest.fixture(params=["residual", "tiny_conv"])
def sound(request):
    """A graph and images for it."""
    graph = getattr(models, request.param)(np.random.default_rng(4))
    low, high = graph.levels
    return graph, RNG.integers(low, high + 1, (24, *graph.input_shape)).astype(np.int16)


def test_a_correct_network_stays_as_it_is(sound):
    graph, images = sound
    corrected = correct_biases(graph, reals_of(graph, images), trace_on(images))
    assert corrected.digest == graph.digest


def off_by(graph, node, reals, images):
    """By how many steps the means of a node's channels are off, on average."""
    off = (reals_of(graph, images)[node.name] - reals[node.name]) / graph.tensors[node.output].scale
    return np.abs(off.mean(axis=tuple(range(off.ndim - 1)))).mean()


def test_planted_shifts_are_taken_back(sound):
    graph, images = sound
    reals, seen = reals_of(graph, images), 0
    for node in biased(graph):
        bias = node.constants["bias"]
        wrong = with_bias(graph, node.name, bias + RNG.integers(-1, 2, bias.size) * np.abs(bias).max() // 2)
        before = off_by(wrong, node, reals, images)
        after = off_by(correct_biases(wrong, reals, trace_on(images)), node, reals, images)
        assert after <= before
        if before > 1:
            assert after < 0.3 * before, node.name
            seen += 1
    assert seen


def test_what_has_no_reals_or_says_nothing_stays(sound):
    graph, images = sound
    assert correct_biases(graph, {}, trace_on(images)) is graph
    node = biased(graph)[0]
    clipped = with_bias(graph, node.name, np.full(node.constants["bias"].size, 2**26))  # every output at its upper end
    corrected = correct_biases(clipped, {node.name: reals_of(graph, images)[node.name]}, trace_on(images))
    assert (biased(corrected)[0].constants["bias"] == 2**26).all()


def test_no_bias_leaves_its_range(sound):
    graph, images = sound
    reals = {name: 1e12 * np.ones_like(real) for name, real in reals_of(graph, images).items()}
    assert correct_biases(graph, reals, trace_on(images)).digest == graph.digest
