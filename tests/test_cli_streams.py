"""The command line on a terminal: Ctrl-C, pipes that close, disks that are full, encodings that lack a letter."""

import os
import signal
import subprocess
import sys
import time

import pytest
from places import ENVIRONMENT, listen_to_ctrl_c

from intsmooth import cli


def test_ctrl_c_leaves_a_file_that_the_same_command_continues(folder, capsys):
    line = "certify model.h5 --data data.npz --n 100000 --out a.tsv --seed 5 --threads 1"
    command = [sys.executable, "-m", "intsmooth", *line.split()]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_ctrl_c
    ) as process:
        deadline = time.monotonic() + 120
        while not (folder / "a.tsv").exists() or (folder / "a.tsv").read_bytes().count(b"\n") < 3:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        err = process.communicate()[1]
    assert process.returncode == 130 and "the same command goes on there" in err and "Traceback" not in err
    rows = (folder / "a.tsv").read_bytes()
    assert rows.endswith(b"\n") and 3 <= rows.count(b"\n") < 9
    assert cli.main(line.split()) == 0
    assert (folder / "a.tsv").read_bytes().startswith(rows) and (folder / "a.tsv").read_bytes().count(b"\n") == 9


def test_a_closed_pipe_is_no_traceback(folder):
    shell = f"{sys.executable} -m intsmooth predict model.h5 --data data.npz --n 20000 | head -n 1"
    done = subprocess.run(["bash", "-c", shell], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("idx") and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("arguments", "unbuffered"), [("info model.h5", "1"), ("info model.h5", ""), ("--version", ""), ("certify --help", "")]
)
def test_output_that_nobody_can_take_is_one_line_or_none(folder, arguments, unbuffered):
    environment = ENVIRONMENT | {"PYTHONUNBUFFERED": unbuffered}
    for place, code in (("| true", 1), ("> /dev/full", 6)):
        shell = f"(sleep 0.2; {sys.executable} -m intsmooth {arguments}; echo rc=$? >&2) {place}"
        err = subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True, check=False).stderr
        *lines, last = err.splitlines()
        assert last == f"rc={code}" and len(lines) == (code == 6) and "Traceback" not in err


def test_a_closed_standard_error_stops_nothing(folder):
    shell = f"{sys.executable} -m intsmooth certify model.h5 --data data.npz --n 100 --seed 1 --out a.tsv 2>&-"
    done = subprocess.run(["bash", "-c", shell], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "average certified radius" in done.stdout and "images/s," not in done.stdout.split("\n")[0]
    assert (folder / "a.tsv").read_bytes().count(b"\n") == 9


def test_names_that_the_terminals_encoding_lacks_are_printed_somehow(folder):
    (folder / "model.h5").rename(folder / "müdel 世界.h5")
    command = [sys.executable, "-m", "intsmooth", "info", "müdel 世界.h5"]
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0 and rb"m\xfcdel \u4e16\u754c.h5" in done.stdout
