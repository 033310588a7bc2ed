"""Engine: runs a graph on batches of noisy levels, or counts votes with the noise drawn on the way.

Two backends with the same bits: "numba" runs a Plan on compiled kernels, "numpy" runs the naive twins and needs neither
numba nor scipy. An Engine may be used from several threads at once, and after a fork.
"""

import math
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from intsmooth.errors import InputError, ResourceError, within_memory
from intsmooth.overflow import prove_no_overflow
from intsmooth.records import Graph

BACKENDS = ("numba", "numpy")
_READ_AHEAD = 16  # int16 values that a vector load may read past the last level
_CHUNK = 128  # samples that a thread takes at a time, a quarter of its share at most, so that threads finish together
_MAX_CHUNKS = 4096  # tasks of one call: larger chunks rather than more of them, which all would wait in memory
MAX_THREADS = 256


def available_cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(threads: int | None) -> int:
    """The number of worker threads to use: `threads`, or one per available processor where it is None."""
    if threads is None:
        return min(available_cpus(), MAX_THREADS)
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or not 1 <= threads <= MAX_THREADS:
        raise InputError(
            f"threads is {threads!r}; required: an integer from 1 to {MAX_THREADS}, or None for all processors"
        )
    return int(threads)


@dataclass
class _Workspace:
    """What one thread writes while it runs a sample."""

    arena: np.ndarray
    scratch: np.ndarray
    levels: np.ndarray
    words: np.ndarray


