"""Hands a data set to the workers of an executor, in tasks of a sensible size, and takes the certificates in order.

An image is first certified by one worker, in a task with other images where they are small. If it needs more votes than
one task should count, the worker says which; these are counted in parts by all workers, the parts are added up, and a
worker goes on with the sum. Votes are a pure function of seed, image and sample, so neither the size of a task, which
follows from the rates measured so far, nor who does it, when, and how often, changes a certificate.

What is handed out at a time is bounded, a few tasks per worker; so is how far the work may be ahead of an image that
takes long.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from intsmooth.errors import IntsmoothError
from intsmooth.records import Certificate
from intsmooth.tasks import Block, Job, Reached, certify_images, count_block
from intsmooth.workers import Workers

SHORTEST_S, LONGEST_S = 0.1, 1.0  # of work in a task; docs/scale.md has what handing one out costs
WORKERS_PER_S = 50  # with more workers than this tasks get longer, so that one process can hand them all out
TASKS_PER_WORKER = 2  # handed out at a time: one that runs and one that waits
AHEAD = 1024  # images begun, those included that are done before one that is not

Image = tuple[int, bytes, np.ndarray, int | None]  # number, digest, levels, and `label` of Smooth.certify


def certify_on(
    executor: Executor,
    job: Job,
    images: Iterator[Image],
    total: int,
    on_votes: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, bytes, Certificate, float]]:
    """(number, digest, certificate, seconds of work) of `total` images, in order, certified by the executor's workers.

    on_votes(samples, workers) is called whenever a task is back, with the number of samples counted so far and of
    workers. Raises what a task raises, ResourceError where workers are lost, and what `images` raises once all images
    before are done.
    """
    run = _Run(Workers(executor, job), images, total)
    try:
        while run.left:
            run.hand_out()
            yield from run.certified()
            if run.left:
                run.workers.take()
                if on_votes is not None:
                    on_votes(run.samples, run.workers.count)
        if run.unreadable is not None:
            raise run.unreadable
    finally:
        run.workers.close()


@dataclass
class _Open:
    """An image that is begun: the votes known so far, and the block that is being counted, if any."""

    image: Image
    known: dict[Block, list[int]] = field(default_factory=dict)
    seconds: float = 0.0
    certificate: Certificate | None = None
    block: Block | None = None
    taken: int = 0  # samples of the block that are handed out
    counted: int = 0  # samples of it that are back
    votes: np.ndarray | int = 0


class _Run:
    """The certification of one data set. `left`: images not yet given back; `samples`: counted so far."""

    def __init__(self, workers: Workers, images: Iterator[Image], total: int):
        self.workers, self.images, self.unread = workers, images, total
        self.unreadable: IntsmoothError | None = None
        self.left, self.samples = total, 0
        self.opened: deque[_Open] = deque()  # begun and not yet given back, in order
        self.ready: list[tuple[int, _Open]] = []  # a heap of those that wait for a task
        self.done, self.done_seconds = 0, 0.0

    def certified(self) -> Iterator[tuple[int, bytes, Certificate, float]]:
        """The first of the images that are begun, as far as they are done."""
        while self.opened and self.opened[0].certificate is not None:
            first = self.opened.popleft()
            self.left -= 1
            yield *first.image[:2], first.certificate, first.seconds

    def hand_out(self) -> None:
        """Hand out tasks until there are enough of them, or nothing is left that may be begun."""
        if not self.workers.rate:
            self._begin(1)
            if self.opened:
                self.workers.rehearse(self.opened[0].image[2])
        most = TASKS_PER_WORKER * self.workers.count
        while self.workers.busy < most:
            if not self.ready:
                self._begin(self._share())
            if not self.ready:
                return
            if self.ready[0][1].block is not None:
                self._hand_out_part(self.ready[0][1])
            else:
                group = [heapq.heappop(self.ready)[1]]
                while self.ready and len(group) < self._share() and self.ready[0][1].block is None:
                    group.append(heapq.heappop(self.ready)[1])
                self._hand_out_images(group)

    def _begin(self, count: int) -> None:
        """Read up to `count` further images."""
        try:
            while count > 0 and self.unread and len(self.opened) < max(AHEAD, 4 * self.workers.count):
                image = _Open(next(self.images))
                self.opened.append(image)
                self._wait(image)
                self.unread -= 1
                count -= 1
        except IntsmoothError as error:
            self.unreadable, self.unread, self.left = error, 0, len(self.opened)

    def _wait(self, image: _Open) -> None:
        heapq.heappush(self.ready, (image.image[0], image))

    def _hand_out_images(self, group: list[_Open]) -> None:
        seconds = self._task_seconds(self._left_seconds())
        self.workers.submit(
            partial(self._take_images, group),
            certify_images,
            [(*image.image[2:], image.known) for image in group],
            max(1, int(self.workers.rate * seconds)),
            seconds,
        )

    def _take_images(self, group: list[_Open], results: list[Reached]) -> None:
        for image, reached in zip(group, results, strict=True):
            self._worked(image, reached.samples, reached.seconds)
            image.certificate, image.known = reached.certificate, reached.known
            if image.certificate is not None:
                self.done += 1
                self.done_seconds += image.seconds
                continue
            large = reached.needed is not None and reached.needed[2] > self.workers.rate * SHORTEST_S
            if large or (reached.needed is not None and not reached.samples):
                image.block, image.taken, image.counted, image.votes = reached.needed, 0, 0, 0
            self._wait(image)

    def _hand_out_part(self, image: _Open) -> None:
        """The next part of the block that `image` waits for."""
        stage, first, n = image.block
        rate = self.workers.rate
        others = self._left_seconds() - self._image_seconds()
        seconds = self._task_seconds(others + (n - image.taken) / rate)
        size = min(n - image.taken, max(1, int(rate * seconds)))
        part = (stage, first + image.taken, size)
        image.taken += size
        if image.taken == n:
            heapq.heappop(self.ready)
        self.workers.submit(partial(self._take_part, image, size), count_block, image.image[2], part)

    def _take_part(self, image: _Open, size: int, result: tuple[list[int], float]) -> None:
        votes, seconds = result
        self._worked(image, size, seconds)
        image.votes = image.votes + np.array(votes, np.int64)
        image.counted += size
        if image.counted == image.block[2]:
            image.known[image.block] = image.votes.tolist()
            image.block = None
            self._wait(image)

    def _worked(self, image: _Open, samples: int, seconds: float) -> None:
        self.samples += samples
        image.seconds += seconds
        if samples:
            self.workers.observe(samples, seconds)

    # How large a task should be

    def _image_seconds(self) -> float:
        """The work in an image: in one that is done on average, or else what an open one asks for; 0 if unknown."""
        if self.done:
            return self.done_seconds / self.done
        return next((image.block[2] / self.workers.rate for image in self.opened if image.block is not None), 0.0)

    def _left_seconds(self) -> float:
        """The work left in images that are not done."""
        return (self.unread + len(self.opened)) * (self._image_seconds() or float("inf"))

    def _task_seconds(self, left: float) -> float:
        """The work to put into a task where all workers together have `left` seconds of it to do."""
        longest = max(LONGEST_S, self.workers.count / WORKERS_PER_S)
        return min(max(left / (2 * TASKS_PER_WORKER * self.workers.count), SHORTEST_S), longest)

    def _share(self) -> int:
        """How many images to put into a task."""
        if not self.done:
            return 1
        return max(1, int(self._task_seconds(self._left_seconds()) / max(self._image_seconds(), 1e-6)))
