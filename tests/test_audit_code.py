"""The code scan: the decoder agrees with LLVM, floats in IR and in machine code are found, empty scans fail."""

import os
import platform
import re
import subprocess
import sys
import types

import numpy as np
import pytest

pytest.importorskip("numba")
import models  # noqa: E402
from llvmlite import binding  # noqa: E402

from intsmooth.audit import code, llvm_ir, x86_names  # noqa: E402
from intsmooth.audit.machine_code import dead_ends, reach, reach_all  # noqa: E402
from intsmooth.audit.x86 import decode  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402
from intsmooth.kernels import network, sampler, table, votes  # noqa: E402
from intsmooth.noise.law import noise_table  # noqa: E402

x86_only = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="machine code of x86-64")
CPUS = {
    "x86-64": "",
    "nehalem": "+sse4.2",
    "haswell": "+avx2,+bmi,+bmi2,+fma,+lzcnt,+popcnt",
    "skylake-avx512": "+avx512f,+avx512bw,+avx512vl,+avx512dq",
}


@pytest.fixture(scope="module")
def engine():
    """An engine whose functions have all been compiled."""
    from intsmooth.audit import warm_up

    graph = models.tiny_conv(np.random.default_rng(0))
    made = Engine(graph, threads=1)
    warm_up(made, np.zeros(graph.input_shape, np.int16), noise_table(4))
    return made


def target(cpu: str):
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    triple = binding.get_process_triple()
    return binding.Target.from_triple(triple).create_target_machine(cpu=cpu, features=CPUS[cpu], opt=3)


def text_bytes(machine, module: str) -> bytes:
    """The machine code that LLVM makes of a module."""
    built = binding.ObjectFileRef.from_data(machine.emit_object(binding.parse_assembly(module)))
    return b"".join(section.data() for section in built.sections() if section.is_text() and section.size())


def sweep(data: bytes) -> list:
    """All instructions, one after the other, padding left out."""
    found, at = [], 0
    while at < len(data):
        found.append(decode(lambda address: data[address], at))
        if found[-1].problem:
            return found
        at += found[-1].length
    return [instruction for instruction in found if instruction.name != "nop"]


def listed_mnemonics(machine, module: str) -> list[str]:
    """The mnemonics of LLVM's own assembly listing."""
    lines = machine.emit_assembly(binding.parse_assembly(module)).splitlines()
    lines = [
        re.sub(r"^(lock|rep\w*|\{e?vex\})\s+;?", "", line.strip()) for line in lines if re.match(r"\t[a-z{]", line)
    ]
    return [line.split()[0] for line in lines if not line.startswith(("nop", "."))]


SPELLINGS = {"movabsq": "mov", "movslq": "movsxd", "cqto": "cqo", "cltd": "cqo", "cltq": "cdqe", "cwtl": "cdqe",
             "movq": "mov", "movd": "mov"}  # fmt: skip


def same(listed: str, decoded: str) -> bool:
    """Whether a name of LLVM's listing (AT&T: suffixes, predicates) and one of the decoder's mean the same."""
    decoded = {"movq": "mov", "movd": "mov"}.get(decoded, decoded)
    listed = SPELLINGS.get(listed, listed)
    if re.fullmatch(r"mov[zs][bw][wlq]", listed):
        listed = f"mov{listed[3]}x"
    predicate = r"vpcmp(?:eq|gt|lt|le|neq|nlt|nle|u)*?(?:u?)([bwdq])"
    if (left := re.fullmatch(predicate, listed)) and (right := re.fullmatch(predicate, decoded)):
        return left.group(1) == right.group(1)
    return listed == decoded or (listed[:-1] == decoded and listed[-1] in "bwlq")


def modules_of(engine) -> list[str]:
    functions = [table.kernel(operation) for operation in engine.plan.operations]
    functions += [votes.run_votes, network.run_batch, sampler.fill_samples]
    return [str(compiled.library._get_module_for_linking()) for f in functions for compiled in f.overloads.values()]


