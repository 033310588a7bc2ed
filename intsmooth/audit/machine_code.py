"""From an address in this process to all the instructions that can run from there.

Control flow is followed from a function's entry: both ways at a branch, into direct calls, and to functions whose
address is loaded by a MOV (the way LLVM's large code model calls). Whatever is reached is decoded from the bytes in
memory, whether they were compiled a moment ago or came out of a cache file. Numba's own listing (inspect_asm) is not
used: it generates code once more, and what it shows is at times not what runs.
"""

import ctypes
import pathlib
from collections.abc import Callable, Collection
from typing import NamedTuple

from intsmooth.audit.x86 import Instruction, decode

_LIMIT = 100_000  # instructions of one function, far above any kernel's, so that a decoder gone astray ends
_MAPS = pathlib.Path("/proc/self/maps")


def memory_byte(address: int) -> int:
    """The byte at an address of this process."""
    return ctypes.c_ubyte.from_address(address).value


def reach(
    entry: int, boundaries: Collection[int] = (), read: Callable[[int], int] = memory_byte
) -> dict[int, Instruction]:
    """The instructions of one function by address, ascending; calls are not followed.

    boundaries: entries of other functions, where the code of this one ends if it has not ended before (a call that
    does not return may be a function's last instruction).
    """
    found: dict[int, Instruction] = {}
    waiting = [entry]
    while waiting:
        address = waiting.pop()
        while address not in found and len(found) < _LIMIT and (address == entry or address not in boundaries):
            instruction = found[address] = decode(read, address)
            if instruction.flow in ("branch", "jump"):
                waiting.append(instruction.target)
            if instruction.flow in ("jump", "indirect-jump", "end"):
                break
            address += instruction.length
    return dict(sorted(found.items()))


def reach_all(
    entries: Collection[int],
    functions: Collection[int],
    read: Callable[[int], int] = memory_byte,
    compiled_at: Collection[tuple[int, int]] = (),
) -> dict[int, dict[int, Instruction]]:
    """Entry -> its instructions, for `entries` and every function that they lead to.

    functions: addresses of compiled functions that may be called through a constant. compiled_at: address ranges of
    code that was compiled here; a constant that points into one is the address of a function too, known or not (of a
    function that several modules hold, the linker may have chosen any copy). Direct targets are always followed.
    """
    functions = set(functions)
    while True:
        found = _reach_all(entries, functions, read)
        constants = {i.constant for function in found.values() for i in function.values() if i.constant is not None}
        copies = {c for c in constants - functions if any(low <= c < high for low, high in compiled_at)}
        if not copies:
            return found
        functions |= copies  # which also end the functions before them, so all are read again


def _reach_all(entries, functions, read) -> dict[int, dict[int, Instruction]]:
    found: dict[int, dict[int, Instruction]] = {}
    waiting = list(entries)
    while waiting:
        address = waiting.pop()
        if address not in found:
            found[address] = reach(address, functions, read)
            for instruction in found[address].values():
                if instruction.flow == "call" or instruction.target in functions:
                    waiting.append(instruction.target)
                if instruction.constant in functions:
                    waiting.append(instruction.constant)
    return found


def dead_ends(function: dict[int, Instruction]) -> list[str]:
    """Where `reach` had to stop, so that code may follow which was not read.

    A jump through a register ends the function; it is a call of what follows where the register has just been loaded with a
    constant, which `reach_all` follows or the caller knows.
    """
    problems, before = [], None
    for instruction in function.values():
        if instruction.flow == "indirect-jump":
            loaded = before is not None and before.constant is not None
            if not loaded or before.address + before.length != instruction.address:
                problems.append(f"offset {instruction.address - min(function):#x}: a jump to where a register says")
        before = instruction
    if len(function) >= _LIMIT:
        problems.append(f"more than {_LIMIT} instructions, of which the rest was not read")
    return problems


class CodeRanges(NamedTuple):
    """Address ranges of this process that hold code: compiled here (backed by no file), and out of libraries."""

    compiled: list[tuple[int, int]]
    libraries: list[tuple[int, int]]


def executable_ranges() -> CodeRanges | None:
    """Where this process holds code, None where the system does not tell."""
    if not _MAPS.exists():
        return None
    ranges = CodeRanges([], [])
    for line in _MAPS.read_text().splitlines():
        span, mode, *_, inode = line.split()[:5]
        if "x" in mode:
            low, high = (int(end, 16) for end in span.split("-"))
            anonymous = inode == "0" and "[v" not in line  # [vdso] and [vsyscall] are the kernel's
            (ranges.compiled if anonymous else ranges.libraries).append((low, high))
    return ranges
