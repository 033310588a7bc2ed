"""Certifying on executors: the same bytes from threads, processes, loky, dask and MPI, whatever is lost on the way."""

import contextlib
import logging
import os
import pathlib
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from test_run import COUNT, ENVIRONMENT, Images, small_dataset, small_smooth, timeless

import intsmooth.dispatch
import intsmooth.workers
from intsmooth import cli, tasks
from intsmooth.datasets import open_dataset
from intsmooth.errors import DataError, InputError, MissingExtraError, ResourceError
from intsmooth.executors import open_executor, worker_count
from intsmooth.run import certify_dataset, rehearse
from intsmooth.smooth import Smooth
from intsmooth.tasks import Job, VotesNeeded, certify_images, count_block, pack, unpack

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


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Mode -> lines of the serial run."""
    folder, lines = tmp_path_factory.mktemp("serial"), {}
    for name, mode in MODES.items():
        certify_dataset(small_smooth(), dataset_of(name), folder / name, **mode)
        lines[name] = timeless(folder / name)
    return lines


@pytest.fixture
def tiny_tasks(monkeypatch):
    """Tasks of 200 to 400 samples however fast the machine is, so that every image is split."""
    monkeypatch.setattr(intsmooth.dispatch, "SHORTEST_S", 200)
    monkeypatch.setattr(intsmooth.dispatch, "LONGEST_S", 400)
    monkeypatch.setattr(intsmooth.workers.Workers, "rate", property(lambda self: 1.0 * bool(self._speeds)))


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


@pytest.mark.parametrize("mode", MODES)
def test_any_executor_any_order_any_loss_any_split(tmp_path, expected, tiny_tasks, mode):
    with Disorderly() as executor:
        certify_dataset(small_smooth(), dataset_of(mode), tmp_path / "a.tsv", executor=executor, **MODES[mode])
    assert timeless(tmp_path / "a.tsv") == expected[mode]
    if mode == "skip wrong":
        assert executor.calls.count("count_block") > COUNT  # of the images that are right
        return
    assert executor.calls.count("certify_images") >= COUNT and executor.shipped > 1
    if mode in ("fixed", "randomized"):
        assert executor.calls.count("count_block") > 2 * COUNT  # split inside


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("threads", [1, 4])
def test_threads(tmp_path, expected, tiny_tasks, mode, threads):
    with ThreadPoolExecutor(threads) as executor:
        certify_dataset(small_smooth(threads=2), dataset_of(mode), tmp_path / "a.tsv", executor=executor, **MODES[mode])
    assert timeless(tmp_path / "a.tsv") == expected[mode]


def test_images_share_tasks_where_they_are_small(tmp_path):
    smooth, dataset = small_smooth(), small_dataset(200)
    certify_dataset(smooth, dataset, tmp_path / "serial.tsv", n=20)
    with Disorderly() as executor:
        certify_dataset(smooth, dataset, tmp_path / "a.tsv", n=20, executor=executor)
    assert timeless(tmp_path / "a.tsv") == timeless(tmp_path / "serial.tsv")
    assert executor.calls.count("certify_images") < 100


def test_what_is_handed_out_at_a_time_is_bounded(tmp_path, monkeypatch, tiny_tasks):
    """Ten billion votes are not cut up in advance, nor are a thousand images read."""
    monkeypatch.setattr(intsmooth.workers, "worker_count", lambda executor: executor.workers)
    read, stop = [], []

    def images(position):
        read.append(position)
        return Images()(position)

    def on_votes(samples, workers):
        stop.append((samples, workers))
        if len(stop) == 20:
            raise KeyboardInterrupt

    for n, count in ((10**10, 1), (10**10, 1000)):
        read.clear()
        stop.clear()
        with Disorderly() as executor, pytest.raises(KeyboardInterrupt):
            certify_dataset(
                small_smooth(), small_dataset(count, images), tmp_path / f"{count}.tsv", n=n, executor=executor,
                on_votes=on_votes,
            )  # fmt: skip
        assert executor.most <= 2 * 3 + 1 and len(read) <= 20
        assert stop[-1][0] > 0 and stop[-1][1] == 3


def test_the_model_is_sent_once_to_each_worker(tmp_path, monkeypatch, tiny_tasks):
    monkeypatch.setattr(intsmooth.workers, "worker_count", lambda executor: executor.workers)
    with Disorderly(memory=10**9) as executor:
        certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", n=N, executor=executor)
    assert executor.shipped == 3 and len(executor.calls) > 3 * COUNT
    job = Job(small_smooth(), None, {})
    assert len(pickle.dumps(pack(job).empty())) < 300 < len(pickle.dumps(pack(job)))


def test_a_worker_that_does_not_know_the_model_says_so():
    smooth = small_smooth()
    shipment = pack(Job(smooth, smooth.plan(n=50), {"n": 50}))
    tasks._jobs.clear()
    image = smooth.check_image(Images()(3))
    assert count_block(shipment.empty(), image, (1, 0, 50)) is None
    assert certify_images(shipment.empty(), [(image, None, {})], 1000, 1.0) is None
    (reached,) = certify_images(shipment, [(image, None, {})], 1000, 1.0)
    assert reached.certificate == smooth.certify(image, n=50) and reached.samples == 150
    votes, seconds = count_block(shipment.empty(), image, (1, 0, 50))
    assert votes == list(reached.certificate.counts) and seconds >= 0
    assert unpack(shipment.empty()).smooth.engine.threads == 1


def test_a_certification_goes_on_where_votes_were_missing():
    smooth = small_smooth()
    job = Job(smooth, smooth.plan(n=500), {"n": 500})
    image = smooth.check_image(Images()(3))
    replay = tasks.Replay(job, {}, 100)
    with pytest.raises(VotesNeeded) as needed:
        replay.certify(image, n=500)
    assert needed.value.block == (1, 0, 500) and list(replay.known) == [(0, 0, 100)]
    parts = [count_block(pack(job), image, (1, first, 125))[0] for first in (375, 0, 250, 125)]
    replay.known[needed.value.block] = np.sum(parts, axis=0).tolist()
    again = tasks.Replay(job, replay.known, 0)
    assert again.certify(image, n=500) == smooth.certify(image, n=500) and again.counted == 0


def test_a_worker_of_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "__version__", "9.9")
    with ThreadPoolExecutor(1) as executor, pytest.raises(ResourceError, match=r"a worker has intsmooth 9\.9"):
        certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", n=10, executor=executor)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BrokenExecutor("gone"), "a worker was lost .*gone.* give the same command again"),
        (CancelledError(), "the way to the workers was lost"),
        (ModuleNotFoundError("No module named 'intsmooth'", name="intsmooth"), "a worker lacks intsmooth: install"),
    ],
)
def test_losses_are_typed(tmp_path, expected, tiny_tasks, error, message):
    class Failing(ThreadPoolExecutor):
        calls = 0

        def submit(self, function, /, *arguments):
            self.calls += function is certify_images
            if self.calls < 4:
                return super().submit(function, *arguments)
            future = Future()
            future.set_exception(error)
            return future

    with Failing(1) as executor, pytest.raises(ResourceError, match=message):
        certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", n=N, executor=executor)
    certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", n=N)
    assert timeless(tmp_path / "a.tsv") == expected["fixed"]


def test_all_images_before_an_unreadable_one_are_done(tmp_path, expected):
    def read(position):
        if position == 7:
            raise DataError("image 7 cannot be read")
        return Images()(position)

    with ThreadPoolExecutor(2) as executor, pytest.raises(DataError, match="image 7"):
        certify_dataset(small_smooth(), small_dataset(read=read), tmp_path / "a.tsv", n=N, executor=executor)
    assert timeless(tmp_path / "a.tsv") == expected["fixed"][:8]


# Processes


def kill_at(count, processes):
    """on_votes that kills every process of processes(), once, when `count` tasks are back."""
    calls = []

    def on_votes(samples, workers):
        calls.append(samples)
        if len(calls) == count:
            for process in processes():
                os.kill(process, signal.SIGKILL)

    return on_votes


def test_a_killed_process_is_a_typed_error_and_another_executor_goes_on(tmp_path, expected, tiny_tasks):
    path = tmp_path / "a.tsv"
    with ProcessPoolExecutor(2) as pool, pytest.raises(ResourceError, match="a worker was lost"):
        on_votes = kill_at(9, lambda: list(pool._processes))
        certify_dataset(small_smooth(), small_dataset(), path, n=N, executor=pool, on_votes=on_votes)
    assert timeless(path) == expected["fixed"][: len(timeless(path))] and len(timeless(path)) < COUNT
    with ThreadPoolExecutor(3) as executor:
        certify_dataset(small_smooth(), small_dataset(), path, n=N, executor=executor)
    assert timeless(path) == expected["fixed"]


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


def alive(process):
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{process}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def digits_command(folder, name, *options):
    return ["certify", "digits", "--max", "6", "--n", "300", "--seed", "1", "--out", str(folder / name), *options]


def test_the_command_line_certifies_on_processes(tmp_path, capsys):
    assert cli.main(digits_command(tmp_path, "serial.tsv", "--threads", "1")) == 0
    assert cli.main(digits_command(tmp_path, "a.tsv", "--workers", "2")) == 0
    assert timeless(tmp_path / "a.tsv") == timeless(tmp_path / "serial.tsv")
    assert "samples/s on 2 workers" in capsys.readouterr().err


# Engines of others


def test_worker_counts():
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(2) as processes:
        assert (worker_count(threads), worker_count(processes)) == (3, 2)
    with Disorderly() as executor:
        assert worker_count(executor) >= 1
    with open_executor() as nothing:
        assert nothing is None


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


def test_dask_in_threads_of_this_process(tmp_path, expected):
    with dask_cluster(processes=False, threads_per_worker=2, protocol="tcp://") as client:
        executor = client.get_executor()
        assert worker_count(executor) == 4
        certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", n=N, executor=executor)
        assert rehearse(small_smooth(), Images()(0), executor=executor) > 0
    assert timeless(tmp_path / "a.tsv") == expected["fixed"]


def dask_processes(client):
    return list(client.run(os.getpid).values())


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "mode"), [(1, "fixed"), (2, "curve")])
def test_dask_goes_on_after_workers_are_killed(tmp_path, expected, tiny_tasks, killed, mode):
    """One of two, or both; new processes, which know nothing, come in their place."""
    path = tmp_path / "a.tsv"
    with dask_cluster() as client:
        before = dask_processes(client)
        certify_dataset(
            small_smooth(), small_dataset(), path, executor=client.get_executor(pure=False),
            on_votes=kill_at(9, lambda: before[:killed]), **MODES[mode],
        )  # fmt: skip
        assert not any(alive(process) for process in before[:killed])  # killed indeed
    assert timeless(path) == expected[mode]


@pytest.mark.slow
def test_a_run_killed_on_dask_is_resumed_without(tmp_path, capsys):
    """`certify --dask local` is killed with kill -9, then goes on in threads, then on processes."""
    pytest.importorskip("distributed")
    assert cli.main(digits_command(tmp_path, "serial.tsv", "--threads", "1", "--n", "5000")) == 0
    path = tmp_path / "a.tsv"
    command = digits_command(tmp_path, "a.tsv", "--n", "5000")
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
def test_loky(tmp_path, expected, tiny_tasks):
    loky = pytest.importorskip("joblib.externals.loky")
    executor = loky.get_reusable_executor(max_workers=2, timeout=30)
    try:
        assert worker_count(executor) == 2
        certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", n=N, executor=executor)
        assert timeless(tmp_path / "a.tsv") == expected["fixed"]
        with pytest.raises(ResourceError, match="a worker was lost"):
            certify_dataset(
                small_smooth(), small_dataset(), tmp_path / "b.tsv", n=N, executor=executor,
                on_votes=kill_at(9, lambda: list(executor._processes)),
            )  # fmt: skip
    finally:
        executor.shutdown(wait=True, kill_workers=True)
    certify_dataset(small_smooth(), small_dataset(), tmp_path / "b.tsv", n=N)
    assert timeless(tmp_path / "b.tsv") == expected["fixed"]


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


# What docs/scale.md shows


def documented():
    """Name of the results file -> program."""
    page = pathlib.Path(__file__).parents[1] / "docs" / "scale.md"
    if not page.exists():
        return {}  # docs/ is not part of this installation
    programs = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return {re.search(r"(\w+)\.tsv", program)[1]: program for program in programs}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(documented()))
def test_the_examples_of_the_documentation(tmp_path, name):
    needed = {"dask": "distributed", "mpi": "mpi4py", "loky": "joblib.externals.loky"}
    pytest.importorskip(needed.get(name, "concurrent.futures"))
    (tmp_path / "program.py").write_text(documented()[name])
    start = [sys.executable]
    with contextlib.ExitStack() as stack:
        if name == "dask":
            client = stack.enter_context(dask_cluster())
            text = documented()[name].replace("tcp://10.0.0.1:8786", client.scheduler.address)
            (tmp_path / "program.py").write_text(text)
        elif name == "mpi":
            start = mpi_start()
        subprocess.run([*start, "program.py"], cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=120)
    smooth = Smooth("digits", sigma="0.25", seed=1, threads=1)
    certify_dataset(smooth, open_dataset("digits").select(limit=6), tmp_path / "serial.tsv", n=1000)
    assert timeless(tmp_path / f"{name}.tsv") == timeless(tmp_path / "serial.tsv")


def test_the_documentation_has_an_example_of_each():
    if documented():
        assert sorted(documented()) == ["dask", "loky", "mpi", "processes", "threads"]
