"""ONNX models in: a quantized .onnx file becomes an integer graph.

Quantized means the forms that ONNX Runtime's and PyTorch's quantizers write: QDQ (QuantizeLinear and DequantizeLinear
around float operators) and QOperator (QLinearConv and others), int8 or uint8, weights symmetric, per tensor or per
channel. ONNX Runtime rescales accumulators by float32 factors and rounds once, half to even; here they are rescaled by
(multiplier, shift) pairs that `fixedpoint.nearest_result_multiplier` chooses so that there is one rounding too, half
up, wherever a multiplier without a right shift has bits enough. A layer's integers differ by 1 on exact ties and a few
times in a million results. Needs the package `onnx`, for its protocol buffers alone (the extra `onnx`).
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from intsmooth.convert import onnx_constants, onnx_elementwise, onnx_layers, onnx_movement, onnx_qlinear, onnx_windows
from intsmooth.convert.onnx_file import OnnxModel, read_bytes, read_model
from intsmooth.convert.onnx_layout import as_plain
from intsmooth.convert.onnx_translation import InputMapping, Skipped, Translation, checked_size
from intsmooth.convert.onnx_values import Integer, Known, Pending, Source, Target, View
from intsmooth.convert.report import Conversion, Note, describe, needed_nodes
from intsmooth.errors import FormatError, InputError, ModelError, UnsupportedError
from intsmooth.graph import build_graph
from intsmooth.overflow import prove_no_overflow
from intsmooth.wellformed import MAX_CLASSES

TRANSLATORS = (
    onnx_layers.TRANSLATORS
    | onnx_elementwise.TRANSLATORS
    | onnx_windows.TRANSLATORS
    | onnx_constants.TRANSLATORS
    | onnx_movement.TRANSLATORS
    | onnx_qlinear.TRANSLATORS
)


_BEHIND_SOFTMAX = ("QuantizeLinear", "DequantizeLinear", "Softmax", "LogSoftmax", "com.microsoft.QLinearSoftmax")


def load(
    source,
    *,
    levels: tuple[int, int] = (0, 255),
    unit: int | None = None,
    input_scale: Fraction | float | str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Conversion:
    """Convert a quantized .onnx model with one input and one output that is used.

    source:      path or bytes.
    levels:      lowest and highest integer of a stored image.
    unit:        how many levels make 1.0; highest - lowest where it is not given.
    input_scale: None: level l is the model's own input integer, counted from the lowest level: with levels (0, 255) a
                 uint8 input takes l and an int8 input l - 128. Otherwise the real value of one level (level 0 is real
                 0), requantized to the scale of the model's first QuantizeLinear.
    mean, std:   the reals that the network was made for are (level / unit - mean) / std, one number per channel.
    classes:     names of the scores; their numbers where not given.
    facts:       free text to store with the model.

    Returns a Conversion: the graph, and a report with every number of every layer.
    Raises FormatError for a malformed file, UnsupportedError with the list of all that is not supported,
    OverflowProofError where an int32 accumulator could overflow, InputError for a bad argument or a file that cannot
    be read, MissingExtraError without the package.
    """
    mapping, unit = input_mapping(levels, unit, input_scale, mean, std)
    content = read_bytes(source)
    origin = f"ONNX model, SHA-256 {hashlib.sha256(content).hexdigest()}"
    return convert(read_model(content), mapping, unit, origin, classes, facts)


def convert(
    model: OnnxModel,
    mapping: InputMapping,
    unit: int,
    origin: str,
    classes: Sequence[str] | None = None,
    facts: Mapping[str, str] | None = None,
    chooser: Callable[[str], Target] | None = None,
    notes: Sequence[Note] = (),
) -> Conversion:
    """Translate a model that has been read; `chooser` gives scales of float tensors (post-training quantization)."""
    t = Translation(model, mapping, chooser)
    t.notes.extend(notes)
    _refuse(_translate(t))
    scores = _scores(t)
    nodes = needed_nodes(t.nodes, scores, t.notes)
    count = math.prod(t.tensors[scores].shape)
    if count > MAX_CLASSES:
        raise UnsupportedError(f"the network has {count} scores, supported: at most {MAX_CLASSES}")
    levels_name = t.entered[0]
    kept = {levels_name, *(node.output for node in nodes)}
    graph = build_graph(
        nodes,
        [tensor for name, tensor in t.tensors.items() if name in kept],
        levels_name,
        scores,
        mapping.levels,
        unit,
        tuple(classes) if classes is not None else tuple(str(number) for number in range(count)),
        {"source": origin, **(facts or {})},
    )
    prove_no_overflow(graph)
    report = describe(graph, origin, t.origins, tuple(t.notes))
    return Conversion(graph, report, {node.name: t.origins[node.name] for node in graph.nodes})


def input_mapping(levels, unit, input_scale, mean=None, std=None, margin: int = 0) -> tuple[InputMapping, int]:
    """The checked arguments of `load`: (mapping, unit)."""
    given = f"levels {levels!r}, unit {unit!r}, input_scale {input_scale!r}, mean {mean!r}, std {std!r}"
    try:
        lowest, highest = (int(level) for level in levels)
        unit = highest - lowest if unit is None else int(unit)
        scale = None if input_scale is None else Fraction(input_scale)
        mean, std = (None if values is None else np.array(values, np.float64).reshape(-1) for values in (mean, std))
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise InputError(f"{given}: {error}; give two integers and numbers") from None
    if not -(2**15) <= lowest < highest < 2**15 or unit < 1 or (scale is not None and scale <= 0):
        raise InputError(f"{given}; required: lowest < highest, both int16, unit at least 1, and a positive scale")
    if mean is not None or std is not None:
        mean = np.zeros(1) if mean is None else mean
        std = np.ones(1) if std is None else std
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise InputError(f"{given}; required: finite numbers, and deviations above 0")
        scale = Fraction(1, unit) if scale is None else scale
    return InputMapping((lowest, highest), scale, mean, std, margin), unit


def check_float(model: OnnxModel, mapping: InputMapping) -> int | None:
    """The batch that a float model fixes, None where it fixes none. Raises UnsupportedError as `load` does."""
    t = Translation(model, mapping, lambda name: Target(1.0, 0))
    _refuse(_translate(t))
    return next(iter(model.inputs.values()))[1][0]


def _refuse(problems: list[str]) -> None:
    if problems:
        count = f"{len(problems)} part{'s' * (len(problems) > 1)}"
        raise UnsupportedError(f"{count} of the model not supported:" + "".join(f"\n- {text}" for text in problems))


def _translate(t: Translation) -> list[str]:
    """Emit all operators; what is not supported."""
    problems = []
    model = t.model
    for node in model.nodes:
        if node.op not in TRANSLATORS:
            problems.append(f"node {node.index}: {node.op}")
    if len(model.outputs) != 1:
        problems.append(f"{len(model.outputs)} outputs, supported: 1")
    problems += _enter(t)
    for node in model.nodes:
        t.node = node
        try:
            if node.op not in TRANSLATORS:
                raise Skipped
            if node.op not in _BEHIND_SOFTMAX and any(name in t.beyond for name in node.inputs):
                raise UnsupportedError("reads what a softmax gives; one at the end is dropped, others are not supported")
            TRANSLATORS[node.op](t)
        except Skipped:
            pass
        except (UnsupportedError, InputError) as error:
            problems.append(f"{t.subject()}: {error}")
        except (ArithmeticError, ValueError, IndexError, TypeError, AttributeError) as error:
            if isinstance(error, ModelError):
                raise
            raise FormatError(f"{t.subject()} is malformed ({type(error).__name__}: {str(error)[:200]})") from None
        for name in node.outputs:
            value = t.values.setdefault(name, None)
            if isinstance(value, Pending) and value.node is None:
                t.values[name] = replace(value, node=node)
    if not problems:
        output = model.outputs[0]
        t.node = None
        try:
            _scores(t)
        except (UnsupportedError, InputError) as error:
            problems.append(f"output {output[:80]!r}: {error}")
    if not problems and t.entered is None:
        problems.append("the output does not depend on the input")
    return problems


def _enter(t: Translation) -> list[str]:
    """Give the network's input its value; what is not supported about it."""
    if len(t.model.inputs) != 1:
        t.values.update(dict.fromkeys(t.model.inputs))
        return [f"{len(t.model.inputs)} inputs, supported: 1"]
    ((name, (dtype, shape)),) = t.model.inputs.items()
    t.values[name] = None
    if dtype not in ("float32", "float16", "float64", "uint8", "int8"):
        return [f"input {name[:80]!r} is {dtype}, supported: float32, uint8 and int8"]
    if shape is None or not 2 <= len(shape) <= 4 or any(size is None for size in shape[1:]):
        return [f"input {name[:80]!r} has shape {shape}, supported: 2 to 4 dimensions, all but the batch fixed"]
    t.batch = shape[0] or 1
    shape = checked_size(shape[1:])
    for what, values in (("mean", t.mapping.mean), ("std", t.mapping.std)):
        if values is not None and values.size not in (1, shape[0]):
            raise InputError(f"{what} has {values.size} numbers; required: 1, or {shape[0]}, one for each channel")
    t.values[name] = Source(shape)  # of an integer input too: its first reader says what its integers mean
    return []


def _scores(t: Translation) -> str:
    """Our tensor of int8 scores, in ONNX's order."""
    output = t.model.outputs[0]
    if output not in t.values:
        raise FormatError(f"no operator produces the output {output[:80]!r}")
    value = t.value(output)
    if isinstance(value, Known | Source):
        raise UnsupportedError("it is the input or a constant")
    if isinstance(value, Pending):
        scores = t.real(t.beyond.get(output, output))
        t.values[output] = View(scores)
    else:
        scores = value if isinstance(value, Integer) else value.integer
        if isinstance(value, View) and output not in t.beyond:
            note = Note("dropped", "output", "float scores keep the order of the integers")
            t.notes.extend([note] if note not in t.notes else [])
    name = as_plain(t, scores)
    if name != scores.name:
        t.values[output] = Integer(name, scores.shape, scores.scale, scores.zero_point, None, scores.unsigned)
    return name
