"""The decoder of machine code: it agrees with LLVM, knows no float arithmetic, and follows what a function can reach."""

import re

import pytest

pytest.importorskip("numba")
from audit_models import CPUS, compiled_engine, x86_only  # noqa: E402
from llvmlite import binding  # noqa: E402

from intsmooth.audit import llvm_ir, x86_names  # noqa: E402
from intsmooth.audit.machine_code import dead_ends, reach, reach_all  # noqa: E402
from intsmooth.audit.x86 import decode  # noqa: E402
from intsmooth.kernels import network, sampler, table, votes  # noqa: E402


@pytest.fixture(scope="module")
def engine():
    return compiled_engine()


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
