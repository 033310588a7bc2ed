"""How close to the integer limit does each operator come, at the shapes that published networks have?

    python bench/operators.py

Every distinct layer of the networks in networks.py, timed where it stands in its plan (its borders, its neighbours'
layouts), one thread. A layer is run many times in a row, so its weights and activations are as close as caches permit;
the whole networks are timed too. Before timing, all activations of each network are compared with the naive twins'.

Shares count the multiply-adds of the network, not those of padding. `ceiling` is the share that the shape leaves to a
kernel of dot products of four bytes in 16 lanes: a kernel row of 3 x 3 channels fills 9 of 12 bytes, 12 output channels
fill 12 of 16 lanes, and a depthwise tap has one product per lane where a dot has four. Where the share is far below the
ceiling is a cliff. Fully connected layers have no ceiling here: they use every weight once, and are bound by loads.
"""

from dataclasses import dataclass, field

import numpy as np
from harness import Contender, Effort, Report, Spread, limit_contender, main, require, say, take_turns
from networks import NETWORKS

from intsmooth.engine import Engine
from intsmooth.kernels.network import run_network
from intsmooth.kernels.table import addresses
from intsmooth.ops import OPERATORS
from intsmooth.records import Graph, Node

CLIFF = 0.4  # of the ceiling


@dataclass
class Layer:
    """One distinct layer. uses: network -> how many layers are equal to it."""

    text: tuple[str, str, str]  # operator, shapes, window
    work: int
    ceiling: float | None
    contender: Contender
    uses: dict[str, int] = field(default_factory=dict)


