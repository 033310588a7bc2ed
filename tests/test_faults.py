"""Machines that break in the middle of a run, and callers who ask for too much: every case ends as it should.

Other faults are tested beside what they are about: kernels' caches in test_cache.py, torn lines and locks in
test_results.py, lost workers in test_run.py, how images are stored in test_smooth.py, streams in test_cli_streams.py.
"""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from places import ENVIRONMENT, listen_to_ctrl_c
from small_runs import COUNT, Images, certify_command, lines_of_run, small_dataset, small_smooth, timeless

import intsmooth.run
from intsmooth import cli, outcome
from intsmooth.datasets.arrays import open_arrays
from intsmooth.engine import Engine
from intsmooth.errors import ResourceError, ResultsError
from intsmooth.h5file import save
from intsmooth.noise.stream import image_digest, stream_key
from intsmooth.progress import Progress
from intsmooth.results import read_results
from intsmooth.run import certify_dataset, rehearse
from intsmooth.smooth import Smooth
from intsmooth.vote import count_votes

N = 2000  # votes per image of the runs that are killed: a few milliseconds

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return lines_of_run(tmp_path_factory.mktemp("whole"), N)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a tmpfs cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def in_child(work) -> int:
    """Fork, run work() in the child, return the child's process id; its exit code is 0 if work() returned True."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = 0 if work() else 1
        os._exit(code)
    return child


def exit_code(child: int, seconds: float = 60) -> int:
    deadline = time.monotonic() + seconds
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])


# Runs that end before their time


def kill_at_random_moments(path, expected, rng, certifications):
    """Certify into new files, killing each run at a random moment; go on until it is through; count the kills."""
    start = time.monotonic()
    certify_dataset(small_smooth(), small_dataset(), path.with_name("timing.tsv"), n=N)
    whole_run = time.monotonic() - start
    kills = partial = 0
    for i in range(certifications):
        file = path.with_name(f"{i}.tsv")
        child = in_child(lambda file=file: certify_dataset(small_smooth(), small_dataset(), file, n=N))
        time.sleep(rng.uniform(0, whole_run))
        os.kill(child, signal.SIGKILL)
        kills += exit_code(child) == -signal.SIGKILL
        partial += 1 < (file.read_bytes().count(b"\n") if file.exists() else 0) <= COUNT
        certify_dataset(small_smooth(), small_dataset(), file, n=N)
        assert timeless(file) == expected
    return kills, partial


@needs_fork
def test_kill_9_at_random_moments(tmp_path, expected):
    kills, _ = kill_at_random_moments(tmp_path / "a", expected, np.random.default_rng(1), 6)
    assert kills


@needs_fork
@pytest.mark.slow
def test_kill_9_at_random_moments_of_50_certifications(tmp_path, expected):
    kills, partial = kill_at_random_moments(tmp_path / "a", expected, np.random.default_rng(2), 50)
    assert kills >= 25 and partial >= 10


def test_ctrl_c_with_two_threads_in_the_middle_of_an_image(tmp_path):
    """One image of 10^8 votes: what is interrupted is the counting itself, not the moment between two rows."""
    command = certify_command(tmp_path, out="a.tsv", threads=2, n=10**8)
    with subprocess.Popen(
        [sys.executable, "-m", "intsmooth", *command],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=listen_to_ctrl_c,
    ) as process:  # fmt: skip
        for line in process.stderr:
            if "expected time" in line:
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == outcome.INTERRUPTED == 130 and "Traceback" not in err
    assert "0 of 2 images are in a.tsv; the same command goes on there" in err
    assert read_results(tmp_path / "a.tsv").columns["idx"] == ()
    smooth = Smooth(str(tmp_path / "model.h5"), "0.25", seed=5, threads=1)
    assert len(certify_dataset(smooth, open_arrays(tmp_path / "data.npz"), tmp_path / "a.tsv", n=50)) == 2


def test_a_disk_that_fills_up_and_is_given_room(small_disk, expected):
    path, filler = small_disk / "a.tsv", small_disk / "filler"
    filler.write_bytes(bytes(2**16 - 4096))  # leaves a page, about six rows
    with pytest.raises(ResourceError, match="No space left on device; all earlier rows are safe in it: make room"):
        certify_dataset(small_smooth(), small_dataset(), path, n=N)
    rows = timeless(path)
    assert path.read_bytes().endswith(b"\n") and 1 < len(rows) <= COUNT and rows == expected[: len(rows)]
    filler.unlink()
    certify_dataset(small_smooth(), small_dataset(), path, n=N)
    assert timeless(path) == expected


def test_a_full_disk_takes_no_part_of_a_file(small_disk, tiny, expected):
    (small_disk / "filler").write_bytes(bytes(2**16))
    with pytest.raises(ResourceError, match="No space left on device"):
        certify_dataset(small_smooth(), small_dataset(), small_disk / "a.tsv", n=N)
    with pytest.raises(ResourceError, match="No space left on device"):
        save(tiny, small_disk / "model.h5")
    assert {path.name for path in small_disk.iterdir()} <= {"a.tsv", "filler"}
    assert not (small_disk / "a.tsv").exists() or (small_disk / "a.tsv").read_bytes() == b""
    (small_disk / "filler").unlink()
    certify_dataset(small_smooth(), small_dataset(), small_disk / "a.tsv", n=N)
    assert timeless(small_disk / "a.tsv") == expected


def test_a_folder_that_became_read_only(small_disk, tiny, tmp_path, capsys):
    """By a mount option, which binds root, too."""
    path = small_disk / "a.tsv"
    certify_dataset(small_smooth(), small_dataset().select(limit=2), path, n=N)
    before = path.read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for name in ("a.tsv", "b.tsv"):
        with pytest.raises(ResourceError, match="cannot write .*Read-only file system; give another file with --out"):
            certify_dataset(small_smooth(), small_dataset(), small_disk / name, n=N)
    with pytest.raises(ResourceError, match="Read-only file system"):
        save(tiny, small_disk / "model.h5")
    assert [entry.name for entry in small_disk.iterdir()] == ["a.tsv"] and path.read_bytes() == before
    assert len(read_results(path)) == 2  # reading goes on
    command = certify_command(tmp_path, out=small_disk / "b.tsv")
    assert cli.main(command) == 6 and "Read-only file system" in capsys.readouterr().err


@needs_fork
def test_of_many_writers_one_writes(tmp_path, expected):
    """Eight processes at once, each with the same command; whoever comes first writes, the others are told so."""
    path = tmp_path / "a.tsv"

    def read(position):
        time.sleep(0.02)
        return Images()(position)

    def certify():
        try:
            certify_dataset(small_smooth(), small_dataset(read=read), path, n=N)
        except ResultsError as error:
            (tmp_path / f"refused {os.getpid()}").write_text(str(error))
        return True

    children = [in_child(certify) for _ in range(8)]
    assert [exit_code(child) for child in children] == [0] * 8
    assert timeless(path) == expected
    refused = list(tmp_path.glob("refused *"))
    assert refused and all("is being written by another run" in file.read_text() for file in refused)


# Forks, clocks, compilation caches


@needs_fork
def test_a_fork_in_the_middle_of_a_stream(tiny, image):
    """The parent's threads are counting when it forks, thrice; the children count the same votes, with threads too."""
    smooth = Smooth(tiny, 0.25, seed=7, threads=3)
    x = smooth.check_image(image)

    def votes(first, n):
        return count_votes(smooth.engine, x, smooth.table, smooth.seed, 1, first, n).counts.tolist()

    whole = Engine(tiny, threads=1).count_votes(
        x, smooth.table, stream_key(smooth.seed, image_digest(x), 1), 0, 40_000
    ).tolist()  # fmt: skip
    pool_is_up = votes(0, 1000)
    with ThreadPoolExecutor(1) as background:
        running = background.submit(votes, 0, 40_000)
        children = []
        for _ in range(3):
            time.sleep(0.005)
            children.append(in_child(lambda: votes(0, 40_000) == whole and votes(0, 1000) == pool_is_up))
        assert [exit_code(child) for child in children] == [0, 0, 0]
        assert running.result() == whole
    assert votes(0, 1000) == pool_is_up


