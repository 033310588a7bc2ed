"""One line that says how far a long run is, how fast, and how long it still takes.

On a terminal the line is rewritten in place; in a log file a line is added every ten seconds at most. It goes to
standard error, so that standard output holds results only.
"""

import contextlib
import datetime
import shutil
import sys
import time
from collections.abc import Callable

_TERMINAL_S = 0.1
_LOG_S = 10.0


def duration(seconds: float) -> str:
    """For example "3.2 s", or "0:02:20" from a minute on."""
    return f"{seconds:.1f} s" if seconds < 60 else str(datetime.timedelta(seconds=round(seconds)))


class Progress:
    """Counts work done. total: how much there is; done: what an earlier run left finished; scale: work per `unit`."""

    def __init__(
        self,
        total: float,
        unit: str = "images",
        *,
        done: float = 0,
        scale: float = 1,
        stream=None,
        clock=time.monotonic,
    ):
        self.total, self.unit, self.scale, self.stream, self.clock = total, unit, scale, stream or sys.stderr, clock
        self.done, self.before, self.start = done, done, clock()
        self._terminal = self.stream.isatty()
        self._shown_at = self.start if not self._terminal else float("-inf")
        self._width = 0

    def advance(self, done: float, note: str | Callable[[], str] = "") -> None:
        """`done` of `total` are finished now; the line is shown if the last one is old enough, or all is done.

        A note that takes time to make is given as a function, called where the line is shown.
        """
        self.done = done
        now = self.clock()
        if now - self._shown_at >= (_TERMINAL_S if self._terminal else _LOG_S) or done >= self.total:
            self._shown_at = now
            self._show(self.line(note() if callable(note) else note))

    def line(self, note: str = "") -> str:
        """For example "120/360 images, 33 %, 45.1 images/s, 5.3 s left"."""
        share = 100 * self.done // self.total if self.total else 100
        parts = [f"{self.done / self.scale:,.0f}/{self.total / self.scale:,.0f} {self.unit}", f"{share:.0f} %"]
        rate = self.rate()
        if rate > 0:
            left = duration((self.total - self.done) / rate)
            parts += [f"{rate / self.scale:,.{1 if rate / self.scale < 100 else 0}f} {self.unit}/s", f"{left} left"]
        return ", ".join(parts + [note] * bool(note))

    def rate(self) -> float:
        """Work per second of this run, what an earlier run did left out; 0 where nothing is known yet."""
        elapsed = self.clock() - self.start
        return (self.done - self.before) / elapsed if elapsed > 0 else 0.0

    def close(self) -> None:
        """End the line, so that whatever is printed next starts a new one."""
        if self._terminal and self._width:
            self.stream.write("\n")
            self.stream.flush()
            self._width = 0

    def _show(self, line: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more, or its disk is full: the work goes on
            if self._terminal:
                line = line[: max(20, shutil.get_terminal_size().columns - 1)]
                self.stream.write("\r" + line.ljust(self._width))
                self._width = len(line)
            else:
                self.stream.write(line + "\n")
            self.stream.flush()


class DownloadProgress:
    """What open_dataset and fetch call with (bytes so far, bytes in all); a context manager that ends the line."""

    def __init__(self):
        self.progress: Progress | None = None

    def __call__(self, done: int, size: int) -> None:
        self.progress = self.progress or Progress(size, "MB", done=done, scale=1e6)
        self.progress.advance(done, "downloading")

    def __enter__(self) -> "DownloadProgress":
        return self

    def __exit__(self, *exception) -> None:
        if self.progress is not None:
            self.progress.close()
