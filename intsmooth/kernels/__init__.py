"""The compiled kernels: numba and LLVM IR, integers only, arrays in and the caller's arrays out."""

from intsmooth.kernels import jit as _jit  # noqa: F401  first, so that the digest of the sources is taken before they load
