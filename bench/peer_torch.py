"""The network of resnet.py as a PyTorch user writes it, and the sampling loop of Cohen, Rosenfeld and Kolter (2019).

The module keeps batch normalization as layers of their own, as their code does in evaluation; `folded` gives the
variant with it folded into the convolutions, which nobody published a certificate with, but which a careful user could.
"""

import numpy as np
import torch
from resnet import CLASSES, DEVIATION, EPSILON, SIGMA, Convolution, ResNet
from torch import nn
from torch.nn import functional

BATCH = 1000  # the default of their program


class _Unit(nn.Module):
    """A convolution and its batch normalization; in the folded variant a convolution with a bias."""

    def __init__(self, layer: Convolution, folded: bool):
        super().__init__()
        values, bias = layer.folded() if folded else (layer.weights, None)
        outputs, inputs = values.shape[0], values.shape[3]
        self.convolution = nn.Conv2d(inputs, outputs, 3, layer.stride, 1, bias=folded)
        self.convolution.weight.data = torch.from_numpy(np.float32(values).transpose(0, 3, 1, 2).copy())
        self.normalization = nn.Identity() if folded else nn.BatchNorm2d(outputs, EPSILON)
        if folded:
            self.convolution.bias.data = torch.from_numpy(np.float32(bias))
        else:
            state = {"weight": layer.gamma, "bias": layer.beta, "running_mean": layer.mean,
                     "running_var": layer.variance}  # fmt: skip
            state = {name: torch.from_numpy(np.float32(value)) for name, value in state.items()}
            self.normalization.load_state_dict(state, strict=False)

    def forward(self, x):
        return self.normalization(self.convolution(x))


class _Block(nn.Module):
    def __init__(self, block, folded: bool):
        super().__init__()
        self.first, self.second = _Unit(block.first, folded), _Unit(block.second, folded)
        self.stride = block.stride
        missing = block.second.weights.shape[0] - block.first.weights.shape[3]
        self.padding = (0, 0, 0, 0, block.offset, missing - block.offset)

    def forward(self, x):
        y = self.second(functional.relu(self.first(x), inplace=True))
        skip = x if self.stride == 1 else functional.pad(x[:, :, :: self.stride, :: self.stride], self.padding)
        return functional.relu(y.add_(skip), inplace=True)


class TorchResNet(nn.Module):
    """float32 (N, 3, H, W) in [0, 1] units -> scores (N, CLASSES); the first layer normalizes, as theirs does."""

    def __init__(self, net: ResNet, folded: bool = False):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("deviation", torch.full((3,), DEVIATION))
        self.stem = _Unit(net.stem, folded)
        self.blocks = nn.Sequential(*(_Block(block, folded) for block in net.blocks))
        self.last = nn.Linear(net.weights.shape[1], CLASSES)
        self.last.weight.data = torch.from_numpy(np.float32(net.weights))
        self.last.bias.data = torch.from_numpy(np.float32(net.bias))
        self.eval()

    def forward(self, x):
        shape = (len(x), *x.shape[2:], 3)
        mean, deviation = (value.expand(shape).permute(0, 3, 1, 2) for value in (self.mean, self.deviation))
        x = functional.relu(self.stem((x - mean) / deviation), inplace=True)
        x = self.blocks(x)
        return self.last(functional.avg_pool2d(x, x.shape[-1]).flatten(1))


@torch.no_grad()
def count_votes(model, x: torch.Tensor, n: int, batch: int = BATCH, layout=torch.contiguous_format, kind=torch.float32):
    """Class counts of n noisy copies of x (3, H, W): batches of copies, float noise, argmax, a count in Python.

    layout and kind are what the model gets; published are contiguous float32.
    """
    counts = np.zeros(CLASSES, dtype=int)
    while n > 0:
        size = min(batch, n)
        n -= size
        copies = x.repeat((size, 1, 1, 1))
        noisy = copies + torch.randn_like(copies) * SIGMA
        for decision in model(noisy.to(dtype=kind, memory_format=layout)).argmax(1).numpy():
            counts[decision] += 1
    return counts


@torch.no_grad()
def scores(model, x: torch.Tensor, layout=torch.contiguous_format, kind=torch.float32) -> np.ndarray:
    """float32 (N, CLASSES)."""
    return model(x.to(dtype=kind, memory_format=layout)).float().numpy()
