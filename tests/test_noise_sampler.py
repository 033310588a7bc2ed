"""The compiled sampler against its naive twin and the definition, bit for bit; what moves a stream, what does not."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intsmooth.errors import InputError
from intsmooth.kernels import sampler as kernel
from intsmooth.kernels.isa import supported
from intsmooth.kernels.jit import jit
from intsmooth.noise.law import LAWS, NoiseTable, noise_table
from intsmooth.noise.sampler import sample_noise, table_arrays
from intsmooth.noise.stream import NONCE_TAG, image_digest, stream_key
from intsmooth.reference import sampler as twin

KEY = stream_key(bytes(range(32)), bytes(32), 1)
SIGMAS = [Fraction(s) for s in ("1/100", "1/10", "1/3", "1", "17/10", "4", "30.6", "63.75", "255", "1000")]
SIZES = [1, 2, 15, 16, 17, 64, 255, 256, 257, 511, 512, 513, 784, 1025, 3072]
INDICES = [0, 1, 2**32 - 2, 2**32, 2**40 + 7, 2**64 - 3]


def by_definition(table, key, first, count, n):
    """first + #{thresholds <= u} with both halves of every u computed, equal words or not."""
    samples = np.array([first + i for i in range(count)], dtype=np.uint64)
    high = twin.high_words(key, NONCE_TAG, samples, n).astype(np.uint64)
    low = twin.low_words(key, NONCE_TAG, samples[:, None], np.broadcast_to(np.arange(n), (count, n)))
    u = (high << np.uint64(32)) | low
    return (table.first + np.searchsorted(table.thresholds, u, side="right")).astype(np.int16)


def custom_table(thresholds, first=-5):
    return NoiseTable("rounded", Fraction(1), first, np.array(sorted(thresholds), dtype=np.uint64), Fraction(0))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigma", SIGMAS, ids=str)
def test_compiled_equals_twin(sigma, law):
    table = noise_table(sigma, law)
    for n in SIZES:
        for first in INDICES:
            fast = sample_noise(table, KEY, first, 3, n)
            assert fast.dtype == np.int16 and fast.shape == (3, n)
            assert (fast == sample_noise(table, KEY, first, 3, n, "numpy")).all(), (n, first)


def test_compiled_equals_twin_on_many_samples():
    """Some 10^7 coordinates, so that rare paths are taken: crowded cells often, equal words a few times."""
    table = noise_table(1000, "discrete")
    high = (table.thresholds >> np.uint64(32)).astype(np.uint32)
    equal = 0
    for first in range(0, 2000, 500):
        assert (sample_noise(table, KEY, first, 500, 5000) == sample_noise(table, KEY, first, 500, 5000, "numpy")).all()
        samples = np.arange(first, first + 500, dtype=np.uint64)
        equal += np.isin(twin.high_words(KEY, NONCE_TAG, samples, 5000), high).sum()
    assert equal >= 5, equal


@settings(max_examples=40, deadline=None)
@given(
    st.fractions(Fraction(1, 20), 120, max_denominator=400),
    st.sampled_from(LAWS),
    st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8),
    st.integers(0, 2**64 - 5),
    st.integers(1, 1100),
)
def test_compiled_equals_twin_on_generated_cases(sigma, law, key, first, n):
    table, key = noise_table(sigma, law), np.array(key, dtype=np.uint32)
    assert (sample_noise(table, key, first, 4, n) == sample_noise(table, key, first, 4, n, "numpy")).all()


def test_twin_equals_the_definition():
    for sigma, law in ((4, "rounded"), (Fraction("63.75"), "discrete")):
        table = noise_table(sigma, law)
        naive = sample_noise(table, KEY, 2**32 - 2, 4, 700, "numpy")
        assert (naive == by_definition(table, KEY, 2**32 - 2, 4, 700)).all()


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_forced_ties(backend):
    """Thresholds made from the words that will be drawn: below, at and above u, several on one word, and repeated."""
    n, first = 600, 2**33 + 1
    samples = np.array([first, first + 1], dtype=np.uint64)
    high = twin.high_words(KEY, NONCE_TAG, samples, n)
    low = twin.low_words(KEY, NONCE_TAG, samples[:, None], np.broadcast_to(np.arange(n), (2, n)))
    thresholds = []
    for i, (h, lo) in enumerate(zip(high.ravel()[::3].tolist(), low.ravel()[::3].tolist(), strict=True)):
        u = h << 32 | lo
        ends = [h << 32], [h << 32 | 0xFFFFFFFF], [h << 32, u + 1]
        choices = ([u], [u + 1], [u - 1], [u, u], [u - 1, u, u, u + 1], *ends)
        thresholds += [min(t, 2**64 - 1) for t in choices[i % len(choices)]]
    table = custom_table(thresholds)
    expected = by_definition(table, KEY, first, 2, n)
    assert (sample_noise(table, KEY, first, 2, n, backend) == expected).all()
    assert len(np.unique(expected)) > 300


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 4095).map(lambda c: c << 52)), max_size=60), st.data()
)
def test_any_table(thresholds, data):
    """Tables unlike any law, thresholds at the guide's cell edges and at both ends of the range among them."""
    ends = data.draw(st.lists(st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**64 - 2**32, 2**64 - 1, 2**63]), max_size=8))
    table = custom_table(thresholds + ends)
    fast = sample_noise(table, KEY, 5, 3, 512)
    assert (fast == sample_noise(table, KEY, 5, 3, 512, "numpy")).all()
    assert (fast[:1, :64] == by_definition(table, KEY, 5, 1, 64)).all()


