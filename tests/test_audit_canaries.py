"""Canaries of the audit: a planted fault is caught by the check that is there for it."""

import platform
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("numba")
import models  # noqa: E402
import numba  # noqa: E402
from audit_models import SEED, finding_of, lookup_model, wide_model

from intsmooth import cli, h5file, lowering  # noqa: E402
from intsmooth.audit import audit, dynamic, equality, noise, overflow  # noqa: E402
from intsmooth.audit.finding import Finding, Report  # noqa: E402
from intsmooth.audit.graph import ScaleWasRead, check_graph, without_scales  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402
from intsmooth.kernels import instruction as i  # noqa: E402
from intsmooth.kernels import table  # noqa: E402
from intsmooth.noise.law import noise_table  # noqa: E402
from intsmooth.noise.sampler import table_arrays  # noqa: E402


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


def test_the_command_fails_with_the_audit(tmp_path, capsys, monkeypatch):
    path = tmp_path / "model.h5"
    h5file.save(lookup_model(), path)
    replaced_kernel(monkeypatch, wrong_bit_lookup)
    assert cli.main(["audit", str(path), "--sigma", "0.25"]) == 1
    assert "audit failed: equality" in capsys.readouterr().out
