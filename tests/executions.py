"""Runs on executors, for tests: what is certified, how it is compared, how processes are killed and counted."""

import contextlib
import logging
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future

import pytest
from small_runs import small_dataset

from intsmooth import tasks

N = 3000
MODES = {
    "fixed": {"n": N},
    "randomized": {"n": N, "bound": "randomized"},
    "target": {"target_radius": 0.1, "max_n": N},
    "curve": {"precision": 0.01, "max_n": 2 * N},
    "skip wrong": {"n": N, "skip_wrong": True},
}


def dataset_of(mode):
    """Where wrong images are skipped, every second label is what the model says of most images."""
    dataset = small_dataset()
    if mode == "skip wrong":
        dataset.labels[::2] = 2
    return dataset


def kill_at(count, processes):
    """on_votes that kills every process of processes(), once, when `count` tasks are back."""
    calls = []

    def on_votes(samples, workers):
        calls.append(samples)
        if len(calls) == count:
            for process in processes():
                os.kill(process, signal.SIGKILL)

    return on_votes


def alive(process):
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{process}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def digits_command(folder, name, *options):
    return ["certify", "digits", "--max", "6", "--n", "300", "--seed", "1", "--out", str(folder / name), *options]


class Disorderly(Executor):
    """An executor of nobody's make: `submit`, and no more. Workers run tasks in random order, each task twice, as after
    a loss, on copies of its arguments, and forget what they know now and then, as after a restart.
    """

    def __init__(self, workers=3, memory=10):
        self.random, self.workers, self.memory = random.Random(1), workers, memory
        self.tasks, self.calls, self.most, self.shipped, self.done = [], [], 0, 0, 0
        self.change, self.open = threading.Condition(), True
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def submit(self, function, /, *arguments):
        future, content = Future(), pickle.dumps((function, arguments))
        with self.change:
            self.tasks.append((future, content))
            self.most = max(self.most, len(self.tasks))
            self.calls.append(function.__name__)
            self.shipped += arguments[0].content is not None
            self.change.notify()
        return future

    def work(self):
        while True:
            with self.change:
                self.change.wait_for(lambda: self.tasks or not self.open)
                if not self.tasks:
                    return
                future, content = self.tasks.pop(self.random.randrange(len(self.tasks)))
            if not future.set_running_or_notify_cancel():
                continue
            self.done += 1
            if self.done % self.memory == 0:
                tasks._jobs.clear()
            results = []
            for _ in range(2):
                function, arguments = pickle.loads(content)
                try:
                    results.append(function(*arguments))
                except Exception as error:  # handed to whoever waits
                    future.set_exception(error)
                    break
            else:
                future.set_result(results[1])

    def shutdown(self, wait=True, *, cancel_futures=False):
        with self.change:
            self.open = False
            self.change.notify()
        self.thread.join()


@contextlib.contextmanager
def time_limit(seconds):
    """An engine that waits for ever makes a test fail instead of hanging."""

    def stop(*_):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def dask_cluster(**options):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1} | options
    with (
        time_limit(240),
        distributed.LocalCluster(
            host="127.0.0.1", dashboard_address=None, silence_logs=logging.CRITICAL, **options
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def mpi_start():
    """The beginning of a command that runs Python on three MPI processes."""
    pytest.importorskip("mpi4py")
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    if mpiexec is None:
        pytest.skip("no mpiexec here")
    start = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures"]
    if subprocess.run([*start, "-c", "pass"], capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("mpiexec does not work here")
    return start
