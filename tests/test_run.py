"""Certifying a data set: the same bytes whoever computes, whatever breaks, and however often it is resumed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import models
import numpy as np
import pytest
from places import ENVIRONMENT
from small_runs import COUNT, Images, lines_of_run, small_dataset, small_smooth, timeless

from intsmooth.datasets.base import Dataset
from intsmooth.errors import DataError, InputError, ResourceError, ResultsError
from intsmooth.h5file import save
from intsmooth.report import format_summary, summarize
from intsmooth.results import read_results
from intsmooth.run import certify_dataset, recorded_seed, rehearse
from intsmooth.smooth import Smooth


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return lines_of_run(tmp_path_factory.mktemp("whole"), n=200)


def test_rows_say_what_certify_says(tmp_path):
    smooth, dataset = small_smooth(), small_dataset()
    seen = []
    results = certify_dataset(
        smooth, dataset, tmp_path / "a.tsv", n=200, on_start=lambda rows: seen.append(len(rows)), on_row=seen.append
    )
    assert results.columns["idx"] == tuple(str(5 * i) for i in range(COUNT)) and seen[0] == 0
    assert [row["idx"] for row in seen[1:]] == list(results.columns["idx"])
    for i in range(COUNT):
        certificate = smooth.certify(dataset[i].image, n=200)
        assert results.predict[i] == certificate.prediction
        assert results.correct[i] == (certificate.prediction == i % 10)
        assert certificate.radius - 1e-6 < results.radius[i] <= certificate.radius
        assert results.columns["counts"][i] == str(list(certificate.counts)).replace(" ", "")
        assert int(results.columns["budget"][i]) == certificate.budget
    assert results.columns["plan"][0] == '{"n": 200}' and results.columns["sigma"][0] == "0.25"
    assert recorded_seed(tmp_path / "a.tsv") == "0x" + smooth.seed.hex()


@pytest.mark.parametrize("mode", [{"n": 300}, {"target_radius": 0.05, "max_n": 1000}])
def test_skipping_what_is_wrong_already_changes_no_certified_accuracy(tmp_path, mode):
    smooth = small_smooth()
    images = small_dataset()
    chosen = np.array([smooth.certify(images[i].image, n=1).top for i in range(COUNT)])
    labels = np.where(np.arange(COUNT) % 3 == 0, (chosen + 1) % 10, chosen)
    dataset = Dataset("small", Images(), 5 * np.arange(COUNT), labels)
    whole = certify_dataset(smooth, dataset, tmp_path / "whole.tsv", **mode)
    quick = certify_dataset(smooth, dataset, tmp_path / "quick.tsv", skip_wrong=True, **mode)
    assert whole.correct.any() and np.array_equal(quick.correct, whole.correct)
    assert np.array_equal(quick.radius * quick.correct, whole.radius * whole.correct)
    right = chosen == labels
    for name in ("predict", "budget", "hits", "n", "selection", "counts", "extra"):
        column, same = (np.array(results.columns[name]) for results in (quick, whole))
        assert np.array_equal(column[right], same[right])
    assert set(quick.predict[~right]) == {-1} and set(np.array(quick.columns["n"])[~right]) == {"0"}
    summary = summarize(quick)
    assert summary.skipped == (~right).sum() and summary.acr == summarize(whole).acr > 0
    assert f"{summary.skipped} of them because their selection named a wrong class" in format_summary(summary)
    with pytest.raises(ResultsError, match="plan"):
        certify_dataset(smooth, dataset, tmp_path / "whole.tsv", skip_wrong=True, **mode)


@pytest.mark.parametrize("executor", [ThreadPoolExecutor, ProcessPoolExecutor])
@pytest.mark.parametrize("workers", [1, 3])
def test_rows_do_not_depend_on_the_executor(tmp_path, expected, executor, workers):
    with executor(workers) as pool:
        certify_dataset(small_smooth(), small_dataset(), tmp_path / "a.tsv", n=200, executor=pool)
    assert timeless(tmp_path / "a.tsv") == expected


def test_a_run_goes_on_where_it_was_on_any_executor(tmp_path, expected):
    path, started = tmp_path / "a.tsv", []
    certify_dataset(small_smooth(), small_dataset().select(limit=4), path, n=200)
    with ThreadPoolExecutor(2) as pool:
        results = certify_dataset(
            small_smooth(), small_dataset(), path, n=200, executor=pool, on_start=lambda rows: started.append(len(rows))
        )
    assert started == [4] and len(results) == COUNT and timeless(path) == expected
    before = path.read_bytes()
    assert len(certify_dataset(small_smooth(), small_dataset().select(limit=3), path, n=200)) == 3
    assert path.read_bytes() == before


def run_in_background(folder, pause):
    """Start certifying in another process, with a pause in each image."""
    save(models.tiny_conv(np.random.default_rng(1)), folder / "tiny.h5")
    script = textwrap.dedent(f"""
        import time
        from small_runs import Images, small_dataset
        from intsmooth.run import certify_dataset
        from intsmooth.smooth import Smooth
        class Slow(Images):
            def __call__(self, position):
                time.sleep({pause})
                return super().__call__(position)
        certify_dataset(Smooth("tiny.h5", "0.25", seed=11, threads=1), small_dataset(read=Slow()), "a.tsv", n=200)
    """)
    return subprocess.Popen([sys.executable, "-c", script], cwd=folder, env=ENVIRONMENT, stderr=subprocess.DEVNULL)


def wait_for_lines(path, count):
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "the run in the background does not get on"
        time.sleep(0.01)


def test_kill_9_and_resume_end_in_the_same_bytes(tmp_path, expected):
    path = tmp_path / "a.tsv"
    with run_in_background(tmp_path, 0.1) as run:
        wait_for_lines(path, 4)
        with pytest.raises(ResultsError, match="is being written by another run"):
            certify_dataset(small_smooth(), small_dataset(), path, n=200)
        run.send_signal(signal.SIGKILL)
    rows = path.read_bytes().count(b"\n") - 1
    assert 3 <= rows < COUNT
    with open(path, "ab") as file:
        file.write(b"60\t2\t2\t0.3")  # torn
    certify_dataset(small_smooth(), small_dataset(), path, n=200)
    assert timeless(path) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: (small_smooth(seed=12), small_dataset(), {}), "seed is"),
        (lambda: (small_smooth(sigma="0.5"), small_dataset(), {}), "sigma is 0.25 there, 0.5 here"),
        (lambda: (small_smooth(), small_dataset(), {"n": 300}), "plan is"),
        (lambda: (small_smooth(), small_dataset(), {"n0": 50}), "n0 is 100 there, 50 here"),
        (lambda: (small_smooth(), small_dataset(), {"alpha": 0.01}), "alpha is 0.001 there, 0.01 here"),
        (lambda: (small_smooth(), small_dataset().pick([5, 10]), {}), "its row 1 has idx 0, the data set 5"),
        (lambda: (small_smooth(), small_dataset(read=lambda i: Images()(i + 1)), {}), "its row 1 has image 0x"),
        (
            lambda: (small_smooth(), Dataset("d", Images(), 5 * np.arange(3), np.array([0, 9, 2])), {}),
            "row 2 has label 1, the data set 9",
        ),
        (
            lambda: (
                Smooth(models.tiny_conv(np.random.default_rng(2)), "0.25", seed=11, threads=1),
                small_dataset(),
                {},
            ),
            "model is",
        ),
    ],
)
def test_a_file_of_another_run_is_not_continued(tmp_path, change, message):
    path = tmp_path / "a.tsv"
    certify_dataset(small_smooth(), small_dataset().select(limit=2), path, n=200)
    before = path.read_bytes()
    smooth, dataset, arguments = change()
    with pytest.raises(ResultsError, match=message):
        certify_dataset(smooth, dataset, path, **{"n": 200} | arguments)
    assert path.read_bytes() == before


@pytest.mark.parametrize("pool", [None, ThreadPoolExecutor])
def test_an_interruption_keeps_what_was_done(tmp_path, expected, pool):
    path, rows = tmp_path / "a.tsv", []

    def interrupt(row):
        rows.append(row)
        if len(rows) == 5:
            raise KeyboardInterrupt

    executor = pool and pool(2)
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(small_smooth(), small_dataset(), path, n=200, executor=executor, on_row=interrupt)
    if executor:
        executor.shutdown()
    assert timeless(path) == expected[:6]
    certify_dataset(small_smooth(), small_dataset(), path, n=200)
    assert timeless(path) == expected


def die(*_):
    os._exit(1)


def test_a_lost_worker_costs_nothing_but_time(tmp_path, expected, monkeypatch):
    import intsmooth.dispatch

    path = tmp_path / "a.tsv"
    certify_dataset(small_smooth(), small_dataset().select(limit=3), path, n=200)
    with monkeypatch.context() as patch:
        patch.setattr(intsmooth.dispatch, "certify_images", die)
        with ProcessPoolExecutor(2) as pool, pytest.raises(ResourceError, match="a worker was lost"):
            certify_dataset(small_smooth(), small_dataset(), path, n=200, executor=pool)
    assert timeless(path) == expected[:4]
    certify_dataset(small_smooth(), small_dataset(), path, n=200)
    assert timeless(path) == expected


@pytest.mark.parametrize("pool", [None, ThreadPoolExecutor])
def test_a_broken_image_is_named_and_the_rows_before_it_stay(tmp_path, expected, pool):
    def read(position):
        if position == 7:
            raise DataError("image 7 cannot be read")
        return Images()(position)

    executor = pool and pool(1)
    with pytest.raises(DataError, match="image 7"):
        certify_dataset(small_smooth(), small_dataset(read=read), tmp_path / "a.tsv", n=200, executor=executor)
    if executor:
        executor.shutdown()
        assert len(expected) > len(timeless(tmp_path / "a.tsv")) >= 1
    else:
        assert timeless(tmp_path / "a.tsv") == expected[:8]


def test_what_cannot_be_run_is_refused_before_a_file_is_made(tmp_path):
    path = tmp_path / "a.tsv"
    with pytest.raises(DataError, match="has no labels"):
        certify_dataset(small_smooth(), small_dataset(labels=False), path)
    for wrong in ({"n": 0}, {"n0": -1}, {"alpha": 0.5}, {"batch_size": 0}):
        with pytest.raises(InputError):
            certify_dataset(small_smooth(), small_dataset(), path, **wrong)
    assert not path.exists()
    with pytest.raises(ResourceError):
        certify_dataset(small_smooth(), small_dataset(), tmp_path / "none" / "a.tsv")


def test_images_of_the_wrong_shape_are_an_input_error(tmp_path):
    dataset = small_dataset(read=lambda position: np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"shape \(9, 9\)"):
        certify_dataset(small_smooth(), dataset, tmp_path / "a.tsv", n=10)
    assert not (tmp_path / "a.tsv").exists()


def test_a_name_is_no_data_set(tmp_path):
    with pytest.raises(InputError, match="what open_dataset returns"):
        certify_dataset(small_smooth(), "digits", tmp_path / "a.tsv", n=10)


def test_recorded_seeds(tmp_path):
    assert recorded_seed(tmp_path / "none.tsv") is None
    (tmp_path / "a.tsv").write_text("something else\n")
    assert recorded_seed(tmp_path / "a.tsv") is None
    certify_dataset(small_smooth(seed=3), small_dataset().select(limit=1), tmp_path / "b.tsv", n=10)
    (tmp_path / "c.tsv").write_bytes((tmp_path / "b.tsv").read_bytes() + b"garbage\n")
    with pytest.raises(ResultsError, match="line 3"):
        recorded_seed(tmp_path / "c.tsv")
    assert recorded_seed(tmp_path / "b.tsv") == "0x" + 31 * "00" + "03"
    assert len(read_results(tmp_path / "b.tsv")) == 1


def test_the_rehearsal_measures_a_rate():
    assert rehearse(small_smooth(), Images()(0), seconds=0.01) > 10
