"""The self-test: is this installation, on this machine, fit to certify? Seconds, no model needed.

    noise        RFC 8439 vectors, the naive twin, goodness of fit of the final integers of the running sampler
    kernels      every tensor of a small network, compiled and naive, on random and extreme inputs
    statistics   certificates whose budgets are known from 40-digit arithmetic

`quick_check` is the part of it that a certification can afford before it starts.
"""

from fractions import Fraction

import numpy as np

from intsmooth.audit.finding import Finding, Report
from intsmooth.certify import certificate_from_counts
from intsmooth.errors import IntsmoothError, ResourceError
from intsmooth.graph import build_graph
from intsmooth.noise import selftest as noise_selftest
from intsmooth.noise.law import NoiseTable, noise_table
from intsmooth.noise.sampler import sample_noise
from intsmooth.noise.stream import new_seed, stream_key
from intsmooth.records import Graph, Node, Tensor
from intsmooth.reference import sampler as reference_sampler

# hits, n, sigma in [0, 1] units, unit, dimension, law, tau, budget (None: abstain): docs/theory.md, reference values
KNOWN_BUDGETS = (
    (100_000, 100_000, "0.25", 255, 3072, "rounded", None, 59039),
    (99_000, 100_000, "0.25", 255, 3072, "rounded", None, 21312),
    (99_000, 100_000, "0.25", 255, 3072, "discrete", "1.25", 21304),
    (50_100, 100_000, "0.25", 255, 3072, "rounded", None, None),
    (900, 1000, "0.25", 16, 64, "rounded", None, 19),
    (9, 9, "0.25", 16, 64, "rounded", None, None),
)
QUICK_SAMPLES = 64


def selftest(seed: bytes | None = None) -> Report:
    """All three findings; seed: 32 bytes, fresh where None."""
    seed = new_seed() if seed is None else seed
    return Report({"seed": seed.hex()}, [_noise(seed), _kernels(seed), _statistics()])


def quick_check(table: NoiseTable, n: int, seed: bytes, backend: str = "numba") -> None:
    """Check cipher, sampler and fit of some noise of this table, a fraction of a second; IntsmoothError if it fails.

    n: coordinates of an image; seed: 32 bytes. The noise that is looked at belongs to no image and no stage of a run.
    """
    key = stream_key(seed, bytes(32), 2**64 - 1)
    noise = sample_noise(table, key, 0, QUICK_SAMPLES, min(max(n, QUICK_SAMPLES), 4096), backend)
    twin = reference_sampler.sample_noise(
        table.first, table.thresholds, key, noise_selftest.NONCE_TAG, 0, 2, noise.shape[1]
    )
    findings = [noise_selftest.known_answers(backend), *noise_selftest.goodness_of_fit(noise, table)]
    wrong = [f"{f.name}: {f.statistic:.6g} above {f.limit:.6g}" for f in findings if not f.passed]
    if not np.array_equal(noise[:2], twin):
        wrong.append("integers unlike the naive twin's")
    if wrong:
        raise IntsmoothError(
            f"the noise on this machine is not what certificates need ({'; '.join(wrong[:5])}). Nothing was certified: "
            "run `intsmooth selftest`, clear the compilation cache, reinstall"
        )


def _noise(seed: bytes) -> Finding:
    claim = "cipher and sampler give the noise that the certificates assume"
    try:
        findings = noise_selftest.check("numba", seed=seed)
    except (IntsmoothError, ImportError) as error:
        return Finding("noise", claim, False, "see below", [str(error)])
    summary = (
        f"{len(noise_selftest.KNOWN_BLOCKS)} ChaCha20 blocks of RFC 8439; {len(findings) - 1} statistics of "
        f"{2 * noise_selftest.SHAPE[0] * noise_selftest.SHAPE[1]:,} final integers of two laws within their limits"
    )
    details = [{"name": f.name, "statistic": float(f.statistic), "limit": float(f.limit)} for f in findings]
    kind = ("comparison", "known answers, and the fit of the integers drawn here, which is a statistic")
    return Finding("noise", claim, True, summary, details={"statistics": details}, kind=kind)


