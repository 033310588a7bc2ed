"""Show a model: layers, shapes, parameters, multiply-adds, memory, and how far it stays from overflow."""

import argparse
import math

from intsmooth.commands import options
from intsmooth.errors import ResourceError

SUMMARY = "show a model's layers, size, cost and overflow margin"
EXAMPLES = ("info digits", "info model.h5 --facts", "info model.onnx --input-scale 1/255")
_INT32_MAX = 2**31 - 1
_LONGEST_FACT = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help=options.MODEL_HELP)
    options.add_input_options(parser)
    parser.add_argument("--facts", action="store_true", help="the file's notes in full: data, recipe, licence")


def run(arguments: argparse.Namespace) -> int:
    """Print what the file says and what the plan proves."""
    from intsmooth.shipped import shipped_models

    path, graph = options.open_model(arguments)
    shape = " x ".join(map(str, graph.input_shape))
    print(f"model     {path}, {path.stat().st_size:,} bytes{', shipped' * (path in shipped_models().values())}")
    print(f"digest    {graph.digest}")
    print(f"input     {shape}, levels {graph.levels[0]} to {graph.levels[1]}, {graph.unit} levels = 1.0")
    print(f"classes   {len(graph.classes)}: {', '.join(graph.classes[:12])}{', ...' * (len(graph.classes) > 12)}")
    for name, text in graph.facts.items():
        print(f"{name:<9} {text if arguments.facts else _first_line(text)}")
    print()
    print("\n".join(layer_table(graph)))
    print()
    print("\n".join(totals(graph)))
    return 0


def _first_line(text: str) -> str:
    """What fits on a line of the terminal."""
    line, _, more = text.partition("\n")
    return line if not more and len(line) <= _LONGEST_FACT else f"{line[:_LONGEST_FACT]} ... (--facts shows all)"


def layer_table(graph) -> list[str]:
    """Lines of a table with a row per operator; margin: bits that an int32 has to spare in the worst case."""
    from intsmooth.ops import OPERATORS
    from intsmooth.overflow import accumulator_bounds

    bounds = accumulator_bounds(graph)
    rows = [("layer", "operator", "output", "parameters", "multiply-adds", "margin")]
    for node in graph.nodes:
        operator, shape = OPERATORS[node.op], graph.tensors[node.output].shape
        inputs = tuple(graph.tensors[name] for name in node.inputs)
        worst = int(bounds[node.name].max())
        rows.append(
            (
                node.name,
                node.op,
                " x ".join(map(str, shape)),
                f"{operator.parameters(node):,}",
                f"{operator.multiply_adds(node, inputs, shape):,}",
                f"{math.log2(_INT32_MAX / worst):.1f} bits" if worst else "-",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    template = "  ".join(f"{{:{'<' if i < 3 else '>'}{width}}}" for i, width in enumerate(widths))
    return [template.format(*row) for row in rows]


def totals(graph) -> list[str]:
    """Lines with the sums over all layers, and the memory that one thread needs."""
    from intsmooth.engine import Engine
    from intsmooth.ops import OPERATORS
    from intsmooth.overflow import prove_no_overflow

    parameters = sum(OPERATORS[node.op].parameters(node) for node in graph.nodes)
    work = sum(
        OPERATORS[node.op].multiply_adds(
            node, tuple(graph.tensors[name] for name in node.inputs), graph.tensors[node.output].shape
        )
        for node in graph.nodes
    )
    stored = sum(array.nbytes for node in graph.nodes for array in node.constants.values())
    worst = max(int(bound.max()) for bound in prove_no_overflow(graph).values())
    try:
        plan = Engine(graph).plan
        memory = f"{plan.memory:,} bytes to run on one thread, of them {plan.arena.nbytes:,} for activations"
    except ResourceError:
        memory = "known where numba is installed: the numpy backend plans no buffers"
    saved = 100 - 100 * stored / (4 * parameters) if parameters else 0.0
    return [
        f"parameters     {parameters:,}, {stored:,} bytes stored with their multipliers and shifts "
        f"({saved:.0f} % less than the {4 * parameters:,} bytes of float32)",
        f"multiply-adds  {work:,} per sample",
        f"memory         {memory}",
        f"overflow       proved impossible: no int32 value exceeds {worst:,}, {100 * worst / _INT32_MAX:.2f} % of "
        "the range",
    ]
