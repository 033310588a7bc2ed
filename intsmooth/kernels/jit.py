"""The one decorator of all compiled functions, and a compilation cache that is safe to trust.

numba's own cache looks at a function's file only: a caller keeps its old machine code when the kernel that it calls, the
instruction set asked for, or the package changes. Here the key of every cached function also holds a digest of all
kernel sources and the instruction set (numba itself adds the CPU's name and features), so that a cache made by another
version or on another machine is never used. The digest is taken before any kernel module is loaded and again before
anything is saved: where the files have changed in between, nothing is saved. A cache folder that cannot be written costs
compilation time, nothing else.
"""

import contextlib
import hashlib
import os
import pathlib

import numba
from numba.core.caching import FunctionCache, NullCache

from intsmooth.kernels.isa import ISA


def _source_digest() -> str:
    sources = sorted(pathlib.Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


SOURCE_DIGEST = _source_digest()  # kernels/__init__.py imports this module first


class _KernelCache(FunctionCache):
    """numba's function cache with a key that also covers all kernel sources and the instruction set."""

    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), SOURCE_DIGEST, ISA)

    def load_overload(self, sig, target_context):
        found = None
        with contextlib.suppress(Exception):  # a damaged file can raise anything; compiling again replaces it
            found = super().load_overload(sig, target_context)
        if found is None:
            _tell_listeners()
        return found

    def save_overload(self, sig, data):
        with contextlib.suppress(Exception):  # a full disk, a damaged index: the cache is a convenience
            if _source_digest() == SOURCE_DIGEST:
                super().save_overload(sig, data)


class _NoCache(NullCache):
    """Finds nothing, keeps nothing."""

    def load_overload(self, sig, target_context):
        _tell_listeners()


_listeners = []


def when_compiling(listener) -> None:
    """Call listener() once, before the first function is compiled that the cache does not hold."""
    _listeners.append(listener)


def _tell_listeners() -> None:
    while _listeners:
        _listeners.pop()()


def jit(function):
    """Compile with the GIL released, no bounds checks, no fast-math, cached where a cache can be kept."""
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    if os.environ.get("NUMBA_DISABLE_JIT", "0") == "0":
        compiled._cache = _NoCache()
        if os.environ.get("INTSMOOTH_CACHE", "1") != "0":
            with contextlib.suppress(RuntimeError, OSError):  # no folder that could be written
                compiled._cache = _KernelCache(function)
    return compiled


def jit_as(name: str):
    """`jit` for a function made by another function, under a name of its own.

    Machine code is found by its symbol, which numba derives from the function's name and a counter that starts anew in
    every process: two variants with one name, cached by different processes, could be taken for each other.
    """

    def decorate(function):
        function.__name__ = function.__qualname__ = name
        return jit(function)

    return decorate
