"""Which floating-point format a training step multiplies in: what a recipe's `precision = auto` means on this machine.

bfloat16 pays where the hardware multiplies it: on CUDA devices that torch says support it, and on processors with
AVX512-BF16, AMX-BF16 or Arm's BF16 extension. Elsewhere torch converts back and forth, which costs far more than it saves.
"""

import torch

from intsmooth.kernels.isa import host_features

_BFLOAT16_FEATURES = frozenset({"avx512bf16", "amx-bf16", "bf16"})  # as LLVM names them


def multiplies_bfloat16(device: torch.device, features: frozenset[str] | None = None) -> bool:
    """Whether `device` has instructions for bfloat16 products; features: LLVM's names, by default of this processor."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_BFLOAT16_FEATURES & (host_features() if features is None else features))


def resolve(precision: str, device: torch.device) -> str:
    """ "bfloat16" or "float32": the recipe's word, or for "auto" what `device` is good at."""
    if precision != "auto":
        return precision
    return "bfloat16" if multiplies_bfloat16(device) else "float32"
