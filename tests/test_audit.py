"""The audit passes on sound models, and every planted fault is caught: float, overflow, biased noise, a wrong bit."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("numba")
import models  # noqa: E402
import numba  # noqa: E402

from intsmooth import audit as audit_package  # noqa: E402
from intsmooth import cli, h5file, lowering  # noqa: E402
from intsmooth.audit import audit, dynamic, equality, noise, overflow, selftest  # noqa: E402
from intsmooth.audit.finding import Finding, Report  # noqa: E402
from intsmooth.audit.graph import ScaleWasRead, check_graph, without_scales  # noqa: E402
from intsmooth.audit.intervals import propagate  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402
from intsmooth.errors import InputError, IntsmoothError  # noqa: E402
from intsmooth.graph import build_graph  # noqa: E402
from intsmooth.kernels import instruction as i  # noqa: E402
from intsmooth.kernels import table  # noqa: E402
from intsmooth.noise.law import noise_table  # noqa: E402
from intsmooth.noise.sampler import table_arrays  # noqa: E402
from intsmooth.overflow import accumulator_bounds  # noqa: E402
from intsmooth.records import Node, Tensor  # noqa: E402
from intsmooth.reference import engine as reference  # noqa: E402

SEED = bytes(range(32))
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


# Canaries.


def replaced_kernel(monkeypatch, function):
    monkeypatch.setitem(table.SINGLE, "lookup", numba.njit(nogil=True, error_model="numpy")(function))


def float_lookup(code, levels, arena, scratch, blob):
    """As kernels.elementwise.lookup, bit for bit, but for a detour through a float."""
    for row in range(code[i.ROWS]):
        for column in range(code[i.COLUMNS]):
            source = code[i.SOURCE] + row * code[i.SOURCE_ROW] + column * code[i.SOURCE_PIXEL]
            target = code[i.TARGET] + row * code[i.TARGET_ROW] + column * code[i.TARGET_PIXEL]
            for channel in range(code[i.CHANNELS]):
                value = blob[code[i.CONSTANTS] + arena[source + channel]]
                arena[target + channel] = np.uint8(np.float32(value) * np.float32(1.25) / np.float32(1.25) + 0.5)


def wrong_bit_lookup(code, levels, arena, scratch, blob):
    """As kernels.elementwise.lookup, but for the lowest bit of one of the 256 answers."""
    for row in range(code[i.ROWS]):
        for column in range(code[i.COLUMNS]):
            source = code[i.SOURCE] + row * code[i.SOURCE_ROW] + column * code[i.SOURCE_PIXEL]
            target = code[i.TARGET] + row * code[i.TARGET_ROW] + column * code[i.TARGET_PIXEL]
            for channel in range(code[i.CHANNELS]):
                value = arena[source + channel]
                answer = blob[code[i.CONSTANTS] + value]
                arena[target + channel] = answer ^ np.uint8(1) if value == 255 else answer


def test_a_planted_float_is_caught(monkeypatch):
    replaced_kernel(monkeypatch, float_lookup)
    found = audit(lookup_model(), Fraction(1, 4), seed=SEED)
    assert not found.passed
    assert finding_of(found, "equality").passed  # no comparison of results could have told
    problems = finding_of(found, "code").problems
    assert any("LLVM IR of lookup" in problem and "float" in problem for problem in problems)
    if platform.machine() in ("x86_64", "AMD64"):
        assert any("machine code of lookup" in problem and "floating-point" in problem for problem in problems)


def test_a_kernel_with_one_wrong_bit_is_caught(monkeypatch):
    replaced_kernel(monkeypatch, wrong_bit_lookup)
    found = audit(lookup_model(), Fraction(1, 4), seed=SEED)
    assert [finding.name for finding in found.findings if finding.passed is False] == ["equality"]
    assert any("node 'table' (lookup) alone" in problem for problem in finding_of(found, "equality").problems)


def test_one_wrong_bit_of_a_weight_is_caught():
    engine = Engine(models.tiny_conv(np.random.default_rng(0)), threads=1)
    images = np.zeros((1, *engine.graph.input_shape), np.int16)
    assert equality.check_equality(engine, images, noise_table(4), SEED).passed
    node = next(node for node in engine.graph.nodes if node.op == "conv2d")
    row = engine.plan.table[engine.plan.spans[node.name][0]]
    engine.plan.blob[row[i.WEIGHTS]] ^= 1
    assert not equality.check_equality(engine, images, noise_table(4), SEED).passed


def test_an_overflow_is_caught():
    found = audit(wide_model(bias=2**31 - 1), Fraction(1, 4), seed=SEED)
    assert not found.passed and not finding_of(found, "code").passed
    problems = finding_of(found, "overflow").problems
    assert any("'wide' (fully_connected), channel 0: an int32 value can reach 2,14" in problem for problem in problems)
    assert not any("channel 1: an int32" in problem for problem in problems)


def test_an_overflow_is_caught_without_the_proof_of_planning(monkeypatch):
    """The intervals do not rest on ops and overflow.py: where these say nothing is large, they still find it."""
    harmless = {"input": np.array([1 << 20]), "wide": np.array([1 << 20, 1 << 20])}
    monkeypatch.setattr(overflow, "accumulator_bounds", lambda graph: harmless)
    graph = wide_model(bias=2**31 - 1)
    finding = overflow.check_overflow(graph, np.zeros((1, 8, 8, 1), np.int16))
    assert any("can reach 2,14" in problem for problem in finding.problems)
    assert any("intervals allow" in problem for problem in finding.problems)


def test_a_largest_accumulator_above_the_bound_is_caught(monkeypatch):
    seen = {"wide": np.array([2**30, 5])}
    monkeypatch.setattr(overflow, "largest_seen", lambda graph, levels: seen)
    finding = overflow.check_overflow(wide_model(), np.zeros((1, 8, 8, 1), np.int16))
    assert len(finding.problems) == 1 and "channel 0: 1,073,741,824 was seen" in finding.problems[0]


@pytest.mark.parametrize("law", ["rounded", "discrete"])
def test_a_biased_noise_table_is_caught(law):
    honest = noise_table(4, law)
    moved = honest.thresholds.copy()
    moved[len(moved) // 2] += np.uint64(2**20)  # 2^-44 of the probability moves to the neighbour
    assert noise.distance(honest) <= honest.tv + Fraction(1, 10**30)
    finding = noise.check_noise(replace(honest, thresholds=moved))
    assert not finding.passed and "from its law in total variation" in finding.problems[0]
    finding = noise.check_noise(replace(honest, thresholds=moved, tv=Fraction(1, 2**40)))
    assert not finding.passed and "above what 64-bit thresholds need" in finding.problems[0]


def test_a_sampler_that_does_not_use_its_table_is_caught(monkeypatch):
    engine = Engine(lookup_model(), threads=1)
    images, honest = np.zeros((2, 4, 4, 2), np.int16), noise_table(4)
    assert equality.check_equality(engine, images, honest, SEED).passed
    wrong = table_arrays(honest)._replace(first=np.int32(honest.first + 1))
    monkeypatch.setattr("intsmooth.noise.sampler.table_arrays", lambda table: wrong)
    problems = equality.check_equality(engine, images, honest, SEED).problems
    assert any(problem.startswith("noise: ") for problem in problems)


def test_a_scale_that_is_read_is_caught(monkeypatch):
    graph = lookup_model()
    levels = np.zeros((1, 4, 4, 2), np.int16)
    assert check_graph(graph, levels).passed
    with pytest.raises(ScaleWasRead, match="'x' was read"):
        _ = without_scales(graph).tensors["x"].scale
    honest = lowering.LOWERING["lookup"]

    def nosy(node, inputs, target, blob):
        assert without_scales(graph).tensors["x"].scale
        return honest(node, inputs, target, blob)

    plain = check_graph.__globals__["without_scales"]
    monkeypatch.setitem(check_graph.__globals__, "without_scales", lambda g: (_nosy(monkeypatch, nosy), plain(g))[1])
    finding = check_graph(graph, levels)
    assert not finding.passed and "while the model was planned" in finding.problems[0]


def _nosy(monkeypatch, function):
    monkeypatch.setitem(lowering.LOWERING, "lookup", function)


def test_a_float_while_votes_are_counted_is_caught(monkeypatch):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("MXCSR is a register of x86 processors")
    from intsmooth.audit.mxcsr import divide

    engine = Engine(lookup_model(), threads=1)
    image, noises = np.zeros((4, 4, 2), np.int16), noise_table(4)
    assert dynamic.check_dynamic(engine, image, noises, SEED, 300).passed
    honest = engine.count_votes
    monkeypatch.setattr(engine, "count_votes", lambda *arguments: (divide(2.0, 3.0), honest(*arguments))[1])
    finding = dynamic.check_dynamic(engine, image, noises, SEED, 300)
    assert not finding.passed and "inexact" in finding.problems[0]


def test_the_witness_must_see(monkeypatch):
    """Flags that never rise prove nothing: without the control's flag the check fails."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("MXCSR is a register of x86 processors")
    monkeypatch.setattr("intsmooth.audit.mxcsr.raised_flags", lambda: [])
    engine = Engine(lookup_model(), threads=1)
    finding = dynamic.check_dynamic(engine, np.zeros((4, 4, 2), np.int16), noise_table(4), SEED, 50)
    assert not finding.passed and "says nothing" in finding.problems[0]
    two = Engine(lookup_model(), threads=2)
    finding = dynamic.check_dynamic(two, np.zeros((4, 4, 2), np.int16), noise_table(4), SEED, 50)
    assert "2 threads" in finding.problems[0]


