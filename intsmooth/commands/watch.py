"""What `intsmooth certify` tells while it runs: an expectation first, then a line of progress with the results so far."""

import json
import sys
import time
from collections import Counter
from concurrent.futures import Executor

from intsmooth.confidence_sequence import Stop
from intsmooth.progress import Progress, duration
from intsmooth.report import percent, wilson_interval

# The outcomes of runs that may stop early, as short as a line of progress needs them.
_SHORT = {stop.value: stop.name.lower() for stop in Stop} | {"certify": "certified", "give up": "given up"}


def expectation(samples: tuple[int, int], images: int, rate: float) -> str:
    """How long `images` images take at `rate` samples per second, with `samples` samples each, at least and at most."""
    low, high = (duration(images * count / rate) for count in samples)
    if samples[0] == samples[1]:
        return f"expected time {high}, at {rate:,.0f} samples/s"
    return (
        f"expected time between {low} and {high}, at {rate:,.0f} samples/s and {samples[0]:,} to {samples[1]:,} samples "
        "per image; the progress says how many they take"
    )


class Watch:
    """Follows a run: `start`, `row` and `votes` are called by `certify_dataset`.

    samples: those that an image takes, at least and at most, with the selection stage's n0.
    """

    def __init__(self, smooth, dataset, samples: tuple[int, int], n0: int, executor: Executor | None = None):
        self.smooth, self.dataset, self.samples, self.n0, self.executor = smooth, dataset, samples, n0, executor
        self.rows = self.found = self.right = 0
        self.outcomes: Counter[str] = Counter()
        self.drawn: list[int] = []  # samples of each image of this run
        self.progress = None
        self.elapsed = self.counted = 0.0
        self.place = ""

    def start(self, rows: list[dict[str, str]]) -> None:
        """Called when the results file is open; `rows` are in it already."""
        self.rows = self.found = len(rows)
        for row in rows:
            self._count(row)
        left = len(self.dataset) - len(rows)
        if rows:
            print(f"{len(rows)} images are in the results file already, {max(left, 0)} are left", file=sys.stderr)
        if left > 0:
            from intsmooth.run import rehearse

            rate = rehearse(self.smooth, self.dataset[len(rows)].image, executor=self.executor)
            print(expectation(self.samples, left, rate), file=sys.stderr)
            self.progress = Progress(len(self.dataset), done=len(rows))
            self.begin = time.monotonic()

    def row(self, row: dict[str, str]) -> None:
        """Called when one more row is on disk."""
        self.rows += 1
        self.drawn.append(self.n0 + int(row["n"]))
        self._count(row)
        self._show()

    def votes(self, samples: int, workers: int) -> None:
        """Called when workers have counted `samples` samples, in images that are done and in others."""
        self.counted, self.place = samples, f" on {workers} workers"
        self._show()

    def note(self) -> str:
        """Speed, outcomes, and the accuracy so far with the 95 % interval of the whole data set's."""
        samples = (self.counted or sum(self.drawn)) / self.elapsed if self.elapsed else 0.0
        parts = [f"{samples:,.0f} samples/s{self.place}"]
        if self.samples[0] != self.samples[1] and self.drawn:
            mean = sum(self.drawn) / len(self.drawn)
            error = 2 * (sum((n - mean) ** 2 for n in self.drawn)) ** 0.5 / len(self.drawn)
            parts.append(f"{mean:,.0f} +- {error:,.0f} per image")
            if self.outcomes:
                parts.append(" ".join(f"{name} {count}" for name, count in self.outcomes.most_common()))
        if self.rows:
            low, high = wilson_interval(self.right, self.rows)
            parts.append(f"right {percent(self.right, self.rows)} % ({100 * low:.1f} to {100 * high:.1f})")
        return ", ".join(parts)

    def speed(self) -> str:
        """Images and samples per second of what this run did."""
        new = self.rows - self.found
        if not new:
            return "nothing was left to do: all of these images were in the results file already"
        line = (
            f"{new} images in {duration(self.elapsed)}: {new / self.elapsed:,.1f} images/s, "
            f"{sum(self.drawn) / self.elapsed:,.0f} samples/s"
        )
        if self.samples[0] == self.samples[1]:
            return line
        outcomes = ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common())
        mean = f"{sum(self.drawn) / new:,.1f} samples per image, selection included"
        return f"{line}\n{mean}" + (f"; {outcomes}" if outcomes else "")

    def close(self) -> None:
        """End the line of progress."""
        if self.progress is not None:
            self.progress.close()

    def _count(self, row: dict[str, str]) -> None:
        self.right += row["correct"] == "1"
        extra = json.loads(row["extra"])
        outcome = extra.get("decision", extra.get("stop"))
        if outcome is not None:
            self.outcomes[_SHORT.get(outcome, outcome)] += 1

    def _show(self) -> None:
        self.elapsed = time.monotonic() - self.begin
        self.progress.advance(self.rows, self.note)
