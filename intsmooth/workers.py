"""The workers behind an executor: how many there are, how fast they are, what they have been sent, what comes back."""

import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from time import monotonic

import numpy as np

from intsmooth.errors import IntsmoothError, ResourceError
from intsmooth.executors import worker_count
from intsmooth.tasks import Job, pack, rehearse_worker

_RECOUNT_S = 5.0  # between two looks at how many workers there are
_REMEMBERED = 64  # tasks whose speed counts


class Workers:
    """The workers of an executor, for one job."""

    def __init__(self, executor: Executor, job: Job):
        self.executor, self.shipment = executor, pack(job)
        self._done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._out: dict[Future, tuple] = {}
        self._speeds: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._counted_at = float("-inf")
        self._to_ship = self.count

    @property
    def count(self) -> int:
        """How many there are, at least 1: what the executor said a few seconds ago at most."""
        if monotonic() - self._counted_at > _RECOUNT_S:
            with lost_workers():
                self._count = max(1, worker_count(self.executor))
            self._counted_at = monotonic()
        return self._count

    @property
    def busy(self) -> int:
        """Tasks that are handed out."""
        return len(self._out)

    @property
    def rate(self) -> float:
        """Samples per second of one worker, by the last tasks; 0 if nothing is known."""
        seconds = sum(seconds for _, seconds in self._speeds)
        return sum(samples for samples, _ in self._speeds) / seconds if self._speeds else 0.0

    def observe(self, samples: float, seconds: float) -> None:
        """Take note of what one worker did."""
        if seconds > 0:  # clocks have been seen to step back
            self._speeds.append((samples, seconds))

    def submit(self, then: Callable, function: Callable, *arguments, ship: bool = False) -> None:
        """Hand out function(shipment, *arguments); `take` will call then(result).

        The job's content is in the first tasks, one for each worker, and where `ship` says so.
        """
        ship = ship or self._to_ship > 0
        self._to_ship -= ship
        with lost_workers():
            future = self.executor.submit(function, self.shipment if ship else self.shipment.empty(), *arguments)
        self._out[future] = then, function, arguments
        future.add_done_callback(self._done.put)

    def take(self) -> None:
        """Wait for a task, whichever is back first; hand it out again, with the job's content, if that was missing."""
        future = self._done.get()
        then, function, arguments = self._out.pop(future)
        with lost_workers():
            result = future.result()
        if result is None:
            self.submit(then, function, *arguments, ship=True)
        else:
            then(result)

    def rehearse(self, image: np.ndarray) -> float:
        """Let every worker compile and measure itself; return the rate of the first that is through."""
        for ticket in range(self.count):
            self.submit(lambda rate: self.observe(rate, 1.0), rehearse_worker, image, ticket)
        while not self._speeds:
            self.take()
        return self.rate

    def close(self) -> None:
        """Call back what is handed out and not yet begun."""
        for future in list(self._out):
            future.cancel()


class lost_workers:
    """A context in which the loss of workers, or of the way to them, is a ResourceError that says what to do."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None or isinstance(error, IntsmoothError):
            return
        again = "the rows so far are safe: give the same command again"
        if isinstance(error, CancelledError):  # not by us, who do not wait for what we cancel
            raise ResourceError(f"the way to the workers was lost (is the scheduler still there?); {again}") from error
        foreign = type(error).__module__.split(".")[0] in ("distributed", "mpi4py")
        if foreign or isinstance(error, BrokenExecutor):
            said = f"{type(error).__name__}: {error}".strip(": ")
            raise ResourceError(f"a worker was lost ({said}), perhaps for want of memory; {again}") from error
        if isinstance(error, ModuleNotFoundError):
            raise ResourceError(
                f"a worker lacks {error.name}: install the same intsmooth, with what it needs, where the workers run"
            ) from error
