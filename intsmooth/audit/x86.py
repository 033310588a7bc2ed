"""A decoder for the x86-64 instructions of integer kernels: length, name and where control goes next.

It reads the bytes that the processor will execute, one instruction at a time, and knows the encodings of x86_names.py
and nothing else: an instruction without a name ends the audit. That keeps it small, and it cannot miss floating-point
code by being out of date. Source for the encodings: Intel's Software Developer's Manual, volume 2, chapter 2.
"""

from collections.abc import Callable
from typing import NamedTuple

from intsmooth.audit import x86_names as names


class Instruction(NamedTuple):
    """One decoded instruction.

    name:     as Intel writes it, in lower case, AVX forms with their "v"; empty where it is not on the allow-list
    flow:     "next"; "branch" (to target, or next); "jump" (to target); "call" (target, then next); "indirect-jump";
              "indirect-call"; "end" (return or trap)
    target:   address that a direct branch, jump or call goes to
    constant: the 64-bit immediate of a MOV, which may be the address of a function
    problem:  why there is no name, with the bytes
    """

    address: int
    length: int
    name: str
    flow: str = "next"
    target: int | None = None
    constant: int | None = None
    problem: str = ""


class _Reader:
    """Bytes from an address on, one at a time, so that nothing beyond the instruction is touched."""

    def __init__(self, read: Callable[[int], int], address: int):
        self._read, self.start, self.at, self.bytes = read, address, address, []

    def byte(self) -> int:
        value = self._read(self.at)
        self.at += 1
        self.bytes.append(value)
        return value

    def number(self, size: int) -> int:
        """A signed little-endian integer."""
        return int.from_bytes(bytes(self.byte() for _ in range(size)), "little", signed=True)

    def modrm(self) -> tuple[int, int]:
        """(mod, reg) of a ModRM byte, whose SIB byte and displacement are skipped."""
        byte = self.byte()
        mod, reg, rm = byte >> 6, byte >> 3 & 7, byte & 7
        if mod != 3:
            base = self.byte() & 7 if rm == 4 else rm
            self.number({0: 4 if base == 5 else 0, 1: 1, 2: 4}[mod])
        return mod, reg


def decode(read: Callable[[int], int], address: int) -> Instruction:
    """The instruction at `address`; read(address) gives a byte of memory."""
    reader, prefixes, wide = _Reader(read, address), set(), False
    byte = reader.byte()
    while byte in (0x66, 0xF2, 0xF3, 0xF0, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0x67):
        prefixes.add(byte)
        byte = reader.byte()
    if byte in (0xC4, 0xC5, 0x62):
        return _extended(reader, byte)
    if byte & 0xF0 == 0x40:
        wide, byte = bool(byte & 8), reader.byte()
    if byte != 0x0F:
        return _one_byte(reader, byte, prefixes, wide)
    byte, prefix = reader.byte(), 2 if 0xF3 in prefixes else 3 if 0xF2 in prefixes else 1 if 0x66 in prefixes else 0
    if byte in (0x38, 0x3A):
        table = {0x38: 2, 0x3A: 3}[byte]
        return _vector(reader, table, prefix, reader.byte(), wide, "")
    return _two_byte(reader, byte, prefix, wide)


def _done(reader: _Reader, name: str, flow: str = "next", target=None, constant=None, what: str = "") -> Instruction:
    length = reader.at - reader.start
    problem = ""
    if not name:
        shown = " ".join(f"{byte:02x}" for byte in reader.bytes)
        problem = f"bytes {shown}: {what or 'an encoding that is not on the allow-list'}"
    return Instruction(reader.start, length, name, flow if name else "end", target, constant, problem)


def _relative(reader: _Reader, name: str, flow: str, size: int) -> Instruction:
    distance = reader.number(size)
    return _done(reader, name, flow, reader.at + distance)


def _one_byte(reader: _Reader, code: int, prefixes: set[int], wide: bool) -> Instruction:
    short = 2 if 0x66 in prefixes else 4  # bytes of an immediate of operand size
    if code < 0x40 and code & 7 < 6:
        if code & 7 < 4:
            reader.modrm()
        else:
            reader.number(1 if code & 7 == 4 else short)
        return _done(reader, names.ARITHMETIC[code >> 3])
    if 0x50 <= code < 0x60:
        return _done(reader, "push" if code < 0x58 else "pop")
    if 0x70 <= code < 0x80:
        return _relative(reader, "j" + names.CONDITIONS[code & 15], "branch", 1)
    if 0x91 <= code < 0x98:
        return _done(reader, "xchg")
    if 0xB0 <= code < 0xC0:
        size = 1 if code < 0xB8 else 8 if wide else short
        value = reader.number(size)
        return _done(reader, "mov", constant=value % 2**64 if size == 8 else None)
    if code in (0x80, 0x81, 0x83, 0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3):
        _, reg = reader.modrm()
        reader.number({0x80: 1, 0x81: short, 0x83: 1, 0xC0: 1, 0xC1: 1}.get(code, 0))
        return _done(reader, names.ARITHMETIC[reg] if code < 0x90 else names.SHIFTS[reg])
    if code in (0xF6, 0xF7):
        _, reg = reader.modrm()
        if reg < 2:
            reader.number(1 if code == 0xF6 else short)
        return _done(reader, names.UNARY[reg])
    if code in (0xFE, 0xFF):
        _, reg = reader.modrm()
        flow = {2: "indirect-call", 4: "indirect-jump"}.get(reg, "next") if code == 0xFF else "next"
        known = ("inc", "dec") if code == 0xFE else ("inc", "dec", "call", "", "jmp", "", "push", "")
        return _done(reader, known[reg] if reg < len(known) else "", flow)
    name = names.ONE_BYTE.get(code, "")
    if code in (0xE8, 0xE9, 0xEB):
        return _relative(reader, name, "call" if code == 0xE8 else "jump", 1 if code == 0xEB else 4)
    if code in (0x63, 0x69, 0x6B, *range(0x84, 0x8E), 0xC6, 0xC7):
        reader.modrm()
    reader.number(
        {0x68: short, 0x69: short, 0x6A: 1, 0x6B: 1, 0xA8: 1, 0xA9: short, 0xC2: 2, 0xC6: 1, 0xC7: short}.get(code, 0)
    )
    ends = code in (0xC2, 0xC3, 0xCC)
    return _done(reader, name, "end" if ends else "next", what="x87 arithmetic" if 0xD8 <= code < 0xE0 else "")


