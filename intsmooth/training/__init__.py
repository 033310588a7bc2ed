"""Noise-aware, quantization-aware training of integer networks; needs torch (extra [train]).

    recipe -> float network (noise, cross-entropy, consistency) -> fold batch norm, calibrate ranges
           -> fake-quantized twin, fine-tuned -> export -> Graph of integer operators

`intsmooth.training.command.run` is what the command line calls. Nothing outside this package imports torch, and
importing this package alone does not either.
"""
