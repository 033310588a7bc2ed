"""The code proof: no floating point in any compiled function that the noise, the network and the votes run.

Two witnesses for every function: its LLVM IR after optimisation (llvm_ir.py), and the machine code in this process's
memory, decoded instruction by instruction against an allow-list (machine_code.py, x86.py). Both start from what really
runs: the addresses in the engine's own table, and the compiled versions that Python has called. IR of a function that
came out of the compilation cache is what the cache holds beside the machine code; the machine code itself is read from
memory in either case.
"""

import platform
from collections import Counter
from dataclasses import dataclass, field

from intsmooth.audit.finding import Finding
from intsmooth.audit.llvm_ir import helper_reason, scan_module, short_name
from intsmooth.audit.machine_code import dead_ends, executable_ranges, reach_all
from intsmooth.audit.x86_names import FLOAT_NAMED

CLAIM = (
    "no floating-point arithmetic in noise, inference and counting; only the statistics of the certificate use floats, "
    "rounded down"
)
_X86 = ("x86_64", "AMD64", "amd64")


@dataclass
class FunctionScan:
    """What was read of one compiled function, with everything that it leads to."""

    name: str
    cached: bool
    ir_instructions: int = 0
    machine_instructions: int = 0
    machine_bytes: int = 0
    intrinsics: set[str] = field(default_factory=set)
    helpers: set[str] = field(default_factory=set)
    mnemonics: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def compiled_functions(engine) -> list[tuple[str, object, bool]]:
    """(label, numba dispatcher, whether Python calls it) of everything compiled that noise, inference and votes use."""
    from intsmooth.kernels import network, sampler, table, votes

    kernels = [(" ".join(map(str, operation)), table.kernel(operation), False) for operation in engine.plan.operations]
    loops = (votes.run_votes, network.run_batch, network.run_network, sampler.fill_samples)
    return kernels + [(getattr(loop, "__name__", repr(loop)), loop, True) for loop in loops]


def scan_code(engine) -> list[FunctionScan]:
    """Scan every function of `compiled_functions`; they must have been compiled (run the engine once before)."""
    listed = []
    for label, dispatcher, from_python in compiled_functions(engine):
        overloads = list(getattr(dispatcher, "overloads", {}).values())
        listed += [(label, compiled, from_python) for compiled in overloads]
        if not overloads:
            listed.append((label, None, from_python))
    modules = {id(c): str(c.library._get_module_for_linking()) for _, c, _ in listed if c is not None}
    functions: dict[int, str] = {}
    for _, compiled, _ in listed:
        if compiled is not None:
            functions |= _entries(compiled.library)
    code_at = executable_ranges() if platform.machine() in _X86 else None
    scans = []
    for label, compiled, from_python in listed:
        if compiled is None:
            scans.append(
                FunctionScan(label, False, problems=[f"{label} has not been compiled: nothing could be scanned"])
            )
        else:
            scans.append(_scan_function(label, compiled, modules[id(compiled)], from_python, functions, code_at))
    return scans


def _entries(library) -> dict[int, str]:
    """Address -> symbol of the functions that a library defines."""
    defined = [function.name for function in library._get_module_for_linking().functions if not function.is_declaration]
    found = {library.get_pointer_to_function(name): name for name in defined}
    return {address: name for address, name in found.items() if address}