class Bench:
    """A network's plan with memory to run any part of it."""

    def __init__(self, graph: Graph):
        self.graph, self.plan = graph, Engine(graph, threads=1).plan
        rng, plan = np.random.default_rng(0), self.plan
        self.kernels, self.arena = addresses(plan.operations), plan.arena.copy()
        self.arena[:] = rng.integers(0, 256, self.arena.size, np.uint8)
        self.scratch = np.zeros(plan.scratch, np.int32)
        self.levels = rng.integers(-100, 356, int(np.prod(graph.input_shape)) + 16).astype(np.int16)

    def contender(self, rows: np.ndarray, work: int) -> Contender:
        """Runs instructions as often as makes a call last some tens of microseconds at least."""
        repeats = int(np.clip(2e7 // max(work, 1e5), 1, 128))
        table = np.tile(rows, (repeats, 1))

        def run(n: int) -> None:
            for _ in range(n):
                run_network(self.kernels, table, self.levels, self.arena, self.scratch, self.plan.blob)

        return Contender(run, repeats)


def describe(graph: Graph, node: Node) -> tuple[str, str, str]:
    """Operator, shapes and window of a node: equal texts mean equal work."""
    inputs = " + ".join("x".join(map(str, graph.tensors[name].shape)) for name in node.inputs)
    window = []
    kernel = node.attributes.get("kernel") or kernel_of(node)
    if kernel:
        window.append("x".join(map(str, kernel)))
    for name in ("stride", "dilation", "groups", "skip_stride"):
        value = node.attributes.get(name, 1)
        if value not in (1, (1, 1)):
            window.append(f"{name.replace('_', ' ')} {value if isinstance(value, int) else value[0]}")
    return node.op, f"{inputs} -> {'x'.join(map(str, graph.tensors[node.output].shape))}", ", ".join(window)


def kernel_of(node: Node) -> tuple[int, ...]:
    """(rows, columns) of a convolution's window, nothing for others."""
    if node.op == "depthwise_conv2d":
        return node.constants["weights"].shape[:2]
    return node.constants["weights"].shape[1:3] if node.op in ("conv2d", "conv2d_add") else ()


def ceiling(node: Node) -> float | None:
    """Share of the limit that a shape permits, see the module's head."""
    if node.op == "depthwise_conv2d":
        return 0.25 * _fill(node.constants["weights"].shape[2], 16)
    if node.op not in ("conv2d", "conv2d_add"):
        return None
    outputs, _, columns, depth = node.constants["weights"].shape
    groups = node.attributes["groups"]
    adjacent = depth * (columns if node.attributes["dilation"][1] == 1 and groups == 1 else 1)
    return _fill(adjacent, 4) * _fill(outputs // groups, 16)


def _fill(size: int, unit: int) -> float:
    return size / (-(-size // unit) * unit)


def collect(names: list[str]) -> tuple[dict[tuple, Layer], dict[str, Contender], dict[str, int]]:
    """The distinct layers of networks, the networks as contenders, and their multiply-adds."""
    layers, whole, work = {}, {}, {}
    for name in names:
        graph = NETWORKS[name]()
        bench = Bench(graph)
        say(f"{name}: comparing {len(graph.nodes)} layers with their twins")
        levels = np.random.default_rng(1).integers(-100, 356, (1, *graph.input_shape)).astype(np.int16)
        ours, twins = (Engine(graph, backend, 1).trace(levels) for backend in ("numba", "numpy"))
        require(all((ours[key] == twins[key]).all() for key in twins), f"{name}: a kernel differs from its twin")
        work[name] = 0
        for node in graph.nodes:
            inputs = tuple(graph.tensors[source] for source in node.inputs)
            amount = OPERATORS[node.op].multiply_adds(node, inputs, graph.tensors[node.output].shape)
            work[name] += amount
            key = describe(graph, node)
            if key not in layers:
                start, stop = bench.plan.spans[node.name]
                if start == stop:
                    continue
                layers[key] = Layer(key, amount, ceiling(node), bench.contender(bench.plan.table[start:stop], amount))
            layers[key].uses[name] = layers[key].uses.get(name, 0) + 1
        whole[name] = bench.contender(bench.plan.table, work[name])
    return layers, whole, work


def question(effort: Effort) -> Report:
    report = Report("Operators and their share of the limit")
    names = ["ResNet-20", "DS-CNN", "Odd shapes"] if effort.quick else list(NETWORKS)
    layers, whole, work = collect(names)
    contenders = {key: layer.contender for key, layer in layers.items()} | {(name,): whole[name] for name in names}
    say(f"{len(layers)} layers and {len(names)} networks take turns")
    rates = take_turns(contenders | {"limit": limit_contender(1)}, effort.shorter(20), pause=0)
    limit = rates["limit"]
    report.text(
        f"One thread; the limit is {limit.scaled(1e-9).text()} G multiply-adds/s. All activations of all networks "
        f"equal the naive twins' to the bit. Times are medians of {effort.rounds} rounds with warm caches; `best` is "
        "the shortest."
    )
    report.table(
        ("network", "M multiply-adds", "samples/s", "us per sample", "sum of layers, us", "of the limit"),
        [_network_row(name, layers, rates, work[name]) for name in names],
    )
    rows, cliffs = [], []
    for key, layer in layers.items():
        share = rates[key].median * layer.work / limit.median  # short runs: those of a round do not belong together
        low = layer.ceiling is not None and share < CLIFF * layer.ceiling
        if low:
            cliffs.append(f"{' '.join(key[:2])}{', ' * bool(key[2])}{key[2]}: {100 * share:.0f} %")
        uses = ", ".join(f"{name} x{count}" for name, count in layer.uses.items())
        most = "" if layer.ceiling is None else f"{100 * layer.ceiling:.0f} %" + " (cliff)" * low
        rows.append([*key, uses, *_figures(layer, rates[key], share), most])
    head = ("operator", "shapes", "window", "found in", "M multiply-adds", "us", "best", "G/s", "of limit", "ceiling")
    report.table(head, rows)
    report.text(f"Layers below {CLIFF:.0%} of their ceiling: {'; '.join(cliffs) or 'none'}.")
    return report


def _network_row(name: str, layers: dict[tuple, Layer], rates: dict, work: int) -> list[str]:
    rate = rates[name,]
    total = 1e6 * sum(layer.uses.get(name, 0) / rates[key].median for key, layer in layers.items())
    share = 100 * rate.median * work / rates["limit"].median
    return [name, f"{work / 1e6:,.1f}", rate.text(), f"{1e6 / rate.median:,.1f}", f"{total:,.1f}", f"{share:.1f} %"]


def _figures(layer: Layer, rate: Spread, share: float) -> list[str]:
    """Work, time, speed and share; only the time where an operator has no weights."""
    times = [f"{1e6 / value:,.2f}" for value in (rate.median, max(rate.values))]
    if not layer.work:
        return ["", *times, "", ""]
    speed = f"{rate.median * layer.work / 1e9:,.0f}"
    return [f"{layer.work / 1e6:,.3f}", *times, speed, f"{100 * share:.1f} %"]


if __name__ == "__main__":
    main(question, __doc__)
