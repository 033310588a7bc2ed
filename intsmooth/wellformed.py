"""The rules of weights/FORMAT.md that a whole model obeys, as functions that list every problem they find.

Counts, names, numbers and shapes are bounded before anything is computed from them. graph.py turns the list into one
error; the rules of single operators are in ops/.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from intsmooth.errors import FormatError
from intsmooth.ops import OPERATORS
from intsmooth.ops.operator import INT8, MAX_RANK, brief
from intsmooth.records import Node, Tensor

MAX_NODES = 2048
MAX_NAME = 255  # characters of a name
MAX_CLASSES = 2**16
MAX_ELEMENTS = 2**26  # of one activation
MAX_CONSTANT_BYTES = 2**28  # of all constants together
MAX_WORK = 2**42  # innermost steps per image, all operators together; ResNet-50 takes 2^32
ZERO_POINTS = {
    "int8": INT8,
    "int16": (0, 0),
    "int32": (0, 0),
}  # the dtypes of activations, and their zero points' range


def head_problems(levels: Sequence[int], unit: int, classes: Sequence[str], facts: Mapping[str, str]) -> list[str]:
    """What is wrong with the part of a model that is not its network."""
    problems = []
    numbers = [*levels, unit] if isinstance(levels, tuple | list) else []
    if len(numbers) != 3 or not all(isinstance(number, int | np.integer) for number in numbers):
        problems.append(f"levels {brief(levels)} and unit {brief(unit)}, required: two integers and one")
    elif not -(2**15) <= levels[0] < levels[1] < 2**15 or not 1 <= unit < 2**16:
        problems.append(f"levels {brief(levels)} and unit {brief(unit)}, required: lowest < highest in int16, 1..65535")
    if not 1 <= len(classes) <= MAX_CLASSES:
        problems.append(f"{len(classes)} class names, required: 1 to {MAX_CLASSES}")
    for name in classes:
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            problems.append(f"class name {brief(name)}, required: 1 to {MAX_NAME} printable characters")
    for key, text in facts.items():
        parts = (key, text)
        if not all(isinstance(part, str) and part.replace("\n", "").replace("\t", "").isprintable() for part in parts):
            problems.append(f"fact {brief(key)}, required: printable text (line breaks and tabs allowed)")
    return problems


def name_problems(kind: str, names: Iterable[str]) -> list[str]:
    """Names are unique, printable and cannot be mistaken for a way out of a folder."""
    problems = []
    for name, count in Counter(names).items():
        if count > 1:
            problems.append(f"{count} {kind}s are named {brief(name)}, required: unique names")
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
            problems.append(
                f"{kind} name {brief(name)}, required: 1 to {MAX_NAME} printable characters, no outer spaces"
            )
        elif "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
            problems.append(f"{kind} name {brief(name)} looks like a path out of a folder, required: no \\, no empty, "
                            ". or .. between slashes")  # fmt: skip
    return problems


def tensor_problems(tensor: Tensor) -> list[str]:
    """What is wrong with one tensor by itself."""
    problems, name = [], f"tensor {brief(tensor.name)}"
    shape, zero_point, scale = tensor.shape, tensor.zero_point, tensor.scale
    if (
        not 1 <= len(shape) <= MAX_RANK
        or not all(1 <= size <= MAX_ELEMENTS for size in shape)
        or math.prod(shape) > MAX_ELEMENTS
    ):
        problems.append(f"{name} has shape {brief(shape)}, required: 1 to {MAX_RANK} positive integers with a product "
                        f"of at most {MAX_ELEMENTS}")  # fmt: skip
    if tensor.dtype not in ZERO_POINTS:
        problems.append(f"{name} is {brief(tensor.dtype)}, required: one of {', '.join(ZERO_POINTS)}")
    else:
        lowest, highest = ZERO_POINTS[tensor.dtype]
        if not lowest <= zero_point <= highest:
            problems.append(f"{name} has zero point {brief(zero_point)}, required: {lowest}..{highest}")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        problems.append(f"{name} has scale {brief(scale)}, required: finite and positive")
    return problems


def edge_problems(nodes: Sequence[Node], tensors: Mapping[str, Tensor], input: str, output: str) -> list[str]:
    """One input, one output, every tensor declared, produced once and read, the input by one input_requantize."""
    problems = [f"{kind} {brief(name)} is not a tensor of the model" for kind, name in
                (("input", input), ("output", output)) if name not in tensors]  # fmt: skip
    read = Counter(name for node in nodes for name in node.inputs)
    produced = Counter(node.output for node in nodes)
    for node in nodes:
        for name in dict.fromkeys((*node.inputs, node.output)):
            if name not in tensors:
                problems.append(about(node, f"names tensor {brief(name)}, which the model does not declare"))
    for name in tensors:
        makers = produced[name] + (name == input)
        if makers != 1:
            what = "the input and " if name == input else ""
            problems.append(f"tensor {brief(name)} is {what}produced by {produced[name]} nodes, required: one producer")
        if name == output and name == input:
            problems.append(f"tensor {brief(name)} is both input and output")
        if not read[name] and name != output:
            problems.append(f"tensor {brief(name)} is neither read nor the output: remove it and its node")
    readers = [node for node in nodes if input in node.inputs]
    if [node.op for node in readers] != ["input_requantize"]:
        found = ", ".join(f"{brief(node.name)} ({brief(node.op)})" for node in readers[:10])
        problems.append(f"the input is read by {found or 'no node'}, required: exactly one input_requantize")
    return problems


def node_problems(node: Node, tensors: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with one node: its parts, and, where those and its tensors are sound, how they fit together."""
    operator = OPERATORS[node.op]
    problems = operator.schema_problems(node)
    if problems or any(name not in tensors for name in (*node.inputs, node.output)):
        return [about(node, problem) for problem in problems]
    inputs, output = tuple(tensors[name] for name in node.inputs), tensors[node.output]
    for tensor in inputs:
        if tensor.dtype != operator.input_dtype:
            problems.append(f"reads {brief(tensor.name)} of {tensor.dtype}, required: {operator.input_dtype}")
    rule, points = operator.zero_point, [tensor.zero_point for tensor in (*inputs, output)]
    if rule == "same" and len(set(points)) > 1:
        problems.append(f"has zero points {points} at its inputs and its output, required: all equal")
    elif isinstance(rule, int) and output.zero_point != rule:
        problems.append(f"has an output of zero point {output.zero_point}, required: {rule}")
    try:
        shape, dtype = operator.infer(node, inputs)
    except FormatError as error:
        problems.append(f"does not fit its input: {error}")
    else:
        if (shape, dtype) != (output.shape, output.dtype):
            problems.append(f"produces {dtype} of shape {shape}, but tensor {brief(output.name)} is declared "
                            f"{output.dtype} of shape {output.shape}")  # fmt: skip
    return [about(node, problem) for problem in problems]


def end_problems(
    nodes: Sequence[Node], tensors: Mapping[str, Tensor], input: str, output: str, classes: Sequence[str]
) -> list[str]:
    """The network starts with int16 levels and ends in a score per class or in their argmax; its cost is bounded."""
    problems = []
    if tensors[input].dtype != "int16":
        problems.append(f"input {brief(input)} is {tensors[input].dtype}, required: int16 (levels plus noise)")
    last = next(node for node in nodes if node.output == output)
    scores = tensors[last.inputs[0] if last.op == "argmax" else output]
    if math.prod(scores.shape) != len(classes):
        problems.append(f"{len(classes)} class names for scores {brief(scores.name)} of shape {scores.shape}, "
                        "required: one for each")  # fmt: skip
    work = sum(
        OPERATORS[node.op].work(node, tuple(tensors[name] for name in node.inputs), tensors[node.output].shape)
        for node in nodes
    )
    if work > MAX_WORK:
        problems.append(f"the network takes {work} steps per image, required: at most {MAX_WORK}")
    return problems


def about(node: Node, problem: str) -> str:
    """A problem with the node and the operator that it is about."""
    return f"node {brief(node.name)} ({node.op if node.op in OPERATORS else brief(node.op)}) {problem}"
