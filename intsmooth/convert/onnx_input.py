"""The network's input: int16 levels become the first int8 integers. See onnx_translation.InputMapping."""

from fractions import Fraction

import numpy as np

from intsmooth.convert.onnx_layers import normalized
from intsmooth.convert.onnx_translation import FULL, Translation
from intsmooth.convert.onnx_values import Integer, Source, Target
from intsmooth.errors import UnsupportedError
from intsmooth.records import Tensor


def enter(t: Translation, source: Source, target: Target) -> tuple[str, Integer]:
    """(name of the levels, the integers that ONNX's quantized input becomes)."""
    image = source.shape if len(source.shape) == 3 else None
    ours = (*source.shape[1:], source.shape[0]) if image else source.shape or (1,)
    levels, mapping = t.unique("levels"), t.mapping
    factor, offset, scale, text = _first_step(mapping, target)
    if not -128 <= offset <= 127:
        raise UnsupportedError(f"levels from {mapping.levels[0]}: int8 needs a lowest level from -255 to 0")
    node, t.node = t.node, None
    t.tensors[levels] = Tensor(levels, ours, "int16", 0, None if mapping.scale is None else float(mapping.scale))
    constants = t.rescale([factor])
    first = Target(scale, offset, FULL, target.unsigned)
    x = t.emit("input_requantize", [levels], None, first, {}, constants, ours=ours, shape=source.shape, image=image)
    t.note("input", text)
    if mapping.mean is not None:
        t.note("re-expressed", "a convolution of one pixel subtracts the mean and divides by the deviation")
        x = normalized(t, x, 1 / mapping.std, -mapping.mean / mapping.std).emit(t, target)
    elif offset != target.zero_point:
        x = t.emit("lookup", [x.name], x, target, {}, {"table": np.arange(-128, 128).astype(np.int8)})
        t.note("re-expressed", f"an identity table gives the input its zero point, {target.zero_point}")
    t.node = node
    return levels, x


def _first_step(mapping, target: Target) -> tuple[Fraction, int, float, str]:
    """(levels to steps, zero point, real value of a step, what happens) of the first operator."""
    low, high = mapping.levels
    if mapping.scale is None:
        offset = -128 - low
        text = f"level l is the source's input integer l - {low + 128 * (not target.unsigned)}, saturated, held as int8"
        return Fraction(1), offset, target.scale, text
    real = f"a level is real {float(mapping.scale):g}"
    if mapping.mean is None:
        text = f"{real}, requantized to the source's scale {target.scale:g}"
        return mapping.scale / Fraction(target.scale), target.zero_point, target.scale, text
    span = high - low + 2 * mapping.margin
    factor = min(Fraction(1), Fraction(255, span))
    offset = -128 - round((low - mapping.margin) * factor)
    text = f"{real}; the first operator's step is {float(1 / factor):g} levels"
    return factor, offset, float(mapping.scale / factor), text
