"""What the workers of an executor run: count a block of votes, certify images as far as one task should go, measure.

A worker is a thread of this process, another process, or another machine. It is told the model by a key; one that does
not know the key says so (None instead of a result) and gets the task again with the model in it. So a model, its noise
table and the stopping rule travel, and kernels are compiled, once per worker, and again only for workers that come
later.
"""

import hashlib
import pickle
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from intsmooth import __version__
from intsmooth.errors import ResourceError
from intsmooth.records import Certificate
from intsmooth.sampling import Plan
from intsmooth.smooth import Smooth
from intsmooth.vote import REHEARSAL, count_votes

Block = tuple[int, int, int]  # stage, first sample, number of samples
_KEPT = 8  # models that a worker remembers


@dataclass(frozen=True)
class Job:
    """What is done to every image of a run: `smooth.certify(image, label=..., **arguments)`, which would plan `plan`."""

    smooth: Smooth
    plan: Plan | None
    arguments: Mapping


@dataclass(frozen=True)
class Shipment:
    """A Job on its way to a worker: its key, and its pickled content or None for a worker that should know it."""

    key: str
    content: bytes | None
    version: str = __version__

    def empty(self) -> "Shipment":
        """The key alone."""
        return replace(self, content=None)


_jobs: dict[str, Job] = {}
_lock = threading.Lock()


def pack(job: Job) -> Shipment:
    """The shipment of a job, on one thread whatever it has here; threads of this process know it already."""
    job = replace(job, smooth=job.smooth.with_threads(1))
    content = pickle.dumps(job, protocol=5)
    shipment = Shipment(hashlib.sha256(content).hexdigest(), content)
    _keep(shipment.key, job)
    return shipment


def _keep(key: str, job: Job) -> None:
    while len(_jobs) >= _KEPT:
        _jobs.pop(next(iter(_jobs)))
    _jobs[key] = job


def unpack(shipment: Shipment) -> Job | None:
    """The job that a shipment means, planned and compiled; None where it is not known here.

    ResourceError: the shipment comes from another version, which might count other votes.
    """
    if shipment.version != __version__:
        raise ResourceError(
            f"a worker has intsmooth {__version__}, this process {shipment.version}: install the same version on both"
        )
    with _lock:  # two threads of one worker must not plan the same model twice
        job = _jobs.get(shipment.key)
        if job is None and shipment.content is not None:
            job = pickle.loads(shipment.content)
            smooth = job.smooth
            image = np.full(smooth.graph.input_shape, smooth.graph.levels[0], np.int16)
            count_votes(smooth.engine, image, smooth.table, smooth.seed, REHEARSAL, 0, 1)  # compiles
            _keep(shipment.key, job)
    return job


class VotesNeeded(Exception):
    """A certification cannot go on before `block` is counted."""

    def __init__(self, block: Block):
        super().__init__(block)
        self.block = block


class Replay(Smooth):
    """A Smooth that takes votes from `known` and counts at most `allowance` further ones, then raises VotesNeeded.

    A certification is a function of its votes: run again with more of them known, it comes to the same point and goes
    on from there. Votes that it counts are added to `known`.
    """

    def __init__(self, job: Job, known: dict[Block, list[int]], allowance: int):
        self.__dict__.update(job.smooth.__dict__)
        self.job, self.known, self.allowance, self.counted = job, known, allowance, 0

    def plan(self, **how) -> Plan:
        """The job's, which may have taken seconds to build."""
        return self.job.plan

    def _counts(self, image: np.ndarray, stage: int, first: int, n: int, batch_size: int) -> list[int]:
        block = (stage, first, n)
        if block not in self.known:
            if self.counted + n > self.allowance:
                raise VotesNeeded(block)
            self.known[block] = super()._counts(image, stage, first, n, batch_size)
            self.counted += n
        return self.known[block]


@dataclass(frozen=True)
class Reached:
    """How far a task came with an image: its certificate, or the votes known so far and the block that is needed.

    `needed` is None, too, where the task did not come to this image at all. samples, seconds: what it took.
    """

    certificate: Certificate | None
    known: dict[Block, list[int]]
    needed: Block | None
    samples: int
    seconds: float


def certify_images(
    shipment: Shipment,
    images: list[tuple[np.ndarray, int | None, dict[Block, list[int]]]],
    allowance: int,
    limit: float,
) -> list[Reached] | None:
    """Certify images, given as (levels, `label` of Smooth.certify, votes known already).

    At most `allowance` votes are counted for each; no image is begun once `limit` seconds are over.
    """
    job = unpack(shipment)
    if job is None:
        return None
    begin, reached = time.perf_counter(), []
    for image, label, known in images:
        start = time.perf_counter()
        if reached and start - begin > limit:
            reached.append(Reached(None, known, None, 0, 0.0))
            continue
        replay, certificate, needed = Replay(job, known, allowance), None, None
        try:
            certificate = replay.certify(image, label=label, **job.arguments)
        except VotesNeeded as votes:
            needed = votes.block
        # A virtual machine's clock has been seen to step back.
        seconds = max(0.0, time.perf_counter() - start)
        reached.append(Reached(certificate, {} if certificate else known, needed, replay.counted, seconds))
    return reached


def count_block(shipment: Shipment, image: np.ndarray, block: Block) -> tuple[list[int], float] | None:
    """Votes per class of one block of samples of an image, and the seconds it took."""
    job = unpack(shipment)
    if job is None:
        return None
    smooth, start = job.smooth, time.perf_counter()
    votes = count_votes(smooth.engine, image, smooth.table, smooth.seed, *block, job.arguments.get("batch_size"))
    return votes.counts.tolist(), max(0.0, time.perf_counter() - start)


def measure_rate(smooth: Smooth, image: np.ndarray, seconds: float = 0.05) -> float:
    """Samples per second here, measured on samples that no result uses; the first call compiles the kernels."""
    count, elapsed = 1, 0.0
    count_votes(smooth.engine, image, smooth.table, smooth.seed, REHEARSAL, 0, count)
    while elapsed < seconds:
        count *= 4
        start = time.perf_counter()
        count_votes(smooth.engine, image, smooth.table, smooth.seed, REHEARSAL, 0, count)
        elapsed = time.perf_counter() - start
    return count / elapsed


def rehearse_worker(shipment: Shipment, image: np.ndarray, ticket: int) -> float | None:
    """The rate of a worker. ticket: makes each call another task for engines that merge equal ones."""
    job = unpack(shipment)
    return None if job is None else measure_rate(job.smooth, image)
