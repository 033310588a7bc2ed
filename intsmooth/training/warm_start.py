"""Start a training from what another one left: a float checkpoint, or the integers of a finished model file.

A model file holds no batch norm: it was folded into the convolutions. Here it is put back, as what it has to be for
the float network to compute the same function: each filter is brought to norm 1, which batch norm makes irrelevant,
the running statistics are measured on noisy training images, and scale and offset restore the folded filter.
"""

import hashlib
import pathlib

import numpy as np
import torch

from intsmooth import h5file
from intsmooth.errors import InputError
from intsmooth.records import Graph, Node
from intsmooth.training import checkpoint
from intsmooth.training.network import FloatNetwork

_LEAST_VARIANCE = 1e-10  # a channel that is constant on the samples has no scale to restore


def take_weights(network: FloatNetwork, path: pathlib.Path, samples: torch.Tensor) -> str:
    """Set a float network's weights from `path`: a model file (.h5) of the same architecture, or a float.pt; what it was.

    samples: noisy float images in levels (N, C, H, W), on which the statistics of a model file's layers are measured.
    Raises InputError where the file does not hold weights of this architecture, FormatError for a damaged model file.
    """
    if path.suffix == ".h5":
        graph = h5file.load(path)
        _take_integers(network, graph, path, samples)
        return f"{path.name}, digest {graph.digest}"
    checkpoint.take_state(network, checkpoint.load(path), path, f"float weights of {network.architecture.name}")
    return f"{path.name}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _take_integers(network: FloatNetwork, graph: Graph, path: pathlib.Path, samples: torch.Tensor) -> None:
    layers = network.architecture.convolutions
    nodes = {node.name: node for node in graph.nodes}
    needed = [layer.name for layer in layers] + ["logits"]
    if missing := [name for name in needed if name not in nodes]:
        raise InputError(f"{path} has no node {missing[0]}; a model of the architecture {network.architecture.name} has")
    with torch.no_grad():
        for layer, convolution, norm in zip(layers, network.convolutions, network.norms, strict=True):
            weights, bias = _reals(graph, nodes[layer.name], path)
            _copy(convolution.weight, np.transpose(weights, (0, 3, 1, 2)), path, layer.name)
            _copy(norm.bias, bias, path, layer.name)
            norm.weight.fill_(1.0)
        weights, bias = _reals(graph, nodes["logits"], path)
        weights = _of_features(weights, nodes, network.linear.in_features)
        _copy(network.linear.weight, weights, path, "logits")
        _copy(network.linear.bias, bias, path, "logits")
        for convolution, norm, (mean, variance) in zip(
            network.convolutions, network.norms, _statistics(network, samples), strict=True
        ):
            # The layer computes convolution(x) + bias; with the filter divided by its size, batch norm has to give
            # gain * (convolution(x) - mean) / deviation + bias + mean, where gain is that deviation.
            size = convolution.weight.flatten(1).norm(dim=1).clamp_min(1e-12)
            convolution.weight /= size[:, None, None, None]
            norm.running_mean.copy_(mean / size)
            norm.running_var.copy_((variance / size**2).clamp_min(_LEAST_VARIANCE))
            norm.weight.copy_(size * torch.sqrt(norm.running_var + norm.eps))
            norm.bias += mean


def _reals(graph: Graph, node: Node, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of a node in real units. Its rescaling factor is input scale * weight scale / output scale."""
    scales = [graph.tensors[name].scale for name in (node.inputs[0], node.output)]
    if any(scale is None for scale in scales) or "weights" not in node.constants:
        raise InputError(f"{path}: node {node.name} has no scales or no weights to start from; train without --init")
    factor = np.ldexp(node.constants["multiplier"].astype(np.float64), node.constants["shift"] - 31)
    accumulator = factor * scales[1]
    weight_scale = (accumulator / scales[0]).reshape(-1, *(1,) * (node.constants["weights"].ndim - 1))
    return node.constants["weights"] * weight_scale, node.constants["bias"] * accumulator


def _of_features(weights: np.ndarray, nodes: dict[str, Node], features: int) -> np.ndarray:
    """The logits' weights (classes, features), where the features are read several times and the peak after them."""
    if "readings" not in nodes:
        return weights
    times = len(nodes["readings"].inputs)
    return weights[:, : times * features].reshape(len(weights), times, -1).sum(1)


def _copy(target: torch.Tensor, values: np.ndarray, path: pathlib.Path, name: str) -> None:
    if tuple(target.shape) != values.shape:
        raise InputError(f"{path}: {name} has shape {values.shape}, this recipe's network {tuple(target.shape)}")
    target.copy_(torch.from_numpy(values))


def _statistics(network: FloatNetwork, samples: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and variance per channel of every convolution's output; batch norms hold the folded bias and nothing else."""
    for norm in network.norms:
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0 - norm.eps)
    found = []
    hooks = [
        convolution.register_forward_hook(
            lambda _module, _inputs, output: found.append(
                (output.mean((0, 2, 3)), output.var((0, 2, 3), unbiased=False))
            )
        )
        for convolution in network.convolutions
    ]
    training = network.training
    network.eval()(samples)
    network.train(training)
    for hook in hooks:
        hook.remove()
    return found
