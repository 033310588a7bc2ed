"""What does certifying on many cores cost, and where does it stop scaling?

    python bench/scale.py

Measures on this machine what the answer depends on: samples per second of a core, alone and with its neighbour at work;
what handing out a task costs, by executor; what it costs to bring a model to a worker, and to start one; what a row of
results costs; and how much of their time two workers count in a whole run. The table of what 10,000 images x 100,000
samples x 4 sigmas would cost on 2, 64 and 1,000 cores is computed from these figures.
"""

import contextlib
import os
import pathlib
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from harness import ROOT, Effort, Report, Spread, machine_facts, main, optional, say

from intsmooth import Smooth
from intsmooth.datasets.base import Dataset
from intsmooth.dispatch import LONGEST_S, TASKS_PER_WORKER, WORKERS_PER_S, certify_on
from intsmooth.executors import open_executor
from intsmooth.noise.stream import image_digest
from intsmooth.progress import duration
from intsmooth.results_writer import ResultsWriter
from intsmooth.run import certify_dataset, rehearse, run_settings
from intsmooth.tasks import Job, count_block, pack
from intsmooth.vote import REHEARSAL, count_votes
from intsmooth.workers import Workers

MODEL, SIGMA = "cifar10-resnet20-s0.25", "0.25"
IMAGES, SAMPLES, SIGMAS = 10_000, 100_100, 4  # what the question is about; n0 included
CORES = (2, 64, 1000)
WORKERS = 2
MACHINE = 64  # cores at most that one machine has
DASK = "dask, scheduler in the same process"


@contextlib.contextmanager
def loky() -> Iterator[Executor | None]:
    joblib = optional("joblib.externals.loky")
    executor = joblib and joblib.get_reusable_executor(WORKERS)
    yield executor
    if executor is not None:
        executor.shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def dask() -> Iterator[Executor | None]:
    if optional("distributed") is None:
        yield None
        return
    with open_executor(WORKERS, dask="local") as executor:
        yield executor


EXECUTORS = {
    "threads": lambda: ThreadPoolExecutor(WORKERS),
    "processes": lambda: open_executor(WORKERS),
    "loky": loky,
    DASK: dask,
}


def images(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8) for i in range(count)]


def dataset(count: int) -> Dataset:
    numbers = np.arange(count)
    return Dataset("random images", images(count).__getitem__, numbers, numbers % 10)


def core_rates(smooth: Smooth, effort: Effort) -> dict[str, Spread]:
    """Samples per second of one core, one thread: alone, and while another thread does the same."""
    image = smooth.check_image(images(1)[0])

    def rate(seconds: float = 2 * effort.seconds) -> float:
        n = max(1, round(guess * seconds))
        start = time.perf_counter()
        count_votes(smooth.engine, image, smooth.table, smooth.seed, REHEARSAL, 0, n)
        return n / (time.perf_counter() - start)

    guess = rehearse(smooth, image, 0.2)
    alone, both = [], []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(effort.rounds):
            alone.append(rate())
            both.append(statistics.mean(future.result() for future in [pool.submit(rate) for _ in range(2)]))
    return {"alone": Spread(tuple(alone)), "both": Spread(tuple(both))}


def task_costs(executor: Executor, job: Job, tasks: int, ship: bool) -> tuple[float, float]:
    """Seconds per task of one sample: on the clock, and of this process's CPU time. ship: with the model in each."""
    workers = Workers(executor, job)
    image = job.smooth.check_image(images(1)[0])
    workers.rehearse(image)
    while workers.busy:
        workers.take()
    start, cpu, left = time.perf_counter(), time.process_time(), tasks
    while left or workers.busy:
        while left and workers.busy < TASKS_PER_WORKER * WORKERS:
            left -= 1
            workers.submit(lambda result: None, count_block, image, (REHEARSAL, left, 1), ship=ship)
        workers.take()
    return (time.perf_counter() - start) / tasks, (time.process_time() - cpu) / tasks


_START = """
import sys, time
begin = time.perf_counter()
import pickle
from intsmooth.tasks import unpack
imported = time.perf_counter()
assert unpack(pickle.load(open(sys.argv[1], "rb"))) is not None
print(imported - begin, time.perf_counter() - imported)
"""


def start_up(job: Job) -> dict[str, tuple[float, float, float]]:
    """Seconds of a new process on the clock, of its imports, and of planning and loading or compiling the kernels."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "job"
        path.write_bytes(pickle.dumps(pack(job)))
        environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": folder}
        for name in ("nothing compiled yet", "kernels in the cache"):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", _START, path], env=environment, capture_output=True, text=True, check=True
            )
            found[name] = (time.perf_counter() - start, *map(float, done.stdout.split()))
    return found


def row_cost(smooth: Smooth, rows: int) -> float:
    """Seconds of writing a row and waiting until it is on disk, in the current folder."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = pathlib.Path(folder) / "a.tsv"
        certify_dataset(smooth, dataset(1), path, n=10)
        settings = run_settings(smooth, 100, 0.001, smooth.plan(n=10))
        with ResultsWriter(path, settings) as writer:
            row, start = writer.rows[0], time.perf_counter()
            for _ in range(rows):
                writer.append(row)
            return (time.perf_counter() - start) / rows


def whole_run(executor: Executor, smooth: Smooth, rate: float, seconds: float) -> float:
    """Share of their time that two warm workers spend counting in a run that takes about so many seconds."""
    levels = [smooth.check_image(image) for image in images(3)]  # not a multiple of the workers: images are split
    n = max(1000, round(WORKERS * rate * seconds / len(levels)))
    job = Job(smooth, smooth.plan(n=n), {"n": n})
    rehearse(smooth, levels[0], executor=executor)
    numbered = ((i, image_digest(image), image, None) for i, image in enumerate(levels))
    start = time.perf_counter()
    counting = sum(row[3] for row in certify_on(executor, job, numbered, len(levels)))
    return counting / WORKERS / (time.perf_counter() - start)


