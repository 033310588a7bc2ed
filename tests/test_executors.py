"""Executors: any order, any loss, any split gives the bytes of the serial run."""

import pickle
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor

import numpy as np
import pytest
from executions import MODES, Disorderly, N, dataset_of
from small_runs import COUNT, Images, small_dataset, small_smooth, timeless

import intsmooth.dispatch
import intsmooth.workers
from intsmooth import tasks
from intsmooth.errors import DataError, ResourceError
from intsmooth.run import certify_dataset
from intsmooth.tasks import Job, VotesNeeded, certify_images, count_block, pack, unpack


@pytest.mark.parametrize("mode", MODES)
def test_any_executor_any_order_any_loss_any_split(tmp_path, serial_lines, tiny_tasks, mode):
    with Disorderly() as executor:
        certify_dataset(small_smooth(), dataset_of(mode), tmp_path / "a.tsv", executor=executor, **MODES[mode])
    assert timeless(tmp_path / "a.tsv") == serial_lines[mode]
    if mode == "skip wrong":
        assert executor.calls.count("count_block") > COUNT  # of the images that are right
        return
    assert executor.calls.count("certify_images") >= COUNT and executor.shipped > 1
    if mode in ("fixed", "randomized"):
        assert executor.calls.count("count_block") > 2 * COUNT  # split inside


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("threads", [1, 4])
def test_threads(tmp_path, serial_lines, tiny_tasks, mode, threads):
    with ThreadPoolExecutor(threads) as executor:
        certify_dataset(small_smooth(threads=2), dataset_of(mode), tmp_path / "a.tsv", executor=executor, **MODES[mode])
    assert timeless(tmp_path / "a.tsv") == serial_lines[mode]


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
def test_losses_are_typed(tmp_path, serial_lines, tiny_tasks, error, message):
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
    assert timeless(tmp_path / "a.tsv") == serial_lines["fixed"]


def test_all_images_before_an_unreadable_one_are_done(tmp_path, serial_lines):
    def read(position):
        if position == 7:
            raise DataError("image 7 cannot be read")
        return Images()(position)

    with ThreadPoolExecutor(2) as executor, pytest.raises(DataError, match="image 7"):
        certify_dataset(small_smooth(), small_dataset(read=read), tmp_path / "a.tsv", n=N, executor=executor)
    assert timeless(tmp_path / "a.tsv") == serial_lines["fixed"][:8]