def test_a_clock_that_goes_backwards(tmp_path, expected, monkeypatch):
    """The wall clock is set back and the counters step back now and then: rows and rates stay sound."""
    real, calls = time.perf_counter, [0]

    def stepping():
        calls[0] += 1
        return real() - 3600 * (calls[0] // 2 % 2)

    monkeypatch.setattr(time, "time", lambda: 1e9 - 60 * real())
    monkeypatch.setattr(time, "perf_counter", stepping)
    monkeypatch.setattr(time, "monotonic", stepping)
    results = certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", n=N)
    assert timeless(tmp_path / "a.tsv") == expected and calls[0] >= 2 * COUNT
    assert not any(text.startswith("-") for text in results.columns["time"])
    calls[0] = 0
    assert intsmooth.run.certify_image(small_smooth(), Images()(0), {"n": 10})[1] == 0.0
    calls[0] = 0
    assert rehearse(small_smooth(), Images()(0), seconds=0.01) > 0
    back = iter((100.0, 90.0, 80.0, 70.0, 60.0, 50.0))
    progress = Progress(10, stream=sys.stderr, clock=lambda: next(back))
    progress.advance(5)
    assert progress.rate() == 0 and "left" not in progress.line()


def test_kernels_compiled_for_another_cpu_are_not_used(tmp_path):
    """A cache that moved here with a home folder: filled for a processor of another name, then used on this one."""
    other = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    cache = tmp_path / "cache"
    cache.mkdir()
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        from intsmooth.kernels.jit import jit
        import sys

        @jit
        def triple(x):
            return 3 * x

        assert triple(14) == 42
        print(sum(triple.stats.cache_hits.values()), sum(triple.stats.cache_misses.values()))
    """)
    )

    def hits_and_misses(**environment):
        variables = ENVIRONMENT | {"NUMBA_CACHE_DIR": str(cache), "INTSMOOTH_ISA": "portable"} | environment
        done = subprocess.run([sys.executable, program], env=variables, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert hits_and_misses(**other) == ["0", "1"]
    assert hits_and_misses(**other) == ["1", "0"]  # the cache does work
    assert hits_and_misses() == ["0", "1"]
    assert hits_and_misses() == ["1", "0"]
