"""The equality check: compiled kernels against their naive twins on this machine, with this model, to the last bit.

network   every tensor of the whole network, on noisy images, random and extreme inputs
layers    every node by itself, with random and extreme int8 activations that no image may ever produce
noise     the compiled sampler against the naive one
votes     the counts of both engines
"""

import numpy as np

from intsmooth.audit.finding import Finding
from intsmooth.engine import Engine
from intsmooth.noise.sampler import sample_noise
from intsmooth.noise.stream import image_digest, stream_key
from intsmooth.records import Graph, Node
from intsmooth.reference import engine as reference
from intsmooth.vote import ESTIMATION

INT8_EDGES = np.array([-128, -127, -1, 0, 1, 126, 127], np.int8)


def check_equality(engine: Engine, images: np.ndarray, table, seed: bytes, votes: int = 64) -> Finding:
    """Compare `engine` (numba) with the twins. images: integer levels (N, *input shape), a few; seed: 32 bytes."""
    graph = engine.graph
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
    problems, compared = [], {"network": 0, "layers": 0, "noise": 0, "votes": 0}
    levels = input_batch(graph, images, table, rng)
    compared["network"] += _compare_network(engine, levels, problems)
    for node in graph.nodes:
        if node.op not in ("constant", "argmax"):
            compared["layers"] += _compare_layer(engine, node, rng, problems)
    key = stream_key(seed, image_digest(images[0]), ESTIMATION)
    size = images[0].size
    fast, slow = (sample_noise(table, key, 2**32 - 2, 4, size, backend) for backend in ("numba", "numpy"))
    compared["noise"] += fast.size
    if not np.array_equal(fast, slow):
        problems.append(
            f"noise: {np.count_nonzero(fast != slow)} of {fast.size} integers differ from the naive sampler's"
        )
    naive = Engine(graph, "numpy")
    for image in images[:2]:
        counts = [e.count_votes(image, table, key, 5, votes) for e in (engine, naive)]
        compared["votes"] += votes
        if not np.array_equal(*counts):
            problems.append(f"votes: {counts[0].tolist()} compiled, {counts[1].tolist()} naive")
    parts = ", ".join(f"{what} {count:,}" for what, count in compared.items())
    return Finding(
        "equality",
        "the compiled kernels equal their naive twins to the last bit",
        not problems,
        f"values compared and equal: {parts}" if not problems else f"{len(problems)} differences",
        problems,
        [],
        {"compared": compared},
    )


def input_batch(graph: Graph, images: np.ndarray, table, rng) -> np.ndarray:
    """Noisy images, uniform integers as far as noise reaches, and the extremes, int16 (N, *input shape)."""
    shape = graph.input_shape
    low, high = graph.levels[0] + table.first, graph.levels[1] + table.last
    noisy = images + rng.normal(0, float(table.sigma), images.shape).round().astype(np.int64)
    uniform = rng.integers(low, high + 1, (2, *shape))
    constant = [np.full(shape, value) for value in (low, high, *graph.levels, -32768, 32767)]
    checkered = np.where(np.indices(shape).sum(axis=0) % 2, low, high)
    batch = np.concatenate([noisy, uniform, np.stack([*constant, checkered])])
    return np.clip(batch, -32768, 32767).astype(np.int16)


def _compare_network(engine: Engine, levels: np.ndarray, problems: list[str]) -> int:
    fast, slow = engine.trace(levels), reference.run(engine.graph, levels)
    for name, expected in slow.items():
        if not np.array_equal(fast[name], expected):
            wrong = np.count_nonzero(fast[name] != expected)
            problems.append(f"tensor {name!r}: {wrong} of {expected.size} values differ from the naive network's")
    scores = slow[engine.graph.nodes[-1].inputs[0] if engine.graph.nodes[-1].op == "argmax" else engine.graph.output]
    decisions = np.argmax(scores.reshape(len(levels), -1), axis=1)
    if not np.array_equal(engine.classify(levels), decisions):
        problems.append("classes differ from the naive network's, although it has these scores")
    return sum(expected.size for expected in slow.values())


def _compare_layer(engine: Engine, node: Node, rng, problems: list[str]) -> int:
    graph = engine.graph
    wide = graph.tensors[node.inputs[0]].dtype == "int16"
    by_name = {}  # a node may read a tensor twice
    for name in node.inputs:
        tensor = graph.tensors[name]
        info = np.iinfo(np.int16 if wide else np.int8)
        values = [rng.integers(info.min, info.max + 1, (2, *tensor.shape))]
        values += [np.full((1, *tensor.shape), edge) for edge in (info.min, info.max, tensor.zero_point)]
        if not wide:
            values.append(rng.choice(INT8_EDGES, (1, *tensor.shape)))
        by_name[name] = np.concatenate(values).astype(info.dtype)
    for name, batch in by_name.items():  # constants keep their values
        source = next((other for other in graph.nodes if other.output == name and other.op == "constant"), None)
        if source is not None:
            batch[...] = source.constants["value"]
    batches = [by_name[name] for name in node.inputs]
    expected = reference.TWINS[node.op](graph, node, *batches)
    for sample in range(len(expected)):
        found = run_layer(engine, node, [batch[sample] for batch in batches])
        if not np.array_equal(found, expected[sample]):
            wrong = np.count_nonzero(found != expected[sample])
            problems.append(
                f"node {node.name!r} ({node.op}) alone: {wrong} of {found.size} values differ from its twin's"
            )
            break
    return expected.size


def run_layer(engine: Engine, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    """The compiled result of one node, int8 (*output shape), for int8 activations (int16 levels for the first node)."""
    from intsmooth.kernels.network import run_network
    from intsmooth.plan import read

    plan, work = engine.plan, engine._workspace()
    for name, value in zip(node.inputs, inputs, strict=True):
        if name == engine.graph.input:
            work.levels[: value.size] = value.ravel()
            continue
        buffer = plan.buffers[name]
        start = buffer.offset - buffer.head
        work.arena[start : start + buffer.size] = buffer.zero_byte
        for row, line in enumerate((value.astype(np.int16) + 128).reshape(buffer.rows, -1)):
            at = buffer.offset + row * buffer.row
            work.arena[at : at + line.size] = line
    first, last = plan.spans[node.name]
    run_network(engine._kernels, plan.table[first:last], work.levels, work.arena, work.scratch, plan.blob)
    return read(work.arena, plan.buffers[node.output]).reshape(engine.graph.tensors[node.output].shape)
