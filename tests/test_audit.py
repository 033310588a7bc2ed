"""The audit of sound models, what it proves about them, the self-test and the command line."""

import json
import os
import platform
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("numba")
import models  # noqa: E402
from audit_models import IDENTITY, SEED, finding_of, lookup_model  # noqa: E402

from intsmooth import audit as audit_package  # noqa: E402
from intsmooth import cli, h5file  # noqa: E402
from intsmooth.audit import audit, equality, noise, overflow, selftest  # noqa: E402
from intsmooth.audit.finding import Finding, Report  # noqa: E402
from intsmooth.audit.intervals import propagate  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402
from intsmooth.errors import InputError, IntsmoothError, ResourceError  # noqa: E402
from intsmooth.graph import build_graph  # noqa: E402
from intsmooth.noise.law import noise_table  # noqa: E402
from intsmooth.overflow import accumulator_bounds  # noqa: E402
from intsmooth.records import Node, Tensor  # noqa: E402
from intsmooth.reference import engine as reference  # noqa: E402


@pytest.fixture(scope="module")
def report():
    return audit(models.tiny_conv(np.random.default_rng(0)), Fraction(1, 4), seed=SEED)


def test_a_sound_model_passes(report):
    assert report.passed
    assert [finding.name for finding in report.findings] == list(audit_package.CHECKS)
    assert "audit passed" in report.text() and "FAIL" not in report.text()
    assert "only the statistics of the certificate use floats, rounded down" in report.text()
    assert finding_of(report, "dynamic").passed is (True if platform.machine() in ("x86_64", "AMD64") else None)


def test_json_says_the_same(report):
    read = json.loads(report.json())
    assert set(read) >= {"format", "model", "noise", "seed", "images", "intsmooth", "sources", "cpu", "llvm", "kernels"}
    assert all(finding["evidence"].keys() == {"kind", "holds_for"} for finding in read["findings"])
    assert read["sources"] == audit_package.source_digest() and len(read["sources"]) == 64
    assert read["passed"] and [f["name"] for f in read["findings"]] == list(audit_package.CHECKS)
    layers = {layer["node"]: layer for layer in read["findings"][1]["details"]["layers"]}
    assert len(layers["conv2d_1"]["proved"]) == len(layers["conv2d_1"]["margin_bits"]) == 8
    assert len(read["findings"][2]["details"]["mnemonics"]) > 50


def test_all_operators_and_the_discrete_law():
    graph = models.every_operator(np.random.default_rng(1))
    report = audit(graph, Fraction("0.1"), "discrete", np.zeros((1, *graph.input_shape), np.uint8), SEED)
    assert report.passed, report.text()


def test_images_must_fit():
    with pytest.raises(InputError, match=r"integers of shape \(N, 4, 4, 2\)"):
        audit(lookup_model(), Fraction(1, 4), images=np.zeros((2, 4, 4, 3), np.uint8))


def test_nothing_checked_is_no_pass():
    assert not Report({}, []).passed
    assert "audit failed: nothing was checked" in Report({}, []).text()
    assert not Report({}, [Finding("a", "b", False, "c")]).passed


@pytest.mark.parametrize("seed", range(25))
def test_intervals_hold_what_a_network_computes(seed):
    """Every tensor of random networks lies in its interval, and no interval bound exceeds the one from the weights."""
    rng = np.random.default_rng(seed)
    graph = models.random_graph(rng) if seed >= len(models.ALL) else list(models.ALL.values())[seed](rng)
    steps, proved = propagate(graph), accumulator_bounds(graph)
    levels = rng.integers(-400, 700, (4, *graph.input_shape)).astype(np.int16)
    levels[0], levels[1] = -32768, 32767
    for name, value in reference.run(graph, levels).items():
        for node in graph.nodes:
            if node.output == name:
                interval = steps[node.name].output
                assert (value >= interval.low).all() and (value <= interval.high).all(), node.name
                assert (steps[node.name].largest <= proved[node.name]).all(), node.name
    assert overflow.check_overflow(graph, levels).passed


