"""Keeps stopping tables on disk, so that a second process has them at once instead of after seconds.

One file per rule in the user's cache folder: the question, two boundaries, which rise by 0 or 1 per vote and so take one
bit each, the error bounds they were checked for, and a digest of it all. The name is a digest of everything a table follows
from, the source of the module that makes it included. The check itself is not made again: whoever can write in the folder
is trusted, as with the compiled kernels. A file that is damaged, or that fails a check, is made anew; a folder that
cannot be written costs time, nothing else. INTSMOOTH_CACHE=0 turns it off, as it does for compiled kernels.
"""

import contextlib
import hashlib
import inspect
import os
import pathlib
import sys
from fractions import Fraction
from functools import lru_cache

import numpy as np

from intsmooth import sequential
from intsmooth.atomic import write_whole
from intsmooth.sequential import StoppingTable, stopping_table

_HEAD = b"intsmooth stopping table 2\n"


_listeners = []


def when_building(listener) -> None:
    """Call listener() once, before the first table is made that no cache holds."""
    _listeners.append(listener)


def cache_folder() -> pathlib.Path:
    """Where this user's caches are: INTSMOOTH_CACHE_DIR, or the system's usual folder for caches."""
    if folder := os.environ.get("INTSMOOTH_CACHE_DIR"):
        return pathlib.Path(folder)
    if sys.platform == "win32" and (folder := os.environ.get("LOCALAPPDATA")):
        return pathlib.Path(folder) / "intsmooth"
    if sys.platform == "darwin":
        return pathlib.Path.home() / "Library" / "Caches" / "intsmooth"
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "intsmooth"


@lru_cache(maxsize=64)
def cached_stopping_table(p: float, alpha: Fraction, beta: Fraction, max_n: int) -> StoppingTable:
    """`sequential.stopping_table`, from the disk where an earlier process left it there. Raises InputError as it does."""
    path = _path(p, alpha, beta, max_n)
    if path is not None:
        with contextlib.suppress(OSError, ValueError):
            return decode(path.read_bytes(), p, alpha, beta, max_n)
    while _listeners:
        _listeners.pop()()
    table = stopping_table(p, alpha, beta, max_n)
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, encode(table))
    return table


def encode(table: StoppingTable) -> bytes:
    """A table as bytes: head, digest, error bounds, steps of both boundaries."""
    bounds = f"{table.hopeful.hex()} {table.alpha_bound.hex()} {table.beta_bound.hex()}\n".encode()
    firsts = np.array([table.certify[0], table.give_up[0]], "<i4").tobytes()
    steps = [np.packbits(np.diff(boundary).astype(np.uint8)).tobytes() for boundary in (table.certify, table.give_up)]
    body = _question(table.p, table.alpha, table.beta, table.max_n) + bounds + firsts + b"".join(steps)
    return _HEAD + hashlib.sha256(body).digest() + body


def decode(data: bytes, p: float, alpha: Fraction, beta: Fraction, max_n: int) -> StoppingTable:
    """The table of `encode`; ValueError where the bytes are not those of a table for this question."""
    body = data[len(_HEAD) + 32 :]
    if not data.startswith(_HEAD) or hashlib.sha256(body).digest() != data[len(_HEAD) : len(_HEAD) + 32]:
        raise ValueError("no stopping table, or a damaged one")
    question = _question(p, alpha, beta, max_n)
    if not body.startswith(question):
        raise ValueError("a stopping table for another question")
    line, rest = body.removeprefix(question).split(b"\n", 1)
    hopeful, alpha_bound, beta_bound = (float.fromhex(text) for text in line.decode().split())
    size = -(-max_n // 8)
    if len(rest) != 8 + 2 * size or not alpha_bound <= alpha or not beta_bound <= beta:
        raise ValueError("a stopping table for another question")
    boundaries = []
    for number, first in enumerate(np.frombuffer(rest[:8], "<i4").tolist()):
        packed = np.frombuffer(rest, np.uint8, size, 8 + number * size)
        boundary = np.full(max_n + 1, first, np.int32)
        boundary[1:] += np.cumsum(np.unpackbits(packed, count=max_n), dtype=np.int32)
        boundary.flags.writeable = False
        boundaries.append(boundary)
    return StoppingTable(p, hopeful, alpha, beta, max_n, *boundaries, alpha_bound, beta_bound)


def _question(p: float, alpha: Fraction, beta: Fraction, max_n: int) -> bytes:
    return f"{p.hex()} {alpha} {beta} {max_n}\n".encode()


def _path(p: float, alpha: Fraction, beta: Fraction, max_n: int) -> pathlib.Path | None:
    """The table's file, which need not exist; None where there is to be no cache, or no place for it."""
    if os.environ.get("INTSMOOTH_CACHE", "1") == "0":
        return None
    try:  # RuntimeError: no home folder; OSError: no source
        facts = _question(p, alpha, beta, max_n) + inspect.getsource(sequential).encode()
        return cache_folder() / f"stopping-{hashlib.sha256(facts).hexdigest()[:32]}.bin"
    except (OSError, RuntimeError):
        return None
