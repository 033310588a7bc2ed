"""From an address in this process to all the instructions that can run from there.

Control flow is followed from a function's entry: both ways at a branch, into direct calls, and to functions whose
address is loaded by a MOV (the way LLVM's large code model calls). Whatever is reached is decoded from the bytes in
memory, whether they were compiled a moment ago or came out of a cache file. Numba's own listing (inspect_asm) is not
used: it generates code once more, and what it shows is at times not what runs.
"""

import ctypes
import pathlib
from collections.abc import Callable, Collection

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
    entries: Collection[int], functions: Collection[int], read: Callable[[int], int] = memory_byte
) -> dict[int, dict[int, Instruction]]:
    """Entry -> its instructions, for `entries` and every function that they lead to.

    functions: addresses of compiled functions that may be called through a constant. Direct targets are always
    followed.
    """
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


def executable_ranges() -> list[tuple[int, int]] | None:
    """Address ranges of this process that hold code, None where the system does not tell."""
    if not _MAPS.exists():
        return None
    ranges = []
    for line in _MAPS.read_text().splitlines():
        span, mode = line.split()[:2]
        if "x" in mode:
            low, high = span.split("-")
            ranges.append((int(low, 16), int(high, 16)))
    return ranges
