"""Too little and too much: typed errors in bounded time and memory, or the right answer."""

import contextlib
import subprocess
import sys
import textwrap
import time
from fractions import Fraction

import numpy as np
import pytest
from places import ENVIRONMENT
from scipy import stats
from small_runs import Images, certify_command, lines_of_run, small_dataset, small_smooth, timeless

from intsmooth import cli
from intsmooth.binomial import LARGEST_N
from intsmooth.certificate_table import build_table
from intsmooth.certify import certificate_from_counts, prediction_from_counts
from intsmooth.datasets.arrays import open_arrays
from intsmooth.datasets.base import Dataset
from intsmooth.engine import MAX_THREADS, Engine
from intsmooth.errors import DataError, InputError, UnsupportedError
from intsmooth.graph import build_graph
from intsmooth.plan import build_plan
from intsmooth.records import Node, Tensor
from intsmooth.report import format_summary, summarize
from intsmooth.results import read_results
from intsmooth.run import certify_dataset
from intsmooth.smooth import Smooth
from intsmooth.target import plan_target
from intsmooth.vote import count_votes

N = 200  # votes per image
TOO_MANY = 2**31


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return lines_of_run(tmp_path_factory.mktemp("whole"), N)


def test_no_image_at_all(tmp_path, tiny):
    nothing = Dataset("nothing", Images(), np.arange(0), np.arange(0))
    results = certify_dataset(small_smooth(), nothing, tmp_path / "a.tsv", n=N)
    assert len(results) == 0 and (tmp_path / "a.tsv").read_bytes().count(b"\n") == 1
    assert "abstained on 0 of 0 images (- %)" in format_summary(summarize(results))
    for backend in ("numba", "numpy"):
        engine = Engine(tiny, backend, threads=2)
        none = np.zeros((0, 8, 8, 1), np.int16)
        assert engine.forward(none).shape == (0, 10) and engine.classify(none).shape == (0,)
        smooth = Smooth(tiny, 0.25, seed=7, backend=backend)
        x = smooth.check_image(np.zeros((8, 8), np.uint8))
        assert count_votes(engine, x, smooth.table, smooth.seed, 0, 0, 0).counts.tolist() == [0] * 10


