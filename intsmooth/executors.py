"""Opens the executors that a certification can run on, and tells how many workers one has.

Any `concurrent.futures.Executor` will do; those that are opened here are processes of this machine, a dask cluster, and
the processes of an MPI run. None of them is ours: they start workers, hand out tasks and notice losses.
"""

import contextlib
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

from intsmooth.engine import available_cpus
from intsmooth.errors import InputError, MissingExtraError, ResourceError

_CONNECT_S = 20
_MOST_WORKERS = 4096


@contextlib.contextmanager
def open_executor(workers: int | None = None, dask: str | None = None, mpi: bool = False) -> Iterator[Executor | None]:
    """An executor with workers of one thread each, or None where nothing is asked for; closed when the block ends.

    workers: that many processes of this machine, or of the cluster that `dask="local"` starts (one per processor by
    default); dask: "local", or the address of a scheduler that runs already; mpi: the processes that mpiexec started,
    `mpiexec -n 65 python -m mpi4py.futures ...` being one that hands out and 64 that work.

    InputError: arguments that contradict each other. MissingExtraError: dask or mpi4py is not installed.
    ResourceError: no scheduler at this address, or no processes from mpiexec.
    """
    if workers is not None and not 1 <= workers <= _MOST_WORKERS:
        raise InputError(f"workers is {workers}; required: an integer from 1 to {_MOST_WORKERS}")
    if mpi and (dask is not None or workers is not None):
        raise InputError("workers or dask beside mpi, where mpiexec says how many processes there are: choose one")
    if dask not in (None, "local") and workers is not None:
        raise InputError(f"workers cannot be chosen for the cluster at {dask}: it has those that were started for it")
    if dask not in (None, "local") and not re.fullmatch(r"\w+://.+|[^:]+:\d+", dask):
        raise InputError(f"the cluster's address is {dask!r}; HOST:PORT or tcp://HOST:PORT is required, or local")
    if mpi:
        with _mpi() as executor:
            yield executor
    elif dask is not None:
        with _dask(dask, workers) as executor:
            yield executor
    elif workers is not None:
        with _processes(workers) as executor:
            yield executor
    else:
        yield None


def worker_count(executor: Executor) -> int:
    """How many tasks `executor` can run at once, as far as it says; 0 while a cluster has no worker."""
    if type(executor).__module__.split(".")[0] == "distributed":
        return sum(executor._client.nthreads().values())
    return getattr(executor, "_max_workers", None) or available_cpus()  # standard library, loky, mpi4py


@contextlib.contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    # Not forked: a fork copies locks that threads of this process may hold.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, initializer=_stay_with_parent)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stay_with_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when the parent does, even if it is killed."""
    _ignore_interrupts()
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _dask(address: str, workers: int | None) -> Iterator[Executor]:
    try:
        import distributed
    except ImportError:
        raise MissingExtraError("distributed", "dask", "a dask cluster") from None
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # its errors come as ours
    cluster = None
    with contextlib.ExitStack() as stack:
        if address == "local":
            cluster = distributed.LocalCluster(
                n_workers=workers or available_cpus(), threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
                silence_logs=logging.ERROR,
            )  # fmt: skip
            address = stack.enter_context(cluster).scheduler_address
        try:
            client = stack.enter_context(distributed.Client(address, timeout=_CONNECT_S, set_as_default=False))
        except (OSError, ValueError) as error:
            raise ResourceError(
                f"no dask scheduler answers at {address} ({error}): start one with `dask scheduler` and workers with "
                "`dask worker ADDRESS --nthreads 1 --nworkers -1`, or use --dask local"
            ) from error
        if cluster is not None:
            client.run(_ignore_interrupts)  # Ctrl-C reaches all processes of a terminal, and is for this one to handle
        yield client.get_executor(pure=False)  # a task's name need not be a digest of its arguments


@contextlib.contextmanager
def _mpi() -> Iterator[Executor]:
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPIPoolExecutor
    except (ImportError, RuntimeError):  # the second: there is no MPI library under it
        raise MissingExtraError("mpi4py and an MPI library", "mpi", "certifying under mpiexec") from None
    size = MPI.COMM_WORLD.Get_size()
    if size < 2 or "mpi4py.futures" not in sys.orig_argv:  # without it every process would certify everything
        raise InputError(
            f"{size} MPI process{'es' * (size > 1)}, not started for this; required: one that hands out and others "
            "that work: `mpiexec -n 65 python -m mpi4py.futures -m intsmooth certify ... --mpi`"
        )
    with MPIPoolExecutor() as executor:
        yield executor