@x86_only
def test_the_decoder_agrees_with_llvm(engine):
    """Every instruction of every compiled function, against LLVM's own listing of the same module."""
    machine, total = votes.run_votes.overloads[votes.run_votes.signatures[0]].library.codegen._tm, 0
    for module in modules_of(engine):
        decoded, listed = sweep(text_bytes(machine, module)), listed_mnemonics(machine, module)
        assert [i.problem for i in decoded if i.problem] == []
        assert len(decoded) == len(listed)
        for instruction, name in zip(decoded, listed, strict=True):
            assert same(name, instruction.name), (name, instruction)
        total += len(listed)
    assert total > 5000


FLOAT_BODIES = {
    "add": "%r = fadd float %a, %b",
    "multiply": "%r = fmul float %a, %b",
    "divide": "%r = fdiv float %a, %b",
    "square root": "%r = call float @llvm.sqrt.f32(float %a)",
    "from integer": "%i = load i32, ptr %p\n  %r = sitofp i32 %i to float",
    "to integer": "%i = fptosi float %a to i32\n  store i32 %i, ptr %p\n  %r = fadd float %a, %a",
    "to double": "%d = fpext float %a to double\n  store double %d, ptr %p\n  %r = fadd float %a, %a",
    "compare": "%c = fcmp olt float %a, %b\n  %i = zext i1 %c to i32\n  store i32 %i, ptr %p\n  %r = fadd float %a, %a",
    "fused": "%r = call float @llvm.fma.f32(float %a, float %b, float %a)",
}


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("body", FLOAT_BODIES)
@x86_only
def test_floats_are_found_in_ir_and_in_machine_code(body, cpu):
    module = f"""declare float @llvm.sqrt.f32(float)
declare float @llvm.fma.f32(float, float, float)
define float @f(float %a, float %b, ptr %p) {{
entry:
  {FLOAT_BODIES[body]}
  ret float %r
}}
"""
    assert llvm_ir.scan_module(module).problems
    if body == "fused" and "fma" not in CPUS[cpu] and "avx512" not in cpu:
        return  # a call of libm, which the scan of calls finds
    assert "floating-point" in sweep(text_bytes(target(cpu), module))[-1].problem


def test_x87_and_mxcsr_are_found():
    for data, what in (("d9e8", "x87"), ("0fae1c24", "MXCSR"), ("0fae1424", "MXCSR")):
        found = sweep(bytes.fromhex(data))[-1]
        assert what in found.problem and not found.name


ENCODINGS = {
    "c4e1f890c1": "kmovq", "c4e1fb92c0": "kmovq", "c5f892c0": "kmovw", "c5fb92c0": "kmovd",
    "c4e1f99099aabbccdd": "kmovd", "c4e37d38c101": "vinserti128", "62f3fd483ac101": "vinserti64x4",
    "62f27d4831c1": "vpmovzxbd", "62f17e486f4001": "vmovdqu32", "62f1fe486f4001": "vmovdqu64",
    "62f1ff486f4001": "vmovdqu16", "62f17d4872e105": "vpsrad", "62f1fd4872e105": "vpsraq",
    "62f17d4872c905": "vprold", "62f2fd4846c1": "vpsravq", "62f27d4850c1": "vpdpbusd", "660f3a22c001": "pinsrd",
    "66480f3a22c001": "pinsrq", "66480f6ec0": "movq", "660f6ec0": "movd", "c4e2f8f2c1": "andn",
    "c4e2f8f5c1": "bzhi", "c4e2f8f3c9": "blsr", "c4e3fbf0c105": "rorx", "f3480fbcc1": "tzcnt", "480fbcc1": "bsf",
    "f30fb8c1": "popcnt", "48b8efcdab8967452301": "mov", "66b8ffff": "mov", "b8ffffffff": "mov",
    "f0480fb10f": "cmpxchg", "48f7f9": "idiv", "f6c101": "test", "f7d8": "neg", "660f1f840000000000": "nop",
    "c5f877": "vzeroupper", "0fa2": "", "0f05": "", "8fe87801c1": "", "d8c1": "", "62f57c4858c1": "",
    "62f17c4858c1": "", "c5f858c1": "", "0f58c1": "", "62f2fd48b8c1": "", "c4e2f9b8c1": "", "0f77": "",
    "0f6fc1": "", "d520": "",
}  # fmt: skip


