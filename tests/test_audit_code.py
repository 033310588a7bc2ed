"""The code scan of LLVM's intermediate form and of a whole engine: floats are found, empty scans fail."""

import os
import platform
import subprocess
import sys
import types

import numpy as np
import pytest

pytest.importorskip("numba")
from audit_models import CPUS, compiled_engine, x86_only  # noqa: E402

from intsmooth.audit import code, llvm_ir, x86_names  # noqa: E402
from intsmooth.kernels import votes  # noqa: E402


@pytest.fixture(scope="module")
def engine():
    return compiled_engine()


def test_the_ir_scan():
    def problems(body, head=""):
        return llvm_ir.scan_module(f"{head}\ndefine i32 @f(ptr %p) {{\n  {body}\n  ret i32 0\n}}\n").problems

    assert problems("%x = load i64, ptr %p") == []
    assert problems("%float = load i64, ptr %p") == []
    assert problems('%x = load i64, ptr %p ; a double in a comment, "float"') == []
    assert problems("%x = load i64, ptr %p", '@s = internal constant [6 x i8] c"float\\00"') == []
    assert "double" in problems("%x = load double, ptr %p")[0]
    assert "half" in problems("%x = load <8 x half>, ptr %p")[0]
    assert "asm" in problems('call void asm sideeffect "fld1", ""()')[0]
    assert "sin" in problems("%x = call i64 @sin(i64 0)", "declare i64 @sin(i64)")[0]
    assert "llvm.ctlz" not in str(problems("ret i32 1", "declare i32 @llvm.ctlz.i32(i32, i1)"))
    assert "llvm.fabs" in problems("ret i32 1", "declare i32 @llvm.fabs.i32(i32)")[0]
    assert problems("ret i32 1", "declare ptr @PyFloat_FromDouble(i64)")
    assert problems("ret i32 1", "declare void @numba_cpow(ptr)")
    assert problems("ret i32 1", "declare void @Py_DecRef(ptr)") == []
    assert "nothing" not in str(problems("ret i32 1"))


@pytest.mark.parametrize("text", ["", "; ModuleID = 'empty'\n", "declare void @Py_DecRef(ptr)\n"])
def test_an_empty_module_is_no_pass(text):
    assert "no instructions" in llvm_ir.scan_module(text).problems[0]


@x86_only
def test_a_system_that_does_not_list_its_memory_is_no_pass(engine, monkeypatch, tmp_path):
    monkeypatch.setattr("intsmooth.audit.machine_code._MAPS", tmp_path / "missing")
    finding = code.check_code(engine)
    assert not finding.passed and "does not list its memory" in finding.problems[0]


PARTLY_CACHED = """
import sys, numpy as np, models
from intsmooth.audit import code, warm_up
from intsmooth.engine import Engine
from intsmooth.noise.law import noise_table
graph = models.tiny_conv(np.random.default_rng(0))
engine = Engine(graph, threads=1)
if sys.argv[1] == "votes":
    engine.count_votes(np.zeros(graph.input_shape, np.int16), noise_table(4), np.zeros(8, np.uint32), 0, 1)
else:
    warm_up(engine, np.zeros(graph.input_shape, np.int16), noise_table(4))
    print(*code.check_code(engine).problems, sep="\\n")
"""


@x86_only
def test_code_that_came_out_of_the_cache_in_part(tmp_path):
    """First a certification fills the cache, then an audit compiles the rest: several copies of a function exist."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    for step in ("votes", "audit", "audit"):
        done = subprocess.run(
            [sys.executable, "-c", PARTLY_CACHED, step], env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == ""


@x86_only
def test_the_scan_of_an_engine(engine):
    finding = code.check_code(engine)
    assert finding.passed and finding.problems == []
    assert finding.claim == (
        "no floating-point arithmetic in noise, inference and counting; only the statistics of the certificate use "
        "floats, rounded down"
    )
    details = finding.details
    assert {f["name"].split(" ")[0] for f in details["functions"]} >= {
        "input",
        "run_votes",
        "run_batch",
        "fill_samples",
    }
    assert all(f["ir_instructions"] > 20 and f["machine_instructions"] > 20 for f in details["functions"])
    assert sum(details["mnemonics"].values()) == sum(f["machine_instructions"] for f in details["functions"])
    assert set(details["float_named_moves"]) <= {f"v{name}" for name in x86_names.FLOAT_NAMED} | x86_names.FLOAT_NAMED


def test_what_was_not_compiled_is_no_pass(engine, monkeypatch):
    never = types.SimpleNamespace(__name__="never", overloads={})
    monkeypatch.setattr(votes, "run_votes", never)
    finding = code.check_code(engine)
    assert not finding.passed and "never has not been compiled" in finding.problems[0]


def test_a_processor_without_a_decoder_is_no_pass(engine, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    finding = code.check_code(engine)
    assert not finding.passed and "riscv64" in finding.problems[0]


def test_an_address_that_was_not_scanned_is_found(engine, monkeypatch):
    monkeypatch.setattr(engine, "_kernels", engine._kernels + np.array([1] + [0] * (len(engine._kernels) - 1)))
    finding = code.check_code(engine)
    assert not finding.passed and "not the function that was scanned" in finding.problems[0]


ELSEWHERE = """
import numpy as np, models
from intsmooth.audit import code, warm_up
from intsmooth.engine import Engine
from intsmooth.noise.law import noise_table
graph = models.every_operator(np.random.default_rng(0))
engine = Engine(graph, threads=1)
warm_up(engine, np.zeros(graph.input_shape, np.int16), noise_table(4))
print(*code.check_code(engine).problems, sep="\\n")
"""


@x86_only
@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["", "x86-64", "nehalem", "sandybridge", "haswell"])
@pytest.mark.parametrize("isa", ["vnni512", "vnni256", "avx2", "portable"])
def test_other_instruction_sets_and_older_processors(isa, cpu):
    """All kernels compiled anew, for another choice of kernels or for a processor that knows less than this one."""
    from intsmooth.kernels.isa import supported

    if isa not in supported() or (cpu and isa.startswith("vnni")) or (isa == "avx2" and cpu not in ("", "haswell")):
        pytest.skip(f"{cpu or 'this processor'} cannot run {isa}")
    environment = os.environ | {"INTSMOOTH_ISA": isa, "INTSMOOTH_CACHE": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    if cpu:
        environment |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": CPUS.get(cpu, "")}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