def test_another_processor_has_no_flags_to_read(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    finding = dynamic.check_dynamic(None, None, None, SEED)
    assert finding.passed is None
    assert (
        Report({}, [finding, Finding("a", "b", True, "c")]).passed
        and "not possible here" in Report({}, [finding]).text()
    )


# Intervals.


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


# Noise law and self-test.


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


# Command line.


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


def test_the_command_fails_with_the_audit(tmp_path, capsys, monkeypatch):
    path = tmp_path / "model.h5"
    h5file.save(lookup_model(), path)
    replaced_kernel(monkeypatch, wrong_bit_lookup)
    assert cli.main(["audit", str(path), "--sigma", "0.25"]) == 1
    assert "audit failed: equality" in capsys.readouterr().out


# What is shipped, what is imported, and every set of kernels.


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_an_imported_model_passes(name):
    if name == "tflite":
        hostile = pytest.importorskip("test_convert_tflite_hostile", reason="needs the packages of the test extra")
        from intsmooth.convert import tflite as importer

        arguments = {}
    else:
        hostile = pytest.importorskip("test_convert_onnx_hostile", reason="needs the package onnx")
        from intsmooth.convert import onnx as importer

        arguments = {"input_scale": "1/255"}
    network = hostile.small_network if name == "tflite" else hostile.network
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
