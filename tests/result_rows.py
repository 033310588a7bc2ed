"""Rows of results files that no run has made, and a file of them."""

from intsmooth.records import Certificate
from intsmooth.results import result_row
from intsmooth.results_writer import ResultsWriter

RUN = {
    "n0": "100",
    "alpha": "0.001",
    "sigma": "0.25",
    "law": "rounded",
    "seed": "0x" + "00" * 31 + "07",
    "plan": '{"n": 1000}',
    "model": "0x" + "ab" * 32,
    "unit": "16",
}


def certificate(prediction=3, radius=0.2786207, hits=900):
    levels = 16 * radius
    return Certificate(
        prediction=prediction,
        radius=radius,
        radius_levels=levels,
        budget=int(levels**2),
        p_lower=0.867464018025748,
        top=3,
        hits=hits,
        n=1000,
        n0=100,
        alpha=0.001,
        sigma="0.25",
        law="rounded",
        selection=(2, 98),
        counts=(1000 - hits, hits),
    )


def row(index, label=3, seconds=1.5, **changes):
    return result_row(index, label, bytes([index]) * 32, certificate(**changes), seconds, RUN, "0.1.0")


def write(path, rows, settings=RUN):
    with ResultsWriter(path, settings) as writer:
        for one in rows:
            writer.append(one)
    return path.read_bytes()
