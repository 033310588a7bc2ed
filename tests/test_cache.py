"""The compilation cache: shared by processes that fill it with different kernels, useless, or not there."""

import os
import subprocess
import sys

import pytest
from places import ROOT

# Runs a fully connected network (tile 1 x 1) and, when asked, a convolution (other tiles) against the twins.
PROGRAM = """
import sys
import numpy as np
from intsmooth.engine import Engine
from intsmooth.graph import build_graph
from intsmooth.records import Node, Tensor

rng = np.random.default_rng(0)
one = {"multiplier": np.array([2**30], np.int32), "shift": np.array([1], np.int32)}

def scales(n):
    return {"bias": rng.integers(-999, 999, n).astype(np.int32), "shift": np.full(n, -9, np.int32),
            "multiplier": rng.integers(2**30, 2**31, n).astype(np.int32)}

def network(width):
    weights = rng.integers(-128, 128, (5, 1, 1, 3)).astype(np.int8)
    nodes = [Node("input", "input_requantize", ("image",), "x", {}, one),
             Node("conv", "conv2d", ("x",), "y", {"stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "groups": 1,
                                                  "clamp": (-128, 127)}, {"weights": weights, **scales(5)})]
    tensors = [Tensor("image", (2, width, 3), "int16"), Tensor("x", (2, width, 3)), Tensor("y", (2, width, 5))]
    graph = build_graph(nodes, tensors, input="image", output="y", levels=(0, 255), unit=255,
                        classes=[str(k) for k in range(10 * width)])
    levels = rng.integers(-128, 128, (4, 2, width, 3)).astype(np.int16)
    fast, slow = Engine(graph, threads=1).forward(levels), Engine(graph, "numpy").forward(levels)
    assert (fast == slow).all(), width

for width in map(int, sys.argv[1:]):
    network(width)
print("equal")
"""


def run(cache, *widths, **environment):
    """The program in a fresh process with its own cache folder."""
    variables = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), **environment}
    outcome = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, widths)], env=variables, capture_output=True, text=True,
                             timeout=300, cwd=cache.parent)
    assert outcome.returncode == 0 and outcome.stdout.strip() == "equal", outcome.stderr[-3000:]


def test_kernels_cached_by_different_processes_are_not_confused(tmp_path):
    """Variants of one kernel, compiled alone in processes of their own, then loaded together."""
    cache = tmp_path / "cache"
    cache.mkdir()
    run(cache, 1)   # each width uses another tile
    run(cache, 5)
    run(cache, 16)
    assert list(cache.rglob("*.nbc"))
    run(cache, 1, 5, 16)
    run(cache, 16, 9, 1, 5)


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    run(tmp_path / "file", 2)


@pytest.mark.parametrize("pattern", ["*.nbc", "*.nbi"])
def test_damaged_cache_files_do_no_harm(tmp_path, pattern):
    cache = tmp_path / "cache"
    cache.mkdir()
    run(cache, 1)
    for path in cache.rglob(pattern):
        path.write_bytes(path.read_bytes()[:20])
    run(cache, 1)


@pytest.mark.parametrize("setting", ["0", "1"])
def test_the_cache_can_be_turned_off(tmp_path, setting):
    cache = tmp_path / "cache"
    cache.mkdir()
    run(cache, 1, INTSMOOTH_CACHE=setting)
    assert bool(list(cache.rglob("*.nbc"))) == (setting == "1")
