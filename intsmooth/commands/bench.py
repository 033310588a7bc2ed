"""Measure this machine: samples per second, share of the processor's integer limit, seconds per certified image.

Every figure is the median of short interleaved runs. The limit is what a loop of nothing but dot products reaches on
the same threads, measured in turn with the model; the share counts the multiply-adds of layers with weights alone,
while the time includes the noise, the whole network and the vote.
"""

import argparse
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

from intsmooth.engine import check_threads
from intsmooth.errors import InputError

SUMMARY = "measure samples per second on this machine"
EXAMPLES = ("bench", "bench digits", "bench model.h5 --threads 4")
N = 100_000  # samples per image of the field's certificates
_SIGMA = "0.25"  # where neither the options nor the model say; the noise costs the same at any sigma
_ROUNDS = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", nargs="?", help="a model file (.h5), or a shipped model's name (default: all shipped)")
    parser.add_argument("--sigma", help=f"noise in [0, 1] units (default: the model's training noise, else {_SIGMA})")
    parser.add_argument("--threads", type=int, metavar="N", help="worker threads (default: one per processor)")
    parser.add_argument(
        "--seconds", type=float, default=0.2, metavar="S", help=f"length of each of {_ROUNDS} runs (default: 0.2)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the machine, its limit and a line per model."""
    from intsmooth.kernels.isa import ISA
    from intsmooth.shipped import find_model, shipped_models

    threads = check_threads(arguments.threads)
    if not 0.001 <= arguments.seconds <= 60:
        raise InputError(f"--seconds is {arguments.seconds:g}; it must be from 0.001 to 60")
    paths = [find_model(arguments.model)] if arguments.model else list(shipped_models().values())
    if not paths:
        raise InputError("no model is shipped with this installation: name a model file (.h5)")
    print(f"processor  {processor_name()}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}")
    print(f"kernels    {ISA} (INTSMOOTH_ISA chooses), {threads} thread{'s' * (threads > 1)}")
    if load_average() > 0.5:
        print(f"busy       load average {load_average():.1f}: other programs are running, all figures will be too low")
    print("compiling what is not compiled yet ...", flush=True)
    rows = [measure_model(path, arguments.sigma, threads, arguments.seconds) for path in paths]
    limit = statistics.median(row["limit"] for row in rows)
    print(f"limit      {limit / 1e9:,.0f} G multiply-adds/s of bytes, measured\n")
    width = max(5, *(len(path.stem) for path in paths))
    print(f"{'model':<{width}}  multiply-adds   inference  noise + inference + vote   of the limit   n = {N:,}")
    for path, row in zip(paths, rows, strict=True):
        share = row["multiply-adds"] * row["votes"] / row["limit"]
        print(
            f"{path.stem:<{width}}  {row['multiply-adds']:>13,}  {row['inference']:>8,.0f}/s  "
            f"{row['votes']:>14,.0f} samples/s  {100 * share:>11.1f} %  {N / row['votes']:>7,.2f} s/image"
        )
    return 0


def measure_model(path: pathlib.Path, sigma: str | None, threads: int, seconds: float) -> dict[str, float]:
    """Rates per second of one model: "votes" (samples), "inference" (images), "limit" (multiply-adds of bytes).

    "multiply-adds" is the number per sample. sigma: in [0, 1] units, None for the model's own.
    """
    import numpy as np

    from intsmooth import h5file
    from intsmooth.kernels.limit import run_dots
    from intsmooth.smooth import Smooth
    from intsmooth.vote import REHEARSAL, count_votes

    graph = h5file.load(path)
    smooth = Smooth(graph, sigma or graph.facts.get("sigma") or _SIGMA, seed=0, threads=threads)
    rng = np.random.default_rng(0)
    images = rng.integers(graph.levels[0], graph.levels[1] + 1, (32 * threads, *graph.input_shape), np.int16)

    def votes(n: int) -> None:
        count_votes(smooth.engine, images[0], smooth.table, smooth.seed, REHEARSAL, 0, n)

    def inference(n: int) -> None:
        for start in range(0, n, len(images)):
            smooth.engine.classify(images[: min(n - start, len(images))])

    runs = {"votes": votes, "inference": inference, "limit": lambda n: run_dots(n, threads)}
    rates = rates_per_second(runs, _ROUNDS, seconds)
    found = {name: statistics.median(values) for name, values in rates.items()}
    found["limit"] *= run_dots(1, threads)  # from passes to multiply-adds
    return found | {"multiply-adds": multiply_adds(graph)}


def rates_per_second(runs: dict[str, Callable[[int], None]], rounds: int, seconds: float, pause=0.0) -> dict:
    """name -> `rounds` rates of each run(n), in units of n per second, the runs taking turns.

    Each is called with an n that takes about `seconds`; finding it warms up. pause: seconds between two runs, so that
    the idle threads of the one before have stopped spinning.
    """
    sizes = {}
    for name, work in runs.items():
        work(1)  # compiles
        n = 1
        while (taken := min(_seconds(work, n) for _ in range(2))) < seconds / 2:  # the shorter: nothing else cut in
            n = max(n + 1, min(8 * n, round(0.8 * seconds * n / max(taken, 1e-9))))
        sizes[name] = max(1, round(n * seconds / taken))
    rates = {name: [] for name in runs}
    for _ in range(rounds):
        for name, work in runs.items():
            time.sleep(pause)
            rates[name].append(sizes[name] / _seconds(work, sizes[name]))
    return rates


def _seconds(work: Callable[[int], None], n: int) -> float:
    start = time.perf_counter()
    work(n)
    return time.perf_counter() - start


def multiply_adds(graph) -> int:
    """Multiply-adds of one sample, as the literature counts them: those of layers with weights."""
    from intsmooth.ops import OPERATORS

    return sum(
        OPERATORS[node.op].multiply_adds(
            node, tuple(graph.tensors[name] for name in node.inputs), graph.tensors[node.output].shape
        )
        for node in graph.nodes
    )


def load_average() -> float:
    """How many programs ran or wanted to run during the last minute, on average; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def processor_name() -> str:
    """What the processor calls itself, with family and model where Linux tells them (a name alone may be vague)."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    facts = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or facts.get("Hardware") or platform.machine()
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else name
