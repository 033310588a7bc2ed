"""One batch in several parts, each with its own copy of the network, in its own thread.

Threads that share one convolution wait for each other by spinning: on a machine that has other work to do, ResNet-20
was seen to train six times slower with two threads per operator than with two parts of one thread each. The parts are
also what makes a run reproducible: each has its own noise and its own batch statistics, gradients are added in order,
so the result depends on the number of parts and not on the number of cores.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn


class Parts:
    """Copies of a network for `count` parts of a batch; a context manager that owns their threads.

    fuse: run the copies through torch.compile, which fuses batch norm, ReLU and additions into few passes over memory.
    """

    def __init__(self, network: nn.Module, count: int, fuse: bool = False):
        self.network = network
        self.copies = [copy.deepcopy(network) for _ in range(count)] if count > 1 else [network]
        self._forward: list[Callable] = list(self.copies)
        if fuse:
            torch.compiler.reset()
            self._forward = [torch.compile(replica, dynamic=False) for replica in self.copies]
        self._compiled = not fuse
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *exception) -> None:
        self._pool.shutdown()

    def differentiate(self, loss_of: Callable[[Callable, int], torch.Tensor]) -> torch.Tensor:
        """Set the network's gradients to the mean over the parts of d loss_of(forward of its copy, part); the mean loss.

        Nothing here waits for a GPU: the loss is a number there.
        """
        # the first step compiles, forward and backward: one part after the other
        each = self._pool.map if self._compiled else map
        losses = list(each(lambda part: self._one(loss_of, part), range(len(self.copies))))
        if len(losses) > 1:
            for parameter, *parts in zip(self.network.parameters(), *self._gradients(), strict=True):
                parameter.grad = torch.stack(parts).mean(0)
        self._compiled = True
        return sum(losses) / len(losses)

    def _one(self, loss_of: Callable[[Callable, int], torch.Tensor], part: int) -> torch.Tensor:
        replica = self.copies[part]
        if replica is not self.network:
            with torch.no_grad():
                for mine, source in zip(replica.parameters(), self.network.parameters(), strict=True):
                    mine.copy_(source)
        replica.zero_grad(set_to_none=True)
        loss = loss_of(self._forward[part], part)
        loss.backward()
        return loss.detach().double()

    def _gradients(self) -> list[Sequence[torch.Tensor]]:
        return [[parameter.grad for parameter in replica.parameters()] for replica in self.copies]

    def merge_statistics(self) -> None:
        """Give the network and every copy the mean of the copies' batch-norm statistics, as after every epoch."""
        with torch.no_grad():
            for mine, *parts in zip(self.network.buffers(), *(c.buffers() for c in self.copies), strict=True):
                mine.copy_(torch.stack(parts).double().mean(0))
                for part in parts:
                    part.copy_(mine)