def _two_byte(reader: _Reader, code: int, prefix: int, wide: bool) -> Instruction:
    condition = names.CONDITIONS[code & 15]
    if 0x80 <= code < 0x90:
        return _relative(reader, "j" + condition, "branch", 4)
    if 0xC8 <= code < 0xD0:
        return _done(reader, "bswap")
    if code == 0x0B:
        return _done(reader, "ud2", "end")
    repeated = names.REPEATED.get(code, "") if prefix == 2 else ""
    if repeated or code in names.TWO_BYTE or 0x40 <= code < 0x50 or 0x90 <= code < 0xA0:
        reader.modrm()
        reader.number(1 if code in (0xA4, 0xAC) else 0)
        regular = {4: "cmov", 9: "set"}.get(code >> 4)
        return _done(reader, repeated or (regular + condition if regular else names.TWO_BYTE[code]))
    if code == 0xBA:
        _, reg = reader.modrm()
        reader.number(1)
        return _done(reader, names.BIT_TESTS[reg])
    if code == 0xAE:
        mod, reg = reader.modrm()
        return _done(reader, {5: "lfence", 6: "mfence", 7: "sfence"}.get(reg, "") if mod == 3 else "",
                     what="an access to MXCSR or to the floating-point state")  # fmt: skip
    return _vector(reader, 1, prefix, code, wide, "")


def _extended(reader: _Reader, lead: int) -> Instruction:
    """VEX (C4, C5) and EVEX (62) instructions."""
    first = reader.byte()
    if lead == 0xC5:
        table, prefix, wide, kind = 1, first & 3, False, "vex"
    else:
        second = reader.byte()
        table, prefix, wide = first & (7 if lead == 0x62 else 31), second & 3, bool(second & 0x80)
        kind = "vex" if lead == 0xC4 else "evex"
        if lead == 0x62:
            reader.byte()
    return _vector(reader, table, prefix, reader.byte(), wide, kind)


def _vector(reader: _Reader, table: int, prefix: int, code: int, wide: bool, kind: str) -> Instruction:
    """An instruction of the vector maps; kind is "" (SSE), "vex" or "evex"."""
    if kind == "vex" and (table, prefix, code) == (1, 0, 0x77):
        return _done(reader, "vzeroupper")
    _, reg = reader.modrm()
    if table == 3 or (table == 1 and code in (0x70, 0x71, 0x72, 0x73, 0xC4, 0xC5, 0xC6)):
        reader.byte()
    name = _vector_name(table, prefix, code, wide, kind, reg)
    what = names.FLOATING_POINT.get(table, {}).get(code, "") if not name else ""
    if (
        name
        and kind
        and not name.startswith("k")
        and table * 256 + code not in (0x2F2, 0x2F3, 0x2F5, 0x2F6, 0x2F7, 0x3F0)
    ):
        name = "v" + name
    return _done(reader, name, what=f"floating-point {what}" if what else "")


def _vector_name(table: int, prefix: int, code: int, wide: bool, kind: str, reg: int) -> str:
    key = table, prefix
    if table == 1 and prefix == 1 and code in names.GROUPS:
        if kind == "evex" and code in names.EVEX_GROUPS:
            return names.EVEX_GROUPS[code].get(reg, ("", ""))[wide].strip("-")
        return names.GROUPS[code].get(reg, "")
    if kind == "evex" and code in names.EVEX.get(key, {}):
        return names.EVEX[key][code][wide].strip("-")
    if kind == "vex" and (table, prefix, code) == (2, 0, 0xF3):
        return names.BMI_GROUP.get(reg, "")
    if kind == "vex" and code in names.VEX.get(key, {}):
        name = names.VEX[key][code]
    elif not kind and code in names.LEGACY_ONLY.get(key, {}):
        name = names.LEGACY_ONLY[key][code]
    else:
        name = names.VECTOR.get(key, {}).get(code, "")
    return names.VEX_WIDE.get(name, name) if wide and kind != "evex" else name
