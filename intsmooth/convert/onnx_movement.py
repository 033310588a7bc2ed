"""Operators that move values: how ONNX's become operators of weights/FORMAT.md, or nothing at all.

Flattening an image and transposing it to or from our order of elements need no node: the integers stay where they are,
and the next operator reads them in the order that they have.
"""

import math
from dataclasses import replace

import numpy as np

from intsmooth.convert.onnx_layout import as_image, as_plain, same_order
from intsmooth.convert.onnx_translation import FULL, Translation, checked_size
from intsmooth.convert.onnx_values import Integer, Known, Pending, Shortcut, Target, View
from intsmooth.errors import FormatError, UnsupportedError


def _moved(t: Translation, name: str, move) -> None:
    """Sets the output to move(integers); of a view it is a view again."""
    value = t.value(name)
    if isinstance(value, Integer):
        t.values[t.output()] = move(value)
    else:
        t.values[t.output()] = View(move(t.real(name)))


def _reshaped(t: Translation, x: Integer, shape) -> Integer:
    """The same elements, in ONNX's order, under another shape without the batch."""
    shape = checked_size(shape)
    if math.prod(shape) != math.prod(x.shape):
        raise FormatError(f"{t.subject()} makes {shape} of shape {x.shape}")
    if shape == x.shape:
        return x
    if x.image is not None and not same_order(x.image):
        if len(shape) == 1 or shape == x.image:
            return replace(x, shape=shape)  # flattened, or back: the order of our elements is kept in mind
        return replace(x, name=as_plain(t, replace(x, shape=shape)), shape=shape, image=None)
    return replace(x, shape=shape, image=None)


def reshape(t: Translation) -> None:
    source, shape_name = t.inputs(2)
    wanted = t.integers(shape_name, "the new shape")
    if isinstance(t.value(source), Known):
        t.values[t.output()] = Known(t.known(source, "a constant", "fiu").reshape(wanted))
        return
    full = (t.batch, *t.shape(source))
    sizes = [full[i] if size == 0 and i < len(full) else size for i, size in enumerate(wanted)]
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = math.prod(full) // rest if rest > 0 else -1
    if not sizes or sizes[0] != t.batch:
        raise UnsupportedError(f"reshapes {full} to {wanted}, supported: what leaves the batch, {t.batch}, in front")
    _moved(t, source, lambda x: _reshaped(t, x, sizes[1:]))


def flatten(t: Translation) -> None:
    (source,) = t.inputs(1)
    if t.attribute("axis", 1) not in (1, 1 - len(t.shape(source)) - 1):
        raise UnsupportedError(f"flattens from axis {t.attribute('axis', 1)}, supported: 1, behind the batch")
    _moved(t, source, lambda x: _reshaped(t, x, (math.prod(x.shape),)))


def _axes(t: Translation, name: str, rank: int) -> list[int]:
    given = t.integers(name, "axes") if name else list(t.attribute("axes", ()))
    axes = [axis + rank * (axis < 0) for axis in given]
    if any(not 0 <= axis < rank for axis in axes) or len(set(axes)) != len(axes):
        raise FormatError(f"{t.subject()} has axes {given} for {rank} dimensions")
    return axes


def squeeze(t: Translation) -> None:
    source, axes_name = t.inputs(1, 2)
    if isinstance(t.value(source), Known):
        array = t.known(source, "a constant", "iu")
        axes = _axes(t, axes_name, array.ndim)
        t.values[t.output()] = Known(np.squeeze(array, tuple(axes)) if axes else np.squeeze(array))
        return
    shape = t.shape(source)
    axes = _axes(t, axes_name, len(shape) + 1) or [i + 1 for i, size in enumerate(shape) if size == 1]
    if 0 in axes or any(shape[axis - 1] != 1 for axis in axes):
        raise UnsupportedError(f"squeezes axes {axes} of shape {shape} without the batch")
    left = tuple(size for i, size in enumerate(shape) if i + 1 not in axes)
    _moved(t, source, lambda x: _reshaped(t, x, left or (1,)))


def unsqueeze(t: Translation) -> None:
    source, axes_name = t.inputs(1, 2)
    constant = isinstance(t.value(source), Known)
    shape = t.known(source, "a constant", "iu").shape if constant else (t.batch, *t.shape(source))
    count = len(t.integers(axes_name, "axes") if axes_name else t.attribute("axes", ()))
    axes = _axes(t, axes_name, len(shape) + count)
    left = iter(shape)
    sizes = [1 if i in axes else next(left) for i in range(len(shape) + count)]
    if constant:
        t.values[t.output()] = Known(t.known(source, "a constant", "iu").reshape(sizes))
    elif 0 in axes:
        raise UnsupportedError("an axis before the batch")
    else:
        _moved(t, source, lambda x: _reshaped(t, x, sizes[1:]))


