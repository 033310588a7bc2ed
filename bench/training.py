"""How fast does training go, and what does `intsmooth train --compile` change?

    python bench/training.py [--networks resnet20 resnet10] [--copies 256] [--seconds 10] [--rounds 3]

Whole steps (noise, forward, loss, backward, optimizer) on random images, for the float network and for its fake-quantized
twin, in two parts with a thread each; eager and compiled steps take turns. Printed as a Markdown table: noisy copies per
second, the median of the rounds. Needs the extra train and a C++ compiler.
"""

import argparse
import statistics
import time

import torch
from harness import say

from intsmooth.training.calibrate import quantize
from intsmooth.training.network import FloatNetwork, architecture
from intsmooth.training.noise import IntegerNoise, consistency_loss
from intsmooth.training.parallel import Parts

IMAGES = {"resnet20": (32, 32, 3), "resnet10": (112, 112, 3)}
CLASSES, UNIT, SIGMA, PARTS = 10, 255, 64, 2


class Trainer:
    """Training steps of one network on `copies` noisy images each, two of every image."""

    def __init__(self, network: torch.nn.Module, copies: int, fuse: bool):
        self.network, self.noise = network.train(), IntegerNoise(SIGMA, "rounded")
        self.parts = Parts(network, PARTS, fuse)
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
        count, (height, width, channels) = copies // 2, network.architecture.image
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randint(0, UNIT + 1, (count, channels, height, width), generator=generator).float()
        self.labels = torch.randint(0, CLASSES, (count,), generator=generator)
        self.sources = [torch.Generator().manual_seed(part) for part in range(PARTS)]
        for replica in self.parts.copies:
            replica.train()

    def step(self) -> None:
        self.parts.differentiate(self._loss)
        self.optimizer.step()

    def rate(self, seconds: float) -> float:
        """Noisy copies per second."""
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self.step()
            steps += 1
        return steps * 2 * len(self.images) / (time.perf_counter() - start)

    def _loss(self, forward, part: int) -> torch.Tensor:
        images, labels = self.images.chunk(PARTS)[part], self.labels.chunk(PARTS)[part]
        copies = images.repeat(2, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        return consistency_loss(forward(self.noise.add_to(copies, self.sources[part])), labels, 2, 10, 0.5)


def networks(name: str) -> dict[str, torch.nn.Module]:
    """The float network and its fake-quantized twin."""
    torch.manual_seed(1)
    network = FloatNetwork(architecture(name, IMAGES[name], CLASSES), UNIT)
    height, width, channels = IMAGES[name]
    samples = torch.randint(0, UNIT + 1, (16, channels, height, width)).float()
    twin = quantize(network, samples, (0, UNIT), SIGMA, 3.0)
    both = {"float": network, "fake-quantized": twin}
    return {kind: module.to(memory_format=torch.channels_last) for kind, module in both.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(IMAGES), default=["resnet20"])
    parser.add_argument("--copies", type=int, default=256, help="noisy images per step")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | stage | eager, copies/s | compiled | faster by |")
    print("| :-- | :-- | --: | --: | --: |")
    for name in options.networks:
        for kind, network in networks(name).items():
            trainers = [Trainer(network, options.copies, fuse) for fuse in (False, True)]
            for trainer in trainers:
                trainer.step()
                trainer.step()
            rounds = [[trainer.rate(options.seconds) for trainer in trainers] for _ in range(options.rounds)]
            eager, fused = (statistics.median(rates) for rates in zip(*rounds, strict=True))
            gain = statistics.median(after / before for before, after in rounds)
            print(f"| {name} | {kind} | {eager:,.0f} | {fused:,.0f} | {gain:.2f} |", flush=True)
            say(f"{name}, {kind}")


if __name__ == "__main__":
    main()