@pytest.mark.parametrize("zero_point", [-128, -5, 0, 127])
def test_the_two_bounds_agree_where_everything_can_enter(zero_point):
    """Behind an input_requantize that reaches every int8 value, propagation and proof are the same number."""
    rng = np.random.default_rng(5)
    weights = rng.integers(-128, 128, (6, 3, 2, 5)).astype(np.int8)
    constants = {"weights": weights, "bias": rng.integers(-(2**20), 2**20, 6).astype(np.int32),
                 "multiplier": np.full(6, 2**30, np.int32), "shift": np.full(6, -9, np.int32)}  # fmt: skip
    attributes = {"stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "groups": 1, "clamp": (-128, 127)}
    nodes = [Node("input", "input_requantize", ("levels",), "x", {}, IDENTITY),
             Node("conv", "conv2d", ("x",), "y", attributes, constants)]  # fmt: skip
    tensors = [Tensor("levels", (3, 2, 5), "int16"), Tensor("x", (3, 2, 5), "int8", zero_point), Tensor("y", (1, 1, 6))]
    graph = build_graph(nodes, tensors, "levels", "y", (0, 16), 16, list("abcdef"))
    assert propagate(graph)["conv"].largest.tolist() == accumulator_bounds(graph)["conv"].tolist()
    centred = [
        np.where(weights > 0, top, bottom).astype(np.int64) - zero_point for top, bottom in ((127, -128), (-128, 127))
    ]
    sums = [constants["bias"] + (weights * x).sum(axis=(1, 2, 3)) for x in centred]
    assert (np.abs(sums).max(axis=0) <= propagate(graph)["conv"].largest).all()


@pytest.mark.parametrize("law", ["rounded", "discrete"])
def test_the_recomputed_law(law):
    from exact_noise import law_pmf

    made = noise_table(Fraction(7, 2), law)
    outcomes, expected = law_pmf(law, 3.5)
    inside = (outcomes >= made.first) & (outcomes <= made.last)
    np.testing.assert_allclose(
        [float(p) for p in noise.law_probabilities(made)], expected[inside], rtol=1e-9, atol=1e-18
    )


def test_selftest_passes_and_says_so(capsys):
    assert cli.main(["selftest", "--seed", "7"]) == 0
    shown = capsys.readouterr().out
    assert "self-test passed" in shown and "6 ChaCha20 blocks of RFC 8439" in shown


def test_selftest_fails_for_a_biased_sampler(monkeypatch, capsys):
    honest = selftest.noise_selftest.sample_noise

    def biased(*arguments):
        drawn = honest(*arguments)
        drawn[:, 0] = np.abs(drawn[:, 0])
        return drawn

    monkeypatch.setattr(selftest.noise_selftest.check, "__defaults__", ("numba", biased, None))
    assert cli.main(["selftest", "--json"]) == 1
    read = json.loads(capsys.readouterr().out)
    assert not read["passed"] and "checks failed" in read["findings"][0]["problems"][0]


def test_selftest_fails_for_a_wrong_budget(monkeypatch):
    monkeypatch.setattr(selftest, "KNOWN_BUDGETS", ((99_000, 100_000, "0.25", 255, 3072, "rounded", None, 21313),))
    finding = selftest._statistics()
    assert not finding.passed and "budget 21312, it must be 21313" in finding.problems[0]


def test_the_small_network_uses_its_range():
    graph = selftest.small_network()
    rng = np.random.default_rng(0)
    values = reference.run(graph, rng.integers(-60, 320, (8, *graph.input_shape)).astype(np.int16))
    spreads = {node.op: float(values[node.output].std()) for node in graph.nodes}
    assert min(spreads.values()) > 3, spreads


def test_quick_check(monkeypatch):
    made = noise_table(Fraction("63.75"))
    selftest.quick_check(made, 3072, SEED)
    selftest.quick_check(noise_table(4), 16, SEED, "numpy")
    honest = selftest.sample_noise
    monkeypatch.setattr(selftest, "sample_noise", lambda *arguments: honest(*arguments) // 2 * 2)
    with pytest.raises(IntsmoothError, match="Nothing was certified"):
        selftest.quick_check(made, 3072, SEED)


def test_the_command(tmp_path, capsys):
    path = tmp_path / "model.h5"
    h5file.save(lookup_model(), path)
    assert cli.main(["audit", str(path), "--sigma", "0.25", "--seed", "3"]) == 0
    assert "audit passed" in capsys.readouterr().out
    assert cli.main(["audit", str(path), "--sigma", "0.25", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    images = tmp_path / "images.npz"
    np.savez(images, images=np.full((3, 4, 4, 2), 7, np.uint8), labels=np.zeros(3, np.int64))
    assert cli.main(["audit", str(path), "--sigma", "0.25", "--data", str(images), "--json", "--max", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == "2"
    assert cli.main(["audit", str(path)]) == 2 and "--sigma" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_an_imported_model_passes(name):
    if name == "tflite":
        network = pytest.importorskip("tflite_networks", reason="needs the packages of the test extra").small_network
        from intsmooth.convert import tflite as importer

        arguments = {}
    else:
        network = pytest.importorskip("onnx_builder", reason="needs the package onnx").quantized_network
        from intsmooth.convert import onnx as importer

        arguments = {"input_scale": "1/255"}
    found = audit(importer.load(network(), **arguments).graph, Fraction(1, 4), seed=SEED)
    assert found.passed, found.text()


def isa_names():
    from intsmooth.kernels.isa import supported

    return supported()


@pytest.mark.slow
@pytest.mark.parametrize("isa", isa_names())
def test_every_shipped_model_passes_with_every_set_of_kernels(isa, tmp_path):
    """By the command, with a compilation cache that is empty at first: compiled, and once from the cache."""
    from intsmooth.shipped import shipped_models

    paths = list(shipped_models().values())
    if not paths:
        pytest.skip("no models are shipped with this installation")
    environment = os.environ | {"INTSMOOTH_ISA": isa, "NUMBA_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    for path in [*paths, paths[0]]:
        command = [sys.executable, "-m", "intsmooth", "audit", str(path), "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        read = json.loads(done.stdout)
        assert read["passed"] and read["kernels"] == isa
        functions = next(finding for finding in read["findings"] if finding["name"] == "code")["details"]["functions"]
        assert len(functions) >= 6 and all(f["machine_instructions"] > 20 for f in functions)


def test_a_node_that_reads_a_tensor_twice_is_compared_with_what_it_reads():
    constants = {"multiplier": np.full(3, 2**30, np.int32), "shift": np.zeros(3, np.int32)}
    nodes = [
        Node("input", "input_requantize", ("levels",), "x", {}, IDENTITY),
        Node("twice", "add", ("x", "x"), "y", {"clamp": (-128, 127), "left_shift": 4}, constants),
    ]
    tensors = [Tensor("levels", (4, 4, 2), "int16"), Tensor("x", (4, 4, 2)), Tensor("y", (4, 4, 2))]
    graph = build_graph(nodes, tensors, "levels", "y", (0, 15), 15, [str(k) for k in range(32)])
    problems = []
    assert equality._compare_layer(Engine(graph, threads=1), graph.nodes[1], np.random.default_rng(0), problems) and not problems


def test_without_numba_nothing_is_raised_and_nothing_passes(monkeypatch):
    def missing(*_, **__):
        raise ResourceError("the compiled engine needs numba")

    monkeypatch.setattr("intsmooth.engine.Engine.__init__", missing)
    report = audit(lookup_model(), Fraction(1, 4), seed=SEED)
    assert not report.passed and [f.passed for f in report.findings].count(False) >= 6
    assert "needs numba" in report.text()
    assert not selftest._kernels(SEED).passed


def test_checks_that_could_not_be_made_are_no_pass():
    nothing = Finding("dynamic", "claim", None, "not here")
    assert not Report({}, [nothing]).passed and Report({}, [nothing, Finding("noise", "c", True, "s")]).passed