class Engine:
    """Runs a Graph.

    Parameters
    ----------
    graph : records.Graph, validated (as h5file.load and graph.build_graph return it)
    backend : "numba" or "numpy"; equal to the last bit
    threads : worker threads of the numba backend, None for one per processor available to the process

    Raises InputError for a bad argument, OverflowProofError and UnsupportedError for a model that cannot run,
    ResourceError where memory is too small.
    """

    @within_memory
    def __init__(self, graph: Graph, backend: str = "numba", threads: int | None = None):
        if backend not in BACKENDS:
            raise InputError(f"backend is {backend!r}; required: one of {', '.join(BACKENDS)}")
        self.graph, self.backend, self.threads = graph, backend, check_threads(threads)
        self.classes = len(graph.classes)
        self.plan = None
        if backend == "numpy":
            prove_no_overflow(graph)
            return
        try:
            from intsmooth.plan import build_plan
        except ModuleNotFoundError as error:
            raise ResourceError(
                f"backend 'numba' needs {error.name}, which is not installed: python -m pip install {error.name}, "
                "or use backend='numpy', which needs NumPy only"
            ) from None
        from intsmooth.kernels.table import addresses
        from intsmooth.lowering.constants import aligned_bytes

        self.plan = build_plan(graph)
        self._kernels = addresses(self.plan.operations)
        self._aligned_bytes = aligned_bytes
        self._spare: queue.SimpleQueue[_Workspace] = queue.SimpleQueue()
        self._pool, self._pool_owner = None, 0

    def __getstate__(self):
        return {"graph": self.graph, "backend": self.backend, "threads": self.threads}

    def __setstate__(self, state):
        self.__init__(**state)

    def forward(self, levels: np.ndarray) -> np.ndarray:
        """Final int8 activations, (N, features), of int16 levels (N, *input shape) with the noise already added."""
        return self._run(levels)[0]

    def classify(self, levels: np.ndarray) -> np.ndarray:
        """Class indices int64 (N,) of int16 levels (N, *input shape); ties go to the lowest index."""
        return self._run(levels)[1]

    @within_memory
    def trace(self, levels: np.ndarray) -> dict[str, np.ndarray]:
        """Every activation by tensor name, int8 (N, *shape); int32 (N, 1) for a class index."""
        levels = self._check(levels)
        if self.backend == "numpy":
            from intsmooth.reference import engine as reference

            return reference.run(self.graph, levels)
        from intsmooth.kernels.network import run_network
        from intsmooth.plan import read

        work, flat = self._workspace(), self._flat(levels)
        activations = {
            name: np.zeros((len(levels), *tensor.shape), tensor.dtype) for name, tensor in self.graph.tensors.items()
        }
        activations[self.graph.input] = levels.copy()
        for sample in range(len(levels)):
            for node in self.graph.nodes:
                if node.name in self.plan.spans:
                    start, stop = self.plan.spans[node.name]
                    run_network(
                        self._kernels,
                        self.plan.table[start:stop],
                        flat[sample],
                        work.arena,
                        work.scratch,
                        self.plan.blob,
                    )
                    activations[node.output][sample] = read(work.arena, self.plan.buffers[node.output]).reshape(
                        self.graph.tensors[node.output].shape
                    )
                else:
                    activations[node.output][sample] = np.argmax(activations[node.inputs[0]][sample])
        self._spare.put(work)
        return activations

    @within_memory
    def count_votes(self, image: np.ndarray, table, key: np.ndarray, first: int, n: int) -> np.ndarray:
        """Votes int64 (classes,) of noisy samples first .. first + n - 1 of the stream `key` around `image`.

        image: integer levels (*input shape); table: noise.law.NoiseTable; key: uint32 (8,) from
        noise.stream.stream_key.
        """
        image = self._check(np.asarray(image)[None])[0]
        reach = (int(image.min()) + table.first, int(image.max()) + table.first + len(table.thresholds))
        if reach[0] < -32768 or reach[1] > 32767:
            raise InputError(
                f"levels plus noise reach from {reach[0]} to {reach[1]}; required: within int16. Use a smaller sigma"
            )
        if self.backend == "numpy":
            return self._count_votes_numpy(image, table, key, first, n)
        from intsmooth.kernels.votes import run_votes
        from intsmooth.noise.sampler import table_arrays

        size = image.size
        center = np.zeros(size + _READ_AHEAD, np.int16)
        center[:size] = image.ravel()
        prepared = table_arrays(table)

        def run(begin: int, count: int) -> np.ndarray:
            work = self._workspace()
            counts = np.zeros(self.classes, np.int64)
            run_votes(
                self._kernels,
                self.plan.table,
                self.plan.output,
                center,
                size,
                key,
                np.uint64(first + begin),
                count,
                *prepared,
                counts,
                work.levels,
                work.words,
                work.arena,
                work.scratch,
                self.plan.blob,
            )
            self._spare.put(work)
            return counts

        return sum(self._map(run, n), np.zeros(self.classes, np.int64))

    def _count_votes_numpy(self, image, table, key, first, n):
        from intsmooth.noise.sampler import sample_noise

        counts = np.zeros(self.classes, np.int64)
        step = max(1, min(n, 2**22 // max(image.size, 1)))
        for begin in range(0, n, step):
            count = min(step, n - begin)
            noise = sample_noise(table, key, first + begin, count, image.size, backend="numpy")
            decisions = self.classify(image[None] + noise.reshape(count, *image.shape))
            counts += np.bincount(decisions, minlength=self.classes)
        return counts

    @within_memory
    def _run(self, levels):
        levels, final = self._check(levels), self._final_tensor()
        features = math.prod(self.graph.tensors[final].shape)
        if self.backend == "numpy":
            from intsmooth.reference import engine as reference

            result = reference.run(self.graph, levels)[final].reshape(len(levels), features)
            return result, np.argmax(result, axis=1).astype(np.int64)
        from intsmooth.kernels.network import run_batch

        # A vector load may read past a sample: into the next one, but the last has none and is copied to have room.
        last = len(levels) - 1
        flat, tail = levels.reshape(len(levels), math.prod(self.graph.input_shape)), self._flat(levels[last:])
        results = np.empty((len(levels), features), np.uint8)
        decisions = np.empty(len(levels), np.int64)

        def run(begin: int, count: int) -> None:
            work, stop = self._workspace(), begin + count
            pieces = [(flat[begin : min(stop, last)], slice(begin, min(stop, last)))]
            pieces += [(tail, slice(last, stop))] if stop > last else []
            for samples, part in pieces:
                run_batch(
                    self._kernels,
                    self.plan.table,
                    self.plan.output,
                    samples,
                    results[part],
                    decisions[part],
                    work.arena,
                    work.scratch,
                    self.plan.blob,
                )
            self._spare.put(work)

        self._map(run, len(levels))
        return (results ^ 0x80).view(np.int8), decisions

    def _final_tensor(self) -> str:
        last = self.graph.nodes[-1]
        return last.inputs[0] if last.op == "argmax" else last.output

    def _check(self, levels):
        levels = np.asarray(levels)
        if levels.dtype.kind not in "iu":
            raise InputError(
                f"levels have dtype {levels.dtype}; required: integers (the network adds no rounding of its own)"
            )
        if levels.shape[1:] != self.graph.input_shape:
            raise InputError(
                f"levels have shape {levels.shape}; required: (N, {', '.join(map(str, self.graph.input_shape))})"
            )
        fits = levels.dtype in (np.int8, np.uint8, np.int16)
        if not fits and levels.size and (levels.min() < -32768 or levels.max() > 32767):
            raise InputError(
                f"levels reach from {levels.min()} to {levels.max()}; required: within int16, -32768 to 32767"
            )
        levels = np.ascontiguousarray(levels, np.int16)
        return levels if levels.flags.writeable else levels.copy()  # compiled for arrays that can be written

    def _flat(self, levels):
        size = math.prod(self.graph.input_shape)
        flat = np.zeros((len(levels), size + _READ_AHEAD), np.int16)
        flat[:, :size] = levels.reshape(len(levels), size)
        return flat

    def _workspace(self) -> _Workspace:
        try:
            return self._spare.get_nowait()
        except queue.Empty:
            from intsmooth.kernels.sampler import SCRATCH_WORDS

            size = -(-int(np.prod(self.graph.input_shape)) // 256) * 256
            return _Workspace(
                self._aligned_bytes(self.plan.arena.tobytes()),
                np.zeros(self.plan.scratch, np.int32),
                np.zeros(size + _READ_AHEAD, np.int16),
                np.zeros(SCRATCH_WORDS, np.uint32),
            )

    def _map(self, run, n: int) -> list:
        """run(begin, count) over chunks of range(n), on all threads; results in order."""
        chunk = max(1, min(_CHUNK, -(-n // (4 * self.threads))), -(-n // _MAX_CHUNKS))
        starts = range(0, n, chunk)
        if self.threads == 1 or len(starts) <= 1:
            return [run(begin, min(chunk, n - begin)) for begin in starts]
        if self._pool is None or self._pool_owner != os.getpid():  # threads do not survive a fork
            self._pool, self._pool_owner = ThreadPoolExecutor(self.threads, "intsmooth"), os.getpid()
        return list(self._pool.map(lambda begin: run(begin, min(chunk, n - begin)), starts))
