"""Saving: a reader sees the old file or the new one, whatever fails."""

import os
import resource
import signal
import stat
from dataclasses import replace

import pytest
from h5_files import SMALLEST, TINY

from intsmooth import h5file
from intsmooth.errors import FormatError, ResourceError


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path, seen = tmp_path / "model.h5", []
    h5file.save(SMALLEST, path)

    def watched(source, target):
        seen.append((h5file.load(source).digest, h5file.load(target).digest))
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", watched)
    h5file.save(TINY, path)
    assert seen == [(TINY.digest, SMALLEST.digest)]
    assert h5file.load(path).digest == TINY.digest and leftovers(tmp_path) == ["model.h5"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(function, error, tmp_path, monkeypatch):
    path = tmp_path / "model.h5"
    h5file.save(SMALLEST, path)
    before = path.read_bytes()

    def fail(*arguments):
        raise error

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(ResourceError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        h5file.save(TINY, path)
    if isinstance(error, OSError):
        assert "model.h5" in str(caught.value) and "No space left" in str(caught.value)
    assert path.read_bytes() == before and leftovers(tmp_path) == ["model.h5"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """A real failing write: the system refuses to let any file of this process grow beyond 4 KiB."""
    path = tmp_path / "model.h5"
    h5file.save(SMALLEST, path)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(ResourceError, match="cannot be written"):
            h5file.save(TINY, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert h5file.load(path).digest == SMALLEST.digest and leftovers(tmp_path) == ["model.h5"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "model.h5", tmp_path / "file" / "model.h5", tmp_path / "folder"):
        with pytest.raises(ResourceError, match="cannot be written"):
            h5file.save(SMALLEST, path)
    assert leftovers(tmp_path) == ["file", "folder"] and leftovers(tmp_path / "folder") == []


def test_saved_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "other").write_bytes(b"")
    h5file.save(SMALLEST, tmp_path / "model.h5")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "model.h5")]
    assert modes[0] == modes[1]


def test_graphs_that_break_the_format_are_not_written(tmp_path):
    name = SMALLEST.nodes[1].output
    tensors = {**SMALLEST.tensors, name: replace(SMALLEST.tensors[name], zero_point=1000)}
    for graph in (replace(SMALLEST, tensors=tensors), replace(SMALLEST, unit=0), replace(SMALLEST, nodes=())):
        with pytest.raises(FormatError):
            h5file.save(graph, tmp_path / "model.h5")
    with pytest.raises(FormatError, match="64001 bytes, required: 1 to 64000"):
        h5file.save(replace(SMALLEST, facts={"a": "x" * (64_001 - 8)}), tmp_path / "model.h5")
    assert leftovers(tmp_path) == []
    h5file.save(replace(SMALLEST, facts={"a": "x" * (64_000 - 8)}), tmp_path / "model.h5")
    assert len(h5file.load(tmp_path / "model.h5").facts["a"]) == 63_992