def _kernels(seed: bytes) -> Finding:
    from intsmooth.audit.equality import check_equality
    from intsmooth.engine import Engine

    graph = small_network()
    try:
        engine = Engine(graph, threads=1)
    except (ImportError, ResourceError) as error:
        return Finding("kernels", "the compiled kernels equal their twins", False, "see below", [str(error)])
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
    images = rng.integers(0, 256, (2, *graph.input_shape))
    found = check_equality(engine, images, noise_table(Fraction("63.75"), "rounded"), seed)
    return Finding("kernels", found.claim, found.passed, found.summary, found.problems, details=found.details)


def _statistics() -> Finding:
    problems = []
    for hits, n, sigma, unit, dimension, law, tau, budget in KNOWN_BUDGETS:
        made = certificate_from_counts(hits, n, sigma=sigma, unit=unit, dimension=dimension, law=law, tau=tau)
        found = made.budget if made.prediction >= 0 else None
        if found != budget:
            problems.append(f"{hits} of {n} votes, {law} noise: budget {found}, it must be {budget}")
    summary = f"{len(KNOWN_BUDGETS)} budgets re-derived" if not problems else f"{len(problems)} budgets are wrong"
    return Finding("statistics", "counts become the budgets that they must become", not problems, summary, problems)


def small_network() -> Graph:
    """Convolution, strided residual, depthwise convolution, pooling, mean, softmax; fixed random weights."""
    rng = np.random.default_rng(20210)
    nodes, tensors = [], [Tensor("levels", (9, 8, 3), "int16")]

    def add(op, inputs, shape, attributes=None, zero_point=0, **constants):
        nodes.append(Node(f"{op}_{len(nodes)}", op, tuple(inputs), f"t{len(nodes)}", attributes or {}, constants))
        tensors.append(Tensor(nodes[-1].output, shape, "int8", zero_point))
        return nodes[-1].output

    def rescale(count, factor):
        shift = int(np.floor(np.log2(factor))) + 1
        return {
            "multiplier": rng.integers(2**30, 2**31, count).astype(np.int32),
            "shift": np.full(count, shift, np.int32),
        }

    def weighted(shape, channels, terms):
        return {
            "weights": rng.integers(-127, 128, shape).astype(np.int8),
            "bias": rng.integers(-4000, 4000, channels).astype(np.int32),
        } | rescale(channels, 1 / (60 * np.sqrt(terms)))

    window = {"dilation": (1, 1), "clamp": (-128, 127)}
    same = window | {"stride": (1, 1), "padding": (1, 1, 1, 1), "groups": 1}
    x = add("input_requantize", ["levels"], (9, 8, 3), None, -64, **rescale(1, 0.5))
    x = add("conv2d", [x], (9, 8, 24), same | {"clamp": (-20, 127)}, -20, **weighted((24, 3, 3, 3), 24, 27))
    y = add("conv2d", [x], (5, 4, 40), same | {"stride": (2, 2)}, 3, **weighted((40, 3, 3, 24), 40, 216))
    skip = {"skip_stride": (2, 2), "skip_offset": 8}
    inside = (np.arange(40) >= 8) & (np.arange(40) < 32)
    factors = np.where(inside, 900, 0).astype(np.int32)
    x = add(
        "conv2d_add", [y, x], (5, 4, 40), same | skip, -7, **weighted((40, 3, 3, 40), 40, 360), skip_multiplier=factors
    )
    depthwise = window | {"stride": (1, 1), "padding": (1, 1, 1, 1)}
    x = add("depthwise_conv2d", [x], (5, 4, 40), depthwise, 0, **weighted((3, 3, 40), 40, 9))
    pool = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    x = add("max_pool2d", [x], (4, 3, 40), pool)
    x = add("average_pool2d", [x], (3, 2, 40), pool)
    x = add("mean", [x], (40,), {"clamp": (-128, 127)}, 5, **rescale(1, 0.25))
    x = add("fully_connected", [x], (10,), {"clamp": (-128, 127)}, 0, **weighted((10, 40), 10, 40))
    constants = {"multiplier": np.array([1717986918], np.int32), "shift": np.array([22], np.int32)}
    x = add("softmax", [x], (10,), {"diff_min": -500}, -128, **constants)
    return build_graph(nodes, tensors, "levels", x, (0, 255), 255, [str(i) for i in range(10)])