def transpose(t: Translation) -> None:
    (source,) = t.inputs(1)
    rank = len(t.shape(source)) + 1
    order = t.attribute("perm", tuple(reversed(range(rank))))
    if sorted(order) != list(range(rank)):
        raise FormatError(f"{t.subject()} has permutation {order} for {rank} dimensions")
    if order[0] != 0:
        raise UnsupportedError(f"permutation {order}, supported: those that leave the batch in front")

    def move(x: Integer) -> Integer:
        shape = tuple(x.shape[axis - 1] for axis in order[1:])
        if order == (0, 2, 3, 1) and x.image is not None:
            t.note("folded", "our order of elements is what it asks for")
            return replace(x, name=as_image(t, x), shape=shape, image=None)
        if order == (0, 3, 1, 2) and x.image is None:
            t.note("folded", "its input has our order of elements already")
            return replace(x, name=as_plain(t, x), shape=shape, image=shape)
        plain = as_plain(t, x)
        permutation = tuple(axis - 1 for axis in order[1:])
        return replace(x, name=t.move("transpose", plain, shape, {"permutation": permutation}), shape=shape, image=None)

    _moved(t, source, move)


def joined_along(t: Translation, axis: int, parts: list[Integer], target: Target) -> Integer:
    """Parts of one scale and zero point, one behind the other along `axis` of ONNX's shape without the batch."""
    shapes = [part.shape for part in parts]
    if any(len(shape) != len(shapes[0]) for shape in shapes) or not 0 <= axis < len(shapes[0]):
        raise UnsupportedError(f"parts of shapes {shapes[:8]} along axis {axis + 1}")
    shape = tuple(sum(s[i] for s in shapes) if i == axis else size for i, size in enumerate(shapes[0]))
    if len(shape) == 3:
        names = [as_image(t, part) for part in parts]
        place = dict(shape=shape, image=shape, ours=(*shape[1:], shape[0]))
        return t.emit("concat", names, parts[0], target, {"axis": (2, 0, 1)[axis]}, {}, **place)
    names = [as_plain(t, part) for part in parts]
    return t.emit("concat", names, parts[0], target, {"axis": axis}, {}, shape=shape, image=None, ours=shape)


def concat(t: Translation) -> None:
    names = t.inputs(1, max(1, len(t.node.inputs)))
    axis = t.attribute("axis", 0)
    values = [t.value(name) for name in names]
    if all(isinstance(value, Known) for value in values):
        t.values[t.output()] = Known(np.concatenate([t.known(name, "a constant", "iu") for name in names], axis=axis))
        return
    rank = len(t.shape(names[0])) + 1
    axis += rank * (axis < 0) - 1
    if axis < 0:
        raise UnsupportedError("parts along the batch")

    def emit(t, target):
        plain = Target(target.scale, target.zero_point)
        parts = []
        for name in names:
            value = t.value(name)
            parts.append(t.quantized(value, plain, name if isinstance(value, Pending) else None))
        return joined_along(t, axis, parts, target)

    shapes = [t.shape(name) for name in names]
    if any(len(shape) != rank - 1 for shape in shapes):
        raise FormatError(f"{t.subject()} joins shapes {shapes[:8]}")
    shape = tuple(sum(s[i] for s in shapes) if i == axis else size for i, size in enumerate(shapes[0]))
    if any(not isinstance(value, View | Pending) for value in values):
        raise UnsupportedError("joins anything but float activations")
    for name in names:
        if t.chooser is not None:
            t.settle(name)
    t.values[t.output()] = Pending(shape, emit)


def identity(t: Translation) -> None:
    source = t.inputs(1, max(1, len(t.node.inputs)))[0]
    t.values[t.output()] = t.settle(source)


