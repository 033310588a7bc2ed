"""Fuzz everything that reads a file: whatever the bytes, a typed error or a sound result, in bounded time and memory.

    python tests/fuzz.py h5 --files 1000000 --seed 1        # also tflite, onnx, table, results
    python tests/fuzz.py onnx --seed 1 --first 4711 --files 1   # one case of that run again

A worker reads one mutated file after the other and stops at the first finding: an exception other than the documented
ones, a warning, a changed model that passes for the original, a message that nobody can read, more than 5 s of
processor time or memory beyond 1 GB (which the system refuses). The parent watches it, so that a crash and a loop
inside compiled code are findings, too. The finding is written to the current folder. Every case follows from seed and
number alone. test_fuzz.py runs a few thousand, and all findings so far.
"""

import argparse
import contextlib
import mmap
import os
import pathlib
import random
import signal
import struct
import sys
import time
import warnings
from collections import Counter

from fuzz_targets import TARGETS, Target

MAX_SECONDS = 5
MAX_BYTES = 10**9
SILENCE = 60 * MAX_SECONDS  # after which the parent takes the worker for hung, however busy the machine


class Finding(Exception):
    """Something that no file may lead to."""


def case(target: Target, seed: int, number: int) -> bytes:
    """The mutated file of this number."""
    return target.mutate(random.Random(f"{seed}:{number}"))


def run(target: Target, files: int, seed: int, first: int = 0, progress=None) -> Counter:
    """Outcomes of cases first, first + 1, ...; the first finding is written to the current folder and raised."""
    counts: Counter = Counter()
    with _alarm(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(first, first + files):
            if progress:
                progress(number, counts)
            data = case(target, seed, number)
            try:
                if hasattr(signal, "setitimer"):
                    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
                counts[target.outcome(data)] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                raise Finding(f"{type(error).__name__}: {error}; {keep(target, data, seed, number)}") from error
            finally:
                if hasattr(signal, "setitimer"):
                    signal.setitimer(signal.ITIMER_PROF, 0)
    return counts


def keep(target: Target, data: bytes, seed: int, number: int) -> pathlib.Path:
    """Write the finding's bytes into the current folder."""
    path = pathlib.Path(f"finding-{type(target).__name__}-{seed}-{number}")
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def _alarm():
    """More than MAX_SECONDS of processor time for one case raise an exception."""

    def expired(*_):
        raise Finding(f"more than {MAX_SECONDS} s")

    if not hasattr(signal, "setitimer"):  # Windows: a hang is seen by whoever waits
        yield
        return
    before = signal.signal(signal.SIGPROF, expired)
    try:
        yield
    finally:
        signal.signal(signal.SIGPROF, before)


def watched(target: Target, files: int, seed: int, first: int) -> int:
    """`run` in a forked worker with limited memory: 0, or 1 where there was a finding, a crash or a hang."""
    import resource

    board = mmap.mmap(-1, 8)
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            used = _kilobytes("VmSize") - _kilobytes("VmRSS")
            resource.setrlimit(resource.RLIMIT_AS, (1024 * used + MAX_BYTES,) * 2)
            start = time.monotonic()

            def progress(number, counts):
                board[:] = struct.pack("<Q", number)
                done = number - first
                if done % 10_000 == 0:
                    rate, peak = done / (time.monotonic() - start + 1e-9), peak_memory() / 1e6
                    print(f"{done} files, {rate:.0f}/s, {dict(counts)}, peak memory {peak:.0f} MB", flush=True)

            counts = run(target, files, seed, first, progress)
            progress(first + files, counts)
            print(f"done: {files} files, {dict(counts)}, peak memory {peak_memory() / 1e6:.0f} MB", flush=True)
            os._exit(1 if peak_memory() > MAX_BYTES else 0)
        except BaseException as error:
            import traceback

            traceback.print_exception(error)
            print(f"FINDING: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    seen, silent = -1, 0.0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        number = struct.unpack("<Q", board[:])[0]
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                path = keep(target, case(target, seed, number), seed, number)
                print(f"FINDING: the worker died of signal {-code}; {path}", file=sys.stderr)
            return 1 if code else 0
        if number != seen:
            seen, silent = number, 0.0
        elif silent > SILENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.2)
        silent += 0.2  # not by the clock, which goes on while both are suspended


def _kilobytes(field: str) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1])
    return 0


def peak_memory() -> int:
    """Bytes of memory that this process held at most (Linux and macOS)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=tuple(TARGETS))
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    arguments = parser.parse_args()
    target = TARGETS[arguments.target]()
    for data in target.valid:
        if (found := target.outcome(data)) == "refused":
            raise SystemExit(f"a valid example is {found}: the fuzzer is broken")
    return watched(target, arguments.files, arguments.seed, arguments.first)


if __name__ == "__main__":
    sys.exit(main())