def _scan_function(label, compiled, module, from_python, functions, code_at) -> FunctionScan:
    library, description = compiled.library, compiled.fndesc
    scan = FunctionScan(f"{label} ({description.qualname})", bool(getattr(library, "_disable_inspection", False)))
    intermediate = scan_module(module)
    scan.ir_instructions, scan.intrinsics = intermediate.instructions, intermediate.intrinsics
    scan.helpers = intermediate.helpers
    scan.problems += [f"LLVM IR of {scan.name}, {problem}" for problem in intermediate.problems]
    if platform.machine() not in _X86:
        scan.problems.append(
            f"machine code of {scan.name} was not scanned: only x86-64 can be decoded, not {platform.machine()}"
        )
        return scan
    names = [description.llvm_func_name] + ([description.llvm_cpython_wrapper_name] if from_python else [])
    if code_at is None:
        scan.problems.append(
            f"machine code of {scan.name} was not scanned: this system does not list its memory (/proc/self/maps), so "
            "the addresses of functions cannot be told from numbers; run the audit on Linux"
        )
        return scan
    entries = [library.get_pointer_to_function(name) for name in names]
    reached = reach_all(entries, functions, compiled_at=code_at.compiled)
    helper_addresses = _helper_addresses(scan.helpers)
    for entry, instructions in reached.items():
        where = f"machine code of {scan.name}, {short_name(functions.get(entry, f'function at {entry:#x}'))}"
        scan.problems += [f"{where}, {problem}" for problem in dead_ends(instructions)]
        for instruction in instructions.values():
            scan.mnemonics[instruction.name or "?"] += 1
            scan.machine_bytes += instruction.length
            if instruction.problem:
                scan.problems.append(f"{where}, offset {instruction.address - entry:#x}: {instruction.problem}")
            unknown = instruction.constant not in functions and instruction.constant not in helper_addresses
            if unknown and any(low <= (instruction.constant or 0) < high for low, high in code_at.libraries):
                scan.problems.append(f"{where} refers to unknown code at {instruction.constant:#x}")
    scan.machine_instructions = sum(scan.mnemonics.values())
    if not scan.machine_instructions:
        scan.problems.append(f"machine code of {scan.name} is empty: nothing was scanned")
    return scan


def _helper_addresses(helpers) -> set[int]:
    from llvmlite import binding

    return {binding.address_of_symbol(name) for name in helpers | {"memset", "memcpy", "memmove"}} - {None}


def check_code(engine) -> Finding:
    """The finding of the code proof, with the histogram of all mnemonics."""
    scans = scan_code(engine)
    problems = [problem for scan in scans for problem in scan.problems]
    problems += _check_table(engine)
    histogram = sum((scan.mnemonics for scan in scans), Counter())
    float_named = {name: n for name, n in histogram.items() if name.removeprefix("v") in FLOAT_NAMED}
    helpers = {name: helper_reason(name) for scan in scans for name in scan.helpers}
    instructions, size = sum(s.machine_instructions for s in scans), sum(s.machine_bytes for s in scans)
    cached = sum(scan.cached for scan in scans)
    ir = sum(scan.ir_instructions for scan in scans)
    summary = (
        f"{len(scans)} compiled functions ({cached} from the compilation cache): {ir:,} instructions of LLVM IR "
        f"without a floating-point type, {instructions:,} machine instructions ({size:,} bytes in memory, "
        f"{len(histogram)} mnemonics) on the integer allow-list"
    )
    lines = ["mnemonics  " + ", ".join(f"{name} {count}" for name, count in histogram.most_common())]
    if float_named:
        moved = ", ".join(f"{name} {count}" for name, count in sorted(float_named.items()))
        lines.append(f"of these, moves and selections with floating-point names (no arithmetic): {moved}")
    lines.append("outside functions called  " + ", ".join(sorted(helpers)))
    return Finding(
        "code",
        CLAIM,
        not problems,
        summary if not problems else f"{len(problems)} problems in {len(scans)} compiled functions",
        problems,
        lines,
        {
            "functions": [
                {
                    "name": scan.name,
                    "cached": scan.cached,
                    "ir_instructions": scan.ir_instructions,
                    "machine_instructions": scan.machine_instructions,
                    "machine_bytes": scan.machine_bytes,
                    "intrinsics": sorted(scan.intrinsics),
                    "helpers": sorted(scan.helpers),
                }
                for scan in scans
            ],
            "mnemonics": dict(histogram.most_common()),
            "float_named_moves": float_named,
            "helpers": helpers,
        },
    )


def _check_table(engine) -> list[str]:
    """The addresses that the interpreter calls are those of the functions that were scanned."""
    from intsmooth.kernels.table import SIGNATURE, kernel

    problems = []
    for operation, address in zip(engine.plan.operations, engine._kernels.tolist(), strict=True):
        compiled = kernel(operation).overloads.get(SIGNATURE)
        found = compiled and compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        if found != address:
            problems.append(
                f"the engine calls address {address:#x} for {' '.join(map(str, operation))}, which is not the function "
                "that was scanned"
            )
    return problems
