"""Stopping tables on disk: the same table at once in another process, made anew where a file is not what it should be."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from intsmooth import stopping_cache
from intsmooth.sequential import stopping_table
from intsmooth.stopping_cache import cache_folder, cached_stopping_table, decode, encode

QUESTION = (0.75, Fraction(1, 1000), Fraction(1, 100), 500)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INTSMOOTH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("INTSMOOTH_CACHE", "1")
    cached_stopping_table.cache_clear()
    yield tmp_path / "cache"
    cached_stopping_table.cache_clear()


def same(a, b) -> bool:
    facts = ("p", "hopeful", "alpha", "beta", "max_n", "alpha_bound", "beta_bound")
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("certify", "give_up"))
    return arrays and all(getattr(a, name) == getattr(b, name) for name in facts)


@pytest.mark.parametrize("question", [QUESTION, (0.95, *QUESTION[1:3], 60), (0.5, *QUESTION[1:3], 1), (0.9, *QUESTION[1:3], 65)])
def test_bytes_and_back(question):
    table = stopping_table(*question)
    again = decode(encode(table), *question)
    assert same(again, table) and not again.certify.flags.writeable and again.certify.dtype == np.int32


def test_the_second_process_finds_it(folder, monkeypatch):
    first = cached_stopping_table(*QUESTION)
    assert len(list(folder.iterdir())) == 1
    cached_stopping_table.cache_clear()
    monkeypatch.setattr(stopping_cache, "stopping_table", None)  # it must not be needed
    assert same(cached_stopping_table(*QUESTION), first)


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[:200] + bytes([d[200] ^ 4]) + d[201:],
                                    lambda d: b"", lambda d: b"x" + d])  # fmt: skip
def test_a_damaged_file_is_made_anew(folder, damage):
    first = cached_stopping_table(*QUESTION)
    (file,) = folder.iterdir()
    good = file.read_bytes()
    file.write_bytes(damage(good))
    cached_stopping_table.cache_clear()
    assert same(cached_stopping_table(*QUESTION), first) and file.read_bytes() == good


def test_another_question_has_another_file(folder):
    for question in (QUESTION, (0.75, *QUESTION[1:3], 501), (0.5, *QUESTION[1:]), (0.75, Fraction(1, 999), *QUESTION[2:])):
        cached_stopping_table(*question)
    assert len(list(folder.iterdir())) == 4
    with pytest.raises(ValueError, match="another question"):
        decode(encode(stopping_table(*QUESTION)), *QUESTION[:3], 400)
    with pytest.raises(ValueError, match="another question"):
        decode(encode(stopping_table(*QUESTION)), 0.75, Fraction(1, 2000), *QUESTION[2:])


def test_the_file_of_another_question_is_not_taken(folder):
    first = cached_stopping_table(*QUESTION)
    (file,) = folder.iterdir()
    other = cached_stopping_table(0.625, *QUESTION[1:])
    (second,) = (path for path in folder.iterdir() if path != file)
    file.write_bytes(second.read_bytes())
    cached_stopping_table.cache_clear()
    assert same(cached_stopping_table(*QUESTION), first) and not same(first, other)


def test_no_folder_costs_time_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTSMOOTH_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert same(cached_stopping_table(*QUESTION), stopping_table(*QUESTION))
    monkeypatch.setenv("INTSMOOTH_CACHE", "0")
    monkeypatch.setenv("INTSMOOTH_CACHE_DIR", str(tmp_path / "off"))
    cached_stopping_table.cache_clear()
    cached_stopping_table(*QUESTION)
    assert not (tmp_path / "off").exists()


def test_where_caches_lie(monkeypatch):
    monkeypatch.delenv("INTSMOOTH_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    if sys.platform == "linux":
        assert str(cache_folder()) == "/somewhere/intsmooth"


@pytest.mark.slow
def test_a_second_process_does_not_take_seconds():
    script = (
        "import time\nfrom intsmooth.target import plan_target\nstart = time.perf_counter()\n"
        "plan_target('0.5', sigma='0.5', dimension=3072)\nprint(time.perf_counter() - start)"
    )
    seconds = [float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
               for _ in range(2)]  # fmt: skip
    assert seconds[1] < 0.5 and seconds[1] < seconds[0] / 5


