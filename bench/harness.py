"""What all benchmarks share: turns, medians and spread, facts of the machine, and the report that they print.

A benchmark is a function `question(effort) -> Report`; `main(question)` makes a program of it. Contenders are functions
work(n) that do n units of something; they take turns (A B C A B C ...), so that a slow minute of a shared machine hits
all of them. A rate is the median of its rounds, a ratio the median of the ratios within each round, with quartiles.
"""

import argparse
import importlib
import json
import os
import pathlib
import platform
import statistics
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parent
if str(ROOT) not in sys.path:  # the benchmarks measure the tree that they lie in
    sys.path.insert(0, str(ROOT))

from intsmooth.commands.bench import load_average, processor_name, rates_per_second  # noqa: E402
from intsmooth.engine import available_cpus  # noqa: E402

PAUSE = 0.03  # seconds between two runs: OpenMP's and others' idle threads spin for some milliseconds
Key = Hashable
PACKAGES = ("numpy", "numba", "llvmlite", "torch", "onnx", "onnxruntime", "ai-edge-litert", "matplotlib")


@dataclass(frozen=True)
class Effort:
    """How much to measure. seconds: of one run of one contender; quick: small sizes, a trial; folder: for plots."""

    rounds: int = 7
    seconds: float = 0.4
    quick: bool = False
    folder: pathlib.Path = FOLDER

    def shorter(self, factor: float) -> "Effort":
        """Runs of 1 / factor of the length."""
        return replace(self, seconds=self.seconds / factor)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements, in the order measured."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.values) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    def scaled(self, factor: float) -> "Spread":
        return Spread(tuple(value * factor for value in self.values))

    def over(self, other: "Spread") -> "Spread":
        """Ratios of what was measured in the same round."""
        return Spread(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def text(self, form: str = ",.0f", unit: str = "") -> str:
        """For example "1,234 (1,200 to 1,250)"."""
        low, high = self.quartiles
        return f"{self.median:{form}}{unit} ({low:{form}} to {high:{form}})"


@dataclass(frozen=True)
class Contender:
    """work(n) does n units, each worth `scale` of what is counted (a batch of 64 images: 64)."""

    work: Callable[[int], object]
    scale: float = 1.0


def take_turns(contenders: Mapping[Key, Contender], effort: Effort, pause: float = PAUSE) -> dict[Key, Spread]:
    """Rates per second of all contenders, in turns; the first calls, which size a run, warm up and are not counted."""
    runs = {name: contender.work for name, contender in contenders.items()}
    rates = rates_per_second(runs, effort.rounds, effort.seconds, pause)
    return {name: Spread(tuple(rates[name])).scaled(contenders[name].scale) for name in contenders}


def fastest(contenders: Mapping[Key, Contender], effort: Effort) -> Key:
    """The name of the contender with the highest median in a short trial: a peer's best batch size, for example."""
    rates = take_turns(contenders, replace(effort.shorter(4), rounds=3))
    return max(rates, key=lambda name: rates[name].median)


def together(works: Sequence[Callable[[int], object]]) -> Callable[[int], None]:
    """work(n) that runs every one of `works` with n at the same time, each on a thread of its own."""
    pool = ThreadPoolExecutor(len(works))

    def work(n: int) -> None:
        for done in [pool.submit(one, n) for one in works]:
            done.result()

    return work


def require(condition: bool, message: str) -> None:
    """Stop before anything is timed: figures of engines that compute something else are worth nothing."""
    if not condition:
        sys.exit(f"nothing is timed: {message}")


def limit_contender(threads: int) -> Contender:
    """Multiply-adds of bytes per second that `threads` cores can do at most, see kernels/limit.py."""
    from intsmooth.kernels.limit import run_dots

    return Contender(lambda n: run_dots(n, threads), run_dots(1, threads))


def optional(name: str):
    """A peer's module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


@dataclass
class Report:
    """What one benchmark found: paragraphs and tables in Markdown, and targets with what was reached."""

    title: str
    blocks: list[str] = field(default_factory=list)
    targets: list[dict] = field(default_factory=list)

    def text(self, paragraph: str) -> None:
        self.blocks.append(" ".join(paragraph.split()))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """First column to the left, all others to the right."""
        lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
        self.blocks.append("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))

    def verbatim(self, text: str) -> None:
        self.blocks.append(f"```\n{text.strip()}\n```")

    def target(self, what: str, goal: str, reached: str, met: bool) -> None:
        self.targets.append({"what": what, "goal": goal, "reached": reached, "met": bool(met)})

    def markdown(self) -> str:
        return "\n\n".join([f"## {self.title}", *self.blocks]) + "\n"


def target_table(targets: Sequence[dict]) -> str:
    """All targets as Markdown; a missed one says so."""
    lines = ["| target | goal | measured | met |", "| :-- | --: | --: | :-: |"]
    for target in targets:
        lines.append(
            f"| {target['what']} | {target['goal']} | {target['reached']} | {'yes' if target['met'] else '**no**'} |"
        )
    return "\n".join(lines)


def machine_facts() -> dict[str, str]:
    """Processor, cores, kernels, system and versions; "load" is what was running on the machine a minute ago."""
    from intsmooth import __version__
    from intsmooth.kernels.isa import ISA

    found = {
        "processor": processor_name(),
        "processors": f"{available_cpus()} of {os.cpu_count()}",
        "kernels": ISA,
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "load": f"{load_average():.2f}",
        "Python": platform.python_version(),
        "intsmooth": __version__,
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def main(question: Callable[[Effort], Report], description: str) -> None:
    """The program of one benchmark: prints its report, and writes it with --json for run_all.py."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="runs of each contender")
    parser.add_argument("--seconds", type=float, default=Effort.seconds, help="length of a run")
    parser.add_argument("--quick", action="store_true", help="small sizes: tries the program, measures little")
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER, help="where plots go")
    parser.add_argument("--json", type=pathlib.Path, help="also write the report to this file")
    options = parser.parse_args()
    report = question(Effort(options.rounds, options.seconds, options.quick, options.folder))
    print(report.markdown())
    if report.targets:
        print(target_table(report.targets))
    if options.json:
        options.json.write_text(json.dumps(asdict(report)), encoding="utf-8")


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