@pytest.mark.parametrize("code", ENCODINGS)
def test_encodings(code):
    """Names and lengths: what follows is a RET, which is found if the length is right."""
    found = [instruction.name for instruction in sweep(bytes.fromhex(code + "c3"))]
    name = ENCODINGS[code]
    assert found == ([name, "ret"] if name not in ("", "nop") else ["ret"] if name else [""])


HIDDEN = """define void @f(ptr %p, ptr %q) {
  %n = load <4 x i32>, ptr %p
  %x = load <4 x i32>, ptr %q
  %r = shl <4 x i32> %x, %n
  store <4 x i32> %r, ptr %q
  ret void
}
"""


@x86_only
def test_a_float_that_only_the_machine_code_shows():
    """Canary: without AVX2, LLVM computes 2^n for a shift by different numbers per lane with a float conversion."""
    assert llvm_ir.scan_module(HIDDEN).problems == []
    assert "floating-point convert" in sweep(text_bytes(target("x86-64"), HIDDEN))[-1].problem
    assert not any(instruction.problem for instruction in sweep(text_bytes(target("haswell"), HIDDEN)))


def test_the_allow_list_holds_no_arithmetic_on_floats():
    names = set(x86_names.FLOAT_NAMED)
    listed = [x86_names.VECTOR, x86_names.LEGACY_ONLY, x86_names.VEX]
    names |= {name for tables in listed for entries in tables.values() for name in entries.values()}
    names |= {name for entries in x86_names.EVEX.values() for pair in entries.values() for name in pair}
    kinds = "add|sub|mul|div|sqrt|rsqrt|rcp|round|min|max|cmp|cvt|fn?m|com|ucom|dp|h(add|sub)|range|reduce|scale|get"
    arithmetic = re.compile(rf"v?({kinds})\w*([sp][sdh])$|.*cvt.*|f(add|sub|mul|div|ld|st).*")
    assert len(names) > 300
    assert sorted(name for name in names if arithmetic.match(name)) == []
    float_like = {name for name in names if re.search(r"([sp][sd]|f\d\d\d?(x\d)?)$", name)}
    integers = {"pabsd", "psubd", "psignd", "pminsd", "pmaxsd", "psadbd"} | {n for n in float_like if n.startswith("p")}
    unlisted = float_like - integers - set(x86_names.FLOAT_NAMED) - {"blsmsd"}
    assert unlisted == set()


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


def test_control_flow_is_followed_from_bytes():
    """A branch forward over a float, a jump back, a call, and a boundary where a call does not return."""
    data = bytes.fromhex("31c07402ebfae803000000c390900f0b")
    read = dict(enumerate(data)).__getitem__
    assert [i.name for i in reach(0, read=read).values()] == ["xor", "je", "jmp", "call", "ret"]
    assert [i.name for i in reach_all([0], (), read)[14].values()] == ["ud2"]
    assert [i.name for i in reach(0, boundaries={6}, read=read).values()] == ["xor", "je", "jmp"]


def test_a_jump_that_cannot_be_followed_is_said():
    """jmp rax hides what comes after it, unless rax has just been loaded; so does a function without an end."""
    hidden, loaded, earlier = (
        reach(0, read=dict(enumerate(bytes.fromhex(code))).__getitem__)
        for code in ("ffe0" + "d9e8c3", "48b80c00000000000000" + "ffe0", "48b80c00000000000000" + "31c0" + "ffe0")
    )
    assert dead_ends(loaded) == []
    for function, offset in ((hidden, "0x0"), (earlier, "0xc")):
        assert dead_ends(function) == [f"offset {offset}: a jump to where a register says"]
    endless = reach(0, read=lambda address: 0x90)
    assert "more than 100000 instructions" in dead_ends(endless)[0]


def test_a_function_without_a_name_is_read_too():
    """A constant that points into compiled code is followed, and it ends what stands before it; a number is not."""
    moved = bytes.fromhex("48b80c00000000000000" + "ffd0" + "d9e8c3")  # mov rax, 12; call rax; fld1
    read = dict(enumerate(moved)).__getitem__
    followed = reach_all([0], (), read, [(10, 20)])
    assert list(followed) == [0, 12] and [i.name for i in followed[0].values()] == ["mov", "call"]
    assert "x87" in followed[12][12].problem


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
