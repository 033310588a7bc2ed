"""TensorFlow Lite models in: a .tflite file becomes an integer graph that computes the same integers.

"The same" means equal to the reference kernels of TensorFlow Lite for Microcontrollers on every tensor. Needs the
packages `tflite` and `flatbuffers` (the extra `tflite`), which hold the schema and nothing that computes.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from intsmooth.convert import tflite_elementwise, tflite_layers, tflite_movement
from intsmooth.convert.report import Conversion, Note, describe, needed_nodes
from intsmooth.convert.tflite_file import read_bytes, read_model
from intsmooth.convert.tflite_translation import InputMapping, Translation
from intsmooth.errors import FormatError, InputError, UnsupportedError
from intsmooth.graph import build_graph
from intsmooth.overflow import prove_no_overflow
from intsmooth.wellformed import MAX_CLASSES

TRANSLATORS = tflite_layers.TRANSLATORS | tflite_elementwise.TRANSLATORS | tflite_movement.TRANSLATORS


def load(
    source,
    *,
    levels: tuple[int, int] = (0, 255),
    unit: int | None = None,
    input_scale: Fraction | float | str | None = None,
    classes: Sequence[str] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Conversion:
    """Convert a .tflite model with one int8, uint8 or quantized float input of batch 1.

    source:      path or bytes.
    levels:      lowest and highest integer of a stored image.
    unit:        how many levels make 1.0; highest - lowest where it is not given.
    input_scale: None: level l is the model's own input integer, counted from the lowest level: with levels (0, 255) a
                 uint8 input takes l and an int8 input l - 128, with levels (-128, 127) an int8 input takes l itself.
                 Otherwise the real value of one level (level 0 is real 0), requantized to the model's input scale.
    classes:     names of the scores; their numbers where not given.
    facts:       free text to store with the model.

    Noise that leaves the range of the model's input integers is clipped by the first operator.
    Returns a Conversion: the graph, and a report with every number of every layer.
    Raises FormatError for a malformed file, UnsupportedError with the list of all that is not supported,
    OverflowProofError where an int32 accumulator could overflow, InputError for a bad argument or a file that cannot
    be read, MissingExtraError without the packages.
    """
    mapping = _mapping(levels, input_scale)
    content = read_bytes(source)
    model = read_model(content)
    translation = Translation(model, mapping)
    problems = _end_problems(model)
    levels_name = None
    if not problems:
        levels_name, problems = _translate(translation)
    if problems:
        count = f"{len(problems)} part{'s' * (len(problems) > 1)}"
        raise UnsupportedError(f"{count} of the model not supported:" + "".join(f"\n- {text}" for text in problems))

    output = translation.names[model.outputs[0]]
    nodes = needed_nodes(translation.nodes, output, translation.notes)
    producer = nodes[-1] if nodes[-1].output == output else next(node for node in nodes if node.output == output)
    scores = producer.inputs[0] if producer.op == "argmax" else output
    count = math.prod(translation.tensors[scores].shape)
    if count > MAX_CLASSES:
        raise UnsupportedError(f"the network has {count} scores, supported: at most {MAX_CLASSES}")
    names = tuple(classes) if classes is not None else tuple(str(number) for number in range(count))
    digest = hashlib.sha256(content).hexdigest()
    origin = f"TensorFlow Lite model, SHA-256 {digest}"
    kept = {levels_name, *(node.output for node in nodes)}
    graph = build_graph(
        nodes,
        [tensor for name, tensor in translation.tensors.items() if name in kept],
        levels_name,
        output,
        mapping.levels,
        mapping.levels[1] - mapping.levels[0] if unit is None else unit,
        names,
        {"source": origin, **(facts or {})},
    )
    prove_no_overflow(graph)
    report = describe(graph, origin, translation.origins, tuple(translation.notes))
    return Conversion(graph, report, {node.name: translation.origins[node.name] for node in graph.nodes})


def _mapping(levels, input_scale) -> InputMapping:
    try:
        lowest, highest = (int(level) for level in levels)
        scale = None if input_scale is None else Fraction(input_scale)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        given = f"levels {levels!r}, input_scale {input_scale!r}"
        raise InputError(f"{given}: {error}; give two integers and a number") from None
    if not -(2**15) <= lowest < highest < 2**15 or (scale is not None and not 1e-30 < scale < 1e30):
        given = f"levels {levels!r}, input_scale {input_scale!r}"
        raise InputError(f"{given}; required: lowest < highest, both int16, and a scale above 0 (1e-30 to 1e30)")
    return InputMapping((lowest, highest), scale)


def _end_problems(model) -> list[str]:
    """What is not supported about the model as a whole."""
    problems = []
    if model.subgraphs != 1:
        problems.append(f"{model.subgraphs} subgraphs (control flow), supported: 1")
    for what, indices in (("inputs", model.inputs), ("outputs", model.outputs)):
        if len(indices) != 1:
            problems.append(f"{len(indices)} {what}, supported: 1")
    for operator in model.operators:
        if operator.code not in TRANSLATORS:
            problems.append(f"operator {operator.index}: {operator.code}")
    return problems


def _translate(translation: Translation) -> tuple[str, list[str]]:
    """Emit all operators: (name of the levels, what is not supported)."""
    model, problems, levels_name = translation.model, [], ""
    entry, skipped = model.inputs[0], None
    if model.tensors[entry].dtype == "float32":
        readers = [operator for operator in model.operators if entry in operator.inputs]
        if len(readers) != 1 or readers[0].code != "QUANTIZE" or len(readers[0].outputs) != 1:
            return "", ["a float32 input that is not quantized by the first operator"]
        skipped, entry = readers[0], readers[0].outputs[0]
        translation.operator = skipped
        translation.note("dropped", "the input is given in levels, not as floats")
        translation.operator = None
    try:
        levels_name = translation.enter(entry)
    except (UnsupportedError, InputError) as error:
        problems.append(f"input: {error}")
        translation.names.setdefault(entry, "")
    for operator in model.operators:
        if operator is skipped:
            continue
        translation.operator = operator
        try:
            TRANSLATORS[operator.code](translation)
        except (UnsupportedError, InputError) as error:
            problems.append(f"{translation.subject()}: {error}")
            for index in operator.outputs:  # so that its readers are looked at too
                translation.names.setdefault(index, "")
    output = model.outputs[0]
    if output not in translation.names:
        raise FormatError(f"no operator produces the output, tensor {output}")
    tensor = model.tensors[output]
    if tensor.dtype == "uint8":
        translation.notes.append(Note("output", "output", "the source's uint8 scores are the int8 scores plus 128"))
    elif tensor.dtype == "float32" and output not in translation.floats:
        problems.append(f"output: tensor {output} is float32 and not a dequantized integer tensor")
    return levels_name, problems