@dataclass(frozen=True)
class Costs:
    """Measured figures, and what they add up to.

    rate: samples per second and core; share of their time that workers count; seconds of handing out a task, of sending
    the job to a worker, of starting one, of writing a row.
    """

    rate: float
    share: float
    task: float
    ship: float
    start: float
    row: float

    @property
    def work(self) -> float:
        """Core seconds."""
        return IMAGES * SAMPLES * SIGMAS / (self.rate * self.share)

    def run(self, cores: int) -> tuple[float, float, float]:
        """(seconds, share of them in which all cores work, share in which the handing-out process works).

        Four runs, one per sigma: a start, in which each worker starts and is sent the model; the work; the last task of
        each worker, during which others may be idle. Handing out and writing rows run beside the work, by one process.
        """
        task_s = max(LONGEST_S, cores / WORKERS_PER_S)
        tasks = self.work / task_s + 2 * IMAGES * SIGMAS
        serial = tasks * self.task + IMAGES * SIGMAS * self.row
        start = SIGMAS * (self.start + cores * (self.ship + self.task))
        seconds = start + max(self.work / cores, serial) + SIGMAS * task_s
        return seconds, self.work / cores / seconds, serial / seconds

    def most_cores(self, share: float) -> int:
        """The largest number of cores of which that share works."""
        low, high = 1, 10**7
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.run(middle)[1] >= share else (low, middle)
        return low


def mpi_cost(tasks: int) -> float | None:
    """Seconds per task under mpiexec, on the clock; None where it is not installed."""
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    if mpiexec is None or optional("mpi4py") is None:
        return None
    command = [mpiexec, "-n", str(WORKERS + 1), sys.executable, "-m", "mpi4py.futures", __file__, "--mpi-tasks"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "bench")])}
    command += [str(tasks)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None


def question(effort: Effort) -> Report:
    report = Report("Many cores")
    smooth = Smooth(MODEL, SIGMA, seed=1, threads=1)
    job = Job(smooth, smooth.plan(n=SAMPLES), {})
    tasks = 200 if effort.quick else 2000

    say("samples per second")
    rates = core_rates(smooth, effort)
    rate = rates["both"].median
    say("start-up")
    starts = start_up(job)
    row = row_cost(smooth, 50 if effort.quick else 300)
    size = len(pack(job).content) / 1e6

    lines, costs = [], {}
    for name, opened in EXECUTORS.items():
        say(name)
        with opened() as executor:
            if executor is None:
                lines.append((name, *["not installed"] * 4))
                continue
            clock, cpu = task_costs(executor, job, tasks, ship=False)
            ship = max(task_costs(executor, job, tasks // 10, ship=True)[0] - clock, 0.0)
            share = min(1.0, whole_run(executor, smooth, rate, 2 if effort.quick else 15))
        lines.append((name, *(f"{1e3 * seconds:.2f}" for seconds in (clock, cpu, ship)), f"{100 * share:.0f} %"))
        costs[name] = Costs(rate, share, cpu, ship, starts["kernels in the cache"][0], row)
    say("MPI")
    mpi = mpi_cost(tasks)
    lines.append(("mpi4py.futures", "not installed" if mpi is None else f"{1e3 * mpi:.2f}", "", "", ""))

    facts = machine_facts()
    report.text(f"{facts['processor']}, {facts['processors']} cores, kernels {facts['kernels']}, load {facts['load']}.")
    report.text(
        f"{MODEL}, sigma {SIGMA}: {rates['alone'].text()} samples/s on one core, {rates['both'].text()} on each of two "
        f"that work at the same time. The job (model, noise table, plan, settings) is {size:.2f} MB. Writing a row and "
        f"waiting for the disk takes {1e3 * row:.2f} ms."
    )
    report.table(
        ("start of a worker", "seconds", "imports", "plan and kernels"),
        [(name, *(f"{value:.1f}" for value in values)) for name, values in starts.items()],
    )
    report.table(
        ("executor, two workers", "ms per task of one sample", "CPU ms of it where tasks are handed out",
         "ms more with the job in it", "workers' time spent counting in a run"), lines,
    )  # fmt: skip
    table = []
    for name, cores in ((name, cores) for cores in CORES for name in ("processes", DASK) if name in costs):
        if name == "processes" and cores > MACHINE:
            continue
        seconds, busy, handing = costs[name].run(cores)
        task = max(LONGEST_S, cores / WORKERS_PER_S)
        table.append((f"{cores:,}, {name}", duration(seconds), f"{100 * busy:.1f} %", f"{100 * handing:.1f} %",
                      f"{task:.1f} s"))  # fmt: skip
    report.text(f"{IMAGES:,} images x {SAMPLES:,} samples x {SIGMAS} sigmas at {rate:,.0f} samples/s and core:")
    report.table(("cores", "time", "cores at work", "handing out and writing at work", "a task"), table)
    if DASK in costs:
        most = [costs[DASK].most_cores(share) for share in (0.9, 0.5)]
        report.text(f"With dask, cores are at work 90 % of the time up to {most[0]:,} cores, 50 % up to {most[1]:,}.")
    return report


if __name__ == "__main__":
    if sys.argv[1:2] == ["--mpi-tasks"]:
        smooth = Smooth(MODEL, SIGMA, seed=1, threads=1)
        with open_executor(mpi=True) as executor:
            print(task_costs(executor, Job(smooth, None, {}), int(sys.argv[2]), ship=False)[0])
    else:
        main(question, __doc__)