def test_one_image(tmp_path, expected, tiny):
    certify_dataset(small_smooth(), small_dataset(1), tmp_path / "a.tsv", n=N)
    assert timeless(tmp_path / "a.tsv") == expected[:2]
    assert "nan" not in format_summary(summarize(read_results(tmp_path / "a.tsv")))
    one = np.ones((1, 8, 8, 1), np.int16)
    assert Engine(tiny, threads=5).classify(one).tolist() == Engine(tiny, "numpy").classify(one).tolist()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory that the system keeps to")
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_an_image_larger_than_the_memory_allowed(tmp_path, backend):
    script = textwrap.dedent(f"""
        import resource
        import numpy as np
        from models import large_model
        from intsmooth.errors import ResourceError
        from intsmooth.smooth import Smooth
        Smooth(large_model(32), 1, seed=1, backend={backend!r}, threads=1).certify(np.zeros((32, 32), np.uint8), n=10)
        graph, x = large_model(8192), np.zeros((8192, 8192), np.uint8)
        used = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1])
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))
        try:
            Smooth(graph, 1, seed=1, backend={backend!r}, threads=1).certify(x, n=10)
        except ResourceError as error:
            print(error)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.startswith("out of memory: use a smaller model or image"), done.stderr


def test_images_of_any_size_that_do_not_fit_the_model_cost_nothing(tiny):
    x = np.broadcast_to(np.uint8(0), (2**24, 2**24))
    start = time.monotonic()
    with pytest.raises(InputError, match="the model needs"):
        Smooth(tiny, 0.25, seed=1).certify(x)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_files_that_hold_a_huge_image(tmp_path, suffix):
    """A few bytes that speak of an image of 2^40 values."""
    path = tmp_path / f"images{suffix}"
    if suffix == ".npy":
        with open(path, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (1, 2**20, 2**20)}
            np.lib.format.write_array_header_1_0(file, header)
            with contextlib.suppress(OSError):  # sparse, where the file system can
                file.truncate(file.tell() + 2**40)
    else:
        import h5py

        with h5py.File(path, "w") as file:
            file.create_dataset("images", (1, 2**20, 2**20), "u1", chunks=(1, 1024, 1024))
    start = time.monotonic()
    with pytest.raises(DataError):
        open_arrays(path)[0]
    assert time.monotonic() - start < 5


class AlwaysFour:
    """An engine whose every vote goes to class 4, at once."""

    def __init__(self, graph):
        self.graph = graph

    def count_votes(self, image, table, key, first, n):
        return n * np.eye(len(self.graph.classes), dtype=np.int64)[4]


def test_two_to_the_31_votes_are_counted_and_bounded_right(tmp_path, tiny, image):
    smooth = Smooth(tiny, 0.25, seed=7)
    smooth.engine = AlwaysFour(tiny)
    for batch_size in (2**25 + 1, 2**40):
        certificate = smooth.certify(image, n=TOO_MANY, batch_size=batch_size)
        assert (certificate.hits, certificate.n, sum(certificate.counts)) == (TOO_MANY,) * 3
        assert certificate.p_lower == pytest.approx(0.001 ** (1 / TOO_MANY), abs=1e-15)
        assert certificate.p_lower <= 0.001 ** (1 / TOO_MANY) + 1e-16
        assert smooth.predict(image, n=TOO_MANY, batch_size=batch_size) == 4
    results = certify_dataset(smooth, small_dataset(1), tmp_path / "a.tsv", n=TOO_MANY, batch_size=2**30)
    assert results.columns["hits"] == results.columns["n"] == ("2147483648",)
    start = time.monotonic()
    for hits in (TOO_MANY - 1000, 3 * TOO_MANY // 4, TOO_MANY // 2 + 10**6):
        p = certificate_from_counts(hits, TOO_MANY, sigma="0.25", dimension=64).p_lower
        assert p == pytest.approx(stats.beta.ppf(0.001, hits, TOO_MANY - hits + 1), abs=1e-12) and p < hits / TOO_MANY
    sd = TOO_MANY**0.5 / 2
    for hits, prediction in ((TOO_MANY // 2 + round(3.2 * sd), -1), (TOO_MANY // 2 + round(3.4 * sd), 0)):
        assert prediction_from_counts([hits, TOO_MANY - hits]) == prediction  # two-sided 0.001 is 3.29 sd
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_samples_beyond_two_to_the_31_and_the_32_are_their_own(tiny, image, backend):
    smooth = Smooth(tiny, 0.25, seed=7, threads=2)
    x, engine = smooth.check_image(image), Engine(tiny, backend, threads=2)
    seen = []
    for first in (0, 2**31 - 40, 2**32 - 40, 2**63 - 40):
        whole = count_votes(engine, x, smooth.table, smooth.seed, 1, first, 80).counts
        parts = [count_votes(smooth.engine, x, smooth.table, smooth.seed, 1, first + i, 1).counts for i in range(80)]
        assert np.array_equal(whole, sum(parts))
        seen.append(np.argmax(parts, axis=1).tolist())
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])


def test_a_huge_batch_takes_no_more_memory(tiny):
    """What waits for the threads is bounded, however many samples are asked for at once."""
    for threads in (1, 2):
        engine, asked = Engine(tiny, threads=threads), []
        engine._map(lambda begin, count, asked=asked: asked.append((begin, count)), TOO_MANY)
        assert len(asked) <= 4096 and sum(count for _, count in asked) == TOO_MANY
        asked.sort()
        assert [begin for begin, _ in asked] == [0, *np.cumsum([count for _, count in asked])[:-1]]


@pytest.mark.parametrize("name", ["n", "n0", "batch_size"])
def test_more_votes_than_the_bounds_allow_are_refused_before_the_first(tiny, image, name):
    smooth = Smooth(tiny, 0.25, seed=7)
    smooth.engine = None  # nothing is to be counted
    for value in (LARGEST_N + 1, 2**63, 10**30):
        with pytest.raises(InputError, match=f"{name} is {value}"):
            smooth.certify(image, **{name: value})


def test_exact_tables_of_2_to_the_31_votes_are_refused():
    with pytest.raises(InputError, match="max_n is 2147483648"):
        plan_target(0.5, sigma=0.5, dimension=64, max_n=TOO_MANY)
    with pytest.raises(InputError, match="n is 2147483648"):
        build_table(TOO_MANY, sigma=Fraction(1, 2), dimension=64)


@pytest.mark.parametrize(
    "stored",
    [
        lambda x: x[::-1][::-1],
        lambda x: np.repeat(x, 3, axis=0)[::3],
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(">i2"),
        lambda x: x.astype(">u4"),
        lambda x: x.astype(np.uint64),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),  # not aligned, read-only
    ],
)
def test_how_levels_are_stored_does_not_matter_to_the_engine(tiny, stored):
    levels = np.random.default_rng(3).integers(0, 17, (5, 8, 8, 1)).astype(np.int16)
    levels.setflags(write=False)
    smooth = Smooth(tiny, 0.25, seed=7)
    for backend in ("numba", "numpy"):
        engine = Engine(tiny, backend, threads=2)
        assert np.array_equal(engine.forward(stored(levels)), engine.forward(levels.copy()))
        assert np.array_equal(
            engine.count_votes(stored(levels)[2], smooth.table, np.arange(8, dtype=np.uint32), 0, 50),
            engine.count_votes(levels[2].copy(), smooth.table, np.arange(8, dtype=np.uint32), 0, 50),
        )
    image = levels[0, :, :, 0]
    assert Smooth(tiny, 0.25, seed=7).certify(image, n=50) == smooth.certify(image.copy(), n=50)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool, complex, object, "U1", "M8[s]", "V2"])
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_levels_that_are_no_integers(tiny, dtype, backend):
    engine = Engine(tiny, backend, threads=1)
    levels = np.zeros((2, 8, 8, 1), dtype)
    with pytest.raises(InputError, match="required: integers"):
        engine.forward(levels)


@pytest.mark.parametrize("threads", [0, -1, MAX_THREADS + 1, 1000, 2**40, 1.5, "2", True])
def test_numbers_of_threads_that_are_refused(tiny, threads):
    with pytest.raises(InputError, match="required: an integer from 1 to 256"):
        Engine(tiny, threads=threads)
    with pytest.raises(InputError, match="required: an integer from 1 to 256"):
        Smooth(tiny, 0.25, threads=threads)


@pytest.mark.parametrize(
    ("options", "message"), [({"threads": 1000}, "threads is 1000"), ({"n": 10**13}, "n is 10000000000000")]
)
def test_the_command_line_refuses_too_much_before_it_begins(tmp_path, capsys, options, message):
    assert cli.main(certify_command(tmp_path, out=tmp_path / "a.tsv", **options)) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "a.tsv").exists()


def test_as_many_threads_as_are_allowed(tiny, image):
    many, one = (Smooth(tiny, 0.25, seed=7, threads=threads) for threads in (MAX_THREADS, 1))
    assert many.certify(image, n=2000) == one.certify(image, n=2000)


def test_a_small_model_that_asks_for_a_huge_arena_is_refused_before_it_is_made():
    """14 kB of constants, and borders of 4 GB: a window far outside of an image of one pixel."""
    weights = np.ones((2, 1, 1024), np.int8)
    constants = {"weights": weights, "bias": np.zeros(1024, np.int32)}
    constants |= {"multiplier": np.full(1024, 2**30, np.int32), "shift": np.zeros(1024, np.int32)}
    attributes = {"stride": (1024, 1024), "dilation": (1024, 1), "padding": (1024,) * 4, "clamp": (-128, 127)}
    identity = {"multiplier": np.array([2**30], np.int32), "shift": np.array([1], np.int32)}
    nodes = [
        Node("in", "input_requantize", ("levels",), "x", {}, identity),
        Node("far", "depthwise_conv2d", ("x",), "y", attributes, constants),
    ]
    extent = (1 + 2048 - 1025) // 1024 + 1, (1 + 2048 - 1) // 1024 + 1
    shape = (*extent, 1024)
    tensors = [Tensor("levels", (1, 1, 1024), "int16"), Tensor("x", (1, 1, 1024)), Tensor("y", shape)]
    graph = build_graph(nodes, tensors, "levels", "y", (0, 255), 255, [str(k) for k in range(int(np.prod(shape)))])
    with pytest.raises(UnsupportedError, match="the engine's addresses reach"):
        build_plan(graph)