def slice_(t: Translation) -> None:
    """Every stride-th pixel of an image, from the first to the last; slices of a vector of sizes."""
    source, start, end, axes_name, steps_name = t.inputs(3, 5)
    begin, end = t.integers(start, "starts"), t.integers(end, "ends")
    constant = isinstance(t.value(source), Known)
    shape = t.known(source, "a constant", "iu").shape if constant else (t.batch, *t.shape(source))
    axes = t.integers(axes_name, "axes") if axes_name else list(range(len(begin)))
    steps = t.integers(steps_name, "steps") if steps_name else [1] * len(begin)
    if not len(begin) == len(end) == len(axes) == len(steps) or any(not -len(shape) <= a < len(shape) for a in axes):
        raise FormatError(f"{t.subject()} has starts {begin}, ends {end}, axes {axes}, steps {steps}")
    if any(step < 1 for step in steps):
        raise UnsupportedError(f"steps {steps}, supported: positive ones")
    cuts = {axis % len(shape): slice(*cut) for axis, *cut in zip(axes, begin, end, steps, strict=True)}
    if constant:
        array = t.known(source, "a constant", "iu")
        t.values[t.output()] = Known(array[tuple(cuts.get(i, slice(None)) for i in range(array.ndim))])
        return
    ranges = [cuts.get(i, slice(None)).indices(size) for i, size in enumerate(shape)]
    if len(shape) != 4 or any(cut[:2] != (0, size) for cut, size in zip(ranges, shape, strict=True)) or (
        ranges[0][2] != 1 or ranges[1][2] != 1
    ):
        raise UnsupportedError(f"a slice {cuts} of shape {shape}, supported: every n-th pixel of height and width")
    x = t.real(source)
    t.values[t.output()] = _shortcut(t, Shortcut(x, (ranges[2][2], ranges[3][2])), x.shape[0])


def pad(t: Translation) -> None:
    """Zeros around channels, height and width."""
    source, pads_name, value_name, axes_name = t.inputs(1, 4)
    pads = t.integers(pads_name, "pads") if pads_name else list(t.attribute("pads", ()))
    shape = t.shape(source)
    if axes_name or t.attribute("mode", "constant") != "constant":
        raise UnsupportedError("padding with axes of its own, or in another mode than constant")
    if len(pads) != 2 * (len(shape) + 1):
        raise FormatError(f"{t.subject()} has pads {pads} for shape {shape} and the batch")
    if value_name and t.known(value_name, "the padded value").any() or t.attribute("value", 0.0):
        raise UnsupportedError("padding with anything but 0")
    before, after = pads[1 : len(shape) + 1], pads[len(shape) + 2 :]
    if pads[0] or pads[len(shape) + 1] or min(pads) < 0 or len(shape) != 3:
        raise UnsupportedError(f"padding {pads}, supported: channels, height and width of images, nothing negative")
    value = t.value(source)
    moved = value.moved if isinstance(value, Pending) else None
    if moved is not None and not moved.offset and not any(before[1:] + after[1:]):
        channels = value.shape[0] + before[0] + after[0]
        t.values[t.output()] = _shortcut(t, replace(moved, offset=before[0]), channels)
        return
    x = t.real(source)
    t.values[t.output()] = View(_padded(t, x, before, after))


def _padded(t: Translation, x: Integer, before, after) -> Integer:
    if not any(before) and not any(after):
        return x
    shape = checked_size(b + size + a for b, size, a in zip(before, x.shape, after, strict=True))
    padding = (before[1], after[1], before[2], after[2], before[0], after[0])
    attributes = {"padding": padding, "value": x.zero_point}
    place = dict(shape=shape, image=shape, ours=(*shape[1:], shape[0]))
    target = Target(x.scale, x.zero_point, FULL, x.unsigned)
    return t.emit("pad", [as_image(t, x)], x, target, attributes, {}, **place)


def _shortcut(t: Translation, moved: Shortcut, channels: int) -> Pending:
    """Every n-th pixel with channels of zeros around its own: nothing by itself, or part of a sum's convolution."""
    x = moved.source
    size = tuple(-(-x.shape[1 + i] // moved.stride[i]) for i in range(2))

    def emit(t, target):
        picked = x
        if moved.stride != (1, 1):
            attributes = {"kernel": (1, 1), "stride": moved.stride, "padding": (0, 0, 0, 0), "clamp": FULL}
            shape = (x.shape[0], *size)
            place = dict(shape=shape, image=shape, ours=(*size, x.shape[0]))
            picked = t.emit("max_pool2d", [as_image(t, x)], x, Target(x.scale, x.zero_point), attributes, {}, **place)
            t.note("re-expressed", "a slice with steps is a maximum over windows of one pixel")
        after = channels - x.shape[0] - moved.offset
        picked = _padded(t, picked, (moved.offset, 0, 0), (after, 0, 0))
        return t.requantized(picked, target)

    return Pending(checked_size((channels, *size)), emit, moved=moved)


TRANSLATORS = {
    "Reshape": reshape, "Flatten": flatten, "Squeeze": squeeze, "Unsqueeze": unsqueeze, "Transpose": transpose,
    "Concat": concat, "Identity": identity, "Dropout": identity, "Slice": slice_, "Pad": pad,
}  # fmt: skip
