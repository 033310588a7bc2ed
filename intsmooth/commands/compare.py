"""Compare two models, or one model in two engines, on images: tensor by tensor, where does the first difference lie?

B is a model, or an engine that runs A: numba and numpy are ours, tflite_micro runs .tflite and onnxruntime .onnx files.
"""

import argparse
import pathlib

import numpy as np

from intsmooth.commands import options

SUMMARY = "show where two models, or two engines, first differ"
EXAMPLES = (
    "compare model.tflite tflite_micro --data images.npz",
    "compare digits numpy --max 10",
    "compare old.h5 new.h5 --data cifar10 --max 100",
)
DIFFERENT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("a", metavar="A", help="a model (.h5, .tflite, quantized .onnx), or a shipped model's name")
    parser.add_argument("b", metavar="B", help="another model, or one of numba, numpy, tflite_micro, onnxruntime")
    options.add_data_options(parser)
    parser.set_defaults(max=16)
    options.add_input_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a line per tensor; 0 where nothing differs, 1 otherwise."""
    from intsmooth.convert.comparison import decisions, differences, pairs
    from intsmooth.convert.load import convert_model
    from intsmooth.convert.peers import ENGINES, trace
    from intsmooth.errors import InputError
    from intsmooth.shipped import find_model
    from intsmooth.smooth import check_image

    given = options.input_options(arguments)
    path_a = find_model(arguments.a)
    a = convert_model(path_a, **given)
    engine = arguments.b if arguments.b in ENGINES and not pathlib.Path(arguments.b).exists() else None
    path_b = path_a if engine else find_model(arguments.b)
    b = a if engine else convert_model(path_b, **given)
    if a.graph.input_shape != b.graph.input_shape:
        raise InputError(f"the models take images of shapes {a.graph.input_shape} and {b.graph.input_shape}")
    dataset = options.select_data(arguments, path_a, a.graph)
    levels = np.stack([check_image(a.graph, item.image) for item in dataset])
    ours = "numpy" if engine == "numba" else "numba"
    left, right = trace(ours, path_a, a, levels), trace(engine or ours, path_b, b, levels)
    rows = differences(pairs(a.graph, b.graph), left, right)
    print(f"A  {path_a} in {ours}\nB  {path_b} in {engine or ours}\n{len(levels)} images of {dataset.name}\n")
    print("\n".join(_table(rows)))
    missing = len(a.graph.nodes) - len(rows)
    if missing:
        print(f"{missing} of the {len(a.graph.nodes)} tensors of A have no counterpart that could be read in B")
    first = next((row for row in rows if row.differing), None)
    compared = any(row.name == a.graph.output for row in rows)
    print(f"\nfirst difference: {first.name}" if first else "\nno difference" if compared else "")
    if not compared:
        print("the outputs could not be compared: " + _why(a.graph, b.graph, right))
    elif a.graph.output in left and b.graph.output in right:
        same = decisions(left[a.graph.output]) == decisions(right[b.graph.output])
        print(f"same class: {same.sum()} of {len(same)} images")
    return DIFFERENT if first or not compared else 0


def _why(a, b, traced) -> str:
    shapes = [graph.tensors[graph.output].shape for graph in (a, b)]
    if shapes[0] != shapes[1]:
        return f"they have shapes {shapes[0]} and {shapes[1]}"
    return f"{b.output} cannot be read in B" if b.output not in traced else f"{a.output} has no counterpart in B"


def _table(rows) -> list[str]:
    head = ("tensor of A", "tensor of B", "elements", "differing", "largest")
    cells = [head] + [
        (row.name, row.other if row.other != row.name else "", f"{row.elements}", f"{row.differing}", f"{row.largest}")
        for row in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    template = "  ".join(f"{{:{'<' if i < 2 else '>'}{width}}}" for i, width in enumerate(widths))
    return [template.format(*row).rstrip() for row in cells]
