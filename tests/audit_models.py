"""Models that are easily broken, for tests of the audit."""

import platform

import models
import numpy as np
import pytest

pytest.importorskip("numba")

from intsmooth.audit import warm_up  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402
from intsmooth.graph import build_graph  # noqa: E402
from intsmooth.noise.law import noise_table  # noqa: E402
from intsmooth.records import Node, Tensor  # noqa: E402

SEED = bytes(range(32))
x86_only = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="machine code of x86-64")
CPUS = {
    "x86-64": "",
    "nehalem": "+sse4.2",
    "haswell": "+avx2,+bmi,+bmi2,+fma,+lzcnt,+popcnt",
    "skylake-avx512": "+avx512f,+avx512bw,+avx512vl,+avx512dq",
}
IDENTITY = {"multiplier": np.array([2**30], np.int32), "shift": np.array([1], np.int32)}


def lookup_model():
    """Levels 0..15, requantized and sent through a table: the smallest model with a kernel that is easily replaced."""
    values = np.arange(-128, 128).astype(np.int8)
    nodes = [
        Node("input", "input_requantize", ("levels",), "x", {}, IDENTITY),
        Node("table", "lookup", ("x",), "y", {}, {"table": values}),
    ]
    tensors = [Tensor("levels", (4, 4, 2), "int16"), Tensor("x", (4, 4, 2)), Tensor("y", (4, 4, 2))]
    return build_graph(nodes, tensors, "levels", "y", (0, 15), 15, [str(k) for k in range(32)])


def wide_model(bias=0, weight=127):
    """A fully connected layer whose accumulators are as large as bias and weight make them."""
    constants = {
        "weights": np.full((2, 64), weight, np.int8),
        "bias": np.array([bias, 0], np.int32),
        "multiplier": np.full(2, 2**30, np.int32),
        "shift": np.full(2, -15, np.int32),
    }
    nodes = [
        Node("input", "input_requantize", ("levels",), "x", {}, IDENTITY),
        Node("wide", "fully_connected", ("x",), "y", {"clamp": (-128, 127)}, constants),
    ]
    tensors = [Tensor("levels", (8, 8, 1), "int16"), Tensor("x", (8, 8, 1)), Tensor("y", (2,))]
    return build_graph(nodes, tensors, "levels", "y", (0, 16), 16, ["a", "b"])


def finding_of(report, name):
    return next(finding for finding in report.findings if finding.name == name)


def compiled_engine():
    """An engine whose functions have all been compiled."""
    graph = models.tiny_conv(np.random.default_rng(0))
    engine = Engine(graph, threads=1)
    warm_up(engine, np.zeros(graph.input_shape, np.int16), noise_table(4))
    return engine
