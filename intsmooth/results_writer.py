"""Appends rows to a results file so that nothing certified is ever lost, and one writer alone is at it.

Rows are written and synced one by one; a row counts once its line feed is on disk. A torn last line, all that a killed
run can leave behind, is cut off by the next run, which then goes on to the same bytes.
"""

import contextlib
import os
import pathlib
import weakref
from collections.abc import Mapping

from intsmooth.errors import ResourceError, ResultsError
from intsmooth.results import COLUMNS, HEADER, SETTINGS, row_fault

_MEND = "the file was changed by something else: mend that line, or give another file with --out"


class ResultsWriter:
    """Appends rows to a results file that it alone may write; a context manager.

    Opening it creates the file, or checks that the rows in it belong to the same run (`settings`, text for each of
    SETTINGS) and cuts off a torn last line. `rows` are those the file holds, as dictionaries of text.

    ResultsError: the file belongs to another run, is being written by one, or is damaged; it is left as it was.
    ResourceError: it cannot be created or written; the rows already in it are safe.
    """

    def __init__(self, path: str | pathlib.Path, settings: Mapping[str, str]):
        self.path = pathlib.Path(path)
        new = not self.path.exists()
        if not new and not self.path.is_file():
            raise ResourceError(f"cannot write {self.path}: not a regular file; give another file with --out")
        try:
            self._file = open(self.path, "a+b", buffering=0)
        except OSError as error:
            raise ResourceError(f"cannot write {self.path}: {error.strerror}; give another file with --out") from error
        try:
            _lock(self._file, self.path)
            self.rows = self._take_over(settings)
            if new:
                _sync_folder(self.path.parent)
        except BaseException:
            self._file.close()
            raise
        _OPEN.add(self)

    def append(self, row: Mapping[str, str]) -> None:
        """Write one row and wait until it is on disk."""
        line = "\t".join(row[name] for name in COLUMNS)
        if "\n" in line or line.count("\t") != len(COLUMNS) - 1:
            raise ResultsError(f"a row for {self.path} holds a tab or a line feed inside a value: {line!r}")
        self._write(line.encode() + b"\n")
        self.rows.append(dict(row))

    def close(self) -> None:
        """Close the file and so give up its lock."""
        _OPEN.discard(self)
        self._file.close()

    def __enter__(self) -> "ResultsWriter":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _take_over(self, settings: Mapping[str, str]) -> list[dict[str, str]]:
        """Check what the file holds, cut a torn last line, and make sure that it begins with the header."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if not content.startswith(HEADER) and not (whole == b"" and HEADER.startswith(content)):
            raise ResultsError(
                f"{self.path} is there already and is no results file of this version of intsmooth; "
                "it was left as it is: give another file with --out"
            )
        rows = [self._parse(number, line) for number, line in enumerate(whole.splitlines()[1:], start=2)]
        for row in rows:
            differing = [name for name in SETTINGS if row[name] != settings[name]]
            if differing:
                found = "; ".join(f"{name} is {row[name]} there, {settings[name]} here" for name in differing)
                raise ResultsError(f"{self.path} belongs to another run: {found}. Give another file with --out")
        if len(whole) < len(content):
            self._truncate(len(whole))
        self._size = len(whole)
        if not whole:
            self._write(HEADER)
        return rows

    def _parse(self, number: int, line: bytes) -> dict[str, str]:
        values = line.decode("utf-8", errors="replace").split("\t")
        if len(values) != len(COLUMNS):
            raise ResultsError(
                f"{self.path}, line {number}: {len(values)} columns, {len(COLUMNS)} are required; {_MEND}"
            )
        row = dict(zip(COLUMNS, values, strict=True))
        if fault := row_fault(row):
            raise ResultsError(f"{self.path}, line {number}: {fault}; {_MEND}")
        return row

    def _write(self, data: bytes) -> None:
        """Append all of `data` and sync, or leave the file as it was and raise ResourceError."""
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), self._size)
            raise ResourceError(
                f"cannot write to {self.path}: {error.strerror}; all earlier rows are safe in it: "
                "make room and give the same command again"
            ) from error
        self._size += len(data)

    def _truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._file.fileno(), size)
        except OSError as error:
            raise ResourceError(f"cannot cut the torn last line off {self.path}: {error.strerror}") from error


_OPEN: weakref.WeakSet[ResultsWriter] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked worker must not keep the lock of a parent that was killed."""
    for writer in list(_OPEN):
        writer._file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _lock(file, path: pathlib.Path) -> None:
    """Take the file's lock, which the system gives back even after kill -9, or raise ResultsError.

    A file system without locks (some network shares) is written without one.
    """
    try:
        try:
            import fcntl
        except ImportError:  # Windows: one byte far behind the end, because its locks keep readers out, too
            import msvcrt

            file.seek(1 << 62)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise ResultsError(
            f"{path} is being written by another run; wait for it, or give another file with --out"
        ) from error
    except OSError:
        pass


def _sync_folder(folder: pathlib.Path) -> None:
    """Make a new file's name as durable as its content, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
