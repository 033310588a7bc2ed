"""The overflow proof: two independent bounds on every int32 value, the margins they leave, and what data really reach.

    proved      from the weights alone, whatever int8 values enter a layer (ops/*.py, what planning insists on)
    propagated  by intervals through the whole network, whatever int16 values enter it (intervals.py)
    seen        the largest accumulator on given inputs (accumulators.py)

Each must be at most the one before it, and the first at most 2^31 - 1. The bounds are about the exact values of the
sums of the definition. The fast kernels keep their running sums modulo 2^32, where an exact final value that fits is
right whatever the sums on the way.
"""

import math

import numpy as np

from intsmooth.audit.accumulators import largest_seen
from intsmooth.audit.finding import Finding
from intsmooth.audit.intervals import propagate
from intsmooth.overflow import INT32_MAX, accumulator_bounds
from intsmooth.records import Graph


def check_overflow(graph: Graph, levels: np.ndarray) -> Finding:
    """Compare the bounds of every layer and channel; levels: int16 batch for the third column."""
    proved, steps = accumulator_bounds(graph), propagate(graph)
    seen = largest_seen(graph, levels)
    problems, rows, details = [], [], []
    for node in graph.nodes:
        propagated = steps[node.name].largest
        wide = np.maximum(proved[node.name], np.zeros_like(propagated))  # one value per channel, or one for all
        for channel in np.flatnonzero((wide > INT32_MAX) | (propagated > INT32_MAX)):
            problems.append(
                f"node {node.name!r} ({node.op}), channel {channel}: an int32 value can reach "
                f"{max(int(np.broadcast_to(values, wide.shape)[channel]) for values in (wide, propagated)):,}"
            )
        for channel in np.flatnonzero(propagated > wide):
            problems.append(
                f"node {node.name!r} ({node.op}), channel {channel}: intervals allow "
                f"{int(np.broadcast_to(propagated, wide.shape)[channel]):,}, the proof only {int(wide[channel]):,}"
            )
        if node.name in seen:
            for channel in np.flatnonzero(seen[node.name] > propagated):
                problems.append(
                    f"node {node.name!r} ({node.op}), channel {channel}: {int(seen[node.name][channel]):,} was seen, "
                    "above the bound by intervals"
                )
        rows.append(_row(node, proved[node.name], propagated, seen.get(node.name)))
        details.append(
            {
                "node": node.name,
                "op": node.op,
                "proved": proved[node.name].tolist(),
                "margin_bits": [round(margin(value), 3) for value in proved[node.name].tolist()],
                "propagated": propagated.tolist(),
                "output_low": steps[node.name].output.low.tolist(),
                "output_high": steps[node.name].output.high.tolist(),
                "seen": seen[node.name].tolist() if node.name in seen else None,
            }
        )
    worst = max(int(bound.max()) for bound in proved.values())
    return Finding(
        "overflow",
        "no int32 value can leave its range",
        not problems,
        f"largest int32 value {worst:,} of {INT32_MAX:,}: {margin(worst):.1f} bits to spare in the worst layer and "
        "channel"
        if not problems
        else f"{len(problems)} problems",
        problems,
        _table(rows),
        {"limit": INT32_MAX, "layers": details},
    )


def margin(value: int) -> float:
    """Bits that an int32 has to spare beyond a magnitude; negative where it does not fit."""
    return math.log2(INT32_MAX / value) if value else 31.0


def _row(node, proved, propagated, seen) -> tuple[str, ...]:
    bound = int(proved.max())
    return (
        node.name,
        node.op,
        f"{bound:,}",
        f"{margin(bound):.1f}",
        f"{int(propagated.max()):,}",
        "-" if seen is None else f"{int(seen.max()):,}",
    )


def _table(rows) -> list[str]:
    rows = [("layer", "operator", "proved", "margin (bits)", "propagated", "seen"), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    template = "  ".join(f"{{:{'<' if i < 2 else '>'}{width}}}" for i, width in enumerate(widths))
    return [" " + template.format(*row) for row in rows]
