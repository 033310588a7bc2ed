"""Runs on executors, for tests: what is certified, how it is compared, how processes are killed and counted."""

import contextlib
import os
import signal

from test_run import small_dataset

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
