"""Votes: how often each class wins among noisy samples of an image, out of streams that never overlap.

A sample is named by (seed, image digest, stage, index), so any block of any stage can be counted anywhere, in any
order, once or again, and blocks add up to the same integers.
"""

import numpy as np

from intsmooth.noise.stream import image_digest, stream_key
from intsmooth.records import Votes

# Rehearsal is for timing only, nothing is concluded from it; stage 4 belongs to noise.stream.uniform_integer.
SELECTION, ESTIMATION, PREDICTION, REHEARSAL = 0, 1, 2, 3


def count_votes(
    engine, image: np.ndarray, table, seed: bytes, stage: int, first: int, n: int, block: int | None = None
) -> Votes:
    """Votes of samples first .. first + n - 1 of one stage; the counts are int64 [classes], read-only, their sum is n.

    engine: engine.Engine; image: integers in levels, of the model's input shape; table: noise.law.NoiseTable; seed:
    32 bytes; stage: SELECTION, ESTIMATION, PREDICTION or REHEARSAL. block: samples that are counted at a time, all at
    once by default; it changes no count, but Ctrl-C is heard between two blocks only.
    """
    key = stream_key(seed, image_digest(image), stage)
    counts = np.zeros(len(engine.graph.classes), dtype=np.int64)
    for start in range(first, first + n, block or max(n, 1)):
        counts += engine.count_votes(image, table, key, start, min(block or n, first + n - start))
    counts.setflags(write=False)
    return Votes(counts=counts, n=n, first=first, stage=stage)
