"""Fuzz the model loader: a mutated file is refused with a ModelError or holds the unchanged model, and nothing else.

    python tests/fuzz_h5file.py --files 1000000 --seed 1

runs for about half an hour and stops at the first finding: any other exception, a graph with a digest that no valid
file has, more than 5 s for one file, or more than 1 GB of memory. The finding is written to the current folder. The
tests run a few thousand files.
"""

import argparse
import pathlib
import struct
import sys
import time
from collections import Counter

import models
import numpy as np

from intsmooth import h5file
from intsmooth.errors import ModelError

MAX_SECONDS = 5.0
MAX_BYTES = 10**9
END_OF_FILE = 40  # where the superblock says how long the file is
_EDGES = (*range(6), 7, 8, 16, 17, 64, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63,
          2**64 - 1)  # fmt: skip
_WORDS = (b"[]", b"{}", b"[[", b"1e9", b"NaN", b"-1", b"99", b"null", b"true", b'"":', b"\\u0000", b"\xff\xfe", b"../",
          b"0003", b"TREE", b"SNOD", b"HEAP", b"conv2d", b"argmax", b"int16")  # fmt: skip


def seeds() -> list[bytes]:
    """Valid model files of several shapes."""
    rng = np.random.default_rng(0)
    return [h5file.encode(model(rng)) for model in (smallest, models.tiny_conv, models.every_operator)]


def smallest(rng) -> models.Graph:
    """Two nodes: the smallest model that classifies."""
    b = models.NetworkBuilder(rng, (3,), levels=(0, 16))
    return b.graph(b.dense(b.start, 2), facts={"source": "random", "licence": "CC0"})


def mutate(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """One to eight random changes: of bits, of whole fields, of blocks, of words in texts, of the file's length."""
    file = bytearray(data)
    used = np.flatnonzero(np.frombuffer(data, np.uint8))  # half of a file is zeros that nothing reads
    for _ in range(min(rng.geometric(0.6), 8)):
        kind = rng.integers(10)
        at = int(rng.choice(used)) if rng.integers(8) else int(rng.integers(len(data)))
        at = min(at, len(file) - 1)
        if kind <= 1:
            file[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            file[at] = int(rng.choice((0, 1, 2, 3, 127, 128, 255, rng.integers(256))))
        elif kind <= 4:  # an integer field: an edge, an address in the file, or a neighbour of what was there
            size = int(rng.choice((2, 4, 8)))
            at -= at % size
            old = int.from_bytes(file[at : at + size], "little")
            value = (
                _EDGES[rng.integers(len(_EDGES))],
                int(rng.integers(len(data) // 8)) * 8,
                old + 8,
                old - 1,
                old * 2,
            )
            file[at : at + size] = (value[rng.integers(5)] % 256**size).to_bytes(size, "little")
        elif kind == 5:  # a block from elsewhere, in this file or in another
            source = others[rng.integers(len(others))] if rng.integers(4) == 0 else data
            size, start = int(rng.choice((8, 24, 40, 64, 328, 544))), int(rng.integers(len(source) // 8)) * 8
            block = source[start : start + size]
            at -= at % 8
            file[at : at + len(block)] = block
        elif kind == 6:
            word = _WORDS[rng.integers(len(_WORDS))]
            file[at : at + len(word)] = word
        elif kind == 7:  # another digit where one was
            digits = [i for i in range(at, min(at + 2000, len(file))) if 48 <= file[i] <= 57]
            if digits:
                file[digits[rng.integers(len(digits))]] = 48 + int(rng.integers(10))
        elif kind == 8:  # bytes vanish or appear
            size = int(rng.choice((1, 8, 40, 512)))
            if rng.integers(2):
                del file[at : at + size]
            else:
                file[at:at] = bytes(size)
        elif rng.integers(2):
            del file[at + 1 :]
    if len(file) >= END_OF_FILE + 8 and rng.integers(
        8
    ):  # mostly let the length be right, so that the rest is looked at
        struct.pack_into("<Q", file, END_OF_FILE, len(file))
    return bytes(file)


def outcome(data: bytes, digests: set[str]) -> str:
    """'refused' or 'unchanged'; AssertionError for anything else that a loader may return, its own exceptions pass."""
    start = time.perf_counter()
    try:
        graph = h5file.decode(data)
    except ModelError as error:
        result = "refused"
        message = str(error)
        assert 10 < len(message) < 50_000 and "\x1b" not in message, (
            "the message is empty, endless or controls a terminal"
        )
    else:
        result = "unchanged"
        assert graph.digest in digests, "a changed model was accepted"
    seconds = time.perf_counter() - start
    assert seconds < MAX_SECONDS, f"took {seconds:.1f} s"
    return result


def run(files: int, seed: int, progress=None) -> Counter:
    """Outcomes of `files` mutated files; the first finding is written to the current folder and raised."""
    rng, valid = np.random.default_rng(seed), seeds()
    digests, counts = {h5file.decode(data).digest for data in valid}, Counter()
    weights = np.array([4, 2, 1]) / 7  # small files are quicker, and most of their bytes matter
    for i in range(files):
        data = mutate(valid[rng.choice(3, p=weights)], rng, valid)
        try:
            counts[outcome(data, digests)] += 1
        except BaseException:
            path = pathlib.Path(f"finding-{seed}-{i}.h5")
            path.write_bytes(data)
            print(f"finding after {i} files: {path}", file=sys.stderr)
            raise
        if progress and i % 10_000 == 0:
            progress(i, counts)
    return counts


def peak_memory() -> int:
    """Bytes of memory that this process held at most (Linux and macOS)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    start = time.monotonic()

    def progress(done, counts):
        rate = done / (time.monotonic() - start)
        print(f"{done} files, {rate:.0f}/s, {dict(counts)}, peak memory {peak_memory() / 1e6:.0f} MB", flush=True)

    counts = run(arguments.files, arguments.seed, progress)
    progress(arguments.files, counts)
    if peak_memory() > MAX_BYTES:
        sys.exit(f"peak memory {peak_memory()} bytes, allowed {MAX_BYTES}")


if __name__ == "__main__":
    main()
