"""The MXCSR register of x86 processors, read and written by compiled functions without a single float.

Its lowest six bits are sticky: an SSE or AVX floating-point instruction of this thread that is invalid, divides by
zero, meets a denormal, overflows, underflows or rounds sets one, and it stays set until it is written back. Integer
instructions never touch them. Source: Intel's Software Developer's Manual, volume 1, section 10.2.3.
"""

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

FLAGS = ("invalid", "denormal", "division by zero", "overflow", "underflow", "inexact")
_MASK = (1 << len(FLAGS)) - 1
_I32 = ir.IntType(32)


def _call(builder, name: str, slot) -> None:
    pointer = ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [pointer]), name)
    builder.call(function, [builder.bitcast(slot, pointer)])


@intrinsic
def _store(typing):
    def codegen(context, builder, signature, arguments):
        slot = cgutils.alloca_once(builder, _I32)
        _call(builder, "llvm.x86.sse.stmxcsr", slot)
        return builder.load(slot)

    return types.uint32(), codegen


@intrinsic
def _load(typing, value):
    def codegen(context, builder, signature, arguments):
        _call(builder, "llvm.x86.sse.ldmxcsr", cgutils.alloca_once_value(builder, arguments[0]))
        return context.get_dummy_value()

    return types.void(types.uint32), codegen


@numba.njit(numba.uint32())
def read_mxcsr():
    """The whole register of the calling thread."""
    return _store()


@numba.njit(numba.void(numba.uint32))
def write_mxcsr(value):
    """Set the whole register of the calling thread."""
    _load(numba.uint32(value))


@numba.njit(numba.float64(numba.float64, numba.float64))
def divide(a, b):
    """A float division: the control that shows that the flags are seen."""
    return a / b


def clear_flags() -> None:
    """Clear the sticky flags; rounding mode and masks stay as they are."""
    write_mxcsr(read_mxcsr() & ~_MASK & 0xFFFFFFFF)


def raised_flags() -> list[str]:
    """Names of the flags that have been raised since they were cleared, in this thread."""
    bits = read_mxcsr() & _MASK
    return [name for bit, name in enumerate(FLAGS) if bits >> bit & 1]