@jit
def look_up(out, words, undecided, guide, bits, first):
    for row in range(words.size // 16):
        undecided[row] = kernel._look_up_row(out, 16 * row, words, 16 * row, guide, bits, first)


@pytest.mark.parametrize("sigma", SIGMAS, ids=str)
def test_guide_on_chosen_words(sigma):
    """Around every cell edge and every threshold an outcome is right or left undecided, ties always the latter."""
    arrays = table_arrays(noise_table(sigma, "rounded"))
    cells = np.arange(1 << int(arrays.bits), dtype=np.int64)
    width = 33 - kernel.TAIL_BITS - int(arrays.bits)
    everywhere, ends = cells << (32 - int(arrays.bits)), cells << width
    edges = np.concatenate([everywhere, ends, -ends, arrays.high.astype(np.int64)])
    words = (np.add.outer(edges, [-2, -1, 0, 1, 2]).ravel() % 2**32).astype(np.uint32)
    words = np.resize(words, -(-len(words) // 16) * 16)
    out, undecided = np.zeros(len(words), dtype=np.int16), np.zeros(len(words) // 16, dtype=np.uint32)
    look_up(out, words, undecided, arrays.guide, arrays.bits, arrays.first)
    open_lanes = (undecided[:, None] >> np.arange(16) & 1).astype(bool).ravel()
    expected = arrays.first + np.searchsorted(arrays.high, words, side="left")
    assert (out == expected)[~open_lanes].all()
    assert open_lanes[np.isin(words, arrays.high)].all()


@pytest.mark.parametrize("sigma", ["4", "30.6", "63.75", "127.5", "255", "3500"])
def test_guide_decides_nearly_always(sigma):
    """Speed, not bits: the share of words for which the guide alone does not decide stays near one in a thousand."""
    arrays = table_arrays(noise_table(Fraction(sigma), "discrete"))
    words = np.random.default_rng(1).integers(0, 2**32, 2**20, dtype=np.uint32)
    out, undecided = np.zeros(len(words), dtype=np.int16), np.zeros(len(words) // 16, dtype=np.uint32)
    look_up(out, words, undecided, arrays.guide, arrays.bits, arrays.first)
    share = (undecided[:, None] >> np.arange(16) & 1).mean()
    assert share < 2e-3, share


def test_golden_noise():
    """Fixed inputs, fixed digests: if this fails, streams and with them all recorded votes have changed."""
    image = np.arange(64).reshape(8, 8, 1) % 17
    key = stream_key((2**255 + 19).to_bytes(32, "big"), image_digest(image), 1)
    digests = {}
    for sigma, law in (("63.75", "rounded"), ("4", "discrete")):
        noise = sample_noise(noise_table(Fraction(sigma), law), key, 2**32 - 50, 100, 1000)
        digests[law] = hashlib.sha256(noise.astype("<i2").tobytes()).hexdigest()
    assert digests == {
        "rounded": "e071b24bcf0bfc1a382225d1e8a42c5c23fa5429b94c391a9c8883f887740e4e",
        "discrete": "eaa1e6d4c1e7730a9e21a3ee98e500847c5a440ffd978ebd16b11649d535a72e",
    }


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_batches_order_and_size_do_not_matter(backend):
    table = noise_table(4, "rounded")
    whole = sample_noise(table, KEY, 1000, 60, 300, backend)
    for cuts in ([0, 1, 2, 60], [0, 59, 60], list(range(61)), [0, 17, 34, 60]):
        pieces = list(zip(cuts, cuts[1:], strict=False))
        parts = {a: sample_noise(table, KEY, 1000 + a, b - a, 300, backend) for a, b in reversed(pieces)}
        assert (np.concatenate([parts[a] for a, _ in pieces]) == whole).all()
    # A coordinate does not depend on how many follow it.
    assert (sample_noise(table, KEY, 1000, 60, 77, backend) == whole[:, :77]).all()


def test_threads_do_not_matter():
    table = noise_table(Fraction("63.75"), "rounded")
    whole = sample_noise(table, KEY, 0, 400, 500)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: sample_noise(table, KEY, 20 * i, 20, 500), range(20)))
    assert (np.concatenate(parts) == whole).all()


def test_streams_differ():
    """Seed, image, stage, sample, coordinate: 64 wide integers agree by chance in less than one pair in 10^100."""
    table = noise_table(1000, "rounded")
    keys = [stream_key(bytes([s]) * 32, bytes([d]) * 32, stage) for s in (0, 1) for d in (0, 1) for stage in (0, 1, 2)]
    rows = [row.tobytes() for key in keys for row in sample_noise(table, key, 2**32 - 4, 8, 64)]
    assert len(set(rows)) == len(rows) == 12 * 8
    noise = sample_noise(table, KEY, 0, 64, 2048)
    assert len({column.tobytes() for column in noise.T}) == 2048


def test_samples_do_not_repeat_after_2_to_the_32():
    table = noise_table(1000, "rounded")
    assert (sample_noise(table, KEY, 0, 1, 64) != sample_noise(table, KEY, 2**32, 1, 64)).any()


def test_no_samples():
    assert sample_noise(noise_table(4), KEY, 0, 0, 5).shape == (0, 5)
    assert sample_noise(noise_table(4), KEY, 0, 0, 5, "numpy").shape == (0, 5)


@pytest.mark.parametrize(
    "name, value",
    [("first", -1), ("first", 2**64), ("first", 0.0), ("count", -1), ("count", 1.0), ("count", True), ("n", 0),
     ("n", -3), ("n", 2**31), ("n", None), ("backend", "torch"), ("key", [1] * 8), ("key", np.zeros(8)),
     ("key", KEY[:7]), ("key", KEY.astype(np.int64))],
)  # fmt: skip
def test_bad_arguments(name, value):
    arguments = dict(table=noise_table(4), key=KEY, first=0, count=1, n=4, backend="numba")
    arguments[name] = value
    with pytest.raises(InputError, match=name):
        sample_noise(**arguments)


def test_indices_may_not_run_past_the_end():
    with pytest.raises(InputError, match="count"):
        sample_noise(noise_table(4), KEY, 2**64 - 2, 3, 4)


def test_any_array_will_do_as_key():
    frozen = KEY.copy()
    frozen.setflags(write=False)
    strided = np.repeat(KEY, 2)[::2]
    expected = sample_noise(noise_table(4), KEY, 0, 1, 99)
    for key in (frozen, strided, KEY.astype(">u4").astype("=u4")):
        assert (sample_noise(noise_table(4), key, 0, 1, 99) == expected).all()


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


COUNT_FLOATS = """
import re
from intsmooth.kernels import sampler as kernel
from intsmooth.noise.law import noise_table
from intsmooth.noise.sampler import sample_noise
import numpy as np
sample_noise(noise_table(4), np.zeros(8, np.uint32), 0, 1, 16)
words = r"half|float|double|fadd|fsub|fmul|fdiv|sitofp|uitofp|fptosi|fptoui|fptrunc|fpext"
for function in (kernel.fill_noise, kernel.fill_samples):
    (text,) = function.inspect_llvm().values()
    bodies = [body for body in re.findall(r"^define .*?^}", text, re.S | re.M) if "cpython" not in body.split("(")[0]]
    assert any("xor <" in body for body in bodies), "the cipher is not there to be read"
    assert not any(re.search(rf"\\b({words})\\b", body) for body in bodies)
print("none")
"""


def test_compiled_code_knows_no_floats():
    """No float type or operation in the optimised LLVM code; compiled afresh, because cached code cannot be read."""
    assert run_python(COUNT_FLOATS, INTSMOOTH_CACHE="0") == "none"


DIGEST_OF_NOISE = """
import hashlib
from intsmooth.noise.law import noise_table
from intsmooth.noise.sampler import sample_noise
from intsmooth.noise.stream import stream_key
key = stream_key(bytes(32), bytes(32), 0)
state = hashlib.sha256()
for sigma in (4, 300):
    for n in (64, 1234):
        state.update(sample_noise(noise_table(sigma), key, 2**32 - 9, 20, n, BACKEND).tobytes())
print(state.hexdigest())
"""


@pytest.fixture(scope="module")
def digest_with_numpy_only():
    code = "import sys\nfor name in ('numba', 'llvmlite', 'scipy', 'h5py'): sys.modules[name] = None\n"
    return run_python(code + DIGEST_OF_NOISE.replace("BACKEND", "'numpy'"))


@pytest.mark.parametrize("isa", supported())
def test_every_vector_width_gives_the_bits_of_numpy_alone(isa, digest_with_numpy_only):
    assert run_python(DIGEST_OF_NOISE.replace("BACKEND", "'numba'"), INTSMOOTH_ISA=isa) == digest_with_numpy_only
