"""Which instruction set the kernels are written for: found on the host, or forced by INTSMOOTH_ISA.

    vnni512   AVX512-VNNI, 64 byte products summed into 16 int32 lanes by one instruction
    vnni256   AVX-VNNI (or AVX512-VNNI with 256-bit registers)
    avx2      16-bit multiply-add pairs
    portable  plain loops that LLVM may vectorize by itself, for every other processor

All give the same bits; the choice is about speed only.
"""

import os

from llvmlite import binding

from intsmooth.errors import InputError

NAMES = ("vnni512", "vnni256", "avx2", "portable")


def host_features() -> frozenset[str]:
    """Names of the CPU features that LLVM reports as present on this machine."""
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


def supported(features: frozenset[str] | None = None) -> tuple[str, ...]:
    """The instruction sets of NAMES that this machine can execute, best first."""
    features = host_features() if features is None else features
    found = []
    if {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"} <= features:
        found.append("vnni512")
    if {"avx2"} <= features and ({"avxvnni"} <= features or {"avx512vnni", "avx512vl"} <= features):
        found.append("vnni256")
    if "avx2" in features:
        found.append("avx2")
    return (*found, "portable")


def select() -> str:
    """The instruction set to use: INTSMOOTH_ISA where it is set, else the best supported one."""
    wanted = os.environ.get("INTSMOOTH_ISA", "").strip().lower()
    choices = supported()
    if not wanted:
        return choices[0]
    if wanted not in choices:
        raise InputError(f"INTSMOOTH_ISA is {wanted!r}; this machine can run {', '.join(choices)}: set one of these or unset it")
    return wanted


ISA = select()
