"""The scan of LLVM IR: no floating-point type, instruction or constant, and no call that is not on a list.

The text is numba's module after all optimisations, with everything that was inlined or linked into it, the wrapper
that Python calls included. Any value of a floating-point type needs the type's name somewhere, so the absence of the
names proves the absence of the values.
"""

import re
from dataclasses import dataclass, field

TYPES = ("half", "bfloat", "float", "double", "fp128", "x86_fp80", "ppc_fp128", "x86_mmx")
INSTRUCTIONS = ("fadd", "fsub", "fmul", "fdiv", "frem", "fneg", "fcmp", "fptosi", "fptoui", "sitofp", "uitofp",
                "fptrunc", "fpext", "asm")  # fmt: skip
_FORBIDDEN = re.compile(r"(?<![\w.%@])(" + "|".join(TYPES + INSTRUCTIONS) + r")(?![\w.])")
_QUOTED = re.compile(r'c?"(?:[^"\\]|\\.)*"')

# Families of LLVM intrinsics that move, compare or compute integers.
INTRINSICS = re.compile(
    r"llvm\.(memset|memcpy|memmove|smax|smin|umax|umin|abs|fshl|fshr|ctlz|cttz|ctpop|bswap|bitreverse|masked\.(load|store)"
    r"|[su](add|sub|mul)\.with\.overflow|vector\.(reduce\.(add|and|or|xor|smax|smin|umax|umin|mul)|insert|extract)|stepvector"
    r"|assume|lifetime\.(start|end)|experimental\.noalias\.scope\.decl|expect|trap|prefetch|x86\.atomic\.\w+\.cc"
    r"|x86\.avx512\.(vpdp(busd|wssd)|pmaddw\.d|pmaddubs\.w|vpermi2var\.(qi|hi|d|q)|permvar\.(qi|hi|si|di)|pshuf\.b)"
    r"|x86\.avx2\.(pmadd\.(wd|ub\.sw)|psad\.bw|pshuf\.b|perm[dq]))(\.|$)"
)
# Functions outside the module that may be called, and why that is harmless. None of them is handed a level, an
# activation, a weight or a count.
HELPERS = (
    ("numba's runtime: counts references to arrays and frees them",
     re.compile(r"NRT_(incref|decref|Free|MemInfo_call_dtor|MemInfo_data_fast|adapt_ndarray_(from|to)_python(_acqref)?)$")),
    ("numba's runtime: raises an exception",
     re.compile(r"numba_(gil_ensure|gil_release|unpickle|runtime_build_excinfo_struct|do_raise)$")),
    ("the Python interface: unpacks integers and arrays when Python calls, reports errors",
     re.compile(r"_?Py(Arg_UnpackTuple|Err_\w+|Eval_(Save|Restore)Thread|_IncRef|_DecRef|Unicode_FromString"
                r"|Bytes_FromStringAndSize|Number_Long|Long_(As|From)(Unsigned)?LongLong|Tuple_\w+|Object_\w+|Bool_FromLong)$")),
    ("fills or copies bytes", re.compile(r"mem(set|cpy|move)$")),
)  # fmt: skip


@dataclass
class ModuleScan:
    """What was found in one module: functions, instructions, intrinsics and helpers it calls, and problems."""

    functions: int = 0
    instructions: int = 0
    intrinsics: set[str] = field(default_factory=set)
    helpers: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def scan_module(text: str) -> ModuleScan:
    """Scan the text of an LLVM module; a module without instructions is a problem."""
    scan, function, defined, called = ModuleScan(), "", set(), set()
    for number, line in enumerate(text.splitlines(), 1):
        code = _QUOTED.sub('""', line).split(";")[0]
        if line.startswith("define"):
            function = _name(line)
            defined.add(function)
            scan.functions += 1
        elif line.startswith("}"):
            function = ""
        elif function and code.startswith("  "):
            scan.instructions += 1
        if line.startswith("declare"):
            called.add(_name(line))
        if found := _FORBIDDEN.search(code):
            where = f"in {short_name(function)}" if function else "outside functions"
            scan.problems.append(f"line {number} {where}: {found.group(1)}: {line.strip()[:120]}")
    for name in sorted(called - defined):
        _judge_call(scan, name)
    if not scan.instructions:
        scan.problems.append("the module holds no instructions: there is nothing that could be scanned")
    return scan


def _judge_call(scan: ModuleScan, name: str) -> None:
    if name.startswith("llvm."):
        scan.intrinsics.add(name)
        if not INTRINSICS.match(name):
            scan.problems.append(f"intrinsic {name} is not on the list of integer intrinsics")
    elif helper_reason(name):
        scan.helpers.add(name)
    else:
        scan.problems.append(f"calls {name}, which is not on the list of helpers (mathematical libraries are not)")


def helper_reason(name: str) -> str:
    """Why a helper may be called, empty where it may not."""
    return next((reason for reason, names in HELPERS if names.match(name)), "")


def _name(line: str) -> str:
    """The name of the function that a define or declare line is about."""
    found = re.search(r'@("(?:[^"]*)"|[\w.$-]+)\s*\(', line)
    return found.group(1).strip('"') if found else ""


def short_name(symbol: str) -> str:
    """The readable part of numba's mangled name: module path and function."""
    kind, rest = "", symbol
    for prefix, what in (("_ZN7cpython", "wrapper of "), ("cfunc._ZN", "C wrapper of "), ("_ZN", "")):
        if symbol.startswith(prefix):
            kind, rest = what, symbol[len(prefix) :]
            break
    else:
        return symbol
    parts = []
    while found := re.match(r"(\d+)", rest):
        length, start = int(found.group(1)), found.end()
        parts.append(re.sub(r"_3[ce]", "", rest[start : start + length]))
        rest = rest[start + length :]
    return kind + ".".join(parts)
