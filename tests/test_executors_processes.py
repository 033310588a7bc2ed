"""Certification on processes and on the engines of others: Dask, loky, MPI."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from executions import MODES, Disorderly, N, alive, dask_cluster, digits_command, kill_at, mpi_start
from places import ENVIRONMENT
from small_runs import COUNT, Images, small_dataset, small_smooth, timeless

from intsmooth import cli
from intsmooth.errors import InputError, MissingExtraError, ResourceError
from intsmooth.executors import open_executor, worker_count
from intsmooth.run import certify_dataset, rehearse


def test_a_killed_process_is_a_typed_error_and_another_executor_goes_on(tmp_path, serial_lines, tiny_tasks):
    path = tmp_path / "a.tsv"
    with ProcessPoolExecutor(2) as pool, pytest.raises(ResourceError, match="a worker was lost"):
        on_votes = kill_at(9, lambda: list(pool._processes))
        certify_dataset(small_smooth(), small_dataset(), path, n=N, executor=pool, on_votes=on_votes)
    assert timeless(path) == serial_lines["fixed"][: len(timeless(path))] and len(timeless(path)) < COUNT
    with ThreadPoolExecutor(3) as executor:
        certify_dataset(small_smooth(), small_dataset(), path, n=N, executor=executor)
    assert timeless(path) == serial_lines["fixed"]


def test_processes_have_one_thread_and_do_not_outlive_a_killed_parent(tmp_path):
    script = (
        "import os, time\nfrom intsmooth.executors import open_executor\n"
        "if __name__ == '__main__':\n"
        "    with open_executor(workers=2) as executor:\n"
        "        print(*{executor.submit(os.getpid).result() for _ in range(4)}, flush=True)\n"
        "        executor.submit(time.sleep, 60), executor.submit(time.sleep, 60)\n        time.sleep(60)\n"
    )
    (tmp_path / "parent.py").write_text(script)
    with subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as parent:
        children = [int(word) for word in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert children
    deadline = time.monotonic() + 20
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "workers are left behind"
        time.sleep(0.05)


def test_the_command_line_certifies_on_processes(tmp_path, capsys):
    assert cli.main(digits_command(tmp_path, "serial.tsv", "--threads", "1")) == 0
    assert cli.main(digits_command(tmp_path, "a.tsv", "--workers", "2")) == 0
    assert timeless(tmp_path / "a.tsv") == timeless(tmp_path / "serial.tsv")
    assert "samples/s on 2 workers" in capsys.readouterr().err


def test_worker_counts():
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(2) as processes:
        assert (worker_count(threads), worker_count(processes)) == (3, 2)
    with Disorderly() as executor:
        assert worker_count(executor) >= 1
    with open_executor() as nothing:
        assert nothing is None


def test_dask_in_threads_of_this_process(tmp_path, serial_lines):
    with dask_cluster(processes=False, threads_per_worker=2, protocol="tcp://") as client:
        executor = client.get_executor()
        assert worker_count(executor) == 4
        certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", n=N, executor=executor)
        assert rehearse(small_smooth(), Images()(0), executor=executor) > 0
    assert timeless(tmp_path / "a.tsv") == serial_lines["fixed"]


def dask_processes(client):
    return list(client.run(os.getpid).values())


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "mode"), [(1, "fixed"), (2, "curve")])
def test_dask_goes_on_after_workers_are_killed(tmp_path, serial_lines, tiny_tasks, killed, mode):
    """One of two, or both; new processes, which know nothing, come in their place."""
    path = tmp_path / "a.tsv"
    with dask_cluster() as client:
        before = dask_processes(client)
        certify_dataset(
            small_smooth(), small_dataset(), path, executor=client.get_executor(pure=False),
            on_votes=kill_at(9, lambda: before[:killed]), **MODES[mode],
        )  # fmt: skip
        assert not any(alive(process) for process in before[:killed])  # killed indeed
    assert timeless(path) == serial_lines[mode]


@pytest.mark.slow
def test_a_run_killed_on_dask_is_resumed_without(tmp_path, capsys):
    """`certify --dask local` is killed with kill -9, then goes on in threads, then on processes."""
    pytest.importorskip("distributed")
    n = "200000"  # images that take so long that the run cannot end between a look at its table and the kill
    assert cli.main(digits_command(tmp_path, "serial.tsv", "--threads", "1", "--n", n)) == 0
    path = tmp_path / "a.tsv"
    command = digits_command(tmp_path, "a.tsv", "--n", n)
    with subprocess.Popen(
        [sys.executable, "-m", "intsmooth", *command, "--dask", "local", "--workers", "2"],
        env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as run:  # fmt: skip
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b"\n") < 3:
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
    assert 2 <= path.read_bytes().count(b"\n") - 1 < 6
    assert cli.main([*command, "--max", "5"]) == 0
    assert cli.main([*command, "--workers", "2"]) == 0
    assert timeless(path) == timeless(tmp_path / "serial.tsv")


def test_no_scheduler_at_an_address(tmp_path, capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("intsmooth.executors._CONNECT_S", 0.5)
    assert cli.main(digits_command(tmp_path, "a.tsv", "--dask", "tcp://127.0.0.1:9")) == 6
    assert "no dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_loky(tmp_path, serial_lines, tiny_tasks):
    loky = pytest.importorskip("joblib.externals.loky")
    executor = loky.get_reusable_executor(max_workers=2, timeout=30)
    try:
        assert worker_count(executor) == 2
        certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", n=N, executor=executor)
        assert timeless(tmp_path / "a.tsv") == serial_lines["fixed"]
        with pytest.raises(ResourceError, match="a worker was lost"):
            certify_dataset(
                small_smooth(), small_dataset(), tmp_path / "b.tsv", n=N, executor=executor,
                on_votes=kill_at(9, lambda: list(executor._processes)),
            )  # fmt: skip
    finally:
        executor.shutdown(wait=True, kill_workers=True)
    certify_dataset(small_smooth(), small_dataset(), tmp_path / "b.tsv", n=N)
    assert timeless(tmp_path / "b.tsv") == serial_lines["fixed"]


@pytest.mark.slow
def test_mpi(tmp_path):
    start = mpi_start()
    assert cli.main(digits_command(tmp_path, "serial.tsv", "--threads", "1")) == 0
    command = digits_command(tmp_path, "a.tsv", "--mpi")
    done = subprocess.run(
        [*start, "-m", "intsmooth", *command], env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and "on 2 workers" in done.stderr, done.stderr
    assert timeless(tmp_path / "a.tsv") == timeless(tmp_path / "serial.tsv")


@pytest.mark.parametrize(("option", "module"), [(("--dask", "local"), "distributed"), (("--mpi",), "mpi4py")])
def test_a_missing_extra_is_one_line(tmp_path, capsys, monkeypatch, option, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(digits_command(tmp_path, "a.tsv", *option)) == MissingExtraError.exit_code
    assert f"python -m pip install 'intsmooth[{option[0].strip('-')}]'" in capsys.readouterr().err
    assert not (tmp_path / "a.tsv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"workers": 5000}, "1 to 4096"),
        ({"workers": 2, "mpi": True}, "workers or dask beside mpi"),
        ({"workers": 2, "dask": "tcp://127.0.0.1:9"}, "workers cannot be chosen for the cluster"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(InputError, match=message), open_executor(**arguments):
        pass


def test_threads_beside_workers_are_refused(tmp_path, capsys):
    assert cli.main(digits_command(tmp_path, "a.tsv", "--workers", "2", "--threads", "2")) == 2
    assert "leave it out" in capsys.readouterr().err
